"""Bits by weight: the best choice within the budget, against trying all of them."""

import itertools
import warnings

import pytest
import torch
from digits_networks import digits, trained
from torch import nn

import flattest as ft
from flattest.quantisation.rounding import rounded


def measured(kind="mlp"):
    net, (X, y) = trained(kind, 0), digits()
    return net, ft.measure(net, X[:60], y[:60], loss="cross_entropy", residual="none")


def cost(flatness, net, chosen, weighed="trace"):
    total = 0.0
    traces = {layer.name: layer.gauss_newton for layer in flatness.layers}
    for name, bits in chosen.items():
        weight = net.get_parameter(name).detach()
        errors = (weight - rounded(weight, bits, per_channel=True)) ** 2
        if weighed == "trace":
            total += 0.5 * traces[name] * float(errors.mean())
        else:
            total += 0.5 * float((flatness.diagonal()[name] * errors).sum())
    return total


@pytest.mark.parametrize("weighed", ["trace", "diagonal"])
@pytest.mark.parametrize("budget", [4, 4.7, 6.2])
def test_the_choice_is_the_best_of_all(weighed, budget):
    net, flatness = measured()
    options = (4, 5, 6, 8)
    found = ft.allocate_bits(flatness, net, budget=budget, bits=options, weighed=weighed)
    names = list(found)
    sizes = [net.get_parameter(name).numel() for name in names]
    best = min(
        cost(flatness, net, dict(zip(names, choice, strict=True)), weighed)
        for choice in itertools.product(options, repeat=len(names))
        if sum(b * n for b, n in zip(choice, sizes, strict=True)) <= budget * sum(sizes)
    )
    assert found.cost == pytest.approx(best, rel=1e-9)
    assert found.cost == pytest.approx(cost(flatness, net, found, weighed))
    assert found.average <= budget
    assert found.uniform_cost >= found.cost
    assert found.uniform_cost == pytest.approx(
        cost(flatness, net, dict.fromkeys(names, found.uniform), weighed)
    )


def test_sizes_and_tables():
    net, flatness = measured("lenet")
    found = ft.allocate_bits(flatness, net, budget="1.2 kB")
    assert found.n_bits <= 9600
    assert found["0.weight"] == dict(found)["0.weight"]
    assert len(found) == len(found.to_frame()) == 4
    assert "bits on average" in repr(found)
    assert "<table>" in found._repr_html_()


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_weights_are_rounded_as_their_bits_were_chosen_for(per_channel, affine):
    net, flatness = measured("lenet")
    way = {"per_channel": per_channel, "affine": affine}
    found = ft.allocate_bits(flatness, net, budget=4, bits=(4, 6), **way)
    new, otherwise = ft.quantise(net, found), ft.quantise(net, found, per_channel=not per_channel)
    for name, bits in found.items():
        weight = net.get_parameter(name)
        assert new.get_parameter(name).equal(rounded(weight, bits, **way))
        assert not otherwise.get_parameter(name).equal(new.get_parameter(name))


def test_costs_of_transposed_convolutions_are_those_of_their_output_channels():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.ConvTranspose1d(3, 2, 3).double()
        X, y = torch.randn(5, 3, 4).double(), torch.randn(5, 2, 6).double()
    flatness = ft.measure(net, X, y)
    found = ft.allocate_bits(flatness, net, budget=5, weighed="diagonal")
    error = (ft.quantise(net, found).weight - net.weight).square()
    expected = 0.5 * (flatness.diagonal()["weight"] * error).sum().item()
    assert found.cost == pytest.approx(expected, rel=1e-12)


def test_few_bits_warn_and_can_be_measured():
    net, flatness = measured()
    X, y = digits()

    def loss_of(module):
        with torch.no_grad():
            return float(nn.functional.cross_entropy(module(X[:60]), y[:60]))

    with pytest.warns(UserWarning, match="fewer than 4 bits.*loss_of"):
        ft.allocate_bits(flatness, net, budget=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ft.allocate_bits(flatness, net, budget=3, bits=(2, 3, 4), loss_of=loss_of)
    assert found.measured
    first = found.layers[0]
    alone = loss_of(ft.quantise(net, {first.name: first.bits}, per_channel=True)) - loss_of(net)
    assert first.cost == pytest.approx(alone)


def test_torchao_is_not_needed_for_a_plain_mapping():
    net, flatness = measured()
    assert {**ft.allocate_bits(flatness, net, budget=8)} == dict.fromkeys(
        ["1.weight", "3.weight", "5.weight"], 8
    )


NET = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
FLATNESS = ft.measure(NET, torch.ones(3, 2), torch.ones(3, 1))
OTHER = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ft.allocate_bits(FLATNESS, OTHER, budget=4), ValueError, "of another module"),
        (lambda: ft.allocate_bits(FLATNESS, nn.ReLU(), budget=4), ValueError, "no weight"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget=1), ValueError, "too small"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget="much"), ValueError, "budget must be"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget=-1), ValueError, "budget must be"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget=4, bits=[1]), ValueError, "at least 2"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget=4, bits=[32]), ValueError, "at most 16"),
        (lambda: ft.allocate_bits(FLATNESS, NET, budget=4, weighed="x"), ValueError, "weighed"),
        (
            lambda: ft.allocate_bits(FLATNESS, NET, budget=4, loss_of=lambda m: float("nan")),
            ValueError,
            "NaN or infinity",
        ),
    ],
)
def test_bad_input_meets_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()
