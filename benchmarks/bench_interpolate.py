"""Find the flattest interpolators of multi-index data, and gradient descent's for comparison.

Run ``python benchmarks/bench_interpolate.py``: d = 20, k = 3 orthonormal directions, Gaussian
inputs, n = 400, noiseless, float64. The test error is the relative mean squared error on 20,000
fresh points. Writes ``benchmarks/results/interpolate.json``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import warnings
from pathlib import Path
from typing import Any

import torch
from environment import RESULTS, write
from sklearn.exceptions import ConvergenceWarning

import flattest as ft

ROWS: list[tuple[tuple[str, ...], str, int, str, dict[str, Any]]] = [
    (("relu", "relu", "relu"), "relu", 200, "flattest", {}),
    (("relu", "-relu", "relu"), "relu", 200, "flattest", {}),
    (("abs", "abs", "abs"), "relu", 200, "flattest", {}),
    (("abs", "abs", "abs"), "relu", 200, "flattest", {"trace_tol": 0}),
    (("quadratic", "quadratic", "quadratic"), "quadratic", 100, "flattest", {}),
    (("relu2", "relu2", "relu2"), "relu2", 100, "flattest", {}),
    (("relu", "relu", "relu"), "relu", 200, "gradient_descent", {"init_scale": 1.0}),
    (("relu", "relu", "relu"), "relu", 200, "gradient_descent", {"init_scale": 0.01}),
]


def run(row: tuple[Any, ...], seed: int) -> dict[str, Any]:
    """Fit one network and measure it, beside the network that generated the data."""
    links, act, width, method, options = row
    X, y, model = ft.make_multi_index(400, 20, links, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = ft.interpolate(
            X, y, method, width=width, activation=act, random_state=seed, **options
        )
    return {
        "seed": seed,
        "status": result.status.name.lower(),
        "train_error": result.train_error,
        "test_error": model.relative_error(result.net, random_state=1000 + seed),
        "ratio": result.flatness.ratio,
        "trace": result.flatness.trace,
        "width": result.net.width,
        "seconds": result.seconds,
        "notes": result.notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=RESULTS / "interpolate.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    run(ROWS[0], 0)  # the first call loads libraries
    results = []
    head = ("train max", "test max", "ratio median", "ratio max", "seconds median")
    print(f"{'':60}" + "".join(f"{name:>16}" for name in head))
    for row in ROWS:
        links, act, width, method, settings = row
        trials = [run(row, seed) for seed in range(options.seeds)]
        column = {name: [trial[name] for trial in trials] for name in trials[0]}
        figures = (
            max(column["train_error"]),
            max(column["test_error"]),
            statistics.median(column["ratio"]),
            max(column["ratio"]),
            statistics.median(column["seconds"]),
        )
        title = f"{method} {' '.join(links)} ({act}, {width}) {settings or ''}"
        print(f"{title:60}" + "".join(f"{figure:16.4g}" for figure in figures), flush=True)
        results.append(
            {
                "links": links,
                "activation": act,
                "width": width,
                "method": method,
                "options": settings,
                "trials": trials,
            }
        )
    write(options.out, results)


if __name__ == "__main__":
    main()
