"""What watching a training costs: seconds of a measurement, of a training step, and the share.

A digits network of convolutions and a ResNet-20 are trained by a few steps, with a probe batch of
64 samples and training batches of 64, in one thread. Processor times, which a busy machine changes
less than others. Writes ``benchmarks/results/monitor.json``.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from environment import RESULTS, write
from torch import Tensor, nn
from trace_problems import lenet, resnet20

from flattest.integrations import FlatnessMonitor

BATCH = 64
EVERY = (20, 100, 500)


def step_seconds(model: nn.Module, X: Tensor, y: Tensor, n_steps: int) -> float:
    """Return the median time of a training step."""
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    times = []
    model.train()
    for _ in range(n_steps + 1):
        start = time.process_time()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimiser.step()
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def measurement_seconds(model: nn.Module, X: Tensor, y: Tensor, symmetry: str) -> float:
    """Return the median time of a measurement in the midst of training."""
    monitor = FlatnessMonitor(X, y, loss="cross_entropy", symmetry=symmetry)
    times = []
    for _ in range(4):
        start = time.process_time()
        monitor.measure(model)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def measure(name: str, n_steps: int) -> list[dict[str, Any]]:
    """Measure one network, with and without the minimum over scales."""
    model, X, y, _ = {"LeNet": lenet, "ResNet-20": resnet20}[name]()
    X, y = X[:BATCH], y[:BATCH]
    step = step_seconds(model, X, y, n_steps)
    rows = []
    for symmetry in ("none", "scales"):
        seconds = measurement_seconds(model, X, y, symmetry)
        row = {"network": name, "symmetry": symmetry, "probe": BATCH, "batch": BATCH}
        row |= {"step_seconds": step, "measurement_seconds": seconds}
        row["shares"] = {str(k): seconds / (seconds + k * step) for k in EVERY}
        print(row)
        rows.append(row)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    write(RESULTS / "monitor.json", [*measure("LeNet", 20), *measure("ResNet-20", 8)])


if __name__ == "__main__":
    main()
