"""Scores and their intervals, whose coverage is counted."""

import json

import numpy as np
import pytest
from sklearn.metrics import r2_score

from flattest.tables.scores import Score, interval_of_difference, interval_of_r2


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y, f = rng.standard_normal((2, 30))
    score = Score.of(y, f)
    assert score.r2 == pytest.approx(r2_score(y, f))
    assert score.rmse == pytest.approx(np.sqrt(np.mean((y - f) ** 2)))
    repeated = Score.of(y, np.stack([f, 2 * f]))
    assert repeated.r2 == pytest.approx((r2_score(y, f) + r2_score(y, 2 * f)) / 2)


def test_intervals_cover_the_score_of_all_rows_there_are() -> None:
    rng = np.random.default_rng(0)
    n, trials = 100, 200
    noise = rng.standard_t(6, (trials, n)) * np.sqrt(4 / 6)
    f = rng.standard_normal((trials, n))
    covered = 0
    for signal, error in zip(f, noise, strict=True):
        # The variance of y is 2, that of the error 1.
        low, high = interval_of_r2(signal + error, error**2, rng) or (np.nan, np.nan)
        covered += low < 0.5 < high
    # Nominally .95; of 200, .89 to .99 in all but one of a thousand such tests.
    assert 0.89 <= covered / trials <= 0.99


def test_an_interval_needs_values_that_differ() -> None:
    rng = np.random.default_rng(0)
    score = Score.of(np.ones(9), np.zeros(9), rng)
    assert np.isnan(score.r2)
    assert score.to_dict() == {"r2": None, "rmse": 1.0}
    score = Score.of(np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0]), rng)
    assert score.interval is not None
    assert score.interval[0] <= score.r2 <= score.interval[1]
    json.dumps(score.to_dict(), allow_nan=False)


def test_many_rows_take_no_more_memory() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(30_000)
    low, high = interval_of_r2(y, np.full(30_000, 0.5), rng) or (0.0, 0.0)
    assert 0.48 < low < 0.5 < high < 0.52


def test_intervals_of_a_difference_cover_it_and_are_narrower() -> None:
    rng = np.random.default_rng(0)
    n, trials, covered = 100, 200, 0
    for _ in range(trials):
        signal, error, more = rng.standard_normal((3, n))
        y = signal + error
        # Errors of variances 1 and 1.04, of targets of variance 2.
        one, other = signal, signal + 0.2 * more
        low, high = interval_of_difference(y, one, other, rng) or (np.nan, np.nan)
        covered += low < 0.02 < high
        alone = interval_of_r2(y, (y - one) ** 2, rng) or (0.0, 0.0)
        assert high - low < alone[1] - alone[0]
    assert 0.89 <= covered / trials <= 0.99


def test_a_difference_is_of_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    y, f = rng.standard_normal((2, 50))
    assert interval_of_difference(y, f, f, rng) == (0, 0)
    assert interval_of_difference(np.ones(50), f, f, rng) is None
    low, high = interval_of_difference(y, np.stack([y, f]), np.stack([f, f]), rng) or (0.0, 0.0)
    gain = (1 - r2_score(y, f)) / 2  # of two repetitions, one is exact
    assert low < gain < high
