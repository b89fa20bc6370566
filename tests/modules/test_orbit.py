"""The minimum over the orbit of a module, and the module there: twins agree, outputs stay."""

import copy
import math

import numpy as np
import pytest
import torch
from digits_networks import KINDS, Residual, digits, trained
from torch import nn

import flattest as ft

N = 30


def data(n=N):
    X, y = digits()
    return X[:n], y[:n]


def measured(net, n=N, **options):
    X, y = data(n)
    options = {"loss": "cross_entropy", "residual": "none", "symmetry": "scales", **options}
    return ft.measure(net, X, y, **options)


def balanced(net, n=N, **options):
    X, y = data(n)
    return ft.balance(net, X, y, loss="cross_entropy", return_report=True, **options)


def twin(net, seed, spread=3.0):
    found = ft.symmetries(net, data(2)[0])
    z = np.random.default_rng(seed).normal(0, spread, found.n_scales)
    return found.transformed(net, z)


def check_balanced(net, n=N):
    """Check the balanced module against the minimum, the outputs and itself."""
    X, _ = data(n)
    flatness = measured(net, n)
    orbit = flatness.orbit
    assert orbit.certificate < 1e-10
    assert flatness.orbit_minimum == orbit.minimum <= flatness.gauss_newton * (1 + 1e-12)
    new, report = balanced(net, n)
    assert type(new) is type(net)
    assert list(new.state_dict()) == list(net.state_dict())
    assert report.largest_change < 1e-10
    with torch.no_grad():
        expected = net(X)
        assert (new(X) - expected).abs().max() <= 1e-10 * expected.abs().max()
    own = measured(new, n)
    if orbit.attained:
        assert own.gauss_newton == pytest.approx(orbit.minimum, rel=1e-10)
    assert own.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
    at_minimum = math.fsum(layer.at_minimum for layer in flatness.layers)
    assert at_minimum == pytest.approx(own.gauss_newton, rel=1e-10)
    for layer, there in zip(flatness.layers, own.layers, strict=True):
        assert layer.at_minimum == pytest.approx(there.gauss_newton, rel=1e-6, abs=1e-12)
    again, second = balanced(new, n)
    for name, tensor in again.state_dict().items():
        assert tensor.equal(new.state_dict()[name]), name
    assert second.largest_change == 0
    return orbit


@pytest.mark.parametrize("kind", KINDS)
def test_trained_networks_and_their_twins(kind):
    net = trained(kind, 0)
    orbit = check_balanced(net)
    other = measured(twin(net, 0))
    assert other.gauss_newton > orbit.minimum
    assert other.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
    assert other.orbit.certificate < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_many_trained_networks_and_many_twins(kind, seed):
    net = trained(kind, seed, 300)
    orbit = check_balanced(net, 200)
    for number in range(20):
        other = measured(twin(net, number), 200)
        assert other.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
        assert other.orbit.certificate < 1e-10


def test_a_two_layer_network_is_the_oracle():
    generator = torch.Generator().manual_seed(0)
    weights, coefficients = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((7, 3), (7,))
    )
    X, y = torch.randn(20, 3, generator=generator).double(), torch.zeros(20).double()
    net = ft.TwoLayerNet(weights, coefficients, "relu")
    same = nn.Sequential(nn.Linear(3, 7, bias=False), nn.ReLU(), nn.Linear(7, 1, bias=False))
    same.double()
    with torch.no_grad():
        same[0].weight.copy_(weights)
        same[2].weight.copy_(coefficients[None])
    expected = ft.measure(net, X, y)
    found = ft.measure(same, X, y[:, None], symmetry="scales")
    assert found.trace == pytest.approx(expected.trace, rel=1e-12)
    assert found.orbit_minimum == pytest.approx(expected.orbit_minimum, rel=1e-12)
    one, other = ft.balance(net, X, y), ft.balance(same, X, y[:, None])
    torch.testing.assert_close(other[0].weight, one.weights, rtol=1e-7, atol=0)


def test_batches_are_measured_as_one_data_set():
    net, (X, y) = trained("mlp", 0), data()
    loader = ((X[k : k + 25], y[k : k + 25]) for k in range(0, N, 25))  # can be read once
    found = ft.measure(net, loader, loss="cross_entropy", symmetry="scales")
    assert found.orbit_minimum == pytest.approx(measured(net).orbit_minimum, rel=1e-12)


def test_single_precision_stays_single():
    net = copy.deepcopy(trained("lenet", 0)).float()
    X, y = data()
    new, report = ft.balance(net, X.float(), y, loss="cross_entropy", return_report=True)
    assert {p.dtype for p in new.parameters()} == {torch.float32}
    assert report.largest_change < 1e-10 < report.rounding_change < 1e-5
    again = ft.balance(new, X.float(), y, loss="cross_entropy")
    assert all(p.equal(q) for p, q in zip(new.parameters(), again.parameters(), strict=True))
    assert report.after == pytest.approx(measured(trained("lenet", 0)).orbit_minimum, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(dtype):
    net, (X, _) = copy.deepcopy(trained("lenet", 0)).to(dtype), data()
    X = X.to(dtype)
    new, report = ft.balance(net, X, data()[1], loss="cross_entropy", return_report=True)
    sharp, other = ft.sharpen(net, 50, X, random_state=1), ft.rescale(net, 2.0, X)
    for module in (new, sharp, other):
        assert {p.dtype for p in module.parameters()} == {dtype}
        assert not all(
            p.equal(q) for p, q in zip(module.parameters(), net.parameters(), strict=True)
        )
    assert report.largest_change < 1e-10 < report.rounding_change < torch.finfo(dtype).eps * 10
    exact = measured(trained("lenet", 0))
    assert report.after == pytest.approx(exact.orbit_minimum, rel=20 * torch.finfo(dtype).eps)
    again, second = ft.balance(new, X, data()[1], loss="cross_entropy", return_report=True)
    assert all(p.equal(q) for p, q in zip(again.parameters(), new.parameters(), strict=True))
    assert second.after == second.before


def test_the_module_comes_back_as_it_was():
    net = copy.deepcopy(trained("residual", 0))
    net.stem.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    new = ft.balance(net, *data(), loss="cross_entropy")
    assert all(tensor.equal(before[name]) for name, tensor in net.state_dict().items())
    assert [p.requires_grad for p in new.parameters()] == [
        p.requires_grad for p in net.parameters()
    ]
    assert new.norm.running_mean.equal(net.norm.running_mean)
    assert not new.training


def test_dead_units_are_said_and_left_alone():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    X, y = torch.rand(9, 2, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(9, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.linspace(0.5, 2, p.numel(), dtype=torch.float64).reshape(p.shape))
        net[0].bias[1] = -100  # never fires
        net[2].weight[0, 2] = 0  # fires, and nothing comes out
    found = ft.measure(net, X, y.double(), symmetry="scales")
    assert not found.orbit.attained
    assert "no finite scales attain" in found.orbit.why
    assert found.orbit.n_left_alone == 2
    assert "not attained" in repr(found)
    new = ft.balance(net, X, y.double())
    changed = (new[0].weight != net[0].weight).any(dim=1)
    assert changed.tolist() == [True, False, False]
    assert ft.measure(new, X, y.double()).gauss_newton >= found.orbit_minimum


def test_a_loss_that_bends_downwards_has_no_minimum():
    def welsch(z, y):
        return -torch.exp(-((z - y) ** 2)).sum()

    net = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    X, y = torch.ones(3, 1).double(), torch.full((3, 1), 5.0).double()
    found = ft.measure(net, X, y, loss=welsch, symmetry="scales")
    assert math.isnan(found.orbit_minimum)
    assert "bends downwards" in found.provenance["orbit_minimum"].why
    with pytest.raises(ValueError, match="no module attains it"):
        ft.balance(net, X, y, loss=welsch)


def test_the_result_can_be_stored():
    found = measured(trained("mlp", 0))
    entry = found.to_dict()["orbit"]
    assert entry["symmetry"] == "scales"
    assert entry["minimum"] == found.orbit_minimum
    assert entry["ratio"] == pytest.approx(found.gauss_newton / found.orbit_minimum)
    assert "at_minimum" in found.per_layer.columns
    merged = ft.Flatness.merge([found, found])
    assert merged.orbit is None
    assert math.isnan(merged.orbit_minimum)


@pytest.mark.parametrize("kind", ["mlp", "residual"])
def test_sharpening_and_rescaling(kind):
    net, (X, _) = trained(kind, 0), data()

    def outputs_squared(z, y):
        return (z**2).sum() / 2

    sharp = ft.sharpen(net, 50, X, random_state=1)
    before, after = (
        ft.measure(each, X, torch.zeros(N).double(), loss=outputs_squared).gauss_newton
        for each in (net, sharp)
    )
    assert after == pytest.approx(50 * before, rel=1e-9)
    assert measured(sharp).gauss_newton > 5 * measured(net).gauss_newton
    found = ft.symmetries(net, X)
    one = ft.rescale(net, {found.scale_names[0]: 4.0}, X)
    factors = np.ones(found.n_scales)
    factors[0] = 4
    other = ft.rescale(net, factors, X)
    assert all(p.equal(q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    for changed in (sharp, one, ft.rescale(net, 0.5, X)):
        assert (changed(X) - net(X)).abs().max() < 1e-10
        assert not all(
            p.equal(q) for p, q in zip(changed.parameters(), net.parameters(), strict=True)
        )


def test_the_report_says_what_was_scaled():
    _, report = balanced(trained("mlp", 0))
    frame = report.to_frame().set_index("name")
    assert frame.loc["5.bias", ["smallest", "largest"]].tolist() == [1, 1]
    assert frame.loc["1.weight", "smallest"] < frame.loc["1.weight", "largest"]
    assert frame["before"].sum() == pytest.approx(report.before)
    assert frame["after"].sum() == pytest.approx(report.after)
    assert "1.weight" in repr(report)
    assert "<table>" in report._repr_html_()
    _, report = balanced(trained("mlp", 0), objective="quantisation")
    frame = report.to_frame().set_index("name")
    assert frame["before"].sum() == pytest.approx(report.before)
    assert frame["after"].sum() == pytest.approx(report.after)
    assert not frame.loc[["1.bias", "3.bias", "5.bias"], ["before", "after"]].any().any()
    assert "noise" in repr(report)


@pytest.mark.parametrize(
    "kind",
    [kind if kind == "lenet" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS],
)
def test_rounding_noise_is_least_at_the_quantisation_objective(kind):
    net = trained(kind, 0)

    def noise(module):
        flatness = measured(module)
        weights = dict(module.named_parameters())
        return sum(
            float(weights[layer.name].detach().abs().max() ** 2) * layer.gauss_newton
            for layer in flatness.layers
            if len(layer.shape) > 1
        )

    new, report = balanced(net, objective="quantisation")
    _, equal = balanced(net, objective="range")
    assert report.before == pytest.approx(noise(net), rel=1e-9)
    assert report.after == pytest.approx(noise(new), rel=1e-9)
    assert report.after <= min(report.before, equal.after) * (1 + 1e-7)
    assert report.gap <= 1e-6 * report.after
    assert report.bits_gained == pytest.approx(math.log2(report.before / report.after) / 2)
    assert report.largest_change < 1e-10
    _, again = balanced(twin(net, 1), objective="quantisation")
    assert again.after == pytest.approx(report.after, rel=1e-6)
    still, _ = balanced(new, objective="quantisation")
    assert all(p.equal(q) for p, q in zip(still.parameters(), new.parameters(), strict=True))


NET, X, Y = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double(), None, None
X, Y = torch.ones(4, 2).double(), torch.ones(4, 1).double()
STIFF = nn.Sequential(nn.Linear(2, 1)).double()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ft.balance(NET, X, Y, objective="speed"), ValueError, "objective must be one of"),
        (lambda: ft.balance(NET, X, Y, symmetry="none"), ValueError, "symmetry must be 'scales'"),
        (lambda: ft.balance(NET, X, Y, batch_norm="drop"), ValueError, "batch_norm must be"),
        (lambda: ft.balance(NET, X), TypeError, "y is missing"),
        (lambda: ft.balance(NET, X * math.nan, Y), ValueError, "NaN"),
        (lambda: ft.balance(Residual().double(), *data()), ValueError, "training mode"),
        (lambda: ft.measure(NET, X, Y, symmetry="every"), ValueError, "symmetry must be one of"),
        (lambda: ft.sharpen(NET, 2), TypeError, "X is missing"),
        (lambda: ft.sharpen(NET, 0.5, X), ValueError, "factor must be finite and at least 1"),
        (lambda: ft.sharpen(NET.float(), 1e100, X.float()), ValueError, "reached|range of"),
        (lambda: ft.sharpen(STIFF, 2, X), ValueError, "no free scale"),
        (lambda: ft.rescale(NET, 2), TypeError, "X is missing"),
        (lambda: ft.rescale(NET, [1.0, 2.0], X), ValueError, "3 numbers, one per free scale"),
        (lambda: ft.rescale(NET, [1.0, 2.0, -1.0], X), ValueError, "positive"),
        (lambda: ft.rescale(NET, {"1.weight[0]": 2.0}, X), ValueError, "no free scale of"),
        (lambda: ft.rescale(NET, "twice", X), TypeError, "scales"),
        (lambda: ft.rescale(NET, 1e-200, X.float()), TypeError, "X has dtype"),
        (lambda: ft.rescale(NET.float(), 1e60, X.float()), ValueError, "range of torch.float32"),
    ],
)
def test_bad_input_meets_one_sentence(call, error, message):
    try:
        with pytest.raises(error, match=message):
            call()
    finally:
        NET.double()
