"""Elimination of directions: networks on ever fewer combinations of the features.

In each round a network is fitted on the directions still in play, and the leading eigenvectors of
its average gradient outer product go on to the next. Cross-validation runs in step with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from joblib import Parallel, delayed
from torch import Tensor

from flattest.progress import progress_bar
from flattest.regression.regularisation_path import Fit, Penalty, regularisation_path
from flattest.regression.training_data import Rows, Standardisation, TrainingData, with_bias
from flattest.threads import one_thread
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet

_KEPT = 0.6
_ONE_BY_ONE = 5
"""Share of the directions that a round of elimination keeps; from so few on, it drops one."""
_NEIGHBOURS = 2
"""Strengths tried on either side of the best one of the round before."""
_ROWS = 8192  # predicted together, to bound the memory


class Network(NamedTuple):
    """What every network starts from."""

    activation: Homogeneous
    width: int
    max_iter: int
    penalty: Penalty
    bias: bool


Beside = Callable[[Tensor], list[tuple[float, np.ndarray]]]
"""Tells of predictions of held-out rows what `HeldOut` calls beside."""


class HeldOut(NamedTuple):
    """How far a network is from held-out targets."""

    error: float
    """The mean squared error."""
    beside: list[tuple[float, np.ndarray]]
    """For each part of the link beside it, if there is one, the mean squared error in its units,
    and those of the two together in units of the targets, the more trust in the process the
    later."""


class Round(NamedTuple):
    """What is left of one round: the networks on all rows, and the errors of the folds."""

    n_directions: int
    basis: Float[Tensor, "d h"]
    fits: list[Fit]
    flatness: list[float]
    """Of each network its reflected orbit minimum, as a function of these directions."""
    held_out: list[list[HeldOut]]
    """For each fold and strength."""

    @property
    def errors(self) -> Float[np.ndarray, "folds strengths"]:
        """Errors on held-out rows."""
        return np.array([[entry.error for entry in fold] for fold in self.held_out])

    @property
    def best(self) -> int:
        """Index of the strength of least mean error."""
        return int(self.errors.mean(axis=0).argmin())

    @property
    def error(self) -> float:
        """The error at that strength."""
        return float(self.errors[:, self.best].mean())

    @property
    def beside(self) -> list[tuple[float, np.ndarray]]:
        """Mean errors at that strength for each part of a link."""
        folds = zip(*(fold[self.best].beside for fold in self.held_out), strict=True)
        means = [[np.mean(values, axis=0) for values in zip(*part, strict=True)] for part in folds]
        return [(float(alone), blended) for alone, blended in means]

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
                "cv_standard_error": _standard_error(self.errors),
                "flatness": self.flatness,
            }
        )


class Learner:
    """Networks on some of the rows, on ever fewer directions.

    The whole fit is one learner on all rows and one per fold, all going through the same rounds:
    the held-out rows of a fold have no part in choosing its directions, but for the strength,
    which all folds share.
    """

    def __init__(
        self, data: TrainingData, network: Network, split: tuple[Rows, Rows] | None = None
    ) -> None:
        self.data, self.network = data, network
        self.basis = data.basis  # of the directions still in play: (d, h), orthonormal
        self.split = split  # training and held-out rows
        self.beside: Beside | None = None

    def restrict(
        self,
        directions: Float[Tensor, "d k"],
        standardise: Standardisation,
        beside: Callable[[Standardisation, Rows, Rows], Beside],
    ) -> None:
        """Go on with directions that a process found in other units, and beside it."""
        if self.split:
            self.beside = beside(standardise, *self.split)
        factor = torch.from_numpy(standardise.inverse_scale * self.data.standardise.scale)
        scaled = factor.to(directions)[:, None] * directions
        self.basis = torch.linalg.qr(scaled)[0]

    def path(self, strengths: np.ndarray, seed: int) -> tuple[list[Fit], list[HeldOut]]:
        """Fit on the current directions; return networks on all features, and their errors."""
        network, h = self.network, self.basis.shape[1]
        fits = regularisation_path(
            *self._weighted(),
            network.activation,
            strengths.tolist(),
            width=network.width,
            max_iter=network.max_iter,
            penalty=network.penalty,
            rng=np.random.default_rng(seed),
        )
        fits = [
            fit._replace(
                weights=torch.cat([fit.weights[:, :h] @ self.basis.T, fit.weights[:, h:]], dim=1)
            )
            for fit in fits
        ]
        return fits, self._held_out(fits)

    def _weighted(self) -> tuple[Tensor, Tensor]:
        """Return inputs of the current directions, and targets."""
        network, inputs = self.network, self.data.inputs @ self.basis
        return self.data.weighted(inputs, network.bias, network.activation.degree)

    def flatness(self, fit: Fit) -> float:
        """Measure the reflected orbit minimum of a network on the current directions."""
        d = len(self.basis)
        weights = torch.cat([fit.weights[:, :d] @ self.basis, fit.weights[:, d:]], dim=1)
        net = TwoLayerNet(weights, fit.coefficients, self.network.activation)
        return measure(net, *self._weighted()).reflected_orbit_minimum

    def _held_out(self, fits: list[Fit]) -> list[HeldOut]:
        if self.split is None:
            return []
        rows, standardise = self.split[1], self.data.standardise
        inputs = torch.from_numpy(standardise(rows.X)).to(self.data.inputs)
        found = []
        for fit in fits:
            net = TwoLayerNet(fit.weights, fit.coefficients, self.network.activation)
            outputs = standardise.intercept + evaluate(net, inputs, self.network.bias)
            squares = np.square(outputs.cpu().numpy() - rows.y)
            error = float(np.average(squares, weights=rows.weight))
            found.append(HeldOut(error, self.beside(outputs) if self.beside else []))
        return found

    def gradients(self, fit: Fit) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of the average gradient outer product, largest first."""
        inputs, weight = self.data.inputs, self.data.weight
        d = len(self.basis)
        gram = fit.weights.new_zeros(len(fit.weights), len(fit.weights))
        for block, share in zip(inputs.split(_ROWS), weight.split(_ROWS), strict=True):
            z = with_bias(block, self.network.bias) @ fit.weights.T
            slopes = self.network.activation.derivative(z)
            gram += (slopes * share[:, None]).T @ slopes / len(inputs)
        W = (fit.weights[:, :d] * fit.coefficients[:, None]) @ self.basis
        values, vectors = torch.linalg.eigh(W.T @ gram @ W)
        return values.flip(0).clamp_min(0), self.basis @ vectors.flip(1)


def fold_learners(
    splits: Iterable[tuple[np.ndarray, np.ndarray]],
    X: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    network: Network,
    device: torch.device,
) -> Iterator[Learner]:
    """Make a learner per split, of which rows on both sides count."""
    for split in splits:
        if all(weight[part].any() for part in split):
            train, held_out = (Rows.of(X[part], y[part], weight[part]) for part in split)
            data = TrainingData.of(train, bias=network.bias, device=device)
            yield Learner(data, network, (train, held_out))


def eliminate(
    learners: list[Learner],
    strengths: np.ndarray,
    fewest: int,
    rng: np.random.Generator,
    *,
    max_rounds: int,
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
    rng : numpy.random.Generator
        Seeds the networks.
    max_rounds : int
        The most rounds after the first.
    n_jobs, verbose
        As for the estimator.

    Returns
    -------
    list of Round
        From the most directions to the fewest.
    """
    rounds: list[Round] = []
    near, counts = strengths, sizes(learners[-1].basis.shape[1], fewest, max_rounds)
    later = min(2 * _NEIGHBOURS + 1, len(strengths))
    networks = len(learners) * (len(strengths) + (len(counts) - 1) * later)
    text = "{task.completed:.0f}/{task.total:.0f} networks"
    with progress_bar("", text, shown=bool(verbose), total=networks) as bar, one_thread():
        for h, following in zip(counts, [*counts[1:], None], strict=True):
            bar.update(description=f"fitting on {h} direction{'s' * (h > 1)}")
            seeds = rng.integers(2**63, size=len(learners)).tolist()
            paths = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
                delayed(learner.path)(near, seed)
                for learner, seed in zip(learners, seeds, strict=True)
            )
            results = []
            for path in paths:
                results.append(path)
                bar.advance(later if rounds else len(strengths))
            rounds.append(_round(learners, results, h))
            near = _neighbours(strengths, near[rounds[-1].best])
            if following is not None:
                for learner, (fits, _) in zip(learners, results, strict=True):
                    learner.basis = learner.gradients(fits[rounds[-1].best])[1][:, :following]
    return rounds


def _round(
    learners: list[Learner], results: list[tuple[list[Fit], list[HeldOut]]], h: int
) -> Round:
    fits, whole = results[-1][0], learners[-1]
    nothing = [HeldOut(0.0, [])] * len(fits)
    held_out = [of_fold for _, of_fold in results[:-1]] or [nothing]
    return Round(h, whole.basis, fits, [whole.flatness(fit) for fit in fits], held_out)


def _neighbours(strengths: np.ndarray, best: float) -> np.ndarray:
    centre = int(np.searchsorted(strengths, best))
    return strengths[max(0, centre - _NEIGHBOURS) : centre + _NEIGHBOURS + 1]


def evaluate(net: TwoLayerNet, inputs: Float[Tensor, "n d"], bias: bool) -> Float[Tensor, " n"]:
    """Evaluate a network on standardised inputs, some rows at a time."""
    with torch.no_grad():
        return torch.cat([net(with_bias(block, bias)) for block in inputs.split(_ROWS)])


def choose(rounds: list[Round]) -> Round:
    """Return the fewest directions within one standard error of the least error."""
    least = min(rounds, key=lambda entry: entry.error)
    for entry in reversed(rounds):
        excess = entry.errors[:, entry.best] - least.errors[:, least.best]
        if excess.mean() <= _standard_error(excess):
            return entry
    return least


def _standard_error(errors: Float[np.ndarray, "folds *q"]) -> Any:
    """Return the standard error of the mean over the folds; one fold has none."""
    if len(errors) < 2:
        return np.full(errors.shape[1:], np.nan)
    return errors.std(axis=0, ddof=1) / len(errors) ** 0.5


def sizes(most: int, fewest: int, max_rounds: int) -> list[int]:
    """Return the numbers of directions that the rounds go through."""
    counts = [most]
    while counts[-1] > fewest:
        h = counts[-1]
        counts.append(max(fewest, h - 1 if h <= _ONE_BY_ONE else int(_KEPT * h)))
    if len(counts) <= max_rounds + 1:
        return counts
    spaced = np.geomspace(most, fewest, max_rounds + 1).round().astype(int)
    return sorted(set(spaced.tolist()), reverse=True)
