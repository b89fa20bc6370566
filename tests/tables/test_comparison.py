"""The comparison with other learners: which rows each of them sees, and what is counted."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict

from flattest.tables.comparison import FOLDS, OWN, REPEATS, RIDGE, cross_validate, hold_out


class Line(LinearRegression):
    """A line with intervals of a given half-width, that warns of few rows."""

    link_ = "gaussian_process"

    def fit(self, X: Any, y: Any) -> Line:
        if len(y) < 20:
            warnings.warn("Rows are few.", UserWarning, stacklevel=2)
        return super().fit(X, y)

    def predict_interval(self, X: Any, level: float) -> tuple[np.ndarray, np.ndarray]:
        assert level == 0.9
        return self.predict(X) - 0.5, self.predict(X) + 0.5


class NoIntervals(Line):
    link_ = "network"


def make_data(n: int = 23) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2))
    return X, X[:, 0] + rng.standard_normal(n)


@pytest.mark.parametrize("own", [Line, NoIntervals])
def test_every_row_is_judged_by_fits_that_have_not_seen_it(own: type[Line]) -> None:
    X, y = make_data()
    found = cross_validate({OWN: own, "other": LinearRegression}, X, y, 3)
    expected = [
        cross_val_predict(LinearRegression(), X, y, cv=KFold(FOLDS, shuffle=True, random_state=s))
        for s in range(3, 3 + REPEATS)
    ]
    np.testing.assert_allclose(found.predicted, expected[0])
    score = np.mean([r2_score(y, each) for each in expected])
    assert found.judged["other"].scores["test"].r2 == pytest.approx(score)
    assert found.judged[OWN].scores["test"] == found.judged["other"].scores["test"]
    whole = LinearRegression().fit(X, y).predict(X)
    np.testing.assert_allclose(found.fitted, whole)
    assert found.judged[OWN].scores["train"].r2 == pytest.approx(r2_score(y, whole))
    assert found.notes == ("In a fold of the cross-validation: Rows are few.",)
    if own is NoIntervals:
        assert found.interval is None
        assert found.coverage is None
        return
    covered = np.mean([np.abs(each - y) <= 0.5 for each in expected])
    assert found.coverage == pytest.approx(covered)
    np.testing.assert_allclose(found.interval, [expected[0] - 0.5, expected[0] + 0.5])


def test_rows_kept_for_the_test_are_not_fitted() -> None:
    X, y = make_data()
    train, test = np.arange(15), np.arange(15, 23)
    found = hold_out({OWN: Line, "other": LinearRegression}, X, y, train, test, 0)
    line = LinearRegression().fit(X[train], y[train])
    np.testing.assert_allclose(found.predicted, line.predict(X[test]))
    np.testing.assert_allclose(found.fitted, line.predict(X[train]))
    assert found.coverage == np.mean(np.abs(line.predict(X[test]) - y[test]) <= 0.5)
    assert found.judged["other"].scores["test"].interval is not None
    assert found.notes == ("Rows are few.",)
    assert found.over_ridge is None
    beside = hold_out({OWN: Line, RIDGE: DummyRegressor}, X, y, train, test, 0)
    assert beside.over_ridge is not None
    gains = [beside.judged[name].scores["test"].r2 for name in (OWN, RIDGE)]
    assert beside.over_ridge[0] < gains[0] - gains[1] < beside.over_ridge[1]
    assert hold_out({OWN: Line, RIDGE: Line}, X, y, train, test, 0).over_ridge == (0, 0)
