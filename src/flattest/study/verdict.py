"""Verdicts: what the records say of a statement, with the uncertainty over the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 2000

Bound = Literal["at least", "at most"]


@dataclass(frozen=True)
class Verdict:
    """One statement, the estimate that decides it, and whether it holds.

    Parameters
    ----------
    statement : str
        What is claimed, in a sentence with its threshold.
    quantity : str
        What was estimated.
    estimate, low, high : float
        The estimate and its 95 % interval over the seeds.
    bound : {"at least", "at most"}
        On which side of the threshold the claim lies.
    threshold : float
        The number that the interval is compared with.
    n_seeds : int
        The number of seeds behind it.

    Examples
    --------
    >>> from flattest.study import Verdict
    >>> Verdict("It is small.", "error", 0.1, 0.05, 0.2, "at most", 0.5, n_seeds=10).outcome
    'holds'
    >>> Verdict("It is small.", "error", 0.4, 0.3, 0.6, "at most", 0.5, n_seeds=10).outcome
    'undecided'
    """

    statement: str
    quantity: str
    estimate: float
    low: float
    high: float
    bound: Bound
    threshold: float
    n_seeds: int

    @property
    def outcome(self) -> Literal["holds", "fails", "undecided"]:
        """Whether the whole interval lies on the claimed side, on the other, or on neither."""
        if any(math.isnan(value) for value in (self.estimate, self.low, self.high)):
            return "undecided"
        if self.bound == "at least":
            inside, outside = self.low >= self.threshold, self.high < self.threshold
        else:
            inside, outside = self.high <= self.threshold, self.low > self.threshold
        return "holds" if inside else "fails" if outside else "undecided"


def judge(
    statement: str,
    quantity: str,
    values: pd.Series,
    bound: Bound,
    threshold: float,
    statistic: Callable[[np.ndarray], float] = np.median,
) -> Verdict:
    """Judge a statement about a statistic of one number per seed.

    The interval is the percentile bootstrap's: the seeds are drawn with replacement, 2,000 times.
    That of a minimum or a maximum is one-sided, since no sample shows more than its own extreme.

    Parameters
    ----------
    statement, quantity, bound, threshold
        See `Verdict`.
    values : Series
        One number per seed.
    statistic : callable
        From an array to a number; the median unless told otherwise.

    Returns
    -------
    Verdict
        Undecided where a value is missing or NaN.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.study import judge
    >>> ratios = pd.Series([5.1, 5.3, 5.2, 5.6, 5.4])
    >>> judge("It is five times as sharp.", "ratio", ratios, "at least", 5.0).outcome
    'holds'
    """
    sample = values.to_numpy(dtype=float)
    if len(sample) == 0 or np.isnan(sample).any():
        estimate = low = high = math.nan
    else:
        rng = np.random.default_rng(0)  # of the resampling only: the same records, the same verdict
        resampled = sample[rng.integers(len(sample), size=(_RESAMPLES, len(sample)))]
        drawn = np.array([statistic(row) for row in resampled])
        estimate = float(statistic(sample))
        tail = (1 - LEVEL) / 2
        # Order statistics, not means of two: infinite values stay what they are.
        low, high = (
            float(value) for value in np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf")
        )
    return Verdict(statement, quantity, estimate, low, high, bound, threshold, len(sample))


def judge_share(
    statement: str, quantity: str, successes: pd.Series, bound: Bound, threshold: float
) -> Verdict:
    """Judge a statement about the share of the seeds in which something happens.

    The interval is Wilson's, which is not empty where all seeds agree.

    Parameters
    ----------
    statement, quantity, bound, threshold
        See `Verdict`.
    successes : Series
        One truth value per seed.

    Returns
    -------
    Verdict
        Undecided where there is no seed.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.study import judge_share
    >>> verdict = judge_share("It works.", "share", pd.Series([True] * 10), "at least", 0.5)
    >>> verdict.outcome, round(verdict.low, 2)
    ('holds', 0.72)
    """
    n, count = len(successes), int(successes.astype(bool).sum())
    if n == 0:
        estimate = low = high = math.nan
    else:
        interval = stats.binomtest(count, n).proportion_ci(LEVEL, method="wilson")
        estimate, low, high = count / n, float(interval.low), float(interval.high)
    return Verdict(statement, quantity, estimate, low, high, bound, threshold, n)
