"""Drawn columns: right on average, with intervals that cover, and no more draws than needed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import flattest as ft
from flattest.modules.curvature import output_hessian
from flattest.modules.sampling import Draws

C, N = 120, 16
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(N, 5, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, C, (N,), generator=GENERATOR)


def classifier(outputs=C, *, fitted=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # A linear last layer would narrow the columns down to its eight inputs.
        model = nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs), nn.LeakyReLU(0.9)
        ).double()
    if fitted:
        optimiser = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(150):
            optimiser.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimiser.step()
        model.zero_grad(set_to_none=True)
    return model


def intervals(model, y, loss, exact, seeds, **options):
    """Return the errors of many draws, in units of the standard error that they state."""
    errors = []
    for seed in range(seeds):
        found = ft.measure(model, X, y, loss=loss, mode="sampled", random_state=seed, **options)
        errors.append((found.gauss_newton - exact) / found.standard_error["gauss_newton"])
    return np.array(errors)


def check(errors):
    """Compare with a normal law: the mean is 0, and 95 % lie within 1.96."""
    assert abs(errors.mean()) <= 4 / np.sqrt(len(errors))
    inside = (np.abs(errors) <= 1.96).mean()
    # Four standard deviations of a share of 0.95 around 0.94: few draws, heavier tails.
    assert abs(inside - 0.94) <= 4 * np.sqrt(0.05 / len(errors))


@pytest.mark.parametrize("fitted", [False, True])
def test_intervals_cover(fitted):
    model = classifier(fitted=fitted)
    exact = ft.measure(model, X, Y, loss="cross_entropy", mode="exact")
    assert exact.provenance["gauss_newton"].exact
    check(intervals(model, Y, "cross_entropy", exact.gauss_newton, 40, rtol=0.2))


def test_intervals_of_squared_errors_cover():
    model, y = classifier(), torch.zeros(N, C, dtype=torch.float64)
    exact = ft.measure(model, X, y, mode="exact")
    check(intervals(model, y, "mse", exact.gauss_newton, 40, rtol=0.2))


def welsch(z, y):
    return (1 - torch.exp(-((z - y) ** 2))).mean()


def tokens(z, y):
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


@pytest.mark.parametrize("name", ["cross_entropy", "mse", "welsch", "tokens", "focal"])
def test_draws_rebuild_the_hessian_on_average(name):
    z = torch.randn(2, 3, 4, generator=GENERATOR, dtype=torch.float64)
    y = torch.randn(2, 3, 4, generator=GENERATOR, dtype=torch.float64)
    labels = torch.tensor([[0, 3, 1, 2], [1, 1, 0, 2]]) % 3
    loss = {
        "cross_entropy": lambda v: F.cross_entropy(v, labels),
        "mse": lambda v: F.mse_loss(v, y),
        "welsch": lambda v: welsch(v, y),
        "tokens": lambda v: tokens(v, labels[:, :3]),
        "focal": lambda v: ((1 - v.softmax(1)) ** 2 * -v.log_softmax(1))[:, 0].mean(),
    }[name]
    n_draws = 4_000
    draws = Draws(output_hessian(loss, z, name), n_draws, torch.Generator().manual_seed(0))
    columns, signs = draws.columns(range(draws.n_columns), slice(None))
    dense = torch.autograd.functional.hessian(loss, z).reshape(24, 24)
    columns = columns.reshape(len(columns), 2, 12)
    for sample in range(2):
        own = slice(12 * sample, 12 * sample + 12)
        rebuilt = torch.einsum("c,ci,cj->ij", signs[:, sample], *[columns[:, sample]] * 2) / n_draws
        assert (rebuilt - dense[own, own]).abs().max() < 0.13 * dense.abs().max()


def test_what_the_result_says():
    model = classifier()
    exact = ft.measure(model, X, Y, loss="cross_entropy", mode="exact")
    found = ft.measure(model, X, Y, loss="cross_entropy", rtol=0.1, random_state=0)
    assert found.standard_error["gauss_newton"] <= 0.1 * found.gauss_newton
    provenance = found.provenance["gauss_newton"]
    assert not provenance.exact
    assert "where exact figures take 119" in provenance.why
    assert "± " in repr(found)
    for one, other in zip(found.layers, exact.layers, strict=True):
        assert not one.exact
        assert abs(one.gauss_newton - other.gauss_newton) <= 6 * one.standard_error
    total = sum(values.sum() for values in found.diagonal().values())
    assert found.gauss_newton == pytest.approx(float(total))
    again = ft.measure(model, X, Y, loss="cross_entropy", rtol=0.1, random_state=0)
    assert again.gauss_newton == found.gauss_newton
    other = ft.measure(model, X, Y, loss="cross_entropy", rtol=0.1, random_state=1)
    assert other.gauss_newton != found.gauss_newton


def test_auto_is_exact_where_that_is_cheaper():
    few = classifier(10)
    found = ft.measure(few, X, Y % 10, loss="cross_entropy")
    assert found.standard_error == {}
    sharp = ft.measure(classifier(), X, Y, loss="cross_entropy", rtol=1e-6)
    assert sharp.provenance["gauss_newton"].exact
    assert sharp.gauss_newton == pytest.approx(
        ft.measure(classifier(), X, Y, loss="cross_entropy", mode="exact").gauss_newton
    )


def test_batches_share_what_is_allowed():
    model = classifier()
    exact = ft.measure(model, X, Y, loss="cross_entropy", mode="exact").gauss_newton
    parts = list(zip(X.split(4), Y.split(4), strict=True))
    found = ft.measure(model, parts, loss="cross_entropy", rtol=0.2, random_state=3)
    error = found.standard_error["gauss_newton"]
    assert error <= 0.2 * found.gauss_newton
    assert abs(found.gauss_newton - exact) <= 5 * error


def test_tensors_that_go_sample_by_sample_are_drawn_alike():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.e, self.h = nn.EmbeddingBag(7, 3), nn.Linear(3, C)

        def forward(self, x):
            return F.leaky_relu(self.h(self.e(x)), 0.9)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Bag().double()
    inputs = torch.randint(0, 7, (N, 4), generator=GENERATOR)
    exact = ft.measure(model, inputs, Y, loss="cross_entropy", mode="exact")
    found = ft.measure(model, inputs, Y, loss="cross_entropy", rtol=0.1, random_state=0)
    for one, other in zip(found.layers, exact.layers, strict=True):
        assert one.standard_error > 0
        assert abs(one.gauss_newton - other.gauss_newton) <= 6 * one.standard_error


def test_an_image_to_image_net_is_drawn():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    net = net.double()
    images = torch.randn(3, 1, 12, 12, generator=GENERATOR, dtype=torch.float64)
    exact = ft.measure(net, images, images, mode="exact")
    found = ft.measure(net, images, images, rtol=0.1, random_state=0)
    assert not found.provenance["gauss_newton"].exact
    error = found.standard_error["gauss_newton"]
    assert abs(found.gauss_newton - exact.gauss_newton) <= 5 * error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode must be one of 'auto', 'exact', 'sampled', not 'fast'"),
        ({"rtol": 0}, "rtol must be finite and greater than 0"),
        ({"random_state": -1}, "random_state must not be negative"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        ft.measure(classifier(), X, Y, loss="cross_entropy", **options)
