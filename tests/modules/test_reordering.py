"""Samples that a forward pass reorders or routes by their values."""

import pytest
import torch
import torch.nn.functional as F
from gauss_newton import diagonal
from torch import nn

import flattest as ft


class Sorting(nn.Module):
    """Uses a weight in one order of the samples and in another, as packed sequences do."""

    def __init__(self):
        super().__init__()
        self.a, self.h = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        order = x[:, 0].argsort()
        back = order.argsort()
        return self.h(self.a(self.a(x)[order].tanh())[back])


@pytest.mark.parametrize("batch_size", [None, 4])
def test_order_by_values(batch_size):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, X = Sorting().double(), torch.randn(8, 3).double()
        y = torch.randint(0, 2, (8,))
    # In order at first, so that a way found there would look right for all that follows.
    X[:4] = X[X[:4, 0].argsort()]
    expected = diagonal(model, (X,), lambda z: F.cross_entropy(z, y))
    found = ft.measure(model, X, y, loss="cross_entropy", batch_size=batch_size).diagonal()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-10, atol=1e-15)
