"""Elimination of directions: networks on ever fewer combinations of the features.

In each round networks are fitted on the directions still in play, and the directions along which
they vary most go on to the next round. Cross-validation runs in step with it: a `Learner` is one
fit, of all rows or of a fold, and all learners go through the same rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from torch import Tensor

from flattest.progress import progress_bar
from flattest.regression.denormals import no_denormals
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.regularisation_path import Fit, NetworkSettings, regularisation_path
from flattest.regression.training_data import (
    Rows,
    TrainingData,
    evaluate,
    with_bias,
)
from flattest.regression.tuning import KEPT_SHARE, NEIGHBOURS, ONE_BY_ONE
from flattest.regression.variation import Variation
from flattest.threads import one_thread
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet
from flattest.wording import count

_ROWS = 8192  # worked on together, to bound the memory


class Round(NamedTuple):
    """One round: the networks on all rows, one per strength, and how the folds' ones predict.

    Parameters
    ----------
    n_directions : int
        The number of directions in play.
    basis : Tensor of shape (d, h)
        The directions, for the fit of all rows.
    fits : list of Fit
        The networks on all rows.
    flatness : list of float
        The reflected orbit minimum of each, as a function of these directions.
    errors : ndarray of shape (folds, strengths)
        Mean squared errors on the rows held out.
    outputs : list of Tensor
        For each fold the predictions of these rows, at the best strength.
    """

    n_directions: int
    basis: Float[Tensor, "d h"]
    fits: list[Fit]
    flatness: list[float]
    errors: Float[np.ndarray, "folds strengths"]
    outputs: list[Float[Tensor, " n"]]

    @property
    def best(self) -> int:
        """The index of the strength of least mean error."""
        return best_strength(self.errors)

    @property
    def error(self) -> float:
        """The mean error at that strength."""
        return float(self.errors[:, self.best].mean())

    @property
    def fit(self) -> Fit:
        """The network on all rows at that strength."""
        return self.fits[self.best]

    def table(self) -> pd.DataFrame:
        """Tabulate the round as `MultiIndexRegressor.path_` shows it, one row per strength."""
        return pd.DataFrame(
            {
                "n_directions": self.n_directions,
                "strength": [fit.strength for fit in self.fits],
                "held_out_error": self.errors.mean(axis=0),
                "held_out_standard_error": _standard_error(self.errors),
                "flatness": self.flatness,
            }
        )


class Learner(NamedTuple):
    """Networks fitted to some of the rows, on some of the directions.

    The held-out rows of a fold have no part in choosing its directions; only the strength is shared
    by all folds.

    Parameters
    ----------
    data : TrainingData
        The rows.
    settings : NetworkSettings
        The settings of the networks.
    basis : Tensor of shape (d, h)
        The directions in play, orthonormal columns.
    train, held_out : Rows or None
        For a fold the rows that it is fitted to, and those that it predicts.
    """

    data: TrainingData
    settings: NetworkSettings
    basis: Float[Tensor, "d h"]
    train: Rows | None = None
    held_out: Rows | None = None

    @classmethod
    def on(cls, data: TrainingData, settings: NetworkSettings) -> Learner:
        """Start with all rows and all directions."""
        return cls(data, settings, data.basis)

    @classmethod
    def on_fold(
        cls, train: Rows, held_out: Rows, settings: NetworkSettings, device: torch.device
    ) -> Learner:
        """Start with the training rows of a fold."""
        data = TrainingData.of(train, bias=settings.bias, device=device)
        return cls(data, settings, data.basis, train, held_out)

    def with_basis(self, basis: Float[Tensor, "d h"]) -> Learner:
        """Go on with these directions."""
        return self._replace(basis=basis)

    def with_directions(
        self, directions: Float[Tensor, "d k"], standardise: Standardisation
    ) -> Learner:
        """Go on with directions that were found on features in the units of other rows."""
        factor = torch.from_numpy(standardise.inverse_scale * self.data.standardise.scale)
        scaled = factor.to(directions)[:, None] * directions
        return self.with_basis(torch.linalg.qr(scaled)[0])

    def path(self, strengths: np.ndarray, seed: int) -> tuple[list[Fit], list[Tensor]]:
        """Fit on the current directions, one network per strength.

        Returns
        -------
        fits : list of Fit
            The networks, as functions of all features.
        outputs : list of Tensor
            The predictions of the held-out rows by each; none where there are no such rows.
        """
        h = self.basis.shape[1]
        rng = np.random.default_rng(seed)
        # Adam's averages of what no longer changes decay to nothing.
        with no_denormals():
            fits = regularisation_path(*self._weighted(), strengths.tolist(), self.settings, rng)
        fits = [
            fit._replace(
                weights=torch.cat([fit.weights[:, :h] @ self.basis.T, fit.weights[:, h:]], dim=1)
            )
            for fit in fits
        ]
        return fits, self._predictions(fits)

    def _weighted(self) -> tuple[Tensor, Tensor]:
        """Return inputs in coordinates of the current directions, and targets."""
        settings, inputs = self.settings, self.data.inputs @ self.basis
        return self.data.weighted(inputs, settings.bias, settings.activation.degree)

    def network(self, fit: Fit) -> TwoLayerNet:
        """Return a network as a function of all standardised features."""
        return TwoLayerNet(fit.weights, fit.coefficients, self.settings.activation)

    def _predictions(self, fits: list[Fit]) -> list[Tensor]:
        """Predict the held-out rows."""
        if self.held_out is None:
            return []
        standardise = self.data.standardise
        inputs = torch.from_numpy(standardise(self.held_out.X)).to(self.data.inputs)
        return [standardise.intercept + evaluate(self.network(fit), inputs) for fit in fits]

    def errors(self, outputs: list[Tensor]) -> list[float]:
        """Return the mean squared error of each prediction of the held-out rows."""
        assert self.held_out is not None
        y, weight = self.held_out.y, self.held_out.weight
        squares = [np.square(values.cpu().numpy() - y) for values in outputs]
        return [float(np.average(values, weights=weight)) for values in squares]

    def flatness(self, fit: Fit) -> float:
        """Measure the reflected orbit minimum of a network on the current directions."""
        d = len(self.basis)
        weights = torch.cat([fit.weights[:, :d] @ self.basis, fit.weights[:, d:]], dim=1)
        net = TwoLayerNet(weights, fit.coefficients, self.settings.activation)
        return measure(net, *self._weighted()).reflected_orbit_minimum

    def variation(self, fit: Fit) -> Variation:
        """Find the directions, among the current ones, along which a network varies."""
        inputs, weight = self.data.inputs, self.data.weight
        d = len(self.basis)
        gram = fit.weights.new_zeros(len(fit.weights), len(fit.weights))
        mean = fit.weights.new_zeros(len(fit.weights))
        for block, share in zip(inputs.split(_ROWS), weight.split(_ROWS), strict=True):
            z = with_bias(block, self.settings.bias) @ fit.weights.T
            slopes = self.settings.activation.derivative(z)
            weighted = slopes * (share / len(inputs))[:, None]
            gram += weighted.T @ slopes
            mean += weighted.sum(0)
        W = (fit.weights[:, :d] * fit.coefficients[:, None]) @ self.basis
        return Variation.of(W.T @ gram @ W, self.basis, mean @ W)


def eliminate(
    learners: list[Learner],
    strengths: np.ndarray,
    counts: list[int],
    rng: np.random.Generator,
    *,
    n_jobs: Any,
    verbose: Any,
) -> list[Round]:
    """Go through the rounds, each with fewer directions than the one before.

    Parameters
    ----------
    learners : list of Learner
        One per fold, then the one on all rows, all with the first round's directions.
    strengths : ndarray
        All strengths, increasing; after the first round only those near the best one are tried.
    counts : list of int
        The number of directions of each round, the first one that of the learners.
    rng : numpy.random.Generator
        Seeds the networks.
    n_jobs, verbose
        As for the estimator.

    Returns
    -------
    list of Round
        One per count.
    """
    rounds: list[Round] = []
    near = strengths
    later = min(2 * NEIGHBOURS + 1, len(strengths))
    networks = len(learners) * (len(strengths) + (len(counts) - 1) * later)
    text = "{task.completed:.0f}/{task.total:.0f} networks"
    with progress_bar("", text, shown=bool(verbose), total=networks) as bar, one_thread():
        for h, following in zip(counts, [*counts[1:], None], strict=True):
            bar.update(description=f"fitting on {count(h, 'direction')}")
            seeds = rng.integers(2**63, size=len(learners)).tolist()
            paths = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
                delayed(learner.path)(near, seed)
                for learner, seed in zip(learners, seeds, strict=True)
            )
            results = []
            for path in paths:
                results.append(path)
                bar.advance(later if rounds else len(strengths))
            entry = _round(learners, results, h)
            rounds.append(entry)
            near = _neighbours(strengths, near[entry.best])
            if following is not None:
                learners = [
                    learner.with_basis(learner.variation(fits[entry.best]).vectors[:, :following])
                    for learner, (fits, _) in zip(learners, results, strict=True)
                ]
    return rounds


def _round(learners: list[Learner], results: list[tuple[list[Fit], list[Tensor]]], h: int) -> Round:
    """Put the results of the learners together; without folds no strength has an error."""
    (*folds, whole), fits = learners, results[-1][0]
    predictions = [outputs for _, outputs in results[:-1]]
    errors = np.array(
        [fold.errors(outputs) for fold, outputs in zip(folds, predictions, strict=True)]
        or [[0.0] * len(fits)]
    )
    best = best_strength(errors)
    return Round(
        n_directions=h,
        basis=whole.basis,
        fits=fits,
        flatness=[whole.flatness(fit) for fit in fits],
        errors=errors,
        outputs=[outputs[best] for outputs in predictions],
    )


def best_strength(errors: Float[np.ndarray, "folds strengths"]) -> int:
    """Return the index of the strength of least mean error over the folds."""
    return int(errors.mean(axis=0).argmin())


def _neighbours(strengths: np.ndarray, best: float) -> np.ndarray:
    centre = int(np.searchsorted(strengths, best))
    return strengths[max(0, centre - NEIGHBOURS) : centre + NEIGHBOURS + 1]


def choose(rounds: list[Round]) -> Round:
    """Return the round of fewest directions within one standard error of the least error."""
    least = min(rounds, key=lambda entry: entry.error)
    for entry in reversed(rounds):
        excess = entry.errors[:, entry.best] - least.errors[:, least.best]
        if excess.mean() <= _standard_error(excess):
            return entry
    return least


def _standard_error(errors: Float[np.ndarray, "folds *q"]) -> Any:
    """Return the standard error of the mean over the folds; a single fold has none."""
    if len(errors) < 2:
        return np.full(errors.shape[1:], np.nan)
    return errors.std(axis=0, ddof=1) / len(errors) ** 0.5


def sizes(most: int, fewest: int, max_rounds: int) -> list[int]:
    """Return the numbers of directions of the rounds, from the most to the fewest."""
    counts = [most]
    while counts[-1] > fewest:
        h = counts[-1]
        counts.append(max(fewest, h - 1 if h <= ONE_BY_ONE else int(KEPT_SHARE * h)))
    if len(counts) <= max_rounds + 1:
        return counts
    spaced = np.geomspace(most, fewest, max_rounds + 1).round().astype(int)
    return sorted(set(spaced.tolist()), reverse=True)


def fold_learners(
    folds: Iterable[tuple[Rows, Rows]], settings: NetworkSettings, device: torch.device
) -> Iterator[Learner]:
    """Make a learner for each fold."""
    for train, held_out in folds:
        yield Learner.on_fold(train, held_out, settings, device)
