"""The parameters of the regressor, checked, and what they mean."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.model_selection import KFold, check_cv

from flattest.regression.regularisation_path import PENALTIES, NetworkSettings
from flattest.regression.training_data import Rows
from flattest.regression.tuning import STRENGTHS, STRENGTHS_BESIDE_PROCESSES
from flattest.two_layer.activations import activation as get_activation
from flattest.validation import check_positive_float, check_positive_int

_LINKS = ("auto", "gaussian_process", "network")


class Settings(NamedTuple):
    """The parameters of a fit, checked.

    Parameters
    ----------
    network : NetworkSettings
        What every network starts from.
    link : {"gaussian_process", "network"}
        What is to predict.
    n_directions : int or None
        The number of directions; None for a choice from the data.
    strengths : ndarray
        The strengths of the penalty, increasing.
    max_rounds : int
        The most rounds in which a fit is repeated.
    cv : int, or list of (train, held_out)
        A number of folds, or the splits themselves.
    rng : numpy.random.Generator
        The only source of randomness.
    n_jobs : int or None
        Threads for the folds.
    device : torch.device
        Where to compute.
    verbose : bool
        Whether to show the progress.
    """

    network: NetworkSettings
    link: Literal["gaussian_process", "network"]
    n_directions: int | None
    strengths: np.ndarray
    max_rounds: int
    cv: int | list[tuple[np.ndarray, np.ndarray]]
    rng: np.random.Generator
    n_jobs: int | None
    device: torch.device
    verbose: bool

    def folds(self, rows: Rows) -> Iterator[tuple[Rows, Rows]]:
        """Yield training and held-out rows of each fold in which rows on both sides count.

        Equal rows are never on both sides of one of a number of folds; a splitter or a list of
        splits is taken as it is.
        """
        for split in self._splits(rows):
            train, held_out = (rows.part(index) for index in split)
            if train is not None and held_out is not None:
                yield train, held_out

    def _splits(self, rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows given that are to be trained on, and those held out."""
        if not isinstance(self.cv, int):
            yield from self.cv
            return
        n = len(rows.y)
        if n < 2:
            return
        seed = int(self.rng.integers(2**31))
        counted = rows.position >= 0
        for _, chosen in KFold(min(self.cv, n), shuffle=True, random_state=seed).split(rows.X):
            here = counted & np.isin(rows.position, chosen)
            yield np.flatnonzero(counted & ~here), np.flatnonzero(here)


def network_settings(
    activation: Any, width: Any, max_iter: Any, penalty: Any, fit_intercept: Any
) -> NetworkSettings:
    """Return what every network starts from."""
    if penalty not in PENALTIES:
        allowed = ", ".join(map(repr, PENALTIES))
        raise ValueError(f"penalty must be one of {allowed}, not {penalty!r}.")
    return NetworkSettings(
        get_activation(activation),
        check_positive_int(width, "width"),
        check_positive_int(max_iter, "max_iter"),
        penalty,
        bool(fit_intercept),
    )


def check_strengths(strengths: Any, *, alone: bool) -> np.ndarray:
    """Return the strengths in increasing order, fewer where no network predicts alone."""
    if isinstance(strengths, str):
        if strengths != "auto":
            raise ValueError(f"strengths must be 'auto' or a sequence, not {strengths!r}.")
        return STRENGTHS if alone else STRENGTHS_BESIDE_PROCESSES
    if not np.iterable(strengths) or not len(strengths := list(strengths)):
        raise ValueError("strengths must be 'auto' or a sequence of at least one number.")
    return np.unique([check_positive_float(value, "Each of strengths") for value in strengths])


def check_link(link: Any, bias: bool) -> Literal["gaussian_process", "network"]:
    """Return what is to predict."""
    if link not in _LINKS:
        raise ValueError(f"link must be one of {', '.join(map(repr, _LINKS))}, not {link!r}.")
    if link == "auto":
        return "gaussian_process" if bias else "network"
    return "gaussian_process" if link == "gaussian_process" else "network"


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


def check_level(level: Any) -> float:
    """Return the probability of an interval."""
    if isinstance(level, bool) or not isinstance(level, Real):
        raise TypeError(f"level must be a number between 0 and 1, not {type(level).__name__}.")
    level = float(level)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, but is {level}.")
    return level


def check_folds(cv: Any, X: np.ndarray, y: np.ndarray) -> int | list[tuple[np.ndarray, np.ndarray]]:
    """Return a number of folds, or the splits of a splitter."""
    if isinstance(cv, Integral | float | None):
        return check_positive_int(cv, "cv", 2)
    try:
        splitter = check_cv(cv)
    except ValueError as error:
        raise TypeError(
            "cv must be a number of folds, a splitter or a list of splits, "
            f"not {type(cv).__name__}."
        ) from error
    return [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(X, y)]
