"""Trained networks with linear groups: one minimum for all their twins, and the network there."""

import pytest
import torch
from digits_networks import GROUPED, digits, trained
from grouped_twins import twin

import flattest as ft

OPTIONS = {"loss": "cross_entropy", "symmetry": "all"}


def measured(net, n):
    X, y = digits()
    return ft.measure(net, X[:n], y[:n], residual="none", **OPTIONS)


def check_balanced(net, n):
    """Check the balanced network against the minimum, the outputs and itself."""
    X, y = (each[:n] for each in digits())
    flatness = measured(net, n)
    orbit = flatness.orbit
    assert orbit.attained
    assert orbit.n_groups
    assert orbit.certificate < 1e-10
    new, report = ft.balance(net, X, y, return_report=True, **OPTIONS)
    assert report.largest_change < 1e-10
    with torch.no_grad():
        expected = net(X)
        assert (new(X) - expected).abs().max() <= 1e-10 * expected.abs().max()
    own = measured(new, n)
    assert own.gauss_newton == pytest.approx(orbit.minimum, rel=1e-10)
    assert own.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
    again = ft.balance(new, X, y, **OPTIONS)
    assert all(p.equal(q) for p, q in zip(again.parameters(), new.parameters(), strict=True))
    return orbit


def check_twin(net, orbit, number, n):
    other = twin(net, digits()[0][:2], number, spread=3, own=False)
    found = measured(other, n)
    assert found.gauss_newton > 10 * orbit.minimum
    assert found.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
    assert found.orbit.certificate < 1e-10
    return other


@pytest.mark.parametrize("kind", GROUPED)
def test_a_trained_network_and_a_twin(kind):
    net = trained(kind, 0)
    check_twin(net, check_balanced(net, 10), 0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", GROUPED)
@pytest.mark.parametrize("seed", range(6))
def test_many_trained_networks_and_many_twins(kind, seed):
    net = trained(kind, seed, 300)
    orbit = check_balanced(net, 50)
    for number in range(20):
        other = check_twin(net, orbit, number, 50)
        if number == 0:
            there = check_balanced(other, 50)
            assert there.minimum == pytest.approx(orbit.minimum, rel=1e-10)
