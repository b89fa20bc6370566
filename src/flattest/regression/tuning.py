"""The numbers that the regressor was tuned with, in one table, and what each was chosen for.

They were chosen on data of seeds of their own, never on those of the published comparison. A
*direction* is a linear combination of the features, a *nat* a unit of log likelihood, and *rows*
are those that count.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Effort(NamedTuple):
    """When a fit of a process stops.

    Parameters
    ----------
    max_iter : int
        The most iterations.
    tol : float
        The improvement, in nats per row, that is still worth another iteration.
    single : float
        The least noise, as a share of the prior variance, down to which single precision will do:
        below, the covariance of some hundred rows is conditioned too badly for the tolerance.
    part : int, optional
        The least rows of a part of a block: as many parts as there can be are taken for independent
        of one another while fitting, though not in the score. By default blocks stay whole.
    """

    max_iter: int
    tol: float
    single: float = math.inf
    part: int | None = None


# --- units of the targets and outliers (robust_fit, outliers, target_scale) ------------------
MOST_FITS_PER_UNITS = 4
"""Fits to the targets, and as many to their logarithms: later suspicions have not paid."""
MOST_NOISE_TO_START_FROM = 1.0
"""Noise, in prior variances, of a fit from which others may start: beyond, it has found nothing."""
FAR_IN_ERRORS, FAR_IN_DEVIATIONS = 5.0, 3.0
"""A target may be an outlier this many robust standard errors from its prediction, if that is also
this many standard deviations of all targets: a fit that is very sure is not trusted alone."""
VERY_FAR_IN_RESIDUALS, VERY_FAR_IN_DEVIATIONS = 20.0, 2.0
"""The same in units of the usual residual, for a fit that followed an outlier and is unsure there;
farther, since residuals of different rows are less alike than standardised ones."""
EXTREME_IN_QUARTILE_RANGES = 5.0
"""Distance from the median from which a target is suspected before any fit."""
OUTLIER_SHARE, LARGEST_OUTLIER_SHARE = 0.02, 0.1
"""The share of outliers expected, and the largest that is believed."""
LEAST_UNITS_SHARE = 0.05
"""Share below which predictions in the worse units are not worth the time they take."""
BELIEVED_BEYOND_TARGETS = 0.25
"""How far beyond the range of the targets a mean of logarithms is believed, in ranges: the
exponential of a line that goes on soon exceeds all bounds."""

# --- the search for directions (projection_search) -------------------------------------------
MOST_DIRECTIONS = 5
"""Directions at the start, where their number is not given."""
COMPARED_DIRECTIONS = 3
"""Directions down to which every start is followed; below, the best one goes on alone."""
SAME_END_NATS, SAME_END_COSINE = 0.1, 0.85
"""Nats per row by which two starts may differ that have come to the same end, and the least cosine
between their average gradient outer products."""
NEAR_NATS = 0.1
"""Nats per row within which a worse candidate may still win with another kernel; half of it, where
both were fitted with care and the other one is tried with more kernels too."""
MORE_NATS, MORE_NATS_PER_ROW = 10.0, 0.02
"""Nats, of all rows or per row, within which one of more directions may win so."""
CARE_NATS, CARE_NATS_PER_ROW = 25.0, 0.05
"""Nats, of all rows or per row, by which a careful fit may be better than a rough one."""
NEARLY_NATS = 5.0
"""Nats, of all rows, within which a candidate may win once its lengths are fitted to the end."""
TIED_NATS = 1.0
"""Nats, of all rows, that do not matter: the odds are less than three to one."""
START_ROWS_PER_FEATURE, FEWEST_START_ROWS, MOST_START_ROWS = 20, 250, 1000
"""Rows on which starts are compared."""
SEARCH_ROWS, SEARCH_BLOCK = 1000, 500
"""Rows of the search, and of a block of them: factorisations cost the cube of the block."""
FINAL_ROWS, FINAL_BLOCK, EXACT_ROWS = 4000, 500, 1000
"""Rows of the last fit, of its blocks, and up to which it is done in one block."""
PASSING = Effort(max_iter=15, tol=5e-4, single=5e-3, part=250)
"""On the way to fewer directions, where rows are plenty."""
ROUGH = Effort(max_iter=25, tol=5e-4, single=5e-3, part=250)
"""To see whether a candidate is worth more."""
FINE = Effort(max_iter=60, tol=1e-4, single=2e-2)
"""For candidates near the best one."""
LENGTHS_TO_THE_END = Effort(max_iter=300, tol=1e-6)
"""For the lengths at fixed directions: cheap, and along the valleys that are left by all else."""
LAST = Effort(max_iter=200, tol=1e-5)
"""For the process that is kept."""
REFIT_ROWS, REFIT_ROWS_PER_PARAMETER, REFIT_FOLDS = 300, 5, 5
"""Rows up to which candidates are judged on rows held out, if these are also fewer than so many per
parameter; and the folds. With more rows the linear model of the directions' errors suffices."""
REFIT_STEP = 0.3
"""How far refits start from the full fit, in root mean squares of its directions' entries: from
there directions that are true were found again, and the log density of held-out rows was that of
fresh ones within .2 a row; at 0 it was too good by up to 1, at 1 also true ones were lost."""
REFIT_NATS, MOST_REFITTED = 20.0, 3
"""Nats, of all rows, within which a class of candidates is judged so, and the most classes."""
MOST_FITTED_AGAIN = 6
"""Candidates of a search that are fitted to the same rows in other units, or without outliers."""
MOST_POLISHED = 3
"""Candidates whose lengths are fitted to the end."""
OTHER_SHAPES = ("gaussian",)
"""Kernels tried for functions of a few directions beside that of the search; functions of all
features are tried with every kernel."""
TREND_VARIANCE = 0.1
"""Prior variance of a linear trend where its fit starts."""
ROTATIONS, ROTATION_ROWS = 16, 250
"""Random turns of the directions among which a sum of functions of each starts, and rows for them.
More turns have not found better sums."""

# --- where the search starts (starts) --------------------------------------------------------
SEARCH_SHAPE = "matern52"
"""The kernel that is searched with: less smooth than most links, so that it fits all."""
START_NOISE = 0.1
"""Noise variance at the start: the likelihood has fewer local maxima with much noise."""
STRENGTH_ONCE, STRENGTH_IN_ROUNDS = 0.03, 0.1
"""Strengths of the penalty of a network fitted once, and of one fitted in rounds."""
USUAL_STARTS = 4
"""Starts that are usually enough; the ones after them are networks of other seeds."""
MORE_STARTS = 3
"""Pairs of starts beyond these, followed where no few directions were found."""
REWEIGHTINGS = (2, 5)
"""Rounds of re-weighting after which coarse processes serve as starts."""
COARSE_SCALES, COARSE_NOISES = (0.5, 1.0, 2.0), np.geomspace(1e-4, 10, 11)
"""The grid of a coarse process."""
SEARCH_STEPS = USUAL_STARTS + 4
"""Steps that the progress of a search counts: functions of all features, the usual starts, ever
fewer directions, other kernels, the last fit."""

# --- processes and their averages (gaussian_process, kernels, mixture) -----------------------
JITTER = 1e-8
"""Share of the prior variance added to the noise, so that the Cholesky factor exists."""
LOG_LENGTH, LOG_VARIANCE, LOG_NOISE = (-8.0, 8.0), (-14.0, 8.0), (-16.0, 4.0)
"""Bounds of what is fitted, for targets and inputs of unit size."""
LBFGS_MEMORY = 20
"""Pairs of steps that L-BFGS remembers; with fewer it creeps along curved valleys."""
NO_DISTANCE = 1e-7
"""A distance not told from rounding: there the slope of a kernel with a kink is 0."""
MOST_AVERAGED, LEAST_ODDS = 6, 0.05
"""Processes in an average, and odds against the best one below which one counts for nothing."""
BEHIND_NATS, BEHIND_NATS_PER_ROW = 30.0, 0.1
"""Nats, of all rows and per row, from which on a process counts for nothing either: a few rows that
it misses by far make for much uncertainty."""
INDUCING_POINTS = 1000
"""Rows at which the values of a process on more than twice as many are remembered."""

# --- what is followed beyond the data, and the network beside (smooth_link, trust) -----------
FOLLOWED_BEYOND = 0.75
"""How far beyond the training rows' range a link is followed along the most important direction, in
ranges; along others less, in proportion to its slopes along them."""
NETWORK_ERRORS = np.append(np.geomspace(1e-4, 1e3, 15), 1e8)
"""Variances tried for a network as an observation of the function; the last one ignores it."""

# --- networks on ever fewer directions (regularisation_path, elimination) --------------------
STRENGTHS = np.geomspace(1e-3, 0.5, 8)
"""The strengths of the penalty that are tried by default where a network predicts alone."""
STRENGTHS_BESIDE_PROCESSES = np.geomspace(2e-3, 0.3, 4)
"""Fewer, where the network only explains and counts far from the data."""
KEPT_SHARE, ONE_BY_ONE = 0.6, 5
"""Share of the directions that a round of elimination keeps; from so few on, it drops one."""
NEIGHBOURS = 2
"""Strengths tried on either side of the best one of the round before."""
START_SIZE = 0.1
"""Size of the first network's outputs: small, so that the data choose the directions."""
SECOND_ORDER_SAMPLES, SECOND_ORDER_FLOPS = 250, 1e9
"""Rows, and operations of a step, up to which steps of second order are cheaper; beyond, Adam is,
and its networks predict better."""
NETWORK_STARTS = 4
"""First networks of which the best end is kept, with steps of second order."""
BATCH_ROWS = 4096
"""Rows of a step of Adam."""
FIRST_RATE, WARM_RATE, LAST_RATE_SHARE = 0.05, 0.025, 0.05
"""Adam's rates at the first strength and at later ones, and the share with which it ends."""
FIRST_ITERATIONS = 4
"""Adam's iterations at the first strength, in units of those at later ones."""
SETTLED_SECOND_ORDER, SETTLED_FIRST_ORDER = 1e-2, 5e-2
"""Share of the penalised loss by which it may still fall in a step, or in the last fifth of Adam's
steps, when a network counts as settled."""
DEAD_NEURON = 1e-6
"""Size of a neuron, relative to the largest, below which it is dropped."""
NEGLIGIBLE_DIRECTION = 1e-8
"""Importance below which a direction is none."""
