"""The regressor on heavy tails, outliers and few rows: what it finds, and that it stays finite."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

import flattest as ft


def _fit(X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # outliers may be left out
        return ft.MultiIndexRegressor(random_state=0).fit(X, y)


def test_heavy_tailed_inputs():
    rng = np.random.default_rng(0)
    X, X_test = rng.standard_t(2, (200, 6)), rng.standard_t(1, (5000, 6))
    y = np.tanh(X[:, 0] + X[:, 1]) + 0.05 * rng.standard_normal(200)
    model = _fit(X, y)
    assert model.n_directions_ == 1
    cosine = abs(model.directions_[0] @ [1, 1, 0, 0, 0, 0]) / 2**0.5
    assert cosine > 0.99
    # Far beyond all that was seen.
    mean, deviation = model.predict(X_test, return_std=True)
    assert np.isfinite(deviation).all()
    assert np.abs(mean).max() < 3
    truth = np.tanh(X_test[:, 0] + X_test[:, 1])
    assert np.square(mean - truth).mean() < 0.1 * truth.var()


def test_heavy_tailed_targets():
    rng = np.random.default_rng(1)
    X, X_test = rng.standard_normal((300, 6)), rng.standard_normal((2000, 6))
    y = np.abs(X[:, 0] - X[:, 2]) + 0.1 * rng.standard_t(1.5, 300)
    model, ridge = _fit(X, y), RidgeCV().fit(X, y)
    truth = np.abs(X_test[:, 0] - X_test[:, 2])
    assert 1 <= model.n_directions_ <= 2
    error, of_ridge = (np.square(m.predict(X_test) - truth).mean() for m in (model, ridge))
    assert error < 0.2 * of_ridge


@pytest.mark.parametrize("seed", range(3))
def test_fifty_rows_of_many_scales(seed):
    rng = np.random.default_rng(seed)
    X, X_test = rng.standard_normal((50, 5)), rng.standard_normal((2000, 5))
    units = np.array([1e-9, 1.0, 1e9, 1e3, 1e-3])
    link = lambda X: np.sin(X[:, 0] + X[:, 1])  # noqa: E731
    model = _fit(X * units, link(X) + 0.05 * rng.standard_normal(50))
    assert model.n_directions_ == 1
    assert model.score(X_test * units, link(X_test)) > 0.9


# The nearer an outlier, the harder it is to find: make slow adds those that lie far away.
@pytest.mark.parametrize(
    ("logarithmic", "shift"),
    [
        (False, 4.0),
        pytest.param(False, 8.0, marks=pytest.mark.slow),
        (True, 8.0),
        pytest.param(True, 1000.0, marks=pytest.mark.slow),
    ],
)
def test_an_outlier_that_a_rough_function_would_follow(logarithmic, shift):
    rng = np.random.default_rng(5)
    X, X_test = rng.standard_normal((150, 6)), rng.standard_normal((2000, 6))
    link = lambda X: np.abs(X[:, 0] - 2 * X[:, 1])  # noqa: E731
    units, back = (np.exp, np.log) if logarithmic else (np.asarray, np.asarray)
    y = units(link(X) + 0.1 * rng.standard_normal(150))
    y[7] += shift * y.std()
    with pytest.warns(UserWarning, match="1 of 150 targets"):
        model = ft.MultiIndexRegressor(random_state=0).fit(X, y)
    assert np.flatnonzero(model.outliers_) == [7]
    assert model.n_directions_ == 1
    truth = link(X_test)
    assert np.square(back(model.predict(X_test)) - truth).mean() < 0.03 * truth.var()


@pytest.mark.parametrize("seed", [2, 7])
def test_large_targets_of_rows_that_stand_alone_are_no_outliers(seed):
    # Noise in proportion, and targets below zero, so that logarithms cannot help.
    rng = np.random.default_rng(seed)
    size, prices = np.exp(1.2 * rng.standard_normal(100)), 1 + rng.random((100, 2))
    noise = np.exp(0.1 * rng.standard_normal(100))
    y = size**0.95 * prices[:, 0] ** 0.5 * noise - 2
    model = _fit(np.column_stack([size, prices]), y)
    assert not model.outliers_.any()


# Directions found with these outliers keep one of them.
@pytest.mark.parametrize("seed", [5, 16])
def test_two_far_outliers_of_two_hundred_rows(seed):
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0][:, :2]
    X = rng.standard_normal((1200, 8))
    truth = np.sin(2 * X @ Q[:, 0]) + X @ Q[:, 1]
    y = (truth + 0.1 * rng.standard_normal(1200))[:200]
    rows = rng.choice(200, 2, replace=False)
    y[rows] += 50
    options = {"width": 40, "cv": 3, "strengths": [3e-3, 3e-2], "random_state": 5}
    with pytest.warns(UserWarning, match="2 of 200 targets"):
        model = ft.MultiIndexRegressor(**options).fit(X[:200], y)
    assert model.outliers_.sum() == 2
    assert model.outliers_[rows].all()
    assert model.score(X[200:], truth[200:]) > 0.95
