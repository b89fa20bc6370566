"""Time `flattest.measure` against one matrix product X W^T, and watch its memory.

Run ``python benchmarks/bench_measure.py``: float32, ReLU, d = 100, m = 512,
n = 10,000 and 1,000,000.
Product and measurement alternate, so that both meet the same state of the machine; the figures
are medians. The product of the large problem runs in blocks into one reused buffer, which is
faster than filling 2 GB. Writes ``benchmarks/results/measure.json``.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import RESULTS, write

import flattest as ft

N_FEATURES, WIDTH, BLOCK = 100, 512, 10_000


def make_problem(n_samples: int) -> tuple[ft.TwoLayerNet, torch.Tensor, torch.Tensor]:
    """Draw a ReLU network and Gaussian data, in float32."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(WIDTH, N_FEATURES, generator=generator) / N_FEATURES**0.5
    coefficients = torch.randn(WIDTH, generator=generator) / WIDTH
    X = torch.randn(n_samples, N_FEATURES, generator=generator)
    y = torch.randn(n_samples, generator=generator)
    return ft.TwoLayerNet(weights, coefficients, "relu"), X, y


def peak_memory() -> float:
    """Return the largest resident size of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_memory() -> float:
    """Return the resident size of this process now, in MB; the peak where that is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_memory()
    return pages * resource.getpagesize() / 1e6


def seconds(function: Callable[[], Any]) -> float:
    """Time one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(n_samples: int, repeats: int) -> dict[str, Any]:
    """Time product and measurement in turn, after one measurement that shows its memory."""
    net, X, y = make_problem(n_samples)
    before = resident_memory()
    flatness = ft.measure(net, X, y)
    extra = peak_memory() - before

    weights = net.weights.detach()
    buffer = torch.empty(min(n_samples, BLOCK), WIDTH)

    def product() -> None:
        if n_samples <= BLOCK:
            _ = X @ weights.T
            return
        for rows in X.split(BLOCK):
            torch.mm(rows, weights.T, out=buffer[: len(rows)])

    product()
    pairs = [(seconds(product), seconds(lambda: ft.measure(net, X, y))) for _ in range(repeats)]
    products, measurements = zip(*pairs, strict=True)
    result = {
        "n_samples": n_samples,
        "n_features": N_FEATURES,
        "width": WIDTH,
        "dtype": "float32",
        "repeats": repeats,
        "product_seconds": statistics.median(products),
        "measure_seconds": statistics.median(measurements),
        "ratio": statistics.median(measurements) / statistics.median(products),
        "ratio_of_fastest": min(measurements) / min(products),
        "memory_above_data_mb": extra,
        "trace": flatness.trace,
    }
    print(
        f"n = {n_samples:>9,}: product {1e3 * result['product_seconds']:8.1f} ms, "
        f"measure {1e3 * result['measure_seconds']:8.1f} ms, ratio {result['ratio']:.2f} "
        f"(fastest {result['ratio_of_fastest']:.2f})"
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=RESULTS / "measure.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    # The large one first: the peak of a process shows the memory of its first large task only.
    results = [compare(1_000_000, repeats=5), compare(10_000, repeats=41)]
    del results[1]["memory_above_data_mb"]
    print(f"memory above the data, n = 1,000,000: {results[0]['memory_above_data_mb']:.0f} MB")
    write(options.out, results)


if __name__ == "__main__":
    main()
