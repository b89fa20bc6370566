"""balance reaches the orbit minimum, sharpen leaves it as far as asked; the function stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import DEGREES, Problem, assert_same_function, dense, problems, random_problem, same

import flattest as ft
from flattest.two_layer.closed_form import orbit_minimum, orbit_scales


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_balancing_reaches_the_orbit_minimum(problem: Problem, seed: int) -> None:
    scales = np.exp(np.random.default_rng(seed).uniform(-5, 5, problem.net.width))
    net = ft.rescale(problem.net, scales)
    minimum = ft.measure(problem.net, problem.X, problem.y).orbit_minimum
    balanced = ft.balance(net, problem.X, problem.y)
    reached = ft.measure(balanced, problem.X, problem.y)
    assert same(reached.gauss_newton, minimum, 1e-10)
    assert same(reached.gauss_newton, dense(balanced, problem.X, problem.y).gauss_newton, 1e-10)
    fresh = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, problem.X.shape[1])))
    for X in (problem.X, fresh):
        assert_same_function(net, balanced, X, tolerance=1e-12)


@pytest.mark.parametrize("p", DEGREES)
def test_no_random_rescaling_is_flatter(p: float) -> None:
    rng = np.random.default_rng(0)
    problem = random_problem(rng, shape=ft.Homogeneous(p, 1, -0.5), interpolating=True)
    flatness = ft.measure(problem.net, problem.X, problem.y)
    for spread in (0.01, 0.1, 1, 3):
        balanced = ft.balance(problem.net, problem.X)
        other = ft.rescale(balanced, np.exp(spread * rng.normal(size=problem.net.width)))
        assert ft.measure(other, problem.X, problem.y).trace >= flatness.orbit_minimum


def test_balancing_takes_batches_and_needs_no_targets() -> None:
    problem = random_problem(np.random.default_rng(1), n=10)
    X, y = problem.X, problem.y
    whole = ft.balance(problem.net, X)
    batched = ft.balance(problem.net, [(X[:3], y[:3]), (X[3:], y[3:])])
    torch.testing.assert_close(whole.weights, batched.weights, rtol=1e-13, atol=0)
    torch.testing.assert_close(whole.weights, ft.balance(problem.net, X, y).weights)


def test_silent_and_dead_neurons() -> None:
    X = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    weights, coefficients = [[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0]], [0.0, 2.0, 3.0]
    balanced = ft.balance(ft.TwoLayerNet(weights, coefficients, "relu"), X)
    assert balanced.weights[0].tolist() == [0, 0]  # silent: its infimum 0 is attained
    assert balanced.weights[1].tolist() == [-1, -1]  # dead on the data: left alone
    assert balanced.coefficients[1] == 2
    empty = ft.balance(ft.TwoLayerNet([[0.0, 0.0], [1.0, 1.0]], [5.0, 1.0], "leaky_relu"), X)
    assert empty.coefficients[0] == 0
    measured = ft.measure(empty, X, [0.0, 0.0])
    assert same(measured.trace, measured.orbit_minimum, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_balancing_keeps_the_dtype(dtype: torch.dtype) -> None:
    problem = random_problem(np.random.default_rng(2), shape="relu2")
    net, X = problem.net.to(dtype), problem.X.to(dtype)
    balanced = ft.balance(net, X)
    assert balanced.weights.dtype == dtype
    measured = ft.measure(balanced, X, net(X))
    assert same(measured.gauss_newton, measured.orbit_minimum, 1e-5)


@given(problem=problems(), factor=st.floats(1, 1e6), other=st.integers(0, 2**32 - 1))
def test_sharpening_is_guaranteed_on_every_data_set(
    problem: Problem, factor: float, other: int
) -> None:
    sharp = ft.sharpen(problem.net, factor)
    n, d = problem.X.shape
    unseen = torch.from_numpy(np.random.default_rng(other).standard_cauchy(size=(n, d)))
    for X in (problem.X, unseen):
        before = ft.measure(problem.net, X, problem.y)
        after = ft.measure(sharp, X, problem.y)
        assert after.gauss_newton >= factor * before.gauss_newton
        assert same(before.orbit_minimum, after.orbit_minimum, 1e-10)
        assert_same_function(problem.net, sharp, X)


def test_sharpening_where_the_guarantee_is_tight() -> None:
    """One sample along the weight vector, a large coefficient: no more than asked is done."""
    net = ft.TwoLayerNet([[1.0, 0.0]], [1e3], "relu")
    X, y = [[2.0, 0.0]], [2e3]
    before, after = ft.measure(net, X, y), ft.measure(ft.sharpen(net, 50), X, y)
    assert same(after.trace, 50 * before.trace, 1e-4)


def test_sharpening_silent_neurons_and_by_one() -> None:
    net = ft.TwoLayerNet([[1.0], [0.0]], [0.0, 2.0], "relu2")
    X, y = [[1.0], [2.0]], [0.0, 0.0]
    before, after = ft.measure(net, X, y), ft.measure(ft.sharpen(net, 7), X, y)
    assert after.trace >= 7 * before.trace > 0
    same_net = ft.sharpen(net, 1)
    assert same_net is not net
    assert torch.equal(same_net.weights, net.weights)
    with pytest.raises(ValueError, match="factor must be finite and at least 1"):
        ft.sharpen(net, 0.5)


def test_other_modules() -> None:
    with pytest.raises(TypeError, match="y is missing"):
        ft.balance(torch.nn.Linear(2, 1), torch.zeros(3, 2))


@given(
    A=st.floats(1e-200, 1e200), B=st.floats(1e-200, 1e200), p=st.sampled_from([1.0, 1.5, 2.0, 3.0])
)
def test_the_formula_is_the_minimum_over_c(A: float, B: float, p: float) -> None:
    one, two = torch.tensor([A], dtype=torch.float64), torch.tensor([B], dtype=torch.float64)
    c, minimum = orbit_scales(one, two, p).item(), orbit_minimum(one, two, p).item()

    def trace(factor: float) -> float:
        # Logarithms, since c**(2p) alone may overflow.
        log_A, log_B, log_c = np.log(A), np.log(B), np.log(c * factor)
        return np.exp(2 * p * log_c + log_A) + np.exp(-2 * log_c + log_B)

    assert same(trace(1.0), minimum, 1e-11)
    assert trace(0.99) > minimum
    assert trace(1.01) > minimum


@given(problem=problems(), seed=st.integers(0, 1000))
def test_rescaling_keeps_the_function(problem: Problem, seed: int) -> None:
    scales = np.exp(np.random.default_rng(seed).uniform(-5, 5, problem.net.width))
    assert_same_function(problem.net, ft.rescale(problem.net, scales), problem.X)
    assert_same_function(problem.net, ft.rescale(problem.net, 7), problem.X)


def test_rescaling_out_of_range_is_refused() -> None:
    net = ft.TwoLayerNet(torch.ones(1, 1), torch.ones(1), "relu")
    for scale in (1e40, 1e-40, 1e50):
        with pytest.raises(ValueError, match="out of the range"):
            ft.rescale(net, scale)
    for scale in (0.0, -1.0):
        with pytest.raises(ValueError, match="must be positive"):
            ft.rescale(net, scale)
    with pytest.raises(ValueError, match="one number or 1 numbers"):
        ft.rescale(net, [1.0, 2.0])
