"""Time the minimum over scales of a ResNet-50, once its diagonal is known.

Run ``python benchmarks/bench_minimum.py``: random weights, batch normalisation folded, the diagonal
from drawn outputs of a few small images; as it is, and sharpened by scales e^{N(0, 1)}. Writes
``benchmarks/results/minimum.json``.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
from environment import RESULTS, write
from torch import Tensor, nn

import flattest as ft
from flattest.modules.measuring import measure_on_orbit
from flattest.modules.orbit_minimum import on_orbit

BLOCKS, WIDTHS, CLASSES = (3, 4, 6, 3), (64, 128, 256, 512), 1000
REPEATS = 3


class Bottleneck(nn.Module):
    """Three convolutions, the middle one 3 x 3, beside an identity or a projection."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalised(channels, width, 1),
            nn.ReLU(),
            *_normalised(width, width, 3, stride),
            nn.ReLU(),
            *_normalised(width, 4 * width, 1),
        )
        fits = stride == 1 and channels == 4 * width
        self.beside = nn.Sequential(*([] if fits else _normalised(channels, 4 * width, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.beside(x))


def resnet50() -> nn.Module:
    """Return the layers of a ResNet-50, with random weights and statistics."""
    layers: list[nn.Module] = [*_normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (count, width) in enumerate(zip(BLOCKS, WIDTHS, strict=True)):
        for block in range(count):
            layers.append(Bottleneck(channels, width, 2 if block == 0 and stage else 1))
            channels = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]
    torch.manual_seed(0)
    net = nn.Sequential(*layers).eval()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    net.apply(_drawn)
    with torch.no_grad():  # logits of ordinary size, of which the loss has a Hessian
        net[-1].weight /= net(torch.randn(2, 3, 64, 64)).std()
    return net


def _normalised(n_in: int, n_out: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(n_out)]


def _drawn(part: nn.Module) -> None:
    if isinstance(part, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(part.weight)


def timed(net: nn.Module, X: Tensor, y: Tensor) -> dict[str, Any]:
    """Measure once, and time what follows several times."""
    options = {"loss": "cross_entropy", "mode": "sampled", "rtol": 0.5, "residual": "none"}
    found = measure_on_orbit(
        net, X, y, symmetry="scales", batch_norm="fold", random_state=0, **options
    )
    assert found.symmetries is not None
    clocks, processors = [], []
    for _ in range(REPEATS):
        clock, processor = time.perf_counter(), time.process_time()
        flatness, _ = on_orbit(found.flatness, found.symmetries, None, 1.0, torch.float32)
        clocks.append(time.perf_counter() - clock)
        processors.append(time.process_time() - processor)
    assert flatness.orbit is not None
    return {
        "entries": sum(p.numel() for p in found.module.parameters()),
        "scales": found.symmetries.n_scales,
        "trace": flatness.gauss_newton,
        "orbit_minimum": flatness.orbit_minimum,
        "certificate": flatness.orbit.certificate,
        "clock_seconds": statistics.median(clocks),
        "processor_seconds": statistics.median(processors),
    }


def main() -> None:
    """Time both networks."""
    torch.set_num_threads(1)
    net = resnet50()
    X, y = torch.randn(2, 3, 64, 64), torch.randint(0, CLASSES, (2,))
    folded = ft.symmetries(net, X, batch_norm="fold")
    z = np.random.default_rng(0).standard_normal(folded.n_scales)
    results = {
        "as it is": timed(net, X, y),
        "sharpened": timed(folded.transformed(folded.module, z), X, y),
    }
    for name, row in results.items():
        print(name, row)
    write(RESULTS / "minimum.json", results)


if __name__ == "__main__":
    main()
