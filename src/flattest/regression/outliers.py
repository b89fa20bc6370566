"""Outliers among the targets: a link is fitted with and without them, and the better one taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from flattest.regression.elimination import Network
from flattest.regression.smooth_link import SmoothLink
from flattest.regression.training_data import Rows, TrainingData

_FITS = 4
_FAR, _LARGE = 5.0, 3.0
"""Robust standard errors, and standard deviations of the other targets, beyond which a target is
an outlier."""
_EXTREME = 5.0
"""Distance from the median, in interquartile ranges, from which on a target is suspected."""
_SHARE, _MOST = 0.02, 0.1
"""The share of outliers expected beforehand, and the largest that is believed."""


class RobustFit(NamedTuple):
    """A link, the data it is fitted to, and the distinct rows that it leaves out as outliers."""

    link: SmoothLink
    data: TrainingData
    outliers: np.ndarray


def fit_robustly(
    rows: Rows,
    k: int | None,
    network: Network,
    rng: np.random.Generator,
    *,
    max_rounds: int,
    device: torch.device,
) -> RobustFit | None:
    r"""Fit a link; where targets lie far off, fit again without them, and take what fits better.

    A target is an outlier if it is more than 5 robust standard errors from what the other rows
    predict, and more than 3 of their standard deviations. Fits are compared by

    .. math::
        \sum_i \log\big((1 - \epsilon) \, N(r_i; 0, s_i^2) + \epsilon / \text{range}(y)\big)

    over all rows, ``r`` and ``s`` being residuals and standard errors without the row itself.

    Parameters
    ----------
    rows : Rows
        The data.
    k : int, optional
        The number of directions.
    network : Network
        What every network starts from.
    rng : numpy.random.Generator
        For the search.
    max_rounds : int
        Rounds of re-weighting.
    device : torch.device
        Where to compute.

    Returns
    -------
    RobustFit or None
        None where there is nothing to learn.
    """
    fits: list[tuple[float, RobustFit]] = []
    suspected = [np.zeros(len(rows.y), dtype=bool), _extreme(rows.y)]
    while suspected and len(fits) < _FITS:
        outliers = suspected.pop(0)
        tried = [fit.outliers for _, fit in fits]
        if outliers.mean() > _MOST or any((outliers == other).all() for other in tried):
            continue
        data = TrainingData.of(rows.without(outliers), bias=network.bias, device=device)
        if not data.varies:
            continue
        fit = RobustFit(SmoothLink.fit(data, k, network, rng, max_rounds), data, outliers)
        residual, error = _residuals(rows, fit)
        fits.append((_robust_likelihood(residual, error, float(np.ptp(rows.y))), fit))
        suspected.append(_far(residual, error, rows.y[~outliers]))
    return max(fits, key=lambda entry: entry[0])[1] if fits else None


def _extreme(y: np.ndarray) -> np.ndarray:
    """Suspect targets far from the median: a process may well follow outliers when it sees them."""
    low, middle, high = np.quantile(y, [0.25, 0.5, 0.75])
    return np.abs(y - middle) > _EXTREME * (high - low)


def _residuals(rows: Rows, fit: RobustFit) -> tuple[np.ndarray, np.ndarray]:
    """Predict each row from the others."""
    found = np.empty((2, len(rows.y)))
    found[:, ~fit.outliers] = torch.stack(fit.link.left_out(fit.data)).cpu().numpy()
    if fit.outliers.any():
        inputs = fit.data.standardise(rows.X[fit.outliers])
        target = rows.y[fit.outliers] - fit.data.standardise.intercept
        there = [torch.from_numpy(values).to(fit.data.inputs) for values in (inputs, target)]
        found[:, fit.outliers] = torch.stack(fit.link.residuals(*there)).cpu().numpy()
    return found[0], found[1]


def _far(residual: np.ndarray, error: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell the outliers."""
    relative = np.abs(residual) / error
    typical = 1.4826 * np.median(relative)
    return (relative > _FAR * typical) & (np.abs(residual) > _LARGE * others.std())


def _robust_likelihood(residual: np.ndarray, error: np.ndarray, span: float) -> float:
    normal = -0.5 * np.square(residual / error) - np.log(error) - 0.5 * np.log(2 * np.pi)
    spread = np.log(_SHARE / span) if span else -np.inf
    return float(np.logaddexp(np.log1p(-_SHARE) + normal, spread).sum())
