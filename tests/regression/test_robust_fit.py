"""In what order fits with and without suspected outliers are tried."""

import numpy as np

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
