"""measure: against the dense Hessian, in awkward cases, and under what must not change it."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from oracles import DEGREES, SLOPES, Problem, dense, problems, random_problem, same, term_size

import flattest as ft

EVERY_SHAPE = [ft.Homogeneous(p, *slopes) for p in DEGREES for slopes in SLOPES]
SUMMARIES = ("trace", "gauss_newton", "orbit_minimum", "lower_bound", "reflected", "loss")


def reflected(problem: Problem) -> float:
    """Average the dense Gauss-Newton trace over the data and their negatives."""
    X, y = problem.X, problem.y
    return (dense(problem.net, X, y).gauss_newton + dense(problem.net, -X, y).gauss_newton) / 2


@settings(max_examples=300)
@given(problem=problems())
def test_equals_the_dense_hessian(problem: Problem) -> None:
    flatness = ft.measure(problem.net, problem.X, problem.y)
    truth = dense(problem.net, problem.X, problem.y)
    assert abs(flatness.trace - truth.trace) <= 1e-10 * truth.size
    assert same(flatness.gauss_newton, truth.gauss_newton, 1e-10)
    assert same(flatness.reflected, reflected(problem), 1e-10)
    outputs = problem.net(problem.X).detach()
    loss = torch.nn.MSELoss()(outputs, problem.y).item()
    # At an interpolator both losses are rounding errors, of outputs that sum larger terms.
    rounding = 1e-13 * term_size(problem.net, problem.X)
    assert math.isclose(flatness.loss**0.5, loss**0.5, rel_tol=1e-12, abs_tol=rounding)


@pytest.mark.parametrize("interpolating", [True, False])
@pytest.mark.parametrize("shape", EVERY_SHAPE, ids=str)
def test_every_degree_and_sign_pattern(shape: ft.Homogeneous, interpolating: bool) -> None:
    rng = np.random.default_rng(0)
    problem = random_problem(rng, n=15, d=4, m=5, shape=shape, interpolating=interpolating)
    flatness = ft.measure(problem.net, problem.X, problem.y)
    truth = dense(problem.net, problem.X, problem.y)
    assert same(flatness.trace, truth.trace, 1e-10)
    if interpolating or shape.degree == 1:
        assert abs(flatness.residual) <= 1e-12 * flatness.trace


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs", "linear", "quadratic", "cubic"])
def test_convention_at_the_kink(name: str) -> None:
    """Orthogonal neurons, zero weights and zero rows: what autograd makes of s at 0 counts."""
    net = ft.TwoLayerNet([[1.0, -3.0], [0.0, 0.0], [2.0, 1.0]], [1.0, -2.0, 0.0], name)
    X = torch.tensor([[3.0, 1.0], [0.0, 0.0], [-1.0, 2.0], [6.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([1.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    truth = dense(net, X, y, s=net.activation)
    flatness = ft.measure(net, X, y)
    assert same(flatness.trace, truth.trace, 1e-12)
    assert same(flatness.gauss_newton, truth.gauss_newton, 1e-12)


@given(problem=problems())
def test_parts_add_up(problem: Problem) -> None:
    flatness = ft.measure(problem.net, problem.X, problem.y)
    neurons, p = flatness.per_neuron, flatness.degree
    assert flatness.trace == flatness.gauss_newton + flatness.residual
    assert same(flatness.gauss_newton, 2 * (neurons.outer + neurons.inner).sum().item(), 1e-14)
    assert flatness.residual == neurons.residual.sum().item()
    assert flatness.orbit_minimum == neurons.orbit_minimum.sum().item()
    assert (neurons.orbit_minimum <= neurons.gauss_newton * (1 + 1e-14)).all()
    alive = (neurons.outer > 0) & (neurons.inner > 0)
    at_best = 2 * (neurons.scale ** (2 * p) * neurons.outer + neurons.scale**-2 * neurons.inner)
    torch.testing.assert_close(at_best[alive], neurons.orbit_minimum[alive], rtol=1e-12, atol=0)
    assert (neurons.scale[~alive] == 1).all() or p == 1


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_rescaling_changes_no_orbit_minimum(problem: Problem, seed: int) -> None:
    scales = np.exp(np.random.default_rng(seed).uniform(-5, 5, problem.net.width))
    before = ft.measure(problem.net, problem.X, problem.y)
    after = ft.measure(ft.rescale(problem.net, scales), problem.X, problem.y)
    for name in ("orbit_minimum", "reflected_orbit_minimum", "lower_bound"):
        assert same(getattr(before, name), getattr(after, name), 1e-10)


@given(problem=problems(), seed=st.integers(0, 2**32 - 1), chunk_size=st.integers(1, 10))
def test_order_chunks_and_batches_do_not_matter(
    problem: Problem, seed: int, chunk_size: int
) -> None:
    net, X, y = problem.net, problem.X, problem.y
    rng = np.random.default_rng(seed)
    rows, neurons = rng.permutation(len(X)), rng.permutation(net.width)
    shuffled = ft.TwoLayerNet(net.weights[neurons], net.coefficients[neurons], net.activation)
    cut = int(rng.integers(len(X)))
    batches = [(X[:cut], y[:cut]), (X[cut:], y[cut:])] if cut else [(X, y[:, None])]
    whole = ft.measure(net, X, y)
    for other in (
        ft.measure(net, X[rows], y[rows]),
        ft.measure(shuffled, X, y),
        ft.measure(net, X, y, chunk_size=chunk_size),
        ft.measure(net, batches),
        ft.measure(net, iter(batches)),
    ):
        for name in SUMMARIES:
            one, two = getattr(whole, name), getattr(other, name)
            assert math.isclose(one, two, rel_tol=1e-11, abs_tol=1e-12 * whole.gauss_newton)


def test_kinds_of_input_agree(tmp_path) -> None:
    import pandas as pd
    from torch.utils.data import DataLoader, TensorDataset

    problem = random_problem(np.random.default_rng(3), n=20)
    net, X, y = problem.net, problem.X, problem.y
    expected = ft.measure(net, X, y)
    loader = DataLoader(TensorDataset(X, y), batch_size=7)
    for given_X, given_y in (
        (X.numpy(), y.numpy()),
        (X.tolist(), y.tolist()),
        (pd.DataFrame(X.numpy()), pd.Series(y.numpy(), index=range(5, 25))),
        (X.numpy()[:, ::-1][:, ::-1], y[:, None]),
        (loader, None),
    ):
        other = ft.measure(net, given_X, given_y)
        assert all(same(getattr(expected, k), getattr(other, k), 1e-13) for k in SUMMARIES)


@pytest.mark.parametrize("shape", EVERY_SHAPE, ids=str)
def test_float32_agrees_with_float64(shape: ft.Homogeneous) -> None:
    problem = random_problem(np.random.default_rng(5), n=3000, d=8, m=16, shape=shape)
    X, y = problem.X.float(), problem.y.float()
    net = ft.TwoLayerNet(
        problem.net.weights.detach().float(), problem.net.coefficients.detach().float(), shape
    )
    single = ft.measure(net, X, y)
    double = ft.measure(
        ft.TwoLayerNet(net.weights.double(), net.coefficients.double(), shape),
        X.double(),
        y.double(),
    )
    assert single.dtype == "torch.float32"
    for name in ("gauss_newton", "orbit_minimum", "lower_bound", "reflected", "loss"):
        assert same(getattr(single, name), getattr(double, name), 1e-5)
    assert abs(single.residual - double.residual) <= 1e-4 * double.gauss_newton


@pytest.mark.parametrize("p", DEGREES)
@pytest.mark.parametrize("exponent", [-30, -10, 10, 30])
def test_scales_far_from_one(p: float, exponent: int) -> None:
    """Weights of 1e-30 to 1e30, data of 1e-10 to 1e10: the measurements follow exactly."""
    rng = np.random.default_rng(7)
    problem = random_problem(rng, shape=ft.Homogeneous(p, 1, 0.5), interpolating=True)
    net, X = problem.net, problem.X
    t, u = 10.0**exponent, 10.0 ** (exponent / 3)
    far = ft.rescale(net, t)
    reference = ft.measure(net, X, net(X))
    scaled = ft.measure(far, u * X, far(u * X))
    # Data scaled by u: every gradient squared, and the bound, grows by u**(2p).
    growth = u ** (2 * p)
    assert same(scaled.orbit_minimum, growth * reference.orbit_minimum, 1e-10)
    assert same(scaled.lower_bound, growth * reference.lower_bound, 1e-10)
    expected = growth * t ** (2 * p) * reference.per_neuron.outer
    torch.testing.assert_close(scaled.per_neuron.outer, expected, rtol=1e-10, atol=0)
    expected = growth * t**-2 * reference.per_neuron.inner
    torch.testing.assert_close(scaled.per_neuron.inner, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("p", DEGREES)
@pytest.mark.parametrize("exponent", [-150, 150])
def test_orbit_minimum_where_the_trace_overflows(p: float, exponent: int) -> None:
    problem = random_problem(np.random.default_rng(8), shape=ft.Homogeneous(p, 1, 0))
    net, t = problem.net, 10.0 ** (exponent / p)
    far = ft.TwoLayerNet(t * net.weights, net.coefficients / t**p, net.activation)
    one = ft.measure(net, problem.X, problem.y)
    two = ft.measure(far, problem.X, problem.y)
    assert same(one.orbit_minimum, two.orbit_minimum, 1e-10)
    assert same(one.ratio, two.ratio, 1e-10)


@pytest.mark.parametrize("p", DEGREES)
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_float32_data_of_unusual_scale(p: float, size: float) -> None:
    rng = np.random.default_rng(9)
    problem = random_problem(rng, n=50, shape=ft.Homogeneous(p, 1, 0.5))
    X = (size * problem.X).float()
    net32 = ft.TwoLayerNet(
        problem.net.weights.detach().float(),
        problem.net.coefficients.detach().float(),
        problem.net.activation,
    )
    net64 = ft.TwoLayerNet(net32.weights.double(), net32.coefficients.double(), net32.activation)
    y = torch.zeros(50)
    single, double = ft.measure(net32, X, y), ft.measure(net64, X.double(), y.double())
    for name in ("gauss_newton", "orbit_minimum", "lower_bound", "reflected"):
        assert same(getattr(single, name), getattr(double, name), 1e-5), name


def test_rows_of_very_different_size() -> None:
    problem = random_problem(np.random.default_rng(10), n=40, d=4)
    X = problem.X * torch.logspace(-30, 30, 40, dtype=torch.float64)[:, None]
    for order in (range(40), range(39, -1, -1)):
        rows = X[list(order)]
        chunked = ft.measure(problem.net, rows, problem.y, chunk_size=3)
        assert same(chunked.trace, dense(problem.net, rows, problem.y).trace, 1e-10)


@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (1, 6, 1), (3, 10, 2), (20, 1, 1)])
def test_smallest_problems(n: int, d: int, m: int) -> None:
    for shape in EVERY_SHAPE:
        problem = random_problem(np.random.default_rng(n + d), n=n, d=d, m=m, shape=shape)
        flatness = ft.measure(problem.net, problem.X, problem.y)
        truth = dense(problem.net, problem.X, problem.y)
        assert abs(flatness.trace - truth.trace) <= 1e-10 * truth.size


@pytest.mark.parametrize("name", ["relu", "relu2", "linear", "leaky_relu", "quadratic"])
def test_a_network_that_is_zero(name: str) -> None:
    net = ft.TwoLayerNet(torch.zeros(2, 3), torch.zeros(2), name)
    flatness = ft.measure(net, torch.randn(4, 3), torch.ones(4))
    assert flatness.trace == flatness.orbit_minimum == flatness.lower_bound == 0
    assert math.isnan(flatness.ratio)
    assert flatness.loss == 1


def test_reflection_of_symmetric_data_changes_nothing() -> None:
    problem = random_problem(np.random.default_rng(11), shape="leaky_relu")
    X = torch.cat([problem.X, -problem.X])
    flatness = ft.measure(problem.net, X, torch.zeros(len(X), dtype=torch.float64))
    assert same(flatness.reflected, flatness.gauss_newton, 1e-13)
    assert same(flatness.reflected_orbit_minimum, flatness.orbit_minimum, 1e-13)


def test_reflected_minimum_is_a_whitened_path_norm() -> None:
    """For p = 1: 4 kappa sqrt(tr Sigma) sum_j |a_j| ||w_j||_Sigma."""
    problem = random_problem(np.random.default_rng(12), n=30, shape=ft.Homogeneous(1, 1, -0.3))
    X, w = problem.X, problem.net.weights.detach()
    sigma = X.T @ X / len(X)
    lengths = torch.einsum("jd,de,je->j", w, sigma, w).sqrt()
    path = (problem.net.coefficients.detach().abs() * lengths).sum()
    expected = 4 * (1 + 0.09) / 2 * sigma.trace().sqrt() * path
    flatness = ft.measure(problem.net, X, problem.y)
    assert same(flatness.reflected_orbit_minimum, expected.item(), 1e-12)


def test_nothing_is_left_behind() -> None:
    problem = random_problem(np.random.default_rng(13), shape="relu2")
    net, X, y = problem.net.train(), problem.X.clone(), problem.y.clone()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random_state = torch.get_rng_state()
    X.requires_grad_()
    flatness = ft.measure(net, X, y)
    ft.balance(net, X, y)
    ft.sharpen(net, 10.0)
    assert net.training
    assert X.grad is None
    assert torch.equal(X.detach(), problem.X)
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in net.named_parameters():
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, state[name])
    assert not any(tensor.requires_grad for tensor in flatness.per_neuron)


def test_result_is_readable_and_json_able() -> None:
    problem = random_problem(np.random.default_rng(14), shape="relu2")
    flatness = ft.measure(problem.net, problem.X, problem.y)
    values = json.loads(json.dumps(flatness.to_dict(), allow_nan=False))
    assert values["trace"] == flatness.trace
    assert flatness.standard_error == {}
    assert all(entry["exact"] and entry["why"] for entry in values["provenance"].values())
    assert values["per_neuron"]["outer"] == flatness.per_neuron.outer.tolist()
    assert values["version"] == ft.__version__
    table = repr(flatness)
    assert f"{flatness.trace:.6g}" in table
    assert "12 samples, 3 features, width 4, degree 2, torch.float64 on cpu" in table
    assert flatness.to_dict() == ft.measure(problem.net, problem.X, problem.y).to_dict()


def test_what_is_for_others_is_refused() -> None:
    with pytest.raises(TypeError, match="X is missing: sharpen needs example inputs"):
        ft.sharpen(torch.nn.Linear(2, 1), 2)
    with pytest.raises(ValueError, match="loss must be 'mse'"):
        ft.measure(ft.TwoLayerNet([[1.0]], [1.0], "relu"), [[1.0]], [1.0], loss="hinge")


def test_batches_that_are_not_batches() -> None:
    net = ft.TwoLayerNet([[1.0]], [1.0], "relu")
    with pytest.raises(ValueError, match="no batches"):
        ft.measure(net, iter([]))
    with pytest.raises(TypeError, match="y is missing"):
        ft.measure(net, [[1.0]])
    with pytest.raises(TypeError, match="Batch 1 must be a pair"):
        ft.measure(net, iter([torch.ones(2, 1, dtype=torch.float64)]))
    with pytest.raises(ValueError, match="X of batch 2 contains NaN or infinity in row 0"):
        ft.measure(net, iter([([[1.0]], [1.0]), ([[math.nan]], [1.0])]))
