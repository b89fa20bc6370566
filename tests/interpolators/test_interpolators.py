import importlib
import itertools
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
from flattest.interpolators.objective import Objective, Whitened
from flattest.interpolators.result import Problem
from flattest.interpolators.second_order import Schedule, descend, restore

ACTIVATIONS = ["relu", "leaky_relu", "abs", "linear", "relu2", "quadratic", "relu3", "cubic"]


def data(n=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((n, d)))
    return X, torch.from_numpy(rng.standard_normal(n))


def random_point(objective, width=5, seed=0):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.standard_normal((width, objective.X.shape[1])))
    return objective.point(W, torch.from_numpy(rng.standard_normal(width)))


# --- the objective against autograd ------------------------------------------------------------


def flatness_of(objective, W, a):
    """Q / 2 by its definition, differentiable."""
    z = objective.X @ W.T
    p = objective.p
    kinds = [objective.activation]
    if objective.reflected:
        positive, negative = objective.activation.positive, objective.activation.negative
        kinds.append(ft.Homogeneous(p, negative, positive))
    total = 0.0
    for kind in kinds:
        slopes = torch.where(z > 0, kind.positive * torch.ones_like(z), kind.negative)
        value = slopes * z.abs() ** p
        derivative = p * slopes * z.abs() ** (p - 1)
        total = total + (value**2).mean(0).sum()
        total = total + (a**2 * (objective.q[:, None] * derivative**2).mean(0)).sum()
    return total / len(kinds) / 2


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("act", [*ACTIVATIONS, ft.Homogeneous(1.5, 1, -0.3), "sharp"])
def test_value_and_gradient_agree_with_autograd(act, reflected):
    act = ft.Homogeneous(2.5, 2, 0.5) if act == "sharp" else ft.activation(act)
    objective = Objective(Whitened(*data()), act, reflected=reflected)
    point = random_point(objective)
    W, a = point.W.clone().requires_grad_(), point.a.clone().requires_grad_()
    half = flatness_of(objective, W, a)
    gradient_W, gradient_a = torch.autograd.grad(half, (W, a))
    assert objective.value(point) == pytest.approx(2 * half.item(), rel=1e-12)
    found_W, found_a = objective.gradient(point)
    if act.degree == 1.5:
        return  # the metric caps s'' near 0, and the gradient with it
    torch.testing.assert_close(found_W, gradient_W, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found_a, gradient_a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("act", ["relu", "abs", "relu2", "quadratic", "relu3", "cubic"])
def test_newton_blocks_are_the_hessian_of_the_lagrangian(act, reflected):
    objective = Objective(Whitened(*data()), ft.activation(act), reflected=reflected)
    point = random_point(objective)
    multipliers = torch.from_numpy(np.random.default_rng(1).standard_normal(40))
    blocks = objective.blocks(point, multipliers)
    for j in range(len(point.a)):

        def lagrangian(theta, j=j):
            w, a = theta[None, :-1], theta[-1:]
            f = objective.activation(objective.X @ w.T) @ a
            return flatness_of(objective, w, a) + (multipliers * f).mean()

        theta = torch.cat([point.W[j], point.a[j : j + 1]])
        hessian = torch.autograd.functional.hessian(lagrangian, theta)
        torch.testing.assert_close(blocks[j], hessian, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act", ["relu", "relu2", "cubic"])
def test_whitened_coordinates_compute_the_same_function_and_trace(act):
    X, y = data(30, 4)
    X = torch.cat([X * torch.tensor([1e3, 1.0, 1e-3, 1.0]), X[:, :1], 0 * X[:, :1]], dim=1)
    whitened = Whitened(X, y)
    assert whitened.rank == 4
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(whitened.features.T @ whitened.features / 30, identity)
    objective = Objective(whitened, ft.activation(act), reflected=False)
    point = random_point(objective)
    net = ft.TwoLayerNet(*whitened.restore(point.W, point.a, objective.p), act)
    torch.testing.assert_close(net(X).detach(), point.f * whitened.scale)
    unit, found = whitened.trace_unit(objective.p), ft.measure(net, X, y)
    assert found.orbit_minimum == pytest.approx(objective.orbit_minimum(point) * unit, rel=1e-10)
    assert found.gauss_newton == pytest.approx(2 * objective.value(point) * unit, rel=1e-10)


# --- the second-order descent ------------------------------------------------------------------


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "relu2", "cubic"])
def test_a_gauss_newton_step_solves_the_dense_normal_equations(act):
    """The dual n x n system against the same least-squares problem in all parameters at once."""
    whitened = Whitened(*data(12, 3))
    objective = Objective(whitened, ft.activation(act), reflected=False)
    point = objective.balance(random_point(objective, width=4))
    strength = 0.1
    from flattest.interpolators.second_order import _System

    residual = point.f - whitened.target
    move_W, move_a = _System(objective, point, residual, strength, newton=False).step(0.0)
    m, _r = point.W.shape
    J = torch.cat(
        [
            torch.cat([(point.slope * point.a)[:, j, None] * objective.X, point.s[:, j, None]], 1)
            for j in range(m)
        ],
        dim=1,
    )
    M = torch.block_diag(*objective.blocks(point))
    grad_W, grad_a = objective.gradient(point)
    gradient = torch.cat([grad_W, grad_a[:, None]], dim=1).reshape(-1)
    n = len(residual)
    expected = -torch.linalg.solve(
        J.T @ J / n + strength * M, J.T @ residual / n + strength * gradient
    )
    found = torch.cat([move_W, move_a[:, None]], dim=1).reshape(-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_restore_reaches_rounding_error_with_enough_neurons():
    whitened = Whitened(*data(20, 4))
    objective = Objective(whitened, ft.activation("relu2"), reflected=False)
    point = restore(objective, whitened.target, random_point(objective, width=30))
    assert float((point.f - whitened.target).square().mean()) < 1e-28


def test_the_penalised_loss_never_rises_at_one_strength():
    whitened = Whitened(*data(60, 5))
    objective = Objective(whitened, ft.activation("relu"), reflected=False)
    schedule = Schedule(start=0.1, end=0.01, patience=0.0)  # the strength stays
    merits = []
    steps = descend(objective, whitened.target, random_point(objective), schedule)
    for state in itertools.islice(steps, 15):
        merits.append(state.train_error + state.strength * objective.value(state.point))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(merits))
    assert merits[-1] < merits[0]


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
        result = ft.interpolate(X, y, width=30, activation=act, random_state=seed)
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


@pytest.mark.parametrize("method", ["flattest", "penalised", "gradient_descent"])
def test_the_same_seed_gives_the_same_network(method):
    X, y = data(30, 4)
    nets = [
        ft.interpolate(X, y, method, width=60, random_state=5, tol=1e-4, max_iter=2000).net
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
    traces = {
        ft.interpolate(a, b, width=20, random_state=0).flatness.orbit_minimum
        for a, b in [(X, y), (X.numpy(), y.numpy()), (pd.DataFrame(X.numpy()), y[:, None])]
    }
    assert len(traces) == 1


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
