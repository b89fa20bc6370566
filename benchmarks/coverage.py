"""How often intervals of the regressor hold, beside scikit-learn's Gaussian processes.

Uniform features in 20 dimensions, the sum of ``sin 2 z_1``, ``z_2^2`` and ``|z_3|`` along one to
three orthonormal directions, Gaussian noise of half the signal's standard deviation: few rows,
where directions can follow the noise. Writes `results/coverage.json` and `results/coverage.md`.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from environment import RESULTS, write
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

import flattest as ft

D, LEVEL, N_TEST, FIRST_SEED = 20, 0.9, 1000, 7000
ROWS, DIRECTIONS = (80, 100, 150, 200, 300), (1, 2, 3)
LEARNERS = ("MultiIndexRegressor", "GP, one length", "GP, a length per feature")


def sample(n: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw training rows and then test rows."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :k]

    def signal(X: np.ndarray) -> np.ndarray:
        z = X @ Q
        links = [np.sin(2 * z[:, 0]), *(z[:, 1:2] ** 2).T, *np.abs(z[:, 2:3]).T]
        return np.sum(links, axis=0)

    X = rng.uniform(-1, 1, (n + N_TEST, D))
    spread = 0.5 * signal(rng.uniform(-1, 1, (20000, D))).std()
    return X, signal(X) + spread * rng.standard_normal(len(X))


def predict(learner: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> tuple[Any, ...]:
    """Return means, standard deviations, and the ends of intervals."""
    if learner == "MultiIndexRegressor":
        model = ft.MultiIndexRegressor(random_state=500).fit(X, y)
        return *model.predict(X_test, return_std=True), *model.predict_interval(X_test, LEVEL)
    lengths = 3.0 if learner == "GP, one length" else np.full(D, 3.0)
    kernel = ConstantKernel() * RBF(lengths, (1e-2, 1e4)) + WhiteKernel(0.3, (1e-4, 1e2))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(X, y)
    mean, deviation = process.predict(X_test, return_std=True)
    half = norm.ppf((1 + LEVEL) / 2) * deviation
    return mean, deviation, mean - half, mean + half


def trial(learner: str, n: int, k: int, seed: int) -> dict[str, Any]:
    """Fit once."""
    X, y = sample(n, k, seed)
    start = time.process_time()
    mean, deviation, low, high = predict(learner, X[:n], y[:n], X[n:])
    test = y[n:]
    return {
        "learner": learner,
        "n": n,
        "k": k,
        "seed": seed,
        "error": float(np.square(mean - test).mean() / test.var()),
        "coverage": float(((low < test) & (test < high)).mean()),
        "log_density": float(norm.logpdf(test, mean, deviation).mean()),
        "seconds": time.process_time() - start,
    }


def table(records: list[dict[str, Any]]) -> str:
    """Tabulate the means over seeds."""
    lines = [
        "| rows | directions | " + " | ".join(LEARNERS) + " |",
        "|---|---|" + "---|" * len(LEARNERS),
    ]
    means = pd.DataFrame(records).groupby(["n", "k", "learner"]).mean(numeric_only=True)
    for n in ROWS:
        for k in DIRECTIONS:
            cells = [means.loc[(n, k, learner)] for learner in LEARNERS]
            texts = [
                f"{cell.error:.3f}, {cell.coverage:.3f}, {cell.log_density:.3f}" for cell in cells
            ]
            lines.append(f"| {n} | {k} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all, or with fewer seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    seeds = range(FIRST_SEED, FIRST_SEED + parser.parse_args().seeds)
    records = []
    for n in ROWS:
        for k in DIRECTIONS:
            for seed in seeds:
                for learner in LEARNERS:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        records.append(trial(learner, n, k, seed))
                    print(records[-1], flush=True)
    write(RESULTS / "coverage.json", records)
    (RESULTS / "coverage.md").write_text(table(records), encoding="utf-8")
    print(table(records))


if __name__ == "__main__":
    main()
