"""The schedule of fits: to targets and to their logarithms, with and without suspected outliers.

Every fit is judged by how well it predicts each row from the others, and may suspect rows, without
which the next one is fitted. The best one is kept, averaged with the best one in the other units
where neither is clearly better.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from flattest.progress import progress_bar
from flattest.regression import outliers
from flattest.regression.mixture import share_of_worse
from flattest.regression.prediction.target_scale import TargetScale, may_be_logarithmic
from flattest.regression.smooth_link import SmoothLink, StartsOf
from flattest.regression.training_data import Rows, TrainingData
from flattest.regression.tuning import (
    LARGEST_OUTLIER_SHARE,
    LEAST_UNITS_SHARE,
    MOST_FITS_PER_UNITS,
    MOST_NOISE_TO_START_FROM,
    NEARLY_NATS,
    SEARCH_STEPS,
)


class RobustFit(NamedTuple):
    """A link, the data it is fitted to, and the distinct rows that it leaves out as outliers."""

    link: SmoothLink
    data: TrainingData
    outliers: Bool[np.ndarray, " n"]


class Suspicion(NamedTuple):
    """Rows to be left out of a fit, in which units, and how good the fit is that suspects them.

    A thorough fit searches for the directions anew; others start from those of the best one.
    """

    score: float
    logarithmic: bool
    outliers: Bool[np.ndarray, " n"]
    thorough: bool = False

    @property
    def key(self) -> tuple[bool, bytes]:
        """What tells it from others."""
        return self.logarithmic, self.outliers.tobytes()

    @property
    def description(self) -> str:
        """What is fitted, for the progress bar."""
        left_out = f", {self.outliers.sum()} outliers left out" * bool(self.outliers.any())
        return f"searching for directions{left_out}{', log' * self.logarithmic}"


class Schedule:
    """The suspicions still to be tried, those of the best fits first.

    Parameters
    ----------
    y : ndarray of shape (n,)
        The targets. At first no row is suspected, or those far from the median, in linear units
        and, where targets may be fitted as these, in logarithms.
    """

    def __init__(self, y: Float[np.ndarray, " n"]) -> None:
        self._waiting: list[Suspicion] = []
        skewed = may_be_logarithmic(y)
        for logarithmic in (False, True) if skewed else (False,):
            extreme = outliers.extreme(np.log(y) if logarithmic else y)
            self._waiting.append(Suspicion(np.inf, logarithmic, np.zeros_like(extreme)))
            # Directions found with such targets may be theirs; but skewed ones have a long tail.
            thorough = logarithmic or not skewed
            self._waiting.append(Suspicion(np.inf, logarithmic, extreme, thorough))
        self._tried: list[tuple[bool, bytes]] = []

    def __len__(self) -> int:
        """Count the suspicions that wait."""
        return len(self._waiting)

    def add(self, suspicion: Suspicion) -> None:
        """Let a suspicion wait."""
        self._waiting.append(suspicion)

    def next(self) -> Suspicion | None:
        """Return what to fit next; None where nothing is left that is new and may be believed."""
        while self._waiting:
            # What the best fit suspects comes first: not all that is suspected can be tried.
            first = max(range(len(self._waiting)), key=lambda i: self._waiting[i].score)
            suspicion = self._waiting.pop(first)
            fits = sum(units == suspicion.logarithmic for units, _ in self._tried)
            too_many = suspicion.outliers.mean() > LARGEST_OUTLIER_SHARE
            if fits < MOST_FITS_PER_UNITS and not too_many and suspicion.key not in self._tried:
                self._tried.append(suspicion.key)
                return suspicion
        return None


class Judged(NamedTuple):
    """A fit, and the logarithms of the densities it gives each target from the other rows."""

    fit: RobustFit
    density: Float[np.ndarray, " n"]

    @property
    def score(self) -> float:
        """The sum of the densities less Schwarz's price of what was fitted to the same rows.

        That is the variances of the process, and the outliers, as if each had been shifted by an
        amount of its own. Directions and lengths have no price: without a row itself its density is
        what they are worth.
        """
        process = self.fit.link.mixture.processes[0]
        parameters = len(process.variances) + 1 + self.fit.outliers.sum()
        return float(self.density.sum() - parameters * np.log(len(self.density)) / 2)


def fit_robustly(
    rows: Rows,
    k: int | None,
    starts_of: StartsOf,
    rng: np.random.Generator,
    *,
    bias: bool,
    device: torch.device,
    verbose: Any = 0,
) -> RobustFit | None:
    r"""Fit a link; where targets lie far off, fit again without them, and take what fits better.

    Fits are compared by

    .. math::
        \sum_i \log\big((1 - \epsilon) \, N(r_i; 0, s_i^2) \, u'(y_i)
        + \epsilon / \text{range}(y)\big)

    over all rows, where ``r`` and ``s`` are residuals and standard errors without the row itself in
    the units ``u`` of the fit, less ``log(n) / 2`` per variance and outlier.

    Parameters
    ----------
    rows : Rows
        The data.
    k : int, optional
        The number of directions; None for a choice by the evidence.
    starts_of : callable
        Makes the starts of the searches.
    rng : numpy.random.Generator
        For the searches.
    bias : bool
        Whether features and targets are centred.
    device : torch.device
        Where to compute.
    verbose
        As for the estimator.

    Returns
    -------
    RobustFit or None
        None where there is nothing to learn.
    """
    judged: list[Judged] = []
    searched: set[tuple[bool, bytes]] = set()
    schedule = Schedule(rows.y)
    text, what = "{task.completed:.0f}/{task.total:.0f} steps", "searching for directions"
    with progress_bar(what, text, shown=bool(verbose), total=SEARCH_STEPS) as bar:
        while suspicion := schedule.next() or _best_unsearched(judged, searched):
            kept = rows.without(suspicion.outliers)
            data = TrainingData.of(kept, bias=bias, device=device)
            if not data.varies:
                continue
            bar.update(
                description=suspicion.description,
                completed=SEARCH_STEPS * len(judged),
                total=SEARCH_STEPS * (len(judged) + 1 + len(schedule)),
            )
            units = TargetScale.of(
                kept.y, kept.weight, logarithmic=suspicion.logarithmic, centred=bias
            )
            link = None
            if judged and not suspicion.thorough:
                link = _fitted_again(_best(judged).fit, data, units, kept.y, k, rng)
            if link is None:
                searched.add(suspicion.key)
                link = SmoothLink.fit(data, units, kept.y, k, starts_of, rng, bar.advance)
            entry, far = judge(rows, RobustFit(link, data, suspicion.outliers), rng)
            if suspicion.thorough and entry.score > suspicion.score - NEARLY_NATS:
                hasty = _best(judged)  # the same fit, with less care
                judged = [other for other in judged if other is not hasty]
            judged.append(entry)
            schedule.add(Suspicion(entry.score, suspicion.logarithmic, far))
    return average(rows, judged, rng) if judged else None


def _best(judged: list[Judged]) -> Judged:
    return max(judged, key=lambda entry: entry.score)


def _best_unsearched(judged: list[Judged], searched: set[tuple[bool, bytes]]) -> Suspicion | None:
    """Return what the best fit so far is a fit of, to be searched, unless it was."""
    if not judged:
        return None
    best = _best(judged)
    units = best.fit.link.units.logarithmic
    suspicion = Suspicion(best.score, units, best.fit.outliers, thorough=True)
    return None if suspicion.key in searched else suspicion


def _fitted_again(
    before: RobustFit,
    data: TrainingData,
    units: TargetScale,
    y: Float[np.ndarray, " n"],
    k: int | None,
    rng: np.random.Generator,
) -> SmoothLink | None:
    """Start from another fit, which saves most of a search, if that explains anything."""
    process = before.link.mixture.processes[0]
    if process.noise > MOST_NOISE_TO_START_FROM * process.variance:
        return None
    factor = before.data.standardise.inverse_scale * data.standardise.scale
    return before.link.fitted_again(factor, data, units, y, k, rng)


def judge(
    rows: Rows, fit: RobustFit, rng: np.random.Generator
) -> tuple[Judged, Bool[np.ndarray, " n"]]:
    """Judge a fit, put back what it left out and yet predicts, and suspect rows by it.

    The function is conditioned on rows put back; its directions and lengths stay as they were found
    without them.
    """
    left_out = fit.outliers
    residual, error = residuals(rows, fit)
    normal, outlier = _log_densities(rows, fit, residual, error)
    odd = outliers.still_odd(left_out, residual, error, normal, outlier)
    others = fit.link.units(rows.y[~left_out])
    far = np.where(left_out, odd, outliers.suspects(residual, error, others))
    if (odd == left_out).all():
        return Judged(fit, np.logaddexp(normal, outlier)), far
    kept = rows.without(odd)
    data = fit.data.with_rows(kept)
    fit = RobustFit(fit.link.conditioned_on(data, kept.y, rng), data, odd)
    return _judged(rows, fit), far


def _judged(rows: Rows, fit: RobustFit) -> Judged:
    """Judge a fit by how it predicts each row from the others, and leave it as it is."""
    return Judged(fit, np.logaddexp(*_log_densities(rows, fit, *residuals(rows, fit))))


def residuals(
    rows: Rows, fit: RobustFit
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the residual of each row without the row itself, and its standard error."""
    found = np.empty((2, len(rows.y)))
    kept = fit.link.left_out(fit.data.inputs, rows.y[~fit.outliers])
    found[:, ~fit.outliers] = torch.stack(kept).cpu().numpy()
    if fit.outliers.any():
        inputs = torch.from_numpy(fit.data.standardise(rows.X[fit.outliers])).to(fit.data.inputs)
        others = fit.link.residuals(inputs, rows.y[fit.outliers])
        found[:, fit.outliers] = torch.stack(others).cpu().numpy()
    return found[0], found[1]


def _log_densities(
    rows: Rows, fit: RobustFit, residual: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, float]:
    return outliers.log_densities(rows.y, residual, error, fit.link.units.log_slope(rows.y))


def average(rows: Rows, judged: list[Judged], rng: np.random.Generator) -> RobustFit:
    """Return the best fit, averaged with the best one in the other units.

    The latter's processes are taken to the directions of the former, so that predictions depend on
    these alone.
    """
    best, *rest = sorted(judged, key=lambda entry: -entry.score)
    logarithmic = best.fit.link.units.logarithmic
    others = [entry.fit for entry in rest if entry.fit.link.units.logarithmic != logarithmic]
    if not others:
        return best.fit
    link, data, left_out = best.fit
    factor = others[0].data.standardise.inverse_scale * data.standardise.scale
    seen = link.with_processes_of(others[0].link, factor, data, rows.y[~left_out], rng)
    other = _judged(rows, best.fit._replace(link=seen))
    gain = max(best.score - other.score, 0.0)
    share = share_of_worse(gain, best.density - other.density)
    if share <= LEAST_UNITS_SHARE:
        return best.fit
    return best.fit._replace(link=link.averaged_with(seen, share))
