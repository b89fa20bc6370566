"""Time fits of `MultiIndexRegressor` at its defaults, from few samples to many, and their memory.

Run ``python benchmarks/bench_fit.py``. Writes ``benchmarks/results/fit.json``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench_measure import peak_memory, seconds
from environment import RESULTS, write
from regressor_tasks import subspace_score, task

import flattest as ft

SIZES = ((500, 20, 5), (10_000, 50, 1), (200_000, 50, 1))
"""Rows, features, and fits, each to other data."""
NOISE = 0.1


def data(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the published task for few rows; three directions, Gaussian inputs for many."""
    if n == SIZES[0][0]:
        known = task("regfeal", "", d, n, seed)
        return known.X, known.y, known.directions
    X, y, model = ft.make_multi_index(n, d, [np.tanh] * 3, noise=NOISE, random_state=seed)
    return X.numpy(), y.numpy(), model.directions.numpy()


def fits(n: int, d: int, n_fits: int) -> dict[str, Any]:
    """Time fits one after the other."""
    warnings.simplefilter("ignore")
    ft.MultiIndexRegressor(random_state=0).fit(*data(SIZES[0][0], 5, 0)[:2])  # imports, threads
    times, subspaces = [], []
    for seed in range(n_fits):
        X, y, directions = data(n, d, seed)
        model = ft.MultiIndexRegressor(random_state=seed)
        times.append(seconds(lambda: model.fit(X, y)))  # noqa: B023
        subspaces.append(subspace_score(directions, model.directions_))
    return {
        "n": n,
        "d": d,
        "seconds": times,
        "median_seconds": statistics.median(times),
        "least_subspace_score": min(subspaces),
        "peak_memory_mb": peak_memory(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "fit.json")
    out = parser.parse_args().out
    results = []
    # A process for each, since its peak is of all that it did.
    context = multiprocessing.get_context("spawn")
    for size in SIZES:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            results.append(pool.submit(fits, *size).result())
        print(
            "n = {n:,}, d = {d}: {median_seconds:.1f} s, {peak_memory_mb:,.0f} MB with the data, "
            "subspace score {least_subspace_score:.4f}".format(**results[-1])
        )
    write(out, results)


if __name__ == "__main__":
    main()
