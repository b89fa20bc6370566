"""Scales and linear groups together: the minimum of whole modules, and of their twins."""

import numpy as np
import pytest
import torch
from grouped_twins import twin
from torch import nn

import flattest as ft
from flattest.modules.groups.joint import minimise_jointly


class LowRank(nn.Module):
    """Two linear maps without anything in between, among hidden units."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)
        self.inner, self.outer = nn.Linear(6, 3, bias=bias), nn.Linear(3, 6, bias=bias)

    def forward(self, x):
        h = self.outer(self.inner(torch.relu(self.first(x))))
        return self.last(torch.relu(h))


class Attention(nn.Module):
    """One block of a transformer with a ReLU."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 5)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.embed(x)
        h = self.norms[0](x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        x = x + self.down(torch.relu(self.up(self.norms[1](x))))
        return self.head(x.mean(1))


def made(kind):
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "attention":
            net, X = Attention(), torch.randn(12, 3, 4, generator=generator)
        else:
            net, X = LowRank(kind == "with biases"), torch.randn(30, 5, generator=generator)
    y = torch.randint(0, 3, (len(X),), generator=generator)
    return net.double().eval(), X.double(), y


def measured(net, X, y, symmetry="all"):
    return ft.measure(net, X, y, loss="cross_entropy", residual="none", symmetry=symmetry)


@pytest.mark.parametrize(
    "kind",
    ["with biases", pytest.param("without biases", marks=pytest.mark.slow), "attention"],
)
def test_minimum_twins_and_the_module_there(kind):
    net, X, y = made(kind)
    flatness = measured(net, X, y)
    orbit = flatness.orbit
    assert orbit.attained
    assert orbit.certificate < 1e-10
    assert orbit.n_groups == {"attention": 4}.get(kind, 1)
    by_scales = measured(net, X, y, "scales").orbit
    assert orbit.minimum < by_scales.minimum * (1 - 1e-4)
    assert orbit.n_left_alone == by_scales.n_left_alone  # silent units, not what matrices scale
    other = measured(twin(net, X, 0), X, y)
    assert other.gauss_newton > 10 * flatness.gauss_newton
    assert other.orbit_minimum == pytest.approx(orbit.minimum, rel=1e-10)
    assert other.orbit.certificate < 1e-10
    options = {"loss": "cross_entropy", "symmetry": "all", "return_report": True}
    new, report = ft.balance(net, X, y, **options)
    assert report.largest_change < 1e-10
    assert report.n_left_alone == orbit.n_left_alone
    assert "mixed by matrices" in repr(report)
    assert "mixed by matrices" in report._repr_html_()
    assert (new(X) - net(X)).abs().max() < 1e-10
    own = measured(new, X, y)
    assert own.gauss_newton == pytest.approx(orbit.minimum, rel=1e-10)
    for layer, there in zip(flatness.layers, own.layers, strict=True):
        assert layer.at_minimum == pytest.approx(there.gauss_newton, rel=1e-6, abs=1e-9)
    again, _ = ft.balance(new, X, y, **options)
    assert all(p.equal(q) for p, q in zip(again.parameters(), new.parameters(), strict=True))


def test_the_certificate_knows_the_digits_that_a_sharp_twin_has_lost():
    net, X, y = made("without biases")
    orbit = measured(net, X, y).orbit
    other = measured(twin(net, X, 1, spread=3), X, y)
    assert other.gauss_newton > 1e6 * orbit.minimum
    assert other.orbit.certificate < 1e-10
    assert abs(other.orbit_minimum - orbit.minimum) <= 10 * other.orbit.gap


def test_direct_optimisation_finds_no_less():
    """Move along all symmetries by gradient descent on the measured sums."""
    net, X, y = made("without biases")
    expected = measured(net, X, y).orbit_minimum
    rng = np.random.default_rng(0)
    found = ft.symmetries(net, X)
    best = ft.balance(net, X, y, loss="cross_entropy", symmetry="all")
    for size in (1e-3, 1e-1):
        for _ in range(3):
            M = torch.eye(3).double() + size * torch.from_numpy(rng.normal(size=(3, 3)))
            z = size * rng.normal(size=found.n_scales)
            near = found.transformed(best, z, matrices={0: M})
            trace = ft.measure(near, X, y, loss="cross_entropy", residual="none").gauss_newton
            assert trace >= expected * (1 - 1e-10)


def test_without_groups_it_is_the_minimum_over_scales():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    X, y = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)).double(), torch.zeros(9)
    one, other = (measured(net, X, y.long(), each) for each in ("scales", "all"))
    assert other.orbit.n_groups == 0
    assert other.orbit_minimum == pytest.approx(one.orbit_minimum, rel=1e-12)


def test_an_adapter_that_starts_at_zero_is_not_attained():
    net, X, y = made("with biases")
    with torch.no_grad():
        net.outer.weight.zero_()
    flatness = measured(net, X, y)
    assert not flatness.orbit.attained
    new = ft.balance(net, X, y, loss="cross_entropy", symmetry="all")
    assert (new(X) - net(X)).abs().max() < 1e-10


def test_no_groups_and_no_scales():
    from scipy import sparse

    found = minimise_jointly([], sparse.csr_array((1, 0)), [])
    assert (found.value, found.gap, found.n_turns) == (0.0, 0.0, 1)
