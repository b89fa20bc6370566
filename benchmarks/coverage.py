"""How often intervals of the regressor hold, beside scikit-learn's Gaussian processes.

Three kinds of data. *Few rows*: uniform features in 20 dimensions, the sum of ``sin 2 z_1``,
``z_2^2`` and ``|z_3|`` along one to three orthonormal directions, Gaussian noise of half the
signal's standard deviation, where directions can follow the noise. *Grid*: the cells of
`regressor_tasks` with at most 500 rows, with noise on the test targets too. *Tables*: five folds of
each of its tables, so that every row is held out once; a single fold of some tables has 40 rows.
Features are standardised for the processes. ``--kinds`` and ``--learners`` renew a part of what is
stored. Writes `results/coverage.json` and `results/coverage.md`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from environment import RESULTS, write
from regressor_tasks import GRID_NOISE, N_FOLDS, settings, task
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.preprocessing import StandardScaler

import flattest as ft

D, LEVEL, N_TEST, FIRST_SEED = 20, 0.9, 1000, 7000
ROWS, DIRECTIONS = (80, 100, 150, 200, 300), (1, 2, 3)
MOST_ROWS = 500
OURS, ISOTROPIC, ANISOTROPIC = "MultiIndexRegressor", "GP, one length", "GP, a length per feature"
LEARNERS = (OURS, ISOTROPIC, ANISOTROPIC)
KINDS = ("few rows", "grid", "table")

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def few_rows(n: int, k: int, seed: int) -> Data:
    """Draw training rows and then test rows of a sum along a few directions."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((D, D)))[0][:, :k]

    def signal(X: np.ndarray) -> np.ndarray:
        z = X @ Q
        links = [np.sin(2 * z[:, 0]), *(z[:, 1:2] ** 2).T, *np.abs(z[:, 2:3]).T]
        return np.sum(links, axis=0)

    X = rng.uniform(-1, 1, (n + N_TEST, D))
    spread = 0.5 * signal(rng.uniform(-1, 1, (20000, D))).std()
    y = signal(X) + spread * rng.standard_normal(len(X))
    return X[:n], y[:n], X[n:], y[n:]


def of_the_benchmark(cell: dict[str, Any]) -> Data:
    """Return a seed or fold of a task of the benchmark."""
    data = task(cell["kind"], cell["name"], cell["d"], cell["n"], cell["seed"])
    if cell["kind"] == "table":
        scaler = StandardScaler().fit(data.X)
        return scaler.transform(data.X), data.y, scaler.transform(data.X_test), data.y_test
    noise = GRID_NOISE * np.random.default_rng(FIRST_SEED).standard_normal(len(data.y_test))
    return data.X, data.y, data.X_test, data.y_test + noise


def predict(
    learner: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return means, the log density of the test targets, and the ends of intervals."""
    if learner == OURS:
        model = ft.MultiIndexRegressor(random_state=500).fit(X, y)
        density = model.predictor_.law(X_test).log_density(y_test)
        return model.predict(X_test), density, *model.predict_interval(X_test, LEVEL)
    lengths = 3.0 if learner == ISOTROPIC else np.full(X.shape[1], 3.0)
    kernel = ConstantKernel() * RBF(lengths, (1e-2, 1e4)) + WhiteKernel(0.3, (1e-4, 1e2))
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(X, y)
    mean, deviation = process.predict(X_test, return_std=True)
    half = norm.ppf((1 + LEVEL) / 2) * deviation
    return mean, norm.logpdf(y_test, mean, deviation), mean - half, mean + half


def trial(learner: str, data: Data) -> dict[str, float]:
    """Fit once."""
    X, y, X_test, y_test = data
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, density, low, high = predict(learner, X, y, X_test, y_test)
    return {
        "error": float(np.square(mean - y_test).mean() / y_test.var()),
        "coverage": float(((low <= y_test) & (y_test <= high)).mean()),
        "log_density": float(density.mean()),
        "seconds": time.process_time() - start,
    }


def cells(kind: str, n_seeds: int) -> Iterator[tuple[dict[str, Any], Data]]:
    """Yield what there is to fit, one after another."""
    if kind == "few rows":
        for n in ROWS:
            for k in DIRECTIONS:
                for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
                    yield {"kind": kind, "n": n, "k": k, "seed": seed}, few_rows(n, k, seed)
        return
    for cell in settings():
        if cell["kind"] == kind and int(cell["n"]) <= MOST_ROWS:
            for seed in range(N_FOLDS if kind == "table" else 1):
                numbered = {**cell, "seed": seed}
                yield numbered, of_the_benchmark(numbered)


def few_rows_table(records: pd.DataFrame) -> str:
    """Tabulate the means over seeds."""
    lines = [
        "| rows | directions | " + " | ".join(LEARNERS) + " |",
        "|---|---|" + "---|" * len(LEARNERS),
    ]
    means = records.groupby(["n", "k", "learner"]).mean(numeric_only=True)
    for n in ROWS:
        for k in DIRECTIONS:
            found = [means.loc[(n, k, learner)] for learner in LEARNERS]
            texts = [f"{one.error:.3f}, {one.coverage:.3f}, {one.log_density:.3f}" for one in found]
            lines.append(f"| {n} | {k} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def benchmark_table(records: pd.DataFrame) -> str:
    """Tabulate, for each kind of the benchmark, how often intervals hold and who is surer."""
    lines = [
        "| | cells | 90 % intervals hold | least | log density above one length | a length each "
        "| above both | behind by at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    means = records.groupby(["kind", "name", "d", "n", "learner"], sort=False).mean(True)
    for kind in records["kind"].unique():
        wide = means.loc[kind].unstack()
        covered, density = wide["coverage"][OURS], wide["log_density"]
        ahead = density[[OURS] * 2].to_numpy() - density[list(LEARNERS[1:])].to_numpy()
        above = [*(ahead >= 0).sum(axis=0), (ahead >= 0).all(axis=1).sum()]
        lines.append(
            f"| {kind} | {len(wide)} | {covered.mean():.3f} | {covered.min():.3f} "
            f"| {' | '.join(map(str, above))} | {max(-ahead.min(), 0):.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all, or a part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=LEARNERS)
    parser.add_argument("--seeds", type=int, default=4, help="of few rows")
    options = parser.parse_args()
    path = RESULTS / "coverage.json"
    stored = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    records = [
        record
        for record in stored
        if record["kind"] not in options.kinds or record["learner"] not in options.learners
    ]
    for kind in options.kinds:
        for cell, data in cells(kind, options.seeds):
            for learner in options.learners:
                records.append({**cell, "learner": learner, **trial(learner, data)})
                print(records[-1], flush=True)
        write(path, records)
    frame = pd.DataFrame(records)
    few = frame["kind"] == "few rows"
    texts = [few_rows_table(frame[few])] if few.any() else []
    texts += [benchmark_table(frame[~few])] if not few.all() else []
    (RESULTS / "coverage.md").write_text("\n".join(texts), encoding="utf-8")
    print("\n".join(texts))


if __name__ == "__main__":
    main()
