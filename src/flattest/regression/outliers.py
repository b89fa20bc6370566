"""Outliers among the targets, and their logarithms: links with and without, the best one taken."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from flattest.progress import progress_bar
from flattest.regression.elimination import Network
from flattest.regression.mixture import share_of_worse
from flattest.regression.projection_search import STEPS
from flattest.regression.smooth_link import SmoothLink
from flattest.regression.target_scale import TargetScale, may_be_logarithmic
from flattest.regression.training_data import Rows, TrainingData

_FITS = 4
"""To the targets at most, and as many to their logarithms."""
_FAR, _LARGE = 5.0, 3.0
"""Robust standard errors, and standard deviations of the other targets, beyond which a target may
be an outlier."""
_VERY_FAR, _RATHER_LARGE = 20.0, 2.0
"""The same where it is not its own standard error that counts, but what is usual for all rows."""
_EXTREME = 5.0
"""Distance from the median, in interquartile ranges, from which on a target is suspected."""
_SHARE, _MOST = 0.02, 0.1
"""The share of outliers expected beforehand, and the largest that is believed."""
_LEAST = 0.05
"""The share below which the worse units count for nothing."""


class RobustFit(NamedTuple):
    """A link, the data it is fitted to, and the distinct rows that it leaves out as outliers."""

    link: SmoothLink
    data: TrainingData
    outliers: np.ndarray


class _Suspected(NamedTuple):
    """Rows that may be outliers, in what units, and the score of the fit that says so."""

    score: float
    logarithmic: bool
    outliers: np.ndarray


class _Judged(NamedTuple):
    """A fit, and how well it predicts each row from the others."""

    fit: RobustFit
    density: np.ndarray
    """Logarithms of the densities of the targets."""

    @property
    def score(self) -> float:
        """Their sum, less Schwarz's price of the parameters, which were fitted to the same rows.

        An outlier is one too, as if it had been shifted by an amount of its own.
        """
        parameters = self.fit.link.mixture.processes[0].n_parameters + self.fit.outliers.sum()
        return float(self.density.sum() - parameters * np.log(len(self.density)) / 2)


def fit_robustly(
    rows: Rows,
    k: int | None,
    network: Network,
    rng: np.random.Generator,
    *,
    max_rounds: int,
    device: torch.device,
    verbose: Any = 0,
) -> RobustFit | None:
    r"""Fit a link; where targets lie far off, fit again without them, and take what fits better.

    To logarithms of the targets too, where these are positive and the logarithms less skewed. A
    target may be an outlier if it is more than 5 robust standard errors from what the other rows
    predict, and more than 3 of their standard deviations; or if its residual is more than 20 times
    the usual one, and 2 of these deviations, since a process that follows an outlier becomes rough
    there, and unsure. A fit without it tells better: where that predicts the target within 5 of its
    robust standard errors, or where it is likelier than an outlier would be, it is put back. The
    function is conditioned on it; directions and lengths stay as they were found without it. Fits
    are compared by

    .. math::
        \sum_i \log\big((1 - \epsilon) \, N(r_i; 0, s_i^2) \, u'(y_i)
        + \epsilon / \text{range}(y)\big)

    over all rows, ``r`` and ``s`` being residuals and standard errors without the row itself, in
    the units ``u`` of the fit, less ``log(n) / 2`` per parameter and outlier. Where neither the
    targets nor their logarithms are clearly better, predictions are averages of both.

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
    verbose
        As for the estimator.

    Returns
    -------
    RobustFit or None
        None where there is nothing to learn.
    """
    judged: list[_Judged] = []
    suspected = _at_first(rows.y, logarithmic=False)
    if may_be_logarithmic(rows.y):
        suspected += _at_first(rows.y, logarithmic=True)
    tried: list[tuple[bool, bytes]] = []
    text, what = "{task.completed:.0f}/{task.total:.0f} steps", "searching for directions"
    with progress_bar(what, text, shown=bool(verbose), total=STEPS) as bar:
        while suspected:
            # What the best fit suspects comes first: not all that is suspected can be tried.
            first = max(range(len(suspected)), key=lambda i: suspected[i].score)
            _, logarithmic, outliers = suspected.pop(first)
            fits = sum(units == logarithmic for units, _ in tried)
            if fits == _FITS or outliers.mean() > _MOST:
                continue
            if (logarithmic, outliers.tobytes()) in tried:
                continue
            tried.append((logarithmic, outliers.tobytes()))
            kept = rows.without(outliers)
            data = TrainingData.of(kept, bias=network.bias, device=device)
            if not data.varies:
                continue
            what = (
                f", {outliers.sum()} outliers left out" * bool(outliers.any())
                + ", log" * logarithmic
            )
            bar.update(
                description=f"searching for directions{what}",
                completed=STEPS * len(judged),
                total=STEPS * (len(judged) + 1 + len(suspected)),
            )
            units = TargetScale.of(
                kept.y, kept.weight, logarithmic=logarithmic, centred=network.bias
            )
            link = SmoothLink.fit(data, units, kept.y, k, network, rng, max_rounds, bar.advance)
            entry, far = _judge(rows, RobustFit(link, data, outliers), rng)
            judged.append(entry)
            suspected.append(_Suspected(entry.score, logarithmic, far))
    return _averaged(rows, judged, rng) if judged else None


def _at_first(y: np.ndarray, *, logarithmic: bool) -> list[_Suspected]:
    """Suspect none, and those far from the median: a process may follow what it sees."""
    values = np.log(y) if logarithmic else y
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    extreme = np.abs(values - middle) > _EXTREME * (high - low)
    return [_Suspected(np.inf, logarithmic, rows) for rows in (np.zeros_like(extreme), extreme)]


def _judge(rows: Rows, fit: RobustFit, rng: np.random.Generator) -> tuple[_Judged, np.ndarray]:
    """Judge a fit, and suspect rows by it; what it left out, and yet predicts, is put back."""
    residual, error = _residuals(rows, fit)
    normal, spread = _densities(rows.y, fit, residual, error)
    # Of rows that it has not seen a fit is not unsure because it followed them.
    odd = fit.outliers & _beyond(_FAR, np.abs(residual) / error) & (spread > normal)
    others = fit.link.units(torch.from_numpy(rows.y[~fit.outliers])).numpy()
    far = np.where(fit.outliers, odd, _far(residual, error, others))
    if (odd != fit.outliers).any():
        kept = rows.without(odd)
        data = fit.data.on(kept)
        fit = RobustFit(fit.link.on(data, kept.y, rng), data, odd)
        normal, spread = _densities(rows.y, fit, *_residuals(rows, fit))
    return _Judged(fit, np.logaddexp(normal, spread)), far


def _residuals(rows: Rows, fit: RobustFit) -> tuple[np.ndarray, np.ndarray]:
    """Predict each row from the others."""
    found = np.empty((2, len(rows.y)))
    kept = fit.link.left_out(fit.data.inputs, rows.y[~fit.outliers])
    found[:, ~fit.outliers] = torch.stack(kept).cpu().numpy()
    if fit.outliers.any():
        inputs = torch.from_numpy(fit.data.standardise(rows.X[fit.outliers])).to(fit.data.inputs)
        others = fit.link.residuals(inputs, rows.y[fit.outliers])
        found[:, fit.outliers] = torch.stack(others).cpu().numpy()
    return found[0], found[1]


def _far(residual: np.ndarray, error: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Suspect targets far from what the other rows predict."""
    size, spread = np.abs(residual), others.std()
    far = _beyond(_FAR, size / error) & (size > _LARGE * spread)
    return far | (_beyond(_VERY_FAR, size) & (size > _RATHER_LARGE * spread))


def _beyond(factor: float, sizes: np.ndarray) -> np.ndarray:
    """Tell what is larger than a number of robust standard deviations."""
    return sizes > factor * 1.4826 * np.median(sizes)


def _densities(
    y: np.ndarray, fit: RobustFit, residual: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the logarithm of the density of each target, and of outliers, times their shares."""
    span = np.ptp(y)
    normal = -0.5 * np.square(residual / error) - np.log(error) - 0.5 * np.log(2 * np.pi)
    spread = float(np.log(_SHARE / span)) if span else -np.inf
    return np.log1p(-_SHARE) + normal + fit.link.units.log_slope(y), spread


def _averaged(rows: Rows, judged: list[_Judged], rng: np.random.Generator) -> RobustFit:
    """Return the best fit, averaged with the best one in other units on the same directions."""
    best, *rest = sorted(judged, key=lambda entry: -entry.score)
    logarithmic = best.fit.link.units.logarithmic
    others = [entry.fit for entry in rest if entry.fit.link.units.logarithmic != logarithmic]
    if not others:
        return best.fit
    link, data, outliers = best.fit
    factor = others[0].data.standardise.inverse_scale * data.standardise.scale
    seen = link.seen_by(others[0].link, factor, data, rows.y[~outliers], rng)
    fit = best.fit._replace(link=seen)
    other = _Judged(fit, np.logaddexp(*_densities(rows.y, fit, *_residuals(rows, fit))))
    gain = max(best.score - other.score, 0.0)
    share = share_of_worse(gain, best.density - other.density)
    return best.fit._replace(link=link.averaged(seen, share)) if share > _LEAST else best.fit
