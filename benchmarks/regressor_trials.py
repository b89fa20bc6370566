"""One trial of the comparison: one learner on one task."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from regressor_peers import NATIVE, fit_peer
from regressor_tasks import Task, subspace_score, task


@dataclass(frozen=True)
class Settings:
    """A learner and a task."""

    learner: str
    kind: str
    name: str = ""
    d: int = 0
    n: int = 0


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit a peer and score it on fresh data."""
    return _score(settings, seed, lambda X, y: fit_peer(settings.learner, X, y))[0]


def our_trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Do the same with the regressor at its defaults."""
    from flattest import MultiIndexRegressor

    def fit(X: np.ndarray, y: np.ndarray) -> MultiIndexRegressor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return MultiIndexRegressor(random_state=seed).fit(X, y)

    record, model, data = _score(settings, seed, fit)
    record["n_directions"] = model.n_directions_
    if data.directions is not None:
        record["subspace"] = subspace_score(data.directions, model.directions_)
    return record


def _score(
    settings: Settings, seed: int, fit: Callable[[np.ndarray, np.ndarray], Any]
) -> tuple[dict[str, Any], Any, Task]:
    """Time a fit in one thread, and test it."""
    torch.set_num_threads(1)
    data = task(settings.kind, settings.name, settings.d, settings.n, seed)
    X, X_test = data.X, data.X_test
    if settings.learner in NATIVE and data.frames is not None:
        X, X_test = data.frames
    started = time.perf_counter()
    model = fit(X, data.y)
    seconds = time.perf_counter() - started
    squares = np.square(model.predict(X_test) - data.y_test).mean()
    record = {
        "mse": float(squares),
        "r2": float(1 - squares / data.y_test.var()),
        "seconds": seconds,
    }
    return record, model, data
