"""Elimination of directions: networks on ever fewer combinations of the features.

In each round a network is fitted on the directions still in play, and the leading eigenvectors of
its average gradient outer product go on to the next. Cross-validation runs in step with it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from flattest.activations import Homogeneous
from flattest.networks import TwoLayerNet, append_bias_coordinate
from flattest.regression.regularisation_path import Fit, regularisation_path

_KEPT = 0.6
_ONE_BY_ONE = 5
"""Share of the directions that a round of elimination keeps; from so few on, it drops one."""
_NEIGHBOURS = 2
"""Strengths tried on either side of the best one of the round before."""
_ROWS = 8192  # predicted together, to bound the memory


class Standardisation(NamedTuple):
    """Centred inputs of unit variance and centred targets; constant columns become zero."""

    mean: np.ndarray
    inverse_scale: np.ndarray
    intercept: float

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, *, centred: bool) -> Standardisation:
        """Measure the training data."""
        mean = X.mean(axis=0) if centred else np.zeros(X.shape[1])
        size = np.abs(X - mean).max(axis=0)
        # Rounding leaves something of a constant column; dividing by it would blow it up.
        varies = size > 1e-13 * np.abs(X).max(axis=0)
        unit = np.where(varies, size, 1.0)
        rms = np.sqrt(np.square((X - mean) / unit).mean(axis=0))
        inverse = np.divide(1 / unit, rms, out=np.zeros_like(unit), where=varies)
        return cls(mean, inverse, float(y.mean()) if centred else 0.0)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the inputs in standard units."""
        return (X - self.mean) * self.inverse_scale


class Network(NamedTuple):
    """What every network starts from."""

    activation: Homogeneous
    width: int
    max_iter: int


class Round(NamedTuple):
    """What is left of one round: the networks on all rows, and the errors of the folds."""

    n_directions: int
    basis: Float[Tensor, "d h"]
    fits: list[Fit]
    errors: np.ndarray
    """Of shape (folds, strengths)."""

    @property
    def best(self) -> int:
        """Index of the strength of least mean error."""
        return int(self.errors.mean(axis=0).argmin())

    @property
    def error(self) -> float:
        """The error at that strength."""
        return float(self.errors[:, self.best].mean())

    @property
    def fit(self) -> Fit:
        """The network at that strength."""
        return self.fits[self.best]

    def table(self) -> pd.DataFrame:
        """Return one row per strength."""
        return pd.DataFrame(
            {
                "n_directions": self.n_directions,
                "strength": [fit.strength for fit in self.fits],
                "cv_error": self.errors.mean(axis=0),
                "cv_standard_error": self.errors.std(axis=0, ddof=1) / len(self.errors) ** 0.5,
                "flatness": [fit.flatness for fit in self.fits],
            }
        )


class Learner:
    """Networks on some of the rows, on ever fewer directions.

    The whole fit is one learner on all rows and one per fold, all going through the same rounds:
    the held-out rows of a fold have no part in choosing its directions, but for
    the strength, which all folds share.
    """

    def __init__(
        self, X: np.ndarray, y: np.ndarray, rows: np.ndarray, held_out: np.ndarray, bias: bool
    ) -> None:
        self.standardise = Standardisation.of(X[rows], y[rows], centred=bias)
        self.bias = bias
        self.inputs = torch.from_numpy(self.standardise(X[rows]))
        self.target = torch.from_numpy(y[rows] - self.standardise.intercept)
        self.test_inputs = torch.from_numpy(self.standardise(X[held_out]))
        self.test_target = torch.from_numpy(y[held_out] - self.standardise.intercept)
        _, S, Vh = torch.linalg.svd(self.inputs, full_matrices=False)
        rank = int((S > S[0] * max(self.inputs.shape) * torch.finfo(S.dtype).eps).sum())
        self.basis = Vh[: max(rank, 1)].T  # of the directions still in play: (d, h), orthonormal

    def restrict(self, directions: Float[Tensor, "d k"], units: Standardisation) -> None:
        """Go on with directions that were found in other units."""
        inverse = self.standardise.inverse_scale
        factor = np.divide(
            units.inverse_scale, inverse, out=np.zeros_like(inverse), where=inverse > 0
        )
        self.basis = torch.linalg.qr(torch.from_numpy(factor)[:, None] * directions)[0]

    def path(
        self, strengths: np.ndarray, seed: int, network: Network
    ) -> tuple[list[Fit], list[float]]:
        """Fit on the current directions; return networks on all features, and their errors."""
        fits = regularisation_path(
            with_bias(self.inputs @ self.basis, self.bias),
            self.target,
            network.activation,
            strengths.tolist(),
            width=network.width,
            max_iter=network.max_iter,
            rng=np.random.default_rng(seed),
        )
        h = self.basis.shape[1]
        fits = [
            fit._replace(
                weights=torch.cat([fit.weights[:, :h] @ self.basis.T, fit.weights[:, h:]], dim=1)
            )
            for fit in fits
        ]
        if not len(self.test_target):
            return fits, []
        return fits, [self._error(fit, network.activation) for fit in fits]

    def _error(self, fit: Fit, activation: Homogeneous) -> float:
        net = TwoLayerNet(fit.weights, fit.coefficients, activation)
        return float(
            (evaluate(net, self.test_inputs, self.bias) - self.test_target).square().mean()
        )

    def gradients(self, fit: Fit, activation: Homogeneous) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of the average gradient outer product, largest first."""
        d = len(self.basis)
        gram = fit.weights.new_zeros(len(fit.weights), len(fit.weights))
        for block in self.inputs.split(_ROWS):
            slopes = activation.derivative(with_bias(block, self.bias) @ fit.weights.T)
            gram += slopes.T @ slopes / len(self.inputs)
        W = (fit.weights[:, :d] * fit.coefficients[:, None]) @ self.basis
        values, vectors = torch.linalg.eigh(W.T @ gram @ W)
        return values.flip(0).clamp_min(0), self.basis @ vectors.flip(1)


def eliminate(
    learners: list[Learner],
    strengths: np.ndarray,
    fewest: int,
    network: Network,
    rng: np.random.Generator,
    *,
    n_jobs: Any,
    verbose: Any,
) -> list[Round]:
    """Go through the rounds, from all directions to the fewest.

    Parameters
    ----------
    learners : list of Learner
        One per fold, then the one on all rows; they are left with the last round's directions.
    strengths : ndarray
        All strengths, increasing; after the first round only those near the best one are tried.
    fewest : int
        Number of directions at which to stop.
    network : Network
        What every network starts from.
    rng : numpy.random.Generator
        Seeds the networks.
    n_jobs, verbose
        As for the estimator.

    Returns
    -------
    list of Round
        From the most directions to the fewest.
    """
    rounds: list[Round] = []
    near, sizes = strengths, _sizes(learners[-1].basis.shape[1], fewest)
    later = min(2 * _NEIGHBOURS + 1, len(strengths))
    networks = len(learners) * (len(strengths) + (len(sizes) - 1) * later)
    with _progress(verbose) as bar:
        task = bar.add_task("", total=networks)
        for h in sizes:
            bar.update(task, description=f"{h} direction{'s' * (h > 1)}")
            seeds = rng.integers(2**63, size=len(learners)).tolist()
            paths = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
                delayed(learner.path)(near, seed, network)
                for learner, seed in zip(learners, seeds, strict=True)
            )
            results = []
            for path in paths:
                results.append(path)
                bar.advance(task, later if rounds else len(strengths))
            rounds.append(_round(learners, results, h))
            near = _neighbours(strengths, near[rounds[-1].best])
            if h > fewest:
                for learner, (fits, _) in zip(learners, results, strict=True):
                    vectors = learner.gradients(fits[rounds[-1].best], network.activation)[1]
                    learner.basis = vectors[:, : _sizes(h, fewest)[1]]
    return rounds


def _round(learners: list[Learner], results: list[tuple[list[Fit], list[float]]], h: int) -> Round:
    errors = np.array([fold_errors for _, fold_errors in results[:-1]])
    return Round(h, learners[-1].basis, results[-1][0], errors)


def _neighbours(strengths: np.ndarray, best: float) -> np.ndarray:
    centre = int(np.searchsorted(strengths, best))
    return strengths[max(0, centre - _NEIGHBOURS) : centre + _NEIGHBOURS + 1]


def _progress(verbose: Any) -> Progress:
    """Make a bar over the networks to be fitted, on the error stream."""
    columns = (
        TextColumn("fitting on {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("networks, time left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not verbose)


def with_bias(inputs: Float[Tensor, "n d"], bias: bool) -> Float[Tensor, "n d1"]:
    """Append the bias coordinate, if there is one."""
    return append_bias_coordinate(inputs) if bias else inputs


def evaluate(net: TwoLayerNet, inputs: Float[Tensor, "n d"], bias: bool) -> Float[Tensor, " n"]:
    """Evaluate a network on standardised inputs, some rows at a time."""
    with torch.no_grad():
        return torch.cat([net(with_bias(block, bias)) for block in inputs.split(_ROWS)])


def choose(rounds: list[Round]) -> Round:
    """Return the fewest directions within one standard error of the least error."""
    least = min(rounds, key=lambda entry: entry.error)
    for entry in reversed(rounds):
        excess = entry.errors[:, entry.best] - least.errors[:, least.best]
        if excess.mean() <= excess.std(ddof=1) / len(excess) ** 0.5:
            return entry
    return least


def _sizes(most: int, fewest: int) -> list[int]:
    """Return the numbers of directions that the rounds go through."""
    sizes = [most]
    while sizes[-1] > fewest:
        h = sizes[-1]
        sizes.append(max(fewest, h - 1 if h <= _ONE_BY_ONE else int(_KEPT * h)))
    return sizes
