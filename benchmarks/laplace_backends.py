"""The diagonal of laplace-torch by its own backends and by flattest's: time, memory, failures.

Run with the extra ``integrations``, without torchvision (``make integrations`` sees to that). Each
backend fits ``Laplace(model, subset_of_weights="all", hessian_structure="diag")`` to the same data
in a process of its own with one thread, as in ``trace.py``; times are processor times. Results are
compared with what dense Jacobians give in float64, one sample at a time. What fails, needs more
than the memory given, or is off by more than rounding is listed as such. Writes
``benchmarks/results/laplace.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
import warnings
from pathlib import Path
from trace import forget_peak, in_a_process, peak_memory
from typing import Any

import torch
import torch.nn.functional as F
from environment import RESULTS, write
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from trace_problems import GPT, PROBLEMS, lenet, mlp

BATCH = 32
_ROUNDING = 1e-3  # relative to the norm, of float32


class InPlaceBlock(nn.Module):
    """A block of a ResNet as torchvision writes it: activations and the sum in place."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """The layers of torchvision's resnet18 for small images, `width` channels first."""

    def __init__(self, width: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        blocks, channels = [], width
        for factor, stride in ((1, 1), (2, 2), (4, 2), (8, 2)):
            blocks += [
                InPlaceBlock(channels, factor * width, stride),
                InPlaceBlock(factor * width, factor * width, 1),
            ]
            channels = factor * width
        self.layers, self.fc = nn.Sequential(*blocks), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class OfTokens(nn.Module):
    """A language model with its logits as laplace-torch takes them: classes last."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).mT


def networks(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network with random weights, inputs and classes, the same ones each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "small GPT":
            X = torch.randint(0, 32, (BATCH, 17))
            return OfTokens(GPT(32, 32, 2, 2, 16)).eval(), X[:, :-1], X[:, 1:]
        if name.startswith("ResNet-18"):
            model: nn.Module = ResNet18(16 if "narrow" in name else 64)
            X = torch.randn(BATCH, 3, 32, 32)
            model = normalised(model, X)
            return model.eval(), X, torch.randint(0, 10, (BATCH,))
        model, X, y, _ = {"MLP": mlp, "LeNet": lenet, "ResNet-20": lambda: PROBLEMS[name]()}[name]()
        return model, X[:BATCH], y[:BATCH]


def normalised(model: nn.Module, X: Tensor) -> nn.Module:
    """Give batch normalisation the statistics of the data, or deep networks overflow."""
    with torch.no_grad():
        for _ in range(20):
            model(X)
    return model


NETWORKS = ("MLP", "LeNet", "ResNet-20", "ResNet-18, narrow", "ResNet-18", "small GPT")
BACKENDS = ("FlattestGGN", "CurvlinopsGGN", "BackPackGGN", "AsdlGGN")


def backend(name: str) -> Any:
    """Return a backend by its name."""
    if name == "FlattestGGN":
        from flattest.integrations.laplace import FlattestGGN

        return FlattestGGN
    from laplace import curvature

    return getattr(curvature, name)


def fit(model: nn.Module, X: Tensor, y: Tensor, backend_name: str) -> Tensor:
    """Return the diagonal."""
    from laplace import Laplace

    la = Laplace(
        model,
        "classification",
        subset_of_weights="all",
        hessian_structure="diag",
        backend=backend(backend_name),
    )
    la.fit(DataLoader(TensorDataset(X, y), BATCH))
    return la.H


def once(
    network: str, backend_name: str, gigabytes: float, reference: Tensor | None
) -> dict[str, Any]:
    """Fit with one backend, in this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model, X, y = networks(network)
    row: dict[str, Any] = {"network": network, "backend": backend_name, "samples": len(X)}
    row["parameters"] = sum(p.numel() for p in model.parameters())
    small, *few = networks("MLP")
    fit(small, few[0], few[1], backend_name)  # what is imported once is not timed
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + int(gigabytes * 1e9),) * 2)
    forget_peak()
    before, start = peak_memory(), time.process_time()
    try:
        found = fit(model, X, y, backend_name)
    except Exception as error:  # a backend may fail in any way, and how is the result
        lines = str(error).strip().splitlines()
        return row | {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}
    row |= {"seconds": time.process_time() - start, "memory_mb": peak_memory() - before}
    if reference is not None:
        error = float((found.double() - reference).norm() / reference.norm())
        row |= {"relative_error": error, "wrong": error > _ROUNDING, "reference": "Jacobians"}
    return row


def exact(network: str) -> Tensor:
    """Return the diagonal in float64, from the Jacobians of one sample at a time."""
    from laplace.curvature import GGNInterface

    torch.set_num_threads(1)
    model, X, y = networks(network)
    X = X.double() if X.is_floating_point() else X
    model = model.double()
    if X.is_floating_point():
        interface = GGNInterface(model, "classification")
        return sum(interface.diag(X[i : i + 1], y[i : i + 1])[1] for i in range(len(X)))
    # Of tokens it takes one at a time for a sample, so these become the samples.
    return sum(_of_tokens(model, X[i : i + 1]) for i in range(len(X)))


def _of_tokens(model: nn.Module, x: Tensor) -> Tensor:
    """Return the diagonal of one text, whose tokens have their classes last."""
    from torch.func import functional_call, jacrev

    def logits(values: dict[str, Tensor]) -> Tensor:
        return functional_call(model, values, (x,)).flatten(0, 1)

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    J = torch.cat([j.flatten(2) for j in jacrev(logits)(parameters).values()], 2)
    p = logits(parameters).softmax(1)
    weighted = p.sqrt()[:, :, None] * (J - (p[:, :, None] * J).sum(1, keepdim=True))
    return weighted.square().sum((0, 1))


def stored(path: Path, again: list[str]) -> list[dict[str, Any]]:
    """Return what was measured before, of which the networks not asked for are kept."""
    if not path.is_file():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]["fits"]
    return [row for row in rows if row["network"] not in again]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="what a fit may take")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one fit")
    parser.add_argument("--out", type=Path, default=RESULTS / "laplace.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backend("CurvlinopsGGN")  # imported before the processes fork
    rows = stored(options.out, options.networks)
    for network in options.networks:
        reference = in_a_process(exact, network)
        for name in BACKENDS:
            row = in_a_process(
                once, network, name, options.gigabytes, reference, limit=options.limit
            )
            if row is None:
                error = f"stopped after {options.limit:.0f} s"
                row = {"network": network, "backend": name, "error": error}
            rows.append(row)
            print(row)
    rows.sort(key=lambda row: NETWORKS.index(row["network"]))
    settings = {"batch": BATCH, "gigabytes": options.gigabytes, "limit": options.limit}
    write(options.out, {"settings": settings, "fits": rows})


if __name__ == "__main__":
    main()
