"""Nearly dead and dead units of whole modules, for every objective of `balance`."""

import copy

import numpy as np
import pytest
import torch
from digits_networks import digits, trained

import flattest as ft

N = 30
FAINT = {1: (3, 7), 3: (5,)}
"""Units that fire, by the layer of `mlp` that leads to them."""
SILENT = 7
"""Units that fire on none of the images, so that nothing flows through them."""


def with_faint_units(size=1e-12):
    net = copy.deepcopy(trained("mlp", 0))
    with torch.no_grad():
        for layer, units in FAINT.items():
            for unit in units:
                net[layer].weight[unit] *= size
                net[layer].bias[unit] *= size
                net[layer + 2].weight[:, unit] *= size
    return net


def balanced(net, objective):
    X, y = digits()
    options = {"loss": "cross_entropy", "objective": objective, "return_report": True}
    return ft.balance(net, X[:N], y[:N], **options)


def twin(net, seed):
    found = ft.symmetries(net, digits()[0][:2])
    return found.transformed(net, np.random.default_rng(seed).normal(0, 3, found.n_scales))


def check_left_alone(net, objective):
    """Check that nearly dead units stay exactly, and that a second time all others do as well."""
    new, report = balanced(net, objective)
    # Silent ones have weights of the usual size, which may have to stay in a smaller range.
    assert 3 <= report.n_left_alone <= 3 + SILENT
    assert f"{report.n_left_alone} scales left at 1" in repr(report)
    for layer, units in FAINT.items():
        for unit in units:
            assert new[layer].bias[unit] == net[layer].bias[unit]
    assert (new[1].weight != net[1].weight).any(dim=1).sum() >= 30 - SILENT
    again, second = balanced(new, objective)
    assert all(p.equal(q) for p, q in zip(again.parameters(), new.parameters(), strict=True))
    assert second.n_left_alone == 3 + SILENT
    return report


@pytest.mark.parametrize("objective", ["trace", "quantisation", "range"])
def test_they_stay_and_twins_agree(objective):
    net = with_faint_units()
    report = check_left_alone(net, objective)
    other = check_left_alone(twin(net, 0), objective)
    rel = 1e-10 if objective == "trace" else 1e-6
    assert other.after == pytest.approx(report.after, rel=rel)


@pytest.mark.parametrize("objective", ["trace", "quantisation"])
def test_where_staying_costs_they_are_moved(objective):
    net = with_faint_units()
    found = ft.symmetries(net, digits()[0][:2])
    factors = {name: 1e16 for name in found.scale_names if name == "1.weight[3]"}
    assert factors
    sharp = ft.rescale(net, factors, digits()[0][:2])
    _, expected = balanced(net, objective)
    new, report = balanced(sharp, objective)
    assert report.before > 10 * expected.before
    assert report.after == pytest.approx(expected.after, rel=1e-6)
    assert (new[1].weight[3].abs() < 1e-3 * sharp[1].weight[3].abs()).all()


@pytest.mark.parametrize("objective", ["quantisation", "range"])
def test_pruned_units_make_no_noise(objective):
    """Weights of 0 are rounded to 0: no scale has to bring their noise down."""
    net = copy.deepcopy(trained("mlp", 0))
    with torch.no_grad():
        net[3].weight[:, 4] = 0  # fires, and nothing comes out
        net[1].weight[8], net[1].bias[8] = 0, -1  # nothing goes in
    new, report = balanced(net, objective)
    assert new[1].bias[8] == net[1].bias[8]
    factors = new[1].weight[4] / net[1].weight[4]  # 1, or what keeps it in the layer's range
    assert 0.1 < factors.min() <= factors.max() < 10
    assert report.largest_change < 1e-10


@pytest.mark.parametrize("objective", ["quantisation", "range"])
def test_units_with_one_rounded_side_are_not_called_nearly_dead(objective):
    """With batch normalisation kept, what makes up for a weight is a gain."""
    new, report = balanced(trained("residual", 0), objective)
    assert report.n_left_alone == 0
    _, second = balanced(new, objective)
    assert second.n_left_alone == 0
    X, y = digits()
    options = {"loss": "cross_entropy", "objective": objective, "return_report": True}
    net, other = trained("residual", 0), twin(trained("residual", 0), 0)
    one, two = (
        ft.balance(module, X[:N], y[:N], batch_norm="fold", **options)[1] for module in (net, other)
    )
    assert two.after == pytest.approx(one.after, rel=1e-6)
