"""Rounded tensors and modules: multiples of one step, the nearest ones, biases corrected."""

import copy

import numpy as np
import pytest
import torch
from digits_networks import KINDS, digits, trained
from hypothesis import given, strategies as st
from torch import nn

import flattest as ft
from flattest.quantisation.rounding import rounded


@given(
    st.integers(0, 10**6),
    st.integers(2, 10),
    st.booleans(),
    st.booleans(),
    st.sampled_from([(7,), (3, 5), (2, 3, 2, 2)]),
)
def test_values_are_the_nearest_multiples_of_a_step(seed, bits, per_channel, affine, shape):
    weight = torch.from_numpy(np.random.default_rng(seed).normal(0.3, 1, shape))
    found = rounded(weight, bits, per_channel=per_channel, affine=affine)
    slices = list(zip(weight, found, strict=True)) if per_channel else [(weight, found)]
    for before, after in slices:
        if affine:
            width = max(float(before.max()), 0) - min(float(before.min()), 0)
            step = width / (2**bits - 1)
        else:
            step = float(before.abs().max()) / (2 ** (bits - 1) - 1)
        integers = after / step
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-9)
        assert len(integers.round().unique()) <= 2**bits
        # At the ends of an affine range, rounding its offset costs another half.
        assert (after - before).abs().max() <= step * (1 if affine else 0.5) * (1 + 1e-9)
    again = rounded(found, bits, per_channel=per_channel)
    if not affine:
        torch.testing.assert_close(again, found)


def test_zeros_and_empty_tensors():
    assert rounded(torch.zeros(2, 3), 4).equal(torch.zeros(2, 3))
    assert rounded(torch.zeros(0, 3), 4).shape == (0, 3)
    assert rounded(torch.full((2, 2), 5.0), 3, affine=True).equal(torch.full((2, 2), 5.0))


@pytest.mark.parametrize("kind", KINDS)
def test_modules_keep_their_form(kind):
    net = trained(kind, 0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    new = ft.quantise(net, 4, per_channel=True)
    assert type(new) is type(net)
    for name, tensor in new.state_dict().items():
        assert net.state_dict()[name].equal(before[name])
        parameter = dict(new.named_parameters()).get(name)
        if parameter is not None and parameter.ndim > 1:
            assert tensor.equal(rounded(before[name], 4, per_channel=True))
        else:
            assert tensor.equal(before[name])


def test_only_named_weights_are_rounded():
    net = trained("mlp", 0)
    new = ft.quantise(net, {"3.weight": 3})
    changed = [
        name
        for name, tensor in new.state_dict().items()
        if not tensor.equal(net.state_dict()[name])
    ]
    assert changed == ["3.weight"]


def test_transposed_convolutions_have_their_channels_second():
    net = nn.ConvTranspose2d(2, 3, 2).double()
    found = ft.quantise(net, 3, per_channel=True).weight
    assert found.equal(rounded(net.weight, 3, per_channel=True, axis=1))


@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_corrected_biases_keep_mean_outputs(kind):
    net, X = trained(kind, 0), digits()[0][:200]
    plain, corrected = (
        ft.quantise(net, 4, correct_bias=example)(X).detach() for example in (None, X)
    )
    expected = net(X).detach().mean(dim=0)
    torch.testing.assert_close(corrected.mean(dim=0), expected)
    assert (plain.mean(dim=0) - expected).abs().max() > 1e-3
    assert not [module._forward_hooks for module in net.modules() if module._forward_hooks]


def test_every_layer_is_corrected_after_those_before_it():
    """Layer by layer, each with a pass of its own; a layer that is called twice counts once."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(1, 3, 3), nn.Linear(3, 3)
            self.up, self.last = nn.ConvTranspose2d(3, 2, 2), nn.Linear(2, 4)

        def forward(self, x):
            h = self.again(self.first(x).relu().movedim(1, -1)).relu()
            return self.last(self.up(self.again(h).movedim(-1, 1)).mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Twice().double().eval()
    X = digits()[0][:20]
    found, expected = ft.quantise(net, 3, correct_bias=X), ft.quantise(net, 3)

    def mean(module, name):
        seen = []
        handle = module.get_submodule(name).register_forward_hook(
            lambda part, inputs, outputs: seen.append(outputs.detach())
        )
        module(X)
        handle.remove()
        axis = -1 if isinstance(module.get_submodule(name), nn.Linear) else 1
        return seen[0].movedim(axis, -1).flatten(0, -2).mean(0)

    for name in ("first", "again", "up", "last"):
        with torch.no_grad():
            layer = expected.get_submodule(name)
            layer.bias += mean(net, name) - mean(expected, name)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lenet", "depthwise"])
def test_noise_is_what_its_objective_says(kind):
    """Noise as large as rounding makes it costs less after balancing for it, as predicted."""
    net, (X, y) = trained(kind, 0), digits()
    X, y = X[:100], y[:100]
    options = {"loss": "cross_entropy", "objective": "quantisation", "return_report": True}
    new, report = ft.balance(net, X, y, **options)
    generator = torch.Generator().manual_seed(0)
    rises = [divergence(each, X, generator) for each in (net, new)]
    assert rises[1] / rises[0] == pytest.approx(report.after / report.before, rel=0.3)


def divergence(net, X, generator, size=3e-4):
    """Return the mean divergence from the net's own predictions under noise on its weights."""
    with torch.no_grad():
        expected = net(X).log_softmax(dim=1)
        total = 0.0
        for _ in range(60):
            noisy = copy.deepcopy(net)
            for weight in noisy.parameters():
                if weight.ndim > 1:
                    noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
                    weight += size * weight.abs().max() * noise
            found = noisy(X).log_softmax(dim=1)
            total += float((expected.exp() * (expected - found)).sum(dim=1).mean())
    return total / 60


NET = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ft.quantise(NET, 1), ValueError, "at least 2"),
        (lambda: ft.quantise(NET, 17), ValueError, "at most 16"),
        (lambda: ft.quantise(NET, 4.0), TypeError, "must be an integer"),
        (lambda: ft.quantise(NET, {"0.bias": 4}), ValueError, "no weight of the module"),
        (lambda: ft.quantise(NET, {"9.weight": 4}), ValueError, "no weight of the module"),
        (lambda: ft.quantise(NET, {"0.weight": True}), TypeError, "must be an integer"),
        (lambda: ft.quantise(NET, 4, correct_bias="X"), TypeError, "correct_bias"),
        (lambda: ft.quantise(nn.ReLU(), 4), ValueError, "no floating-point parameters"),
    ],
)
def test_bad_input_meets_one_sentence(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dimensions", [1, 2])
def test_a_normalisation_corrects_the_convolution_without_a_bias_before_it(dimensions):
    convolution, norm = (
        (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(convolution(3, 4, 3, bias=False), norm(4)).double()
        X = torch.randn(20, 3, *(8,) * dimensions, dtype=torch.float64)
        net(X)  # running statistics
    net.eval()
    kept = (0, *range(2, 2 + dimensions))
    expected = net(X).mean(kept)
    corrected, plain = ft.quantise(net, 3, correct_bias=X), ft.quantise(net, 3)
    torch.testing.assert_close(corrected(X).mean(kept), expected)
    assert (plain(X).mean(kept) - expected).abs().max() > 1e-3
    assert torch.equal(corrected[1].weight, net[1].weight)
