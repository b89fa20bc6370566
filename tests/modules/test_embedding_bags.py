"""Embedding bags before curved layers: their second derivative is measured, nothing is changed."""

import pytest
import torch
import torch.nn.functional as F
from gauss_newton import dense_hessian, diagonal
from torch import nn

import flattest as ft
from flattest.modules.embedding_bags import differentiable

TOKENS = torch.randint(0, 6, (5, 4), generator=torch.Generator().manual_seed(0))
OPTIONS = [
    {"mode": "mean"},
    {"mode": "sum"},
    {"mode": "mean", "padding_idx": 2},
    {"mode": "sum", "padding_idx": -1},
]


class Classifier(nn.Module):
    def __init__(self, weighted=False, **options):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(6, 3, **options), nn.Linear(3, 2)
        self.token_weights = torch.linspace(0.5, 2, 4).double() if weighted else None

    def forward(self, x):
        weights = None if self.token_weights is None else self.token_weights.expand(len(x), -1)
        return self.head(self.bag(x, per_sample_weights=weights).tanh())


def in_parts(model):
    """Return the same classifier without the fused operation, written another way."""

    def forward(x):
        bag = model.bag
        weights = (
            torch.ones(4).double() if model.token_weights is None else model.token_weights
        ).expand(x.shape)
        padding = None if bag.padding_idx is None else bag.padding_idx % 6
        kept = torch.ones_like(weights) if padding is None else (x != padding).double()
        one_hot = F.one_hot(x, 6).double() * (weights * kept)[..., None]
        table = bag.weight
        total = one_hot.sum(dim=1) @ table
        if bag.mode == "mean":
            total = total / kept.sum(dim=1, keepdim=True).clamp(min=1)
        return model.head(total.tanh())

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = model

        def forward(self, x):
            return forward(x)

    return Parts()


def loss(z, y):
    return ((z - y) ** 4 / 12 + (z - y) ** 2).sum() / len(y)


@pytest.mark.parametrize("options", [*OPTIONS, {"mode": "sum", "weighted": True}], ids=str)
def test_the_hessian_trace(options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(**options).double().eval()
        with torch.no_grad():
            model.bag.weight.add_(0.1)  # a padding row of zeros would hide mistakes
        y = torch.randn(5, 2).double()
    slow = in_parts(model)
    with torch.no_grad():
        torch.testing.assert_close(slow(TOKENS), model(TOKENS))
        with differentiable(model):
            torch.testing.assert_close(model(TOKENS), slow(TOKENS))
    found = ft.measure(model, TOKENS, y, loss=loss, residual="exact")
    expected = float(dense_hessian(slow, (TOKENS,), lambda z: loss(z, y)).trace())
    assert found.trace == pytest.approx(expected, rel=1e-10)
    assert found.provenance["trace"].exact
    wanted = diagonal(slow, (TOKENS,), lambda z: loss(z, y))
    for name, values in found.diagonal().items():
        torch.testing.assert_close(values, wanted[f"body.{name}"], rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("options", [{"mode": "max"}, {"mode": "mean", "max_norm": 1.0}], ids=str)
def test_other_bags_are_left_as_they_are(options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(**options).double().eval()
    before = model.bag.weight.detach().clone()
    found = ft.measure(model, TOKENS, torch.zeros(5, 2).double(), loss=loss)
    assert found.gauss_newton > 0
    assert torch.equal(model.bag.weight, before)
