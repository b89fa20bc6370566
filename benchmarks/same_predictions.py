"""Compare the predictions of two checkouts on twenty seeded fits, in one run on one machine.

A change that is to leave the regressor's behaviour alone is shown to do so by

    python benchmarks/same_predictions.py OLD NEW

where both are checkouts of this repository (``git worktree add ../old main`` makes one). Numbers
stored from another machine would not do: a fit's last digits depend on the processor, and a search
that goes on from them magnifies the difference.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

TOLERANCE = 1e-10


def problems() -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any], dict[str, Any]]]:
    """Return the fits: data, parameters of the estimator, and further arguments of `fit`."""
    found = {}

    def add(name: str, n: int, d: int, make: Any, fit: Any = None, **parameters: Any) -> None:
        rng = np.random.default_rng(len(found))
        X = rng.standard_normal((n, d))
        y = make(X, rng)
        found[name] = X, y, parameters, {} if fit is None else fit(X, y, rng)

    def ridge_function(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.abs(X[:, 0] + X[:, 1]) + 0.1 * rng.standard_normal(len(X))

    def two(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.sin(2 * X[:, 0]) + X[:, 1] ** 2 + 0.2 * rng.standard_normal(len(X))

    def smooth(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (X[:, 0] + X[:, 1]) ** 3

    def linear(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return X @ np.arange(X.shape[1]) + rng.standard_normal(len(X))

    def noise(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(len(X))

    def skewed(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.exp(X[:, 0] - X[:, 1] + 0.3 * rng.standard_normal(len(X)))

    def with_outliers(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        y = ridge_function(X, rng)
        y[:3] += 20
        return y

    def all_features(X: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.linalg.norm(X, axis=1) + 0.05 * rng.standard_normal(len(X))

    def weights(X: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
        return {"sample_weight": rng.integers(0, 4, len(y))}

    add("one direction", 150, 5, ridge_function)
    add("two directions", 300, 8, two)
    add("two directions, given", 200, 6, two, n_directions=2)
    add("one direction, given", 200, 6, two, n_directions=1)
    add("smooth", 200, 4, smooth)
    add("linear", 120, 6, linear)
    add("noise", 100, 5, noise)
    add("skewed", 200, 5, skewed)
    add("outliers", 150, 4, with_outliers)
    add("all features", 150, 4, all_features)
    add("weights", 200, 5, two, weights)
    add("many rows", 2500, 4, two)
    add("few rows", 30, 6, ridge_function)
    add("three folds", 120, 5, two, cv=3, max_rounds=3)
    add("network", 200, 5, two, link="network")
    add("network, weights", 150, 4, two, weights, link="network", n_directions=2)
    add("network, flatness", 120, 4, two, link="network", penalty="flatness")
    add("network, weight decay", 400, 4, two, link="network", penalty="weight_decay")
    add("no intercept", 150, 4, two, fit_intercept=False)
    add("abs, strengths given", 150, 4, two, activation="abs", strengths=(0.01, 0.1), width=40)
    for X, *_ in list(found.values())[-1:]:
        X[:, 3] = 1.0  # a constant feature
    return found


def record(path: Path) -> None:
    """Fit all, and write what the estimators predict and say of themselves."""
    import flattest as ft

    print(f"fitting with {Path(ft.__file__).parent}", flush=True)
    values: dict[str, np.ndarray] = {}
    for number, (name, (X, y, parameters, extra)) in enumerate(problems().items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ft.MultiIndexRegressor(random_state=number, **parameters).fit(X, y, **extra)
        at = 2 * np.random.default_rng(99).standard_normal((200, X.shape[1]))
        values[f"{name}/predictions"] = model.predict(at)
        if model.link_ == "gaussian_process":
            values[f"{name}/deviations"] = model.predict(at, return_std=True)[1]
        values[f"{name}/directions"] = model.directions_
        values[f"{name}/importances"] = model.feature_importances_
        values[f"{name}/path"] = model.path_[["held_out_error", "flatness"]].to_numpy()
        values[f"{name}/outliers"] = model.outliers_
        values[f"{name}/log share"] = np.array(model.log_share_)
        print(f"  {name}", flush=True)
    np.savez(path, **values)


def main() -> None:
    """Fit in a process of each checkout, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record)
        return
    if len(arguments.checkouts) != 2:
        parser.error("give two checkouts")
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for index, checkout in enumerate(arguments.checkouts):
            files.append(Path(folder) / f"{index}.npz")
            environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
            command = [sys.executable, __file__, "--record", str(files[-1])]
            subprocess.run(command, check=True, env=environment)
        old, new = (dict(np.load(file)) for file in files)
    largest: dict[str, float] = {}
    for key, before in old.items():
        after = new[key]
        if before.shape != after.shape:
            difference = np.inf
        else:
            size = float(np.abs(before).max(initial=0.0)) or 1.0
            gaps = np.abs(before.astype(float) - after.astype(float))
            difference = float(np.nanmax(gaps, initial=0.0)) / size
        what = key.partition("/")[2]
        largest[what] = max(largest.get(what, 0.0), difference)
        if difference > TOLERANCE:
            print(f"{key} differs by {difference:.1e} of its size")
    fits = len({key.partition("/")[0] for key in old})
    print(f"{fits} fits; largest difference of each figure, relative to its size:")
    for what, difference in largest.items():
        print(f"  {what:<12} {difference:.1e}")
    sys.exit(any(difference > TOLERANCE for difference in largest.values()))


if __name__ == "__main__":
    main()
