"""The lower bound: below every network, attained where it should be, and how width enters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from oracles import DEGREES, Problem, dense, problems, random_problem, same

import flattest as ft


@given(problem=problems())
def test_bound_holds_for_the_dense_trace(problem: Problem) -> None:
    """At the network's own outputs it interpolates, so the bound holds for the whole trace."""
    net, X = problem.net, problem.X
    outputs = net(X).detach()
    bound = ft.lower_bound(X, outputs, width=net.width, activation=net.activation)
    assert bound <= dense(net, X, outputs).trace * (1 + 1e-12) + 1e-290
    flatness = ft.measure(net, X, problem.y)
    assert math.isclose(flatness.lower_bound, bound, rel_tol=1e-11, abs_tol=1e-30)
    assert bound <= flatness.orbit_minimum * (1 + 1e-12)


@pytest.mark.parametrize("p", DEGREES)
def test_attained_by_one_neuron_on_one_sample(p: float) -> None:
    """A weight vector along the only sample; any number of equal copies attains it as well."""
    shape = ft.Homogeneous(p, 0.7, 0)
    net = ft.TwoLayerNet([[1.0, 2.0, -1.0]], [3.0], shape)
    x = 1.7 * net.weights.detach()
    for other in (net, ft.split(net, 0, 5)):
        balanced = ft.balance(other, x)
        assert same(ft.measure(balanced, x, net(x)).ratio, 1, 1e-12)
        assert same(
            ft.lower_bound(x, net(x).detach(), width=other.width, activation=shape),
            dense(balanced, x, net(x).detach()).trace,
            1e-12,
        )


@pytest.mark.parametrize("slopes", [(1, 0), (0, -2), (0.5, 0)])
def test_attained_by_one_neuron_per_orthogonal_sample(slopes: tuple[float, float]) -> None:
    """Degree 1: the width does not enter, so a memoriser of orthogonal samples attains it."""
    rng = np.random.default_rng(1)
    basis, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    X = torch.from_numpy(basis * rng.uniform(0.5, 2, size=(6, 1)))
    side = 1.0 if slopes[0] else -1.0
    # Slightly negative on the other samples, so that these neurons are silent there exactly.
    directions = side * (torch.linalg.pinv(X).T - 1e-3 * torch.linalg.pinv(X).T.sum(0))
    net = ft.TwoLayerNet(directions, rng.normal(size=6), ft.Homogeneous(1, *slopes))
    flatness = ft.measure(net, X, net(X))
    assert same(flatness.ratio, 1, 1e-12)


@pytest.mark.parametrize("p", DEGREES)
@pytest.mark.parametrize("copies", [2, 7])
def test_splitting_law(p: float, copies: int) -> None:
    """K equal copies: the neuron's minimum shrinks by K**(-(p-1)/(p+1)), as does the bound."""
    problem = random_problem(np.random.default_rng(2), m=1, shape=ft.Homogeneous(p, 1, 0.5))
    one = ft.measure(problem.net, problem.X, problem.y)
    many = ft.measure(ft.split(problem.net, 0, copies), problem.X, problem.y)
    law = copies ** (-(p - 1) / (p + 1))
    assert same(many.orbit_minimum, law * one.orbit_minimum, 1e-12)
    assert same(many.lower_bound, law * one.lower_bound, 1e-12)
    assert same(many.ratio, one.ratio, 1e-12)


def test_kinds_of_input() -> None:
    X, y = [[3.0, 4.0], [0.0, 2.0]], [2.0, -1.0]
    expected = 4 / 2 * 0.01 * (5 * 2 + 2 * 1)
    for data, targets in (
        (X, y),
        (np.array(X), np.array(y)[:, None]),
        (torch.tensor(X), torch.tensor(y)),
        (torch.tensor(X), np.array(y)),
    ):
        bound = ft.lower_bound(data, targets, width=9, activation="leaky_relu")
        assert same(bound, expected, 1e-7)
    with pytest.raises(ValueError, match="width must be at least 1"):
        ft.lower_bound(X, y, width=0, activation="relu")
