"""In what order fits with and without suspected outliers are tried."""

import numpy as np
import torch

import flattest as ft
from flattest.regression import robust_fit
from flattest.regression.gaussian_process import Process
from flattest.regression.projection_search import worth_fitting_again
from flattest.regression.robust_fit import Schedule, Suspicion
from flattest.regression.tuning import MOST_FITS_PER_UNITS

Y = np.random.default_rng(0).normal(10, 1, 50)


def _outliers(*rows: int) -> np.ndarray:
    return np.isin(np.arange(50), rows)


def _all(schedule: Schedule) -> list[Suspicion]:
    found = []
    while suspicion := schedule.next():
        found.append(suspicion)
    return found


def test_at_first_nothing_is_suspected_but_what_is_extreme() -> None:
    assert [s.outliers.any() for s in _all(Schedule(Y))] == [False]
    extreme = Y.copy()
    extreme[[3, 5]] = -200.0
    assert [np.flatnonzero(s.outliers).tolist() for s in _all(Schedule(extreme))] == [[], [3, 5]]


def test_what_is_extreme_is_searched_without_unless_targets_are_skewed() -> None:
    extreme = Y.copy()
    extreme[[3, 5]] = -200.0
    assert [s.thorough for s in _all(Schedule(extreme))] == [False, True]
    tail = np.exp(np.append(Y[:-2], [2.0, 18.0]))
    expected = [(False, False), (True, False), (False, False), (True, True)]
    assert [(s.outliers.any(), s.thorough) for s in _all(Schedule(tail))] == expected


def test_skewed_targets_are_tried_as_logarithms_too() -> None:
    assert [s.logarithmic for s in _all(Schedule(np.exp(Y)))] == [False, True]
    assert not any(s.logarithmic for s in _all(Schedule(-np.exp(Y))))


def test_what_the_best_fit_suspects_comes_first_and_nothing_twice() -> None:
    schedule = Schedule(Y)
    schedule.next()
    for score, row in ((-5.0, 1), (-3.0, 2), (-9.0, 3), (-1.0, 2)):
        schedule.add(Suspicion(score, False, _outliers(row)))
    assert [np.flatnonzero(s.outliers).tolist() for s in _all(schedule)] == [[2], [1], [3]]


def test_neither_too_many_fits_nor_too_many_outliers() -> None:
    schedule = Schedule(Y)
    for row in range(9):
        schedule.add(Suspicion(-1.0, False, _outliers(row)))
        schedule.add(Suspicion(-1.0, True, _outliers(row)))
    tried = _all(schedule)
    assert sum(s.logarithmic for s in tried) == MOST_FITS_PER_UNITS
    assert sum(not s.logarithmic for s in tried) == MOST_FITS_PER_UNITS
    schedule = Schedule(Y)
    schedule.add(Suspicion(0.0, False, _outliers(*range(6))))
    assert [s.outliers.sum() for s in _all(schedule)] == [0]


def _process(score: float, k: int, **options: object) -> Process:
    matrix = torch.eye(4, dtype=torch.float64)[:, :k]
    one = torch.ones(1, dtype=torch.float64)
    return Process("matern52", matrix, one, 0.1)._replace(score=score, correction=2.0, **options)


def test_what_was_near_the_best_is_fitted_again_and_the_simple_ones() -> None:
    last = _process(99.0, 1)
    compared = [
        _process(10.0, 3),
        _process(9.0, 3, additive=True),
        _process(8.0, 3),  # of a kind with the best
        _process(-50.0, 3, shape="gaussian"),  # far
        _process(-60.0, 1),  # far, and simple
        _process(-70.0, 4, shape="linear", free="scale"),
        _process(-80.0, 4),
        last,
    ]
    found = worth_fitting_again(compared, 50)
    assert [process.score for process in found] == [10.0, 9.0, -60.0, -70.0]
    assert all(process.correction == 0 for process in found)


def test_only_the_first_fit_and_the_best_one_are_searched(monkeypatch) -> None:
    searched = []
    search = robust_fit.SmoothLink.fit.__func__

    def spy(cls, data, units, *rest):
        searched.append(units.logarithmic)
        return search(cls, data, units, *rest)

    monkeypatch.setattr(robust_fit.SmoothLink, "fit", classmethod(spy))
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 4))
    y = np.exp(np.abs(X[:, 0] - X[:, 1]) + 0.1 * rng.standard_normal(80))
    options = {"cv": 2, "strengths": [0.1], "max_iter": 5, "width": 10, "random_state": 0}
    model = ft.MultiIndexRegressor(**options).fit(X, y)
    assert searched == [False, True]
    assert model.log_share_ > 0.9
    assert model.n_directions_ == 1
    cosine = np.abs(model.directions_[0] @ [0.5**0.5, -(0.5**0.5), 0, 0])
    assert cosine > 0.99
