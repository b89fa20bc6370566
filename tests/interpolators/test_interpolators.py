"""Interpolate: what it promises, and how it behaves."""

import importlib
import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from oracles import dense
from sklearn.exceptions import ConvergenceWarning

import flattest as ft
from flattest.interpolators.result import Problem


def data(n=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((n, d)))
    return X, torch.from_numpy(rng.standard_normal(n))


# --- interpolate: what it promises -------------------------------------------------------------


@pytest.mark.parametrize(
    ("links", "act", "width", "bound"),
    [
        (["relu", "-relu"], "relu", 60, 1e-20),
        (["abs", "abs"], "relu", 60, 1e-8),
        (["abs"], "abs", 30, 1e-20),
        (["linear"], "linear", 10, 1e-20),
        (["relu", (0.3, "relu")], "leaky_relu", 60, 1e-8),
        (["quadratic", "quadratic"], "quadratic", 20, 1e-16),
        (["relu2"], "relu2", 20, 1e-10),
        (["cubic"], "cubic", 10, 1e-10),
    ],
)
def test_the_flattest_interpolator_recovers_multi_index_models(links, act, width, bound):
    X, y, model = ft.make_multi_index(150, 6, links, random_state=3)
    result = ft.interpolate(X, y, width=width, activation=act, random_state=0)
    assert result.converged, result.status
    assert result.train_error <= 1e-16 * float(y.square().mean())
    assert model.relative_error(result.net, random_state=1) <= bound
    planted = ft.TwoLayerNet(model.directions, model.coefficients, act)
    if act not in ("relu", "leaky_relu") and ft.activation(act).degree == 1:
        limit = ft.measure(planted, X, y).orbit_minimum
        assert result.flatness.orbit_minimum <= limit * (1 + 1e-9)


def test_the_flattest_is_flatter_than_what_gradient_descent_finds():
    X, y, model = ft.make_multi_index(150, 15, ["relu"] * 2, random_state=0)
    flattest = ft.interpolate(X, y, width=60, random_state=0)
    large = ft.interpolate(X, y, "gradient_descent", width=60, random_state=0, init_scale=1)
    assert large.converged
    assert large.flatness.ratio > 5 * flattest.flatness.ratio
    assert model.relative_error(large.net) > 1 > 1e-20 > model.relative_error(flattest.net)


def test_the_penalised_method_agrees_with_the_second_order_one():
    X, y, _ = ft.make_multi_index(120, 5, ["relu", "-relu"], random_state=0)
    second = ft.interpolate(X, y, width=40, random_state=0)
    first = ft.interpolate(X, y, "penalised", width=40, random_state=0)
    assert first.converged
    assert first.train_error < 1e-20
    assert first.flatness.orbit_minimum == pytest.approx(second.flatness.orbit_minimum, rel=0.01)


@pytest.mark.parametrize("objective", ["trace", "reflected"])
def test_noisy_labels_are_interpolated_too(objective):
    X, y, _ = ft.make_multi_index(120, 6, ["relu"] * 2, noise=0.5, random_state=0)
    result = ft.interpolate(X, y, width=80, random_state=0, objective=objective, max_iter=300)
    assert result.train_error <= 1e-20
    trained = ft.interpolate(X, y, "gradient_descent", width=80, random_state=0)
    assert result.flatness.orbit_minimum < trained.flatness.orbit_minimum


def test_trace_tol_zero_returns_the_least_trace_found():
    X, y, _ = ft.make_multi_index(150, 6, ["abs", "abs"], random_state=1)
    strict = ft.interpolate(X, y, width=60, random_state=0, trace_tol=0)
    assert strict.flatness.orbit_minimum == pytest.approx(
        min(
            strict.notes["orbit_minimum_of_least_trace"],
            strict.notes["orbit_minimum_of_least_reflected"],
        ),
        rel=1e-9,
    )


def test_one_sample_attains_the_lower_bound():
    X, y = data(1, 5)
    result = ft.interpolate(X, y, width=3, random_state=0)
    assert result.flatness.ratio == pytest.approx(1, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(1, 12),
    d=st.integers(1, 15),
    act=st.sampled_from(["relu", "abs", "relu2"]),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([1e-20, 1.0, 1e20]),
    awkward=st.sampled_from(["plain", "zero row", "zero column", "twice the same"]),
)
def test_awkward_data_interpolate_or_say_so(n, d, act, seed, scale, awkward):
    X, y = data(n, d, seed)
    X, y = X * scale, y / scale
    if awkward == "zero row":
        X[0], y[0] = 0, 0
    elif awkward == "zero column":
        X[:, 0] = 0
    elif awkward == "twice the same":
        X, y = torch.cat([X, X]), torch.cat([y, y])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        result = ft.interpolate(X, y, width=30, activation=act, random_state=seed, max_iter=150)
    small = result.train_error <= 1e-10 * float(y.square().mean())
    assert small == (result.status in (ft.Status.CONVERGED, ft.Status.NOT_FLATTEST))
    assert result.flatness.ratio >= 1 - 1e-9 or math.isnan(result.flatness.ratio)
    if act == "relu" and d > 2 * n and awkward == "plain":
        assert small


# --- interpolate: how it behaves ---------------------------------------------------------------


@pytest.mark.parametrize("method", ["flattest", "penalised", "gradient_descent"])
def test_what_does_not_converge_warns_and_says_so(method):
    X, y = data(60, 3)
    with pytest.warns(ConvergenceWarning, match="training loss is above tol"):
        result = ft.interpolate(X, y, method, width=2, random_state=0, max_iter=60)
    assert result.status is ft.Status.NOT_INTERPOLATING
    assert not result.converged


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("method", ["flattest", "penalised", "gradient_descent"])
def test_the_same_seed_gives_the_same_network(method):
    X, y = data(30, 4)
    nets = [
        ft.interpolate(X, y, method, width=60, random_state=5, tol=1e-4, max_iter=300).net
        for _ in range(2)
    ]
    assert torch.equal(nets[0].weights, nets[1].weights)


@pytest.mark.parametrize("method", ["flattest", "penalised", "gradient_descent"])
def test_history_tells_the_story(method):
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0)
    result = ft.interpolate(X, y, method, width=20, random_state=0)
    table = pd.DataFrame(result.history)
    assert list(table.columns[:4]) == ["iteration", "train_error", "trace", "orbit_minimum"]
    assert (table.trace >= table.orbit_minimum * (1 - 1e-9)).all()
    last = table.iloc[-1]
    assert last.orbit_minimum == pytest.approx(result.flatness.orbit_minimum, rel=1e-6)
    assert result.seconds > 0
    assert result.method in repr(result)


@pytest.mark.parametrize("method", ["flattest", "penalised", "gradient_descent"])
def test_an_interruption_keeps_what_is_done(method):
    from flattest.interpolators import METHODS

    X, y = data(30, 4)
    calls = []

    def report(entry, expected):
        calls.append(entry)
        if len(calls) == 3:
            raise KeyboardInterrupt

    problem = Problem(
        X, y, 40, ft.activation("relu"), np.random.default_rng(0), 2000, 1e-10, 1e-16, report
    )
    outcome = METHODS[method](problem)
    assert outcome.status is ft.Status.INTERRUPTED
    assert torch.isfinite(outcome.weights).all()
    assert len(outcome.history) >= 3


def test_float32_data_give_a_float32_network():
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0, dtype=torch.float32)
    result = ft.interpolate(X, y, width=20, random_state=0)
    assert result.net.weights.dtype == torch.float32
    assert result.train_error < 1e-12


def test_arrays_and_frames_are_accepted():
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0)
    tensors, arrays, frames = (
        ft.interpolate(a, b, width=20, random_state=0).flatness.orbit_minimum
        for a, b in [(X, y), (X.numpy(), y.numpy()), (pd.DataFrame(X.numpy()), y[:, None])]
    )
    # As under a change of units: other forms may be rounded otherwise.
    assert arrays == pytest.approx(tensors, rel=1e-8)
    assert frames == pytest.approx(tensors, rel=1e-8)


@pytest.mark.parametrize("change", ["scale", "permute", "rotate", "units"])
def test_invariances_of_the_flattest(change):
    X, y, _ = ft.make_multi_index(120, 5, ["relu", "-relu"], random_state=0)
    before = ft.interpolate(X, y, width=40, random_state=0).flatness
    factor = 1.0
    if change == "scale":
        y, factor = 1e6 * y, 1e6
    elif change == "permute":
        order = torch.from_numpy(np.random.default_rng(0).permutation(len(X)))
        X, y = X[order], y[order]
    elif change == "rotate":
        X = X @ torch.linalg.qr(data(5, 5)[0])[0]
    else:
        X, factor = 1e-6 * X, 1e-6
    after = ft.interpolate(X, y, width=40, random_state=0).flatness
    assert after.orbit_minimum == pytest.approx(factor * before.orbit_minimum, rel=1e-8)
    assert after.ratio == pytest.approx(before.ratio, rel=1e-8)


def test_the_result_is_balanced_and_its_trace_is_the_dense_trace():
    X, y, _ = ft.make_multi_index(60, 3, ["relu"], random_state=0)
    result = ft.interpolate(X, y, width=10, random_state=0)
    assert result.flatness.trace == pytest.approx(result.flatness.orbit_minimum, rel=1e-9)
    exact = dense(result.net, X, y).trace
    assert result.flatness.trace == pytest.approx(exact, rel=1e-9)


def test_zero_targets_give_the_zero_network():
    X, y = data()
    result = ft.interpolate(X, 0 * y, width=3)
    assert result.converged
    assert result.flatness.trace == 0


def test_large_data_fall_back_to_the_first_order_method(monkeypatch):
    solver = importlib.import_module("flattest.interpolators.flattest")
    monkeypatch.setattr(solver, "DUAL_SIZE", 10)
    X, y, _ = ft.make_multi_index(60, 4, ["relu"], random_state=0)
    result = ft.interpolate(X, y, width=20, random_state=0)
    assert "penalised" in result.notes["fallback"]


def test_the_data_are_left_alone():
    X, y = data()
    X0, y0 = X.clone(), y.clone()
    ft.interpolate(X, y, width=60, random_state=0, tol=1e-3)
    assert torch.equal(X, X0)
    assert torch.equal(y, y0)
    assert torch.is_grad_enabled()
