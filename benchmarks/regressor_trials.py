"""One trial of the comparison: one learner on one task."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from regressor_peers import fit_peer
from regressor_tasks import Task, task


@dataclass(frozen=True)
class Settings:
    """A learner and a task."""

    learner: str
    kind: str
    name: str = ""
    d: int = 0
    n: int = 0


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit a learner and score it on fresh data."""
    torch.set_num_threads(1)
    data = task(settings.kind, settings.name, settings.d, settings.n, seed)
    started = time.perf_counter()
    model = fit_peer(settings.learner, data.X, data.y)
    return _score(model, data, time.perf_counter() - started)


def our_trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Do the same with the regressor at its defaults."""
    from flattest import MultiIndexRegressor

    torch.set_num_threads(1)
    data = task(settings.kind, settings.name, settings.d, settings.n, seed)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MultiIndexRegressor(random_state=seed).fit(data.X, data.y)
    record = _score(model, data, time.perf_counter() - started)
    record["n_directions"] = model.n_directions_
    if data.directions is not None:
        record["subspace"] = subspace_score(data.directions, model.directions_)
    return record


def _score(model: Any, data: Task, seconds: float) -> dict[str, Any]:
    squares = np.square(model.predict(data.X_test) - data.y_test).mean()
    return {
        "mse": float(squares),
        "r2": float(1 - squares / data.y_test.var()),
        "seconds": seconds,
    }


def subspace_score(true: np.ndarray, found: np.ndarray) -> float:
    """``1 - ||P - Q||_F^2 / (2 k)``, the leading ``k`` directions found spanning ``Q``."""
    k = len(true)
    P, Q = (np.linalg.qr(rows[:k].T)[0] for rows in (true, found))
    squared = len(true) + Q.shape[1] - 2 * np.square(P.T @ Q).sum()
    return float(1 - squared / (2 * k))
