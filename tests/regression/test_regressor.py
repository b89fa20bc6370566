"""The regressor: scikit-learn's conventions, what it finds, and data that could break it."""

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import flattest as ft
from flattest import MultiIndexRegressor
from flattest.regression.training_data import Rows, TrainingData

RNG_SEED = 0


def _quick(**parameters: object) -> MultiIndexRegressor:
    return MultiIndexRegressor(
        **{"random_state": 0, "width": 40, "cv": 3, "strengths": [3e-3, 3e-2], **parameters}
    )


def _planted(n: int = 150, d: int = 6, seed: int = RNG_SEED) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).standard_normal((n, d))
    return X, np.abs(X[:, 0] - 2 * X[:, 1])


def _noisy(n: int = 60, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return data that are fitted in one way only, however numbers are rounded on the way.

    Without noise the likelihood rises without end, and the last digits decide where a fit stops.
    """
    X, y = _planted(n, d)
    return X, y + 0.1 * np.random.default_rng(1).standard_normal(n)


@functools.cache
def _fitted(data: str, **parameters: object) -> MultiIndexRegressor:
    """Return a fit that several tests look at, and none changes."""
    return _quick(**parameters).fit(*{"planted": _planted, "noisy": _noisy}[data]())


ROUNDING = 1e-6
"""What rounding may change in predictions of `_noisy` data, of size 1.

The last digits of X change them by 1e-10, another seed by 1e-2. Data that are equal, but lie
elsewhere in the memory, may well differ in the last digits of a matrix product.
"""


def _cosine(u: np.ndarray, v: np.ndarray) -> float:
    return abs(float(u @ v)) / float(np.linalg.norm(u) * np.linalg.norm(v))


# About conventions, not about what is found: settings under which a fit takes a moment.
@parametrize_with_checks(
    [
        MultiIndexRegressor(
            random_state=0, width=10, n_directions=1, strengths=[0.01], cv=2, max_iter=20
        )
    ]
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sklearn_conventions(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([MultiIndexRegressor(random_state=0), _quick(link="network")])
def test_sklearn_conventions_at_settings_in_use(estimator, check):
    check(estimator)


def test_it_finds_a_planted_direction_and_predicts_with_it_alone():
    X, y = _planted()
    model = MultiIndexRegressor(link="gaussian_process", random_state=0).fit(X, y)
    fresh, target = _planted(seed=1)
    assert model.n_directions_ == 1
    assert _cosine(model.directions_[0], np.array([1, -2, 0, 0, 0, 0])) > 0.999
    assert model.score(fresh, target) > 0.99
    assert np.linalg.norm(model.directions_[0]) == pytest.approx(1)
    assert model.direction_importances_.sum() == pytest.approx(1)
    # Moving across the direction changes nothing.
    u = model.directions_[0]
    moved = fresh + 10 * np.random.default_rng(2).standard_normal(fresh.shape)
    moved -= np.outer((moved - fresh) @ u, u)
    # Without noise the covariance matrix is nearly singular, which costs digits.
    np.testing.assert_allclose(model.predict(moved), model.predict(fresh), atol=1e-5)
    np.testing.assert_allclose(model.transform(fresh), fresh @ model.directions_.T)


def test_two_directions_are_counted():
    X, y, truth = ft.make_multi_index(400, 6, ["abs", "relu"], noise=0.1, random_state=0)
    model = _quick(strengths="auto").fit(X.numpy(), y.numpy())
    assert model.n_directions_ == 2
    cosines = np.linalg.svd(np.linalg.qr(model.directions_.T)[0].T @ truth.directions.numpy().T)[1]
    assert cosines.min() > 0.98


def test_linear_data_have_one_direction():
    X = np.random.default_rng(0).standard_normal((200, 8))
    y = X @ np.arange(8.0) + 0.5 * np.random.default_rng(1).standard_normal(200)
    model = _quick(strengths="auto", cv=5).fit(X, y)
    assert model.n_directions_ == 1
    assert _cosine(model.directions_[0], np.arange(8.0)) > 0.99


def test_a_gaussian_process_finds_the_directions_of_a_noisy_sum():
    X, y, truth = ft.make_multi_index(2300, 10, ["sin", "sin"], noise=0.3, random_state=0)
    X, y = X.numpy(), y.numpy()
    model = _quick(link="gaussian_process").fit(X[:300], y[:300])
    assert model.link_ == "gaussian_process"
    assert model.n_directions_ == 2
    cosines = np.linalg.svd(np.linalg.qr(model.directions_.T)[0].T @ truth.directions.numpy().T)[1]
    assert cosines.min() > 0.98
    mean, deviation = model.predict(X[300:], return_std=True)
    np.testing.assert_array_equal(mean, model.predict(X[300:]))
    covered = np.abs(y[300:] - mean) < 1.96 * deviation
    assert 0.85 < covered.mean() < 0.99


def test_few_rows_of_noisy_linear_data_are_predicted_like_ridge():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1050, 30))
    y = X @ rng.standard_normal(30) / 30**0.5 + 0.5 * rng.standard_normal(1050)
    ridge = RidgeCV(np.logspace(-3, 4, 15)).fit(X[:50], y[:50])
    scores = []
    for seed in range(3):  # the folds, too, move the score by .015
        model = _quick(link="gaussian_process", random_state=seed).fit(X[:50], y[:50])
        assert model.n_directions_ == 1
        assert model.candidates_.iloc[-1]["kernel"] == "linear"
        scores.append(model.score(X[50:], y[50:]))
    assert np.mean(scores) > ridge.score(X[50:], y[50:]) - 0.05


def test_functions_of_all_features_are_no_low_dimensional():
    X = np.random.default_rng(0).standard_normal((150, 4))
    model = _quick(link="gaussian_process").fit(X, np.square(X).sum(axis=1))
    assert model.n_directions_ == 4


def test_functions_of_all_features_that_count_are_no_directions():
    rng = np.random.default_rng(7000)
    X = rng.standard_normal((200, 10))
    B = np.linalg.qr(rng.standard_normal((10, 2)))[0]
    y = np.sin(X @ B).sum(axis=1) + 0.8 * rng.standard_normal(200)
    model = _quick(link="gaussian_process").fit(X, y)
    assert max(p.n_directions for p in model.predictor_.link.parts[0].average.priors) == 10
    assert model.n_directions_ == 2
    assert model.transform(X).shape == (200, 2)
    assert 0.8 < model.direction_importances_.sum() <= 1


def test_logarithms_are_taken_where_they_explain_more():
    X = np.random.default_rng(0).standard_normal((260, 5))
    noise = np.random.default_rng(1).standard_normal(260)
    y = np.exp(2 * np.sin(X[:, 0] + X[:, 1]) + 0.3 * noise)
    model = _quick(link="gaussian_process").fit(X[:180], y[:180])
    assert model.log_share_ > 0.5
    assert model.n_directions_ == 1
    mean, deviation = model.predict(X[180:], return_std=True)
    expected = np.exp(2 * np.sin(X[180:, 0] + X[180:, 1]) + 0.3**2 / 2)
    assert np.abs(np.log(mean / expected)).mean() < 0.15
    # The standard deviation of a lognormal target is proportional to its mean.
    relative = deviation / mean
    assert 0.2 < np.median(relative) < 0.45
    assert not _quick(link="gaussian_process").fit(X[:180], 50 + X[:180, 0]).log_share_


def test_a_link_is_followed_only_so_far():
    X, y = _planted(n=120)
    model = _quick(link="gaussian_process", n_directions=1).fit(X, y)
    z = X @ model.directions_[0]
    far = model.directions_ * (z.max() + 0.75 * np.ptp(z)), model.directions_ * 1e6
    assert model.predict(far[1]) == pytest.approx(model.predict(far[0]), rel=1e-6)
    assert np.isfinite(model.predict(-far[1])).all()


def test_trends_go_on_beyond_the_data():
    X = np.random.default_rng(0).uniform(-1, 1, (150, 3))
    y = 3 * X[:, 0] + 0.3 * np.sin(6 * X[:, 0])
    y += 0.05 * np.random.default_rng(1).standard_normal(150)
    model = _quick(link="gaussian_process").fit(X, y)
    assert model.candidates_.iloc[-1]["trend"]
    assert model.predict([[1.8, 0, 0]])[0] == pytest.approx(5.1, abs=0.8)


def test_importances_of_features_are_those_of_the_directions():
    for model in (_fitted("planted"), _fitted("planted", link="network")):
        importances = model.feature_importances_
        assert importances.sum() == pytest.approx(1)
        np.testing.assert_allclose(importances[:2], [0.2, 0.8], atol=0.05)


def test_standard_deviations_need_a_gaussian_process():
    X, _ = _planted(n=40)
    with pytest.raises(ValueError, match="link='gaussian_process'"):
        _fitted("planted", link="network").predict(X, return_std=True)


def test_directions_are_in_the_units_of_the_features():
    X, y = _planted()
    units = np.array([1e-6, 1.0, 1e5, 1.0, 1e-3, 1e8])
    model, scaled = _fitted("planted"), _quick().fit(X * units + 3 * units, y)
    # The same function but for the rounding, which gates at 0 can blow up a little.
    difference = scaled.predict(X * units + 3 * units) - model.predict(X)
    assert np.abs(difference).mean() < 0.02 * y.std()
    assert _cosine(scaled.directions_[0] * units, model.directions_[0]) > 0.9999


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_network_explains_the_predictions(fit_intercept):
    X, y = _planted()
    model = _quick(fit_intercept=fit_intercept, link="network").fit(X, y + 5)
    inputs = torch.from_numpy((X - model.mean_) * model.inverse_scale_)
    if fit_intercept:
        inputs = ft.append_bias_coordinate(inputs)
    else:
        assert model.intercept_ == 0
    with torch.no_grad():
        outputs = model.network_(inputs).numpy() + model.intercept_
    np.testing.assert_allclose(outputs, model.predict(X))
    flatness = ft.measure(model.network_, inputs, y + 5 - model.intercept_)
    assert flatness.trace == pytest.approx(model.flatness_.trace)
    assert model.flatness_.ratio >= 1
    assert flatness.loss == pytest.approx(np.mean((outputs - y - 5) ** 2))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_number_of_directions_can_be_given(k):
    X, y = _planted()
    model = _quick(n_directions=k).fit(X, y)
    assert model.n_directions_ == k
    assert model.directions_.shape == (k, 6)
    assert model.path_["n_directions"].min() == k
    assert list(model.get_feature_names_out()) == [f"multiindexregressor{i}" for i in range(k)]


def test_the_path_is_a_table():
    model = _fitted("planted", link="network")
    assert list(model.path_.columns) == [
        "n_directions",
        "strength",
        "held_out_error",
        "held_out_standard_error",
        "flatness",
    ]
    first = model.path_[model.path_["n_directions"] == 6]
    assert list(first["strength"]) == [3e-3, 3e-2]
    assert first["flatness"].is_monotonic_decreasing
    assert model.strength_ in (3e-3, 3e-2)


def test_constant_and_repeated_columns_change_nothing():
    X, y = _planted()
    wide = np.column_stack([X, np.full(len(X), 1e10 / 3), X[:, 0], np.zeros(len(X))])
    model = _quick(strengths="auto").fit(wide, y)
    assert model.n_directions_ == 1
    assert model.directions_[0, 6] == model.directions_[0, 8] == 0
    assert model.directions_[0, 7] == pytest.approx(model.directions_[0, 0])
    assert model.score(wide, y) > 0.99
    other = wide.copy()
    other[:, 6] = -5
    np.testing.assert_allclose(model.predict(other), model.predict(wide))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_more_features_than_samples():
    X = np.random.default_rng(0).standard_normal((30, 80))
    model = _quick().fit(X, X[:, 0])
    assert np.isfinite(model.predict(X)).all()
    assert 1 <= model.n_directions_ <= 29
    assert _quick(n_directions=80).fit(X, X[:, 0]).n_directions_ <= 30


@pytest.mark.parametrize("value", [0.0, -3.5, 1e8])
def test_a_constant_target_has_no_direction(value):
    X, _ = _planted(n=20)
    model = _quick().fit(X, np.full(20, value))
    np.testing.assert_allclose(model.predict(X), value)
    assert model.n_directions_ == 0
    assert model.transform(X).shape == (20, 0)


def test_constant_inputs_predict_the_mean():
    model = _quick().fit(np.ones((12, 2)), np.arange(12.0))
    np.testing.assert_allclose(model.predict(np.ones((1, 2))), 5.5, atol=1e-2)
    assert model.n_directions_ == 0


def test_too_few_iterations_are_reported():
    X, y = _planted(n=60)
    with pytest.warns(ConvergenceWarning, match="raise max_iter above 1 "):
        _quick(max_iter=1).fit(X, y)
    X, y = _noisy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        _quick().fit(X, y)


@pytest.mark.parametrize("activation", ["abs", "relu2"])
def test_other_activations(activation):
    X, y = _planted(n=80, d=3)
    assert _quick(activation=activation, width=20, strengths="auto").fit(X, y).score(X, y) > 0.8


@pytest.mark.parametrize(
    "link", [pytest.param("gaussian_process", marks=pytest.mark.slow), "network"]
)
def test_large_data_take_batches_of_rows(link):
    X, y = _planted(n=4500, d=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = _quick(
            link=link, cv=2, strengths=[1e-2], n_directions=1, width=20, max_iter=25
        ).fit(X, y)
    assert model.score(X, y) > 0.95
    assert _cosine(model.directions_[0], np.array([1.0, -2, 0])) > 0.99


def test_seeds_decide_and_threads_do_not():
    X, y = _noisy()
    expected = _fitted("noisy").predict(X)
    state = torch.random.get_rng_state()
    again = _quick(n_jobs=2).fit(X, y)
    np.testing.assert_allclose(again.predict(X), expected, rtol=0, atol=ROUNDING)
    assert torch.equal(state, torch.random.get_rng_state())
    other = _quick(random_state=1).fit(X, y).predict(X)
    assert np.abs(other - expected).max() > 100 * ROUNDING


def test_clone_pickle_and_selection():
    X, y = _noisy()
    model = _quick(activation=ft.activation("abs"), cv=2, strengths=[0.01])
    copied = clone(model.fit(X, y))
    with pytest.raises(NotFittedError):
        copied.predict(X)
    np.testing.assert_array_equal(copied.fit(X, y).predict(X), model.predict(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    search = GridSearchCV(
        make_pipeline(StandardScaler(), _quick(link="network", cv=2, strengths=[0.01])),
        {"multiindexregressor__width": [10, 20]},
        cv=2,
    )
    assert search.fit(X, y).best_score_ > 0.5


def test_tables_keep_their_names():
    X, y = _planted(n=60, d=3)
    table = pd.DataFrame(X, columns=["age", "size", "income"])
    model = _quick(n_directions=2).set_output(transform="pandas").fit(table, y)
    assert list(model.feature_names_in_) == ["age", "size", "income"]
    projected = model.transform(table)
    assert list(projected.columns) == ["multiindexregressor0", "multiindexregressor1"]
    assert projected.index.equals(table.index)


def test_float32_is_accepted():
    X, y = _planted(n=60)
    model = _quick().fit(X.astype(np.float32), y.astype(np.float32))
    assert model.predict(X.astype(np.float32)).dtype == np.float64


def test_an_interrupted_fit_is_no_fit(monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    X, y = _planted(n=30)
    monkeypatch.setattr("flattest.regression.fitting.eliminate", interrupted)
    model = _quick()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_progress_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes Rich take the captured stream for a terminal
    X, y = _planted(n=30, d=2)
    _quick(verbose=1).fit(X, y)
    shown = capsys.readouterr().err
    assert "searching for directions" in shown
    assert "fitting on" in shown
    _quick().fit(X, y)
    assert not capsys.readouterr().err


def test_neither_order_nor_repetition_of_rows_matters():
    X, y = _noisy()
    expected = _fitted("noisy").predict(X)
    order = np.random.default_rng(0).permutation(60)
    shuffled = _quick().fit(X[order], y[order])
    doubled = _quick().fit(np.concatenate([X, X[order]]), np.concatenate([y, y[order]]))
    for other in (shuffled, doubled):
        np.testing.assert_allclose(other.predict(X), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("link", ["auto", "network"])
def test_weights_count_rows(link):
    X, y = _noisy()
    more = np.random.default_rng(2).standard_normal((20, 6))
    rows, target = np.concatenate([X, more]), np.append(y, np.full(20, 3.0))  # not counted
    weight = np.repeat([2.0, 0.0], [60, 20])
    model = _quick(link=link).fit(rows, target, sample_weight=weight)
    expected = _fitted("noisy", link=link).predict(rows)
    np.testing.assert_allclose(model.predict(rows), expected, rtol=0, atol=ROUNDING)
    # Heavier rows are fitted more closely.
    y += np.random.default_rng(0).standard_normal(60)
    heavy = np.arange(60) < 30
    tilted = _quick(link=link).fit(X, y, sample_weight=np.where(heavy, 10.0, 0.1))
    error = np.square(tilted.predict(X) - y)
    assert error[heavy].mean() < error[~heavy].mean()


def test_a_network_sees_weights_as_repetitions():
    """The flatness and the loss of weighted rows are those of the rows repeated."""
    rng = np.random.default_rng(0)
    X, y, times = rng.standard_normal((7, 3)), rng.standard_normal(7), rng.integers(1, 4, 7)
    rows = Rows.of(X, y, times.astype(float))
    repeated = np.repeat(np.arange(7), times)
    for activation in ("relu", "relu2", "cubic"):
        net = ft.TwoLayerNet(rng.standard_normal((5, 4)), rng.standard_normal(5), activation)
        data = TrainingData.of(rows, bias=True, device=torch.device("cpu"))
        weighted = data.weighted(data.inputs, True, net.activation.degree)
        plain = torch.from_numpy(data.standardise(X[repeated]))
        target = torch.from_numpy(y[repeated] - data.standardise.intercept)
        expected = ft.measure(net, ft.append_bias_coordinate(plain), target)
        found = ft.measure(net, *weighted)
        for name in ("trace", "residual", "loss", "orbit_minimum", "reflected"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9)


def test_outliers_are_left_out_and_named():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1200, 6))
    y = np.abs(X[:, 0] - 2 * X[:, 1]) + 0.1 * rng.standard_normal(1200)
    bad = rng.choice(200, 2, replace=False)
    train = y[:200].copy()
    train[bad] += 50
    with pytest.warns(UserWarning, match="2 of 200 targets"):
        model = _quick().fit(X[:200], train)
    assert sorted(np.flatnonzero(model.outliers_)) == sorted(bad)
    assert model.n_directions_ == 1
    assert model.score(X[200:], y[200:]) > 0.99
    assert not _quick().fit(X[:200], y[:200]).outliers_.any()


@pytest.mark.parametrize("penalty", ["reflected_flatness", "flatness", "weight_decay"])
@pytest.mark.parametrize("n", [80, 300])  # second order and first order
def test_penalties_of_the_network(penalty, n):
    X, y = _planted(n=n, d=4)
    model = _quick(penalty=penalty, link="network", strengths=[3e-3, 3e-1]).fit(X, y)
    weak, strong = (
        model.path_[model.path_["strength"] == strength]["flatness"].iloc[0]
        for strength in (3e-3, 3e-1)
    )
    assert strong < weak
    assert model.score(X, y) > 0.9


def test_few_rounds_still_end_at_the_directions_wanted():
    X, y = _planted()
    model = _quick(link="network", n_directions=1, max_rounds=1).fit(X, y)
    assert list(model.path_["n_directions"].unique()) == [6, 1]
    assert _cosine(model.directions_[0], np.array([1, -2, 0, 0, 0, 0])) > 0.98


def test_splits_can_be_given():
    X, y = _planted(n=60)
    for cv in (KFold(4), [(np.arange(40), np.arange(40, 60))]):
        assert _quick(cv=cv).fit(X, y).score(X, y) > 0.9
    # Splits that do not count are passed over.
    weight = np.repeat([1.0, 0.0], [40, 20])
    assert _quick(cv=KFold(3)).fit(X, y, weight).score(X[:40], y[:40]) > 0.9


def test_threads_are_given_back():
    X, y = _planted(n=40, d=2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _quick().fit(X, y)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there_is_refused():
    X, y = _noisy()
    for device in ("abacus", "meta:x", 3.5):
        with pytest.raises(ValueError, match="device is"):
            _quick(device=device).fit(X, y)
    expected, found = _fitted("noisy").predict(X), _quick(device="cpu").fit(X, y).predict(X)
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("link", ["auto", "network"])
def test_displays(link):
    X, y = _planted(n=60)
    table = pd.DataFrame(X, columns=[f"feature {i}" for i in range(6)])
    model = _quick(link=link, n_directions=2).fit(table, y)
    directions = ft.DirectionsDisplay.from_estimator(model)
    # Of the two directions the second is of an importance below 1 %.
    assert model.direction_importances_[1] < 0.01
    assert len(directions.axes_) == 1
    names = {label.get_text() for label in directions.axes_[0].get_yticklabels()}
    assert names == set(table.columns)
    shown = ft.LinkDisplay.from_estimator(model, table, y)
    assert shown.projections.shape == (60, 1)
    assert all((curve.band is None) == (link == "network") for curve in shown.curves)
    assert len(ft.PathDisplay.from_estimator(model).axes_) == 2


def test_displays_refuse_what_they_cannot_show():
    X, y = _planted(n=20)
    constant = _quick().fit(X, np.ones(20))
    with pytest.raises(ValueError, match="no direction to show"):
        ft.DirectionsDisplay.from_estimator(constant)
    with pytest.raises(ValueError, match="no direction to show"):
        ft.LinkDisplay.from_estimator(constant, X, np.ones(20))
    model = _fitted("planted")
    with pytest.raises(ValueError, match="feature_names has 1 names for 6 features"):
        ft.DirectionsDisplay.from_estimator(model, feature_names=["a"])
    with pytest.raises(ValueError, match="give one target each"):
        ft.LinkDisplay.from_estimator(model, X, y[:3])
    with pytest.raises(NotFittedError):
        ft.PathDisplay.from_estimator(_quick())


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (np.ones(3), ValueError, "X has 20 rows"),
        (-np.ones(20), ValueError, "not negative"),
        (np.full(20, np.nan), ValueError, "finite"),
        (np.zeros(20), ValueError, "Every sample_weight is zero"),
        (["a"] * 20, TypeError, "must be numbers"),
    ],
)
def test_bad_weights(weight, error, message):
    X, y = _planted(n=20)
    with pytest.raises(error, match=message):
        _quick().fit(X, y, sample_weight=weight)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"width": 0}, ValueError, "width must be at least 1"),
        ({"cv": 1}, ValueError, "cv must be at least 2"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer"),
        ({"n_directions": 7}, ValueError, "n_directions is 7, but X has 6 features"),
        ({"n_directions": "all"}, ValueError, "n_directions must be 'auto' or an integer"),
        ({"link": "spline"}, ValueError, "link must be one of"),
        ({"strengths": "weak"}, ValueError, "strengths must be 'auto' or a sequence"),
        ({"strengths": []}, ValueError, "at least one number"),
        ({"strengths": [0.1, -1]}, ValueError, "strengths must be finite and greater than 0"),
        ({"penalty": "ridge"}, ValueError, "penalty must be one of"),
        ({"max_rounds": 0}, ValueError, "max_rounds must be at least 1"),
        ({"n_jobs": 0}, ValueError, "n_jobs must not be 0"),
        ({"activation": "tanhh"}, ValueError, "tanhh"),
        ({"random_state": -1}, ValueError, "random_state must not be negative"),
    ],
)
def test_bad_parameters(parameters, error, message):
    X, y = _planted(n=20)
    with pytest.raises(error, match=message):
        _quick(**parameters).fit(X, y)
