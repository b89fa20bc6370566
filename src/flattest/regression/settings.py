"""The parameters of the regressor, checked, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import KFold, check_cv

from flattest.regression.elimination import Network
from flattest.regression.regularisation_path import PENALTIES
from flattest.regression.training_data import Rows
from flattest.two_layer.activations import activation as get_activation
from flattest.validation import check_positive_float, check_positive_int

_STRENGTHS = np.geomspace(1e-3, 0.5, 8)
_LINKS = ("auto", "gaussian_process", "network")


def network_settings(
    activation: Any, width: Any, max_iter: Any, penalty: Any, fit_intercept: Any
) -> Network:
    """Return what every network starts from."""
    if penalty not in PENALTIES:
        allowed = ", ".join(map(repr, PENALTIES))
        raise ValueError(f"penalty must be one of {allowed}, not {penalty!r}.")
    return Network(
        get_activation(activation),
        check_positive_int(width, "width"),
        check_positive_int(max_iter, "max_iter"),
        penalty,
        bool(fit_intercept),
    )


def check_strengths(strengths: Any) -> np.ndarray:
    """Return the strengths in increasing order."""
    if isinstance(strengths, str):
        if strengths != "auto":
            raise ValueError(f"strengths must be 'auto' or a sequence, not {strengths!r}.")
        return _STRENGTHS
    if not np.iterable(strengths) or not len(strengths := list(strengths)):
        raise ValueError("strengths must be 'auto' or a sequence of at least one number.")
    return np.unique([check_positive_float(value, "Each of strengths") for value in strengths])


def check_link(link: Any, bias: bool) -> str:
    """Return what is to predict."""
    if link not in _LINKS:
        raise ValueError(f"link must be one of {', '.join(map(repr, _LINKS))}, not {link!r}.")
    return ("gaussian_process" if bias else "network") if link == "auto" else link


def check_n_directions(n_directions: Any, d: int) -> int | None:
    """Return the number of directions asked for, None for a choice from the data."""
    if isinstance(n_directions, str):
        if n_directions != "auto":
            raise ValueError(f"n_directions must be 'auto' or an integer, not {n_directions!r}.")
        return None
    k = check_positive_int(n_directions, "n_directions")
    if k > d:
        raise ValueError(f"n_directions is {k}, but X has {d} features only; lower it.")
    return k


def check_jobs(n_jobs: Any) -> Any:
    """Refuse zero jobs."""
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; use None or 1 for one job, -1 for all cores.")
    return n_jobs


def check_device(device: Any) -> torch.device:
    """Return the device, None being the CPU."""
    try:
        found = torch.device("cpu" if device is None else device)
        torch.empty(0, dtype=torch.float64, device=found)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).rstrip(".").split("\n")[0]
        raise ValueError(
            f"device is {device!r}, which cannot be computed on in double precision here "
            f"({reason}); use 'cpu' or None."
        ) from error
    return found


def check_weights(sample_weight: Any, n: int) -> np.ndarray:
    """Return a weight for each row, None being 1 for all."""
    if sample_weight is None:
        return np.ones(n)
    try:
        weight = np.asarray(sample_weight, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError("sample_weight must be numbers, one for each row of X.") from error
    if weight.ndim == 0:
        weight = np.full(n, weight)
    if weight.shape != (n,):
        raise ValueError(
            f"sample_weight.shape == {weight.shape}, but X has {n} rows; give one weight for each."
        )
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("sample_weight must be finite and not negative; mend or drop these rows.")
    if not weight.any():
        raise ValueError("Every sample_weight is zero; at least one row must count.")
    return weight


def check_folds(cv: Any) -> Any:
    """Return a number of folds, or a splitter."""
    if isinstance(cv, Integral | float | None):
        return check_positive_int(cv, "cv", 2)
    try:
        return check_cv(cv)
    except ValueError as error:
        raise TypeError(
            "cv must be a number of folds, a splitter or a list of splits, "
            f"not {type(cv).__name__}."
        ) from error


def folds(
    cv: Any, rows: Rows, X: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield training and held-out rows of the data as given, equal rows never on both sides.

    A splitter or a list of splits is taken as it is.
    """
    if not isinstance(cv, int):
        yield from cv.split(X, y)
        return
    n = len(rows.y)
    if n < 2:
        return
    splitter = KFold(min(cv, n), shuffle=True, random_state=int(rng.integers(2**31)))
    counted = rows.position >= 0
    for _, chosen in splitter.split(rows.X):
        here = counted & np.isin(rows.position, chosen)
        yield np.flatnonzero(counted & ~here), np.flatnonzero(here)
