"""Coverage of 95 % intervals over 200 seeds: drawn columns, and probes of the residual part."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modules_oracles import Residual
from torch import nn

import flattest as ft
from flattest.modules.residual import residual_trace

SEEDS = 200
LOW, HIGH = 0.92, 0.98
N = 24


def classifier(classes, activation, *, fitted, around=0):
    """Return a network with data; a last slope keeps the columns from narrowing down.

    So many layers have a way around them, behind which no closed form is known.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Linear(6, 12), activation()),
            *(Residual(nn.Linear(12, 12), activation()) for _ in range(around)),
            *(nn.Linear(12, 12), activation()),
            *(nn.Linear(12, classes), nn.LeakyReLU(0.9)),
        ).double()
        X, y = torch.randn(N, 6).double(), torch.randint(0, classes, (N,))
    if fitted:
        optimiser = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(300):
            optimiser.zero_grad()
            F.cross_entropy(model(X), y).backward()
            optimiser.step()
        model.zero_grad(set_to_none=True)
    return model, X, y


@pytest.mark.slow
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("classes", [100, 1000])
def test_drawn_columns(classes, fitted):
    model, X, y = classifier(classes, nn.ReLU, fitted=fitted)
    options = {"loss": "cross_entropy", "residual": "none"}
    exact = ft.measure(model, X, y, mode="exact", **options)
    inside = {"gauss_newton": [], "adaptive": []}
    for seed in range(SEEDS):
        found = ft.measure(model, X, y, mode="sampled", rtol=0.5, random_state=seed, **options)
        for name, entries in inside.items():
            error = abs(getattr(found, name) - getattr(exact, name))
            entries.append(error <= 1.96 * found.standard_error[name])
    for name, entries in inside.items():
        assert LOW <= np.mean(entries) <= HIGH, (name, np.mean(entries))


@pytest.mark.slow
@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("classes", [10, 100])
def test_probes_of_the_residual_part(classes, fitted):
    model, X, y = classifier(classes, nn.GELU, fitted=fitted, around=1)

    def linearised():
        z = model(X)
        leaf = z.detach().requires_grad_()
        return z, torch.autograd.grad(F.cross_entropy(leaf, y), leaf)[0]

    parameters = dict(model.named_parameters())
    exact = residual_trace(linearised, parameters, method="exact").value
    inside = []
    for seed in range(SEEDS):
        found = residual_trace(linearised, parameters, method="estimate", random_state=seed)
        low, high = found.interval()
        inside.append(low <= exact <= high)
    assert LOW <= np.mean(inside) <= HIGH, np.mean(inside)
