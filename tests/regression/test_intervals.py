"""Intervals, draws and warnings of extrapolation of a fitted regressor."""

import numpy as np
import pytest

import flattest as ft

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (1120, 4))
SIGNAL = np.sin(2 * (X[:, 0] + X[:, 1]))


def _fit(y: np.ndarray) -> ft.MultiIndexRegressor:
    model = ft.MultiIndexRegressor(random_state=0, max_iter=5, cv=2, strengths=[0.1])
    return model.fit(X[:120], y[:120])


@pytest.fixture(scope="module", params=[False, True], ids=["targets", "logarithms"])
def fitted(request: pytest.FixtureRequest) -> tuple[ft.MultiIndexRegressor, np.ndarray, bool]:
    y = SIGNAL + 0.3 * RNG.standard_normal(len(X))
    y = np.exp(y) if request.param else y
    return _fit(y), y[120:], request.param


def test_intervals_hold_as_many_targets_as_they_say(fitted):
    model, y, logarithmic = fitted
    for level in (0.5, 0.9):
        lower, upper = model.predict_interval(X[120:], level)
        assert np.mean((lower < y) & (y < upper)) == pytest.approx(level, abs=0.1)
        assert not logarithmic or lower.min() > 0
    mean, deviation = model.predict(X[120:], return_std=True)
    assert mean.shape == deviation.shape == lower.shape
    assert (deviation > 0).all()


def test_draws(fitted):
    model = fitted[0]
    draws = model.sample_y(X[120:130], n_samples=2000, random_state=3)
    assert draws.shape == (10, 2000)
    lower, upper = model.predict_interval(X[120:130], 0.9)
    inside = (lower[:, None] < draws) & (draws < upper[:, None])
    np.testing.assert_allclose(inside.mean(axis=1), 0.9, atol=0.035)
    np.testing.assert_array_equal(draws, model.sample_y(X[120:130], n_samples=2000, random_state=3))


def test_rows_outside_the_range_along_a_direction_are_told(fitted):
    model, _, _ = fitted
    assert not model.is_extrapolation(X[:120]).any()
    far = 3 * model.directions_[:1]
    assert model.is_extrapolation(far).all()
    blind = np.linalg.svd(model.directions_)[2][model.n_directions_ :]
    centre = X[:120].mean(axis=0)
    assert not model.is_extrapolation(centre + 100 * blind).any()


@pytest.mark.parametrize(
    ("level", "error"), [(0, ValueError), (1, ValueError), (90, ValueError), ("a", TypeError)]
)
def test_levels_are_probabilities(fitted, level, error):
    with pytest.raises(error, match="level must"):
        fitted[0].predict_interval(X[:3], level)


def test_networks_know_no_intervals():
    model = ft.MultiIndexRegressor(
        link="network", n_directions=1, random_state=0, max_iter=5, cv=2, strengths=[0.1], width=5
    )
    model.fit(X[:60], SIGNAL[:60])
    for ask in (
        lambda: model.predict(X, return_std=True),
        lambda: model.predict_interval(X),
        lambda: model.sample_y(X),
    ):
        with pytest.raises(ValueError, match="link='gaussian_process'"):
            ask()


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_noise_is_not_believed(seed):
    # Directions among many features can follow the noise of a few rows; that is not enough.
    rng = np.random.default_rng(seed)
    features, y = rng.uniform(-1, 1, (1090, 15)), rng.standard_normal(1090)
    model = ft.MultiIndexRegressor(random_state=0, max_iter=5, cv=2, strengths=[0.1])
    model.fit(features[:90], y[:90])
    lower, upper = model.predict_interval(features[90:])
    assert 0.8 < np.mean((lower < y[90:]) & (y[90:] < upper)) < 0.98
    assert np.square(model.predict(features[90:]) - y[90:]).mean() < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("n_directions", [1, 2, 3])
def test_few_rows_know_what_they_do_not_know(n_directions):
    found, errors = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        Q = np.linalg.qr(rng.standard_normal((20, 20)))[0][:, :n_directions]
        features = rng.uniform(-1, 1, (1150, 20))
        z = features @ Q
        links = np.stack([np.sin(2 * z[:, 0]), *(z[:, 1:] ** 2).T])
        signal = links.sum(axis=0)
        y = signal + 0.5 * signal.std() * rng.standard_normal(len(features))
        model = ft.MultiIndexRegressor(random_state=0).fit(features[:150], y[:150])
        lower, upper = model.predict_interval(features[150:])
        found.append(np.mean((lower < y[150:]) & (y[150:] < upper)))
        errors.append(1 - model.score(features[150:], y[150:]))
    assert 0.8 < np.mean(found) < 0.97
    assert min(found) > 0.7
    assert np.mean(errors) < 0.8
