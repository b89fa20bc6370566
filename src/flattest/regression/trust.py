"""How far a network is trusted beside the processes: a variance, chosen by held-out error.

The network's prediction is taken for an observation of the function with some error variance (see
`prediction.link`). Each variance of a table is tried on rows that neither the processes nor the
network have seen, and the one with the least squared error is taken; but no smaller one than the
network's own error deserves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.regression.gaussian_process import Data
from flattest.regression.prediction.link import blend
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.training_data import Rows
from flattest.regression.tuning import NETWORK_ERRORS


class HeldOutFold(NamedTuple):
    """A fold: its training rows, its held-out rows, and a network's predictions of the latter.

    Parameters
    ----------
    train, held_out : Rows
        The rows.
    outputs : Tensor of shape (n,)
        The predictions of the rows held out.
    place : ndarray of shape (n,) or None
        The positions of the rows held out among all, where the others are the training rows.
    """

    train: Rows
    held_out: Rows
    outputs: Float[Tensor, " n"]
    place: Int[np.ndarray, " n"] | None = None

    @classmethod
    def of(
        cls, whole: Rows, train: Rows, held_out: Rows, outputs: Float[Tensor, " n"]
    ) -> HeldOutFold:
        """Make a fold of two parts of a whole."""
        here, there = held_out.place, train.place
        if here is None or there is None:
            return cls(train, held_out, outputs)
        # Splits may leave rows out, and weights are relative to those of their part.
        complete = np.array_equal(np.sort(np.append(here, there)), np.arange(len(whole.y)))
        same = complete and np.array_equal(train.weight, whole.weight[there])
        return cls(train, held_out, outputs, here if same else None)


def network_errors(
    part: Part,
    mean: Float[np.ndarray, " n"],
    variance: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    outputs: Float[np.ndarray, " n"],
) -> tuple[float, Float[np.ndarray, " q"]]:
    """Compare predictions with targets: those of the network alone, and every blend.

    Parameters
    ----------
    part : Part
        The processes.
    mean, variance : ndarray of shape (n,)
        Their function at rows that they have not seen.
    y, weight : ndarray of shape (n,)
        The targets of these rows, and how much each counts.
    outputs : ndarray of shape (n,)
        The network's predictions.

    Returns
    -------
    alone : float
        The mean squared error of the network, in the units of the part.
    blended : ndarray of shape (q,)
        The mean squared error, in units of the targets, with each of `NETWORK_ERRORS`.
    """
    observed = part.units(outputs)
    noise = part.mixture.noise
    means = [
        part.units.moments(blend(mean, variance, observed, error), variance, noise)[0]
        for error in NETWORK_ERRORS
    ]
    squares = np.square(np.stack(means) - y)
    alone = float((weight * np.square(observed - part.units(y))).mean())
    return alone, squares @ weight / len(y)


def choose_error(alone: float, blended: Float[np.ndarray, " q"]) -> float:
    """Choose the variance of the least error, to the table's spacing no less than `alone`.

    Parameters
    ----------
    alone, blended
        As `network_errors` returns them, or averages over folds.

    Returns
    -------
    float
        One of `NETWORK_ERRORS`.
    """
    first = max(int(np.searchsorted(NETWORK_ERRORS, alone)) - 1, 0)
    return float(NETWORK_ERRORS[first + int(blended[first:].argmin())])


def trusting(
    link: SmoothLink, standardise: Standardisation, folds: Iterable[HeldOutFold]
) -> SmoothLink:
    """Choose for each part of a link how far it trusts a network; without folds, not at all.

    The processes forget the held-out rows, unless rows are many: then a few make no difference.
    """
    by_fold = [fold_errors(link, standardise, fold) for fold in folds]
    if not by_fold:
        return link
    parts = []
    for part, errors in zip(link.parts, zip(*by_fold, strict=True), strict=True):
        alone, blended = (np.mean(values, axis=0) for values in zip(*errors, strict=True))
        parts.append(part._replace(network_error=choose_error(float(alone), blended)))
    return link._replace(parts=tuple(parts))


def fold_errors(
    link: SmoothLink, standardise: Standardisation, fold: HeldOutFold
) -> list[tuple[float, np.ndarray]]:
    """Return the errors on the held-out rows of a fold, for each part of the link."""
    held_out, errors = fold.held_out, []
    z = _coordinates(link, standardise, held_out)
    for part in link.parts:
        mixture = part.mixture
        if fold.place is not None and mixture.rows is not None:
            mean, variance = mixture.without(torch.from_numpy(fold.place).to(z.device))
        else:
            if len(fold.train.y) <= mixture.n_points:
                points = _coordinates(link, standardise, fold.train)
                target, weight = part.units(fold.train.y), fold.train.weight
                others = (torch.from_numpy(values).to(z) for values in (target, weight))
                mixture = mixture.conditioned_on(Data.of(points, *others))
            mean, variance, _ = mixture(z)
        moments = mean.cpu().numpy(), variance.cpu().numpy()
        outputs = fold.outputs.cpu().numpy()
        errors.append(network_errors(part, *moments, held_out.y, held_out.weight, outputs))
    return errors


def _coordinates(
    link: SmoothLink, standardise: Standardisation, rows: Rows
) -> Float[Tensor, "n h"]:
    """Return rows in the coordinates of a link."""
    return torch.from_numpy(standardise(rows.X)).to(link.basis) @ link.basis
