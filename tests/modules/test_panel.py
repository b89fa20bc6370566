"""Fisher-Rao norm, adaptive and relative flatness, largest eigenvalue: against dense matrices."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from gauss_newton import dense_hessian, factors
from torch import nn

import flattest as ft
from flattest.modules.outputs import select

ROWS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# The panel takes the same walk as the diagonal; these have each kind of node that it touches.
NAMES = [
    *("linear", "linear over positions", "smooth activations", "LeNet", "batch norm 3d"),
    *("convolution 1d, strided and dilated", "convolution 2d, grouped, uneven", "shared module"),
    *("residual block in place", "weight norm", "embedding", "tied language model", "PReLU"),
    *(
        "frames folded into the batch",
        "multi-head attention, time first",
        "LSTM",
        "low-rank update",
    ),
    *("transposed convolution 2d, grouped", "mixture of experts", "image to image"),
]


def bent(z, y):
    return ((z - y) ** 4 / 12 + (z - y) ** 2).sum() / len(y)


def data(name, n=3):
    model, inputs = ARCHITECTURES[name](n)
    with torch.no_grad():
        logits = select(model(*(x.clone() for x in inputs)), None)
    generator = torch.Generator().manual_seed(n)
    targets = torch.randn(logits.shape, generator=generator, dtype=torch.float64).tanh()
    return model, inputs, targets


@pytest.mark.parametrize("name", NAMES)
def test_figures_against_dense_matrices(name):
    model, inputs, targets = data(name)
    jacobians, hessian = factors(model, inputs, lambda z: bent(z, targets))
    found = ft.measure(model, inputs, targets, loss=bent, panel=True, residual="none")
    along = sum(
        jacobians[key] @ parameter.detach().flatten() for key, parameter in model.named_parameters()
    )
    assert found.fisher_rao == pytest.approx(float(along @ hessian @ along), rel=1e-9)
    assert found.provenance["fisher_rao"].exact
    owners = dict(model.named_modules())
    for layer in found.layers:
        place, _, own = layer.name.rpartition(".")
        if not isinstance(owners[place], ROWS) or own != "weight":
            assert math.isnan(layer.relative_flatness)
            continue
        weight = dict(model.named_parameters())[layer.name].detach()
        rows = weight.flatten(1)
        jacobian = jacobians[layer.name].reshape(-1, *rows.shape)
        # <w_s, w_t> tr G_st with G_st = sum over outputs of J_s^T H J_t.
        blocks = torch.einsum("ask,ab,btk->st", jacobian, hessian, jacobian)
        expected = float((rows @ rows.T * blocks).sum())
        assert layer.relative_flatness == pytest.approx(expected, rel=1e-9, abs=1e-13)


def test_relative_flatness_behind_a_wide_last_layer():
    # Fewer columns than outputs: the last layer is done in closed form.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 9)).double()
        X, y = torch.randn(5, 4, dtype=torch.float64), torch.arange(5)
    wide = ft.measure(model, X, y, loss="cross_entropy", panel=True)
    plain = ft.measure(
        nn.Sequential(*model, nn.Identity()),
        X,
        y,
        loss=lambda z, t: F.cross_entropy(z, t),
        panel=True,
        parameters=["*"],
    )
    jacobians, hessian = factors(model, (X,), lambda z: F.cross_entropy(z, y))
    for layer in (wide.layers[0], wide.layers[2]):
        rows = dict(model.named_parameters())[layer.name].detach()
        jacobian = jacobians[layer.name].reshape(-1, *rows.shape)
        blocks = torch.einsum("ask,ab,btk->st", jacobian, hessian, jacobian)
        assert layer.relative_flatness == pytest.approx(float((rows @ rows.T * blocks).sum()))
    assert plain.fisher_rao == pytest.approx(wide.fisher_rao, rel=1e-12)


@pytest.mark.parametrize("sizes", [[6], [1, 3, 2]])
def test_batches_and_micro_batches_do_not_matter(sizes):
    model, (X,), y = data("LeNet", 6)
    whole = ft.measure(model, X, y, panel=True)
    batches = list(zip(X.split(sizes), y.split(sizes), strict=True))
    found = ft.measure(model, batches, batch_size=2, panel=True)
    assert found.fisher_rao == pytest.approx(whole.fisher_rao, rel=1e-12)
    for one, other in zip(found.layers, whole.layers, strict=True):
        assert one.relative_flatness == pytest.approx(
            other.relative_flatness, rel=1e-12, nan_ok=True
        )


def rescaled(model, scales):
    """Scale the neurons of a ReLU network up, and undo it in the next layer."""
    first, _, second = model
    new = nn.Sequential(
        nn.Linear(first.in_features, first.out_features),
        nn.ReLU(),
        nn.Linear(second.in_features, second.out_features),
    ).double()
    with torch.no_grad():
        new[0].weight.copy_(first.weight * scales[:, None])
        new[0].bias.copy_(first.bias * scales)
        new[2].weight.copy_(second.weight / scales)
        new[2].bias.copy_(second.bias)
    return new


def test_what_rescaling_leaves_alone():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double()
        X, y = torch.randn(8, 3, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
        scales = torch.rand(5, dtype=torch.float64) * 4 + 0.2
    options = {"panel": True, "largest_eigenvalue": "gauss_newton", "random_state": 0}
    before = ft.measure(model, X, y, **options)
    neurons = ft.measure(rescaled(model, scales), X, y, **options)
    layers = ft.measure(rescaled(model, torch.full_like(scales, 3.0)), X, y, **options)
    for after in (neurons, layers):
        assert after.adaptive == pytest.approx(before.adaptive, rel=1e-12)
        assert after.fisher_rao == pytest.approx(before.fisher_rao, rel=1e-12)
        assert after.layers[0].relative_flatness == pytest.approx(
            before.layers[0].relative_flatness, rel=1e-12
        )
        assert after.trace != pytest.approx(before.trace, rel=0.01)
        assert after.largest_eigenvalue != pytest.approx(before.largest_eigenvalue, rel=0.01)
    last = [flatness.layers[2].relative_flatness for flatness in (before, layers, neurons)]
    assert last[1] == pytest.approx(last[0], rel=1e-12)
    assert last[2] != pytest.approx(last[0], rel=0.01)  # as the documentation says


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
@pytest.mark.parametrize(
    "name",
    [
        "linear",
        "smooth activations",
        "LeNet",
        "shared module",
        "tied language model",
        "GRU, both directions",
    ],
)
def test_the_largest_eigenvalue(name, matrix):
    model, inputs, targets = data(name)
    if matrix == "hessian":
        dense = dense_hessian(model, inputs, lambda z: bent(z, targets))
    else:
        jacobians, hessian = factors(model, inputs, lambda z: bent(z, targets))
        jacobian = torch.cat(list(jacobians.values()), dim=1)
        dense = jacobian.T @ hessian @ jacobian
    expected = float(torch.linalg.eigvalsh(dense)[-1])
    found = ft.measure(
        model, inputs, targets, loss=bent, largest_eigenvalue=matrix, batch_size=2, random_state=0
    )
    assert found.largest_eigenvalue == pytest.approx(expected, rel=1e-3)
    why = found.provenance["largest_eigenvalue"].why
    assert "an eigenvalue lies within" in why
    assert ("Hessian" if matrix == "hessian" else "Gauss-Newton matrix") in why


def test_the_largest_eigenvalue_of_few_parameters_and_read_once():
    line = nn.Linear(1, 1, bias=False).double()
    X, y = torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2).double()
    found = ft.measure(line, iter([(X[:1], y[:1]), (X[1:], y[1:])]), largest_eigenvalue="hessian")
    assert found.largest_eigenvalue == pytest.approx(10.0)
    assert "largest eigenvalue" in repr(found)


def test_the_stated_residual_holds():
    model, inputs, targets = data("smooth activations")
    found = ft.measure(
        model, inputs, targets, loss=bent, largest_eigenvalue="hessian", random_state=3
    )
    dense = dense_hessian(model, inputs, lambda z: bent(z, targets))
    stated = float(found.provenance["largest_eigenvalue"].why.split("within ")[1].split()[0])
    nearest = (torch.linalg.eigvalsh(dense) - found.largest_eigenvalue).abs().min()
    assert float(nearest) <= 1.1 * stated + 1e-12


def test_the_standard_error_of_adaptive_flatness_covers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 120), nn.LeakyReLU(0.9)
        ).double()
        X, y = torch.randn(16, 5, dtype=torch.float64), torch.arange(16)
    options = {"loss": "cross_entropy", "residual": "none"}
    exact = ft.measure(model, X, y, mode="exact", **options)
    errors = []
    for seed in range(40):
        found = ft.measure(model, X, y, mode="sampled", rtol=0.2, random_state=seed, **options)
        errors.append((found.adaptive - exact.adaptive) / found.standard_error["adaptive"])
    errors = np.array(errors)
    assert abs(errors.mean()) <= 4 / np.sqrt(len(errors))
    assert abs((np.abs(errors) <= 1.96).mean() - 0.94) <= 4 * np.sqrt(0.05 / len(errors))


def test_sampled_relative_flatness_is_right_on_average():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 110), nn.LeakyReLU(0.9)
        ).double()
        X, y = torch.randn(8, 4, dtype=torch.float64), torch.arange(8)
    options = {"loss": "cross_entropy", "residual": "none", "panel": True}
    exact = ft.measure(model, X, y, mode="exact", **options)
    values = [
        [
            layer.relative_flatness
            for layer in ft.measure(
                model, X, y, mode="sampled", rtol=0.1, random_state=seed, **options
            ).layers
        ]
        for seed in range(20)
    ]
    values = np.array(values)
    for place in (0, 2):
        expected = exact.layers[place].relative_flatness
        error = values[:, place].std(ddof=1) / np.sqrt(len(values))
        assert abs(values[:, place].mean() - expected) <= 4 * error
        assert error < 0.1 * expected


class BagThenCurve(nn.Module):
    """An embedding bag, whose backward pass PyTorch cannot differentiate."""

    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(5, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.bag(x).tanh())


def test_what_cannot_be_differentiated_twice_is_named():
    model, X = BagThenCurve().double(), torch.randint(0, 5, (4, 3))
    y = torch.zeros(4, 2).double()
    found = ft.measure(model, X, y, panel=True)
    assert math.isnan(found.fisher_rao) == ("not measured" in found.provenance["fisher_rao"].why)
    assert found.gauss_newton > 0
