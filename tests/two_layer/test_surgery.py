"""Merging, splitting and pruning neurons: the function stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from oracles import (
    Problem,
    assert_same_function,
    problems,
    random_problem,
    same,
    shapes,
)

import flattest as ft


@given(problem=problems(), seed=st.integers(0, 2**32 - 1))
def test_merging_undoes_splitting(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    net = ft.prune(problem.net)
    copies = int(rng.integers(1, 5))
    more = ft.split(net, int(rng.integers(net.width)), copies)
    more = ft.rescale(more, np.exp(rng.uniform(-2, 2, more.width)))
    assert more.width == net.width + copies - 1
    assert_same_function(net, more, problem.X)
    merged = ft.merge(more)
    assert merged.width <= net.width
    assert_same_function(net, merged, problem.X, tolerance=1e-9)


@pytest.mark.parametrize("degree", [1, 1.5, 2, 3])
@pytest.mark.parametrize("sign", [1, -1])
def test_opposite_rays_merge_for_even_and_odd_activations(degree: float, sign: int) -> None:
    net = ft.TwoLayerNet(
        [[1.0, 2.0], [-2.0, -4.0], [0.0, 1.0]],
        [1.0, 0.3, 1.0],
        ft.Homogeneous(degree, 2, 2 * sign),
    )
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    merged = ft.merge(net)
    assert merged.width == 2
    assert_same_function(net, merged, X)
    one_sided = ft.TwoLayerNet(net.weights, net.coefficients, ft.Homogeneous(degree, 2, sign))
    assert ft.merge(one_sided).width == 3


def test_merging_keeps_the_trace_of_balanced_relu_neurons() -> None:
    problem = random_problem(np.random.default_rng(1), m=3, interpolating=True)
    net = ft.balance(ft.split(problem.net, 1, 4), problem.X)
    merged = ft.merge(net)
    assert merged.width == 3
    before, after = (ft.measure(f, problem.X, problem.y) for f in (net, merged))
    assert same(before.trace, after.trace, 1e-12)
    assert same(after.trace, after.orbit_minimum, 1e-12)


def test_merging_neurons_that_cancel() -> None:
    net = ft.TwoLayerNet([[1.0], [2.0], [-1.0]], [2.0, -1.0, 1.0], "relu")
    assert ft.merge(net).weights.tolist() == [[-1.0]]
    nothing = ft.merge(ft.TwoLayerNet([[1.0], [2.0]], [2.0, -1.0], "relu"))
    assert nothing.width == 1
    assert nothing.coefficients.tolist() == [0]


def test_merging_to_a_tolerance() -> None:
    net = ft.TwoLayerNet([[1.0, 0.0], [1.0, 1e-4]], [1.0, 1.0], "relu")
    assert ft.merge(net).width == 2
    merged = ft.merge(net, tol=1e-3)
    assert merged.width == 1
    X = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 2)))
    assert_same_function(net, merged, X, tolerance=1e-3)


@given(problem=problems(), tol=st.sampled_from([0.0, 1e-12]))
def test_pruning_keeps_the_function_on_the_data(problem: Problem, tol: float) -> None:
    everywhere = ft.prune(problem.net, tol=tol)
    fresh = torch.from_numpy(np.random.default_rng(0).normal(size=(9, problem.X.shape[1])))
    assert_same_function(problem.net, everywhere, fresh, tolerance=1e-11)
    on_data = ft.prune(problem.net, problem.X, tol=tol)
    assert on_data.width <= everywhere.width
    assert_same_function(problem.net, on_data, problem.X, tolerance=1e-11)
    before = ft.measure(problem.net, problem.X, problem.y)
    after = ft.measure(on_data, problem.X, problem.y)
    assert same(before.orbit_minimum, after.orbit_minimum, 1e-10)


def test_pruning_everything_leaves_one_zero_neuron() -> None:
    net = ft.TwoLayerNet([[-1.0], [-2.0]], [1.0, 1.0], "relu")
    pruned = ft.prune(net, [[1.0], [2.0]])
    assert pruned.width == 1
    assert pruned.coefficients.tolist() == [0]


@given(shape=shapes())
def test_surgery_keeps_dtype_and_leaves_the_original(shape: ft.Homogeneous) -> None:
    net = ft.TwoLayerNet(torch.eye(3), torch.ones(3), shape)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for other in (ft.merge(net), ft.split(net, 2, 2), ft.prune(net), ft.rescale(net, 2.0)):
        assert other.weights.dtype == other.coefficients.dtype == torch.float32
        other.weights.data.fill_(9)
        other.coefficients.data.fill_(9)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_splitting_needs_a_neuron_that_exists() -> None:
    with pytest.raises(ValueError, match="less than the width 1"):
        ft.split(ft.TwoLayerNet([[1.0]], [1.0], "relu"), 1, 2)


def test_prune_keeps_neurons_whose_size_overflows():
    huge = ft.TwoLayerNet(torch.tensor([[1e30], [1.0]]), torch.tensor([1e30, 1.0]), "relu")
    pruned = ft.prune(huge)
    assert pruned.width == 2
    assert torch.equal(pruned.coefficients, huge.coefficients)
    with pytest.raises(ValueError, match="leaves the range of float64"):
        ft.merge(ft.TwoLayerNet([[1e120]], [1.0], "relu3"))
