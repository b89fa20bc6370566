"""A wide last layer costs no more columns than it has inputs, and nothing of exactness."""

import copy

import pytest
import torch
import torch.nn.functional as F
from gauss_newton import diagonal, factors
from torch import nn

import flattest as ft
from flattest.modules.curvature import output_hessian
from flattest.modules.output_hessian import Blocks, OutputHessian

GENERATOR = torch.Generator().manual_seed(0)
N, WIDTH, C = 5, 3, 9
X = torch.randn(N, 4, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(0, C, (N,), generator=GENERATOR)
REAL = torch.randn(N, C, generator=GENERATOR, dtype=torch.float64)


def focal(z, y):
    p = torch.softmax(z, dim=1).gather(1, y[:, None])[:, 0]
    return -((1 - p) ** 2 * p.log()).mean()


def welsch(z, y):
    return (1 - torch.exp(-((z - y) ** 2))).mean()


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss(label_smoothing=0.1, ignore_index=2), LABELS),
    "mse": (nn.MSELoss(), REAL),
    "focal": (focal, LABELS),
    "welsch": (welsch, REAL),
}


def network(*, scale=1.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, WIDTH), nn.Tanh(), nn.Linear(WIDTH, C)
        ).double()
    model[-1].weight.data *= scale
    return model


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_against_dense_autograd(name, scale, batch_size):
    model, (loss, y) = network(scale=scale), LOSSES[name]
    expected = diagonal(model, (X,), lambda z: loss(z, y))
    found = ft.measure(model, X, y, loss=loss, batch_size=batch_size).diagonal()
    for key, values in expected.items():
        torch.testing.assert_close(
            found[key], values, rtol=1e-10, atol=1e-12 * float(values.abs().max())
        )


def test_no_more_columns_than_inputs(monkeypatch):
    asked = []
    for kind in OutputHessian.__subclasses__():
        original = kind.columns

        def columns(self, which, samples, original=original):
            asked.append(len(which))
            return original(self, which, samples)

        monkeypatch.setattr(kind, "columns", columns)
    ft.measure(network(), X, LABELS, loss="cross_entropy", mode="exact")
    assert sum(asked) <= WIDTH


@pytest.mark.parametrize("what", ["frozen bias", "frozen weight", "no bias", "tied", "scaled"])
def test_other_last_layers(what):
    model = network()
    if what == "frozen bias":
        model[-1].bias.requires_grad_(False)
    elif what == "frozen weight":
        model[-1].weight.requires_grad_(False)
    elif what == "no bias":
        model[-1] = nn.Linear(WIDTH, C, bias=False).double()
    elif what == "scaled":
        model.append(nn.Softplus())
    else:
        model[-1] = nn.Linear(WIDTH, 6).double()
        model[2].weight = nn.Parameter(model[-1].weight.detach().T.clone())

        class Tied(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.last = copy.deepcopy(model[0]), copy.deepcopy(model[-1])

            def forward(self, x):
                hidden = F.linear(self.first(x).tanh(), self.last.weight.T)
                return self.last(hidden.tanh())

        model = Tied().double()
    y = LABELS % 6
    expected = diagonal(model.requires_grad_(True), (X,), lambda z: F.cross_entropy(z, y))
    if what.startswith("frozen"):
        getattr(model[-1], what.split()[1]).requires_grad_(False)
    found = ft.measure(model, X, y, loss="cross_entropy").diagonal()
    assert len(found) == len(expected) - what.startswith("frozen")
    for key in found:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_the_output_hessian(name):
    loss, y = LOSSES[name]
    hessian = output_hessian(lambda z: loss(z, y), REAL, name)
    columns, signs = hessian.columns(range(hessian.n_columns), slice(None))
    dense = torch.einsum("cn,cni,cnj->nij", signs, columns, columns)
    weight = torch.randn(C, WIDTH, generator=GENERATOR, dtype=torch.float64)
    own = dense.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(hessian.own(slice(None))[:, 0], own, rtol=1e-12, atol=1e-14)
    through = weight.T @ dense @ weight
    torch.testing.assert_close(hessian.through(weight, slice(None))[:, 0], through)
    part = hessian.own(slice(1, 3))
    torch.testing.assert_close(part, hessian.own(slice(None))[1:3], rtol=1e-14, atol=1e-16)


def test_quick_blocks_rebuild_what_they_take_apart():
    rows = torch.randn(4, 2, 5, 5, generator=GENERATOR, dtype=torch.float64)
    blocks = rows @ rows.mT
    blocks[0, 0] = 0  # every target ignored
    blocks[1, 0] = rows[1, 0, :, :2] @ rows[1, 0, :, :2].T  # singular
    blocks[2, 1] -= 2 * torch.eye(5)  # curvature of both signs
    quick = Blocks(torch.Size((4, 2, 5)), 2, blocks, quick=True)
    columns, signs = quick.columns(range(quick.n_columns), slice(None))
    rebuilt = torch.einsum("cn,cnpi,cnpj->npij", signs, columns, columns)
    torch.testing.assert_close(rebuilt, blocks, rtol=1e-12, atol=1e-12)


TOKENS = torch.randint(0, 6, (4, 3), generator=GENERATOR)
NEXT = torch.randint(0, C, (4, 3), generator=GENERATOR)
MANY = torch.randn(4, 3, C, generator=GENERATOR, dtype=torch.float64)


class Language(nn.Module):
    """Logits of every token of a sequence, in one of the forms in which models return them."""

    def __init__(self, form, bias=True):
        super().__init__()
        self.form = form
        self.table, self.mix = nn.Embedding(6, 4), nn.Linear(3, 3)
        self.inner, self.head = nn.Linear(4, WIDTH), nn.Linear(WIDTH, C, bias=bias)

    def forward(self, x):
        h = self.inner(self.mix(self.table(x).mT).mT.tanh()).tanh()
        if self.form == "rows":
            return self.head(h.flatten(0, 1))
        if self.form == "time first":
            return self.head(h.transpose(0, 1)).transpose(0, 1)
        return self.head(h).mT if self.form == "classes second" else self.head(h)


def of_tokens(z, y):
    return F.cross_entropy(z.reshape(-1, C), y.flatten())


def coupling(z, y):
    return (z.reshape(len(y), -1).sum(dim=1) ** 2).mean() + of_tokens(z, y)


TOKEN_LOSSES = {
    "tokens": (of_tokens, NEXT),
    "mse": (nn.MSELoss(), MANY),
    "welsch": (welsch, MANY),
    "positions coupled": (coupling, NEXT),
}


def language(form, bias=True):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Language(form, bias).double()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", ["positions", "rows", "time first"])
@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_positions_against_dense_autograd(name, form, bias):
    model, (loss, y) = language(form, bias), TOKEN_LOSSES[name]
    if form == "rows" and name in ("mse", "welsch"):
        y = y.flatten(0, 1)
    expected = diagonal(model, (TOKENS,), lambda z: loss(z, y))
    found = ft.measure(model, TOKENS, y, loss=loss, mode="exact", panel=True).diagonal()
    for key, values in expected.items():
        torch.testing.assert_close(
            found[key], values, rtol=1e-10, atol=1e-12 * float(values.abs().max())
        )


def test_classes_along_another_axis():
    model = language("classes second")
    expected = diagonal(model, (TOKENS,), lambda z: F.cross_entropy(z, NEXT))
    found = ft.measure(model, TOKENS, NEXT, loss="cross_entropy", mode="exact").diagonal()
    for key, values in expected.items():
        torch.testing.assert_close(found[key], values, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("form", "columns"),
    [("positions", 3 * WIDTH), ("rows", 3 * WIDTH), ("time first", 3 * (C - 1))],
)
def test_columns_of_positions(form, columns, monkeypatch):
    asked = []
    for kind in OutputHessian.__subclasses__():
        original = kind.columns

        def counted(self, which, samples, original=original):
            asked.append(len(which))
            return original(self, which, samples)

        monkeypatch.setattr(kind, "columns", counted)
    ft.measure(language(form), TOKENS, NEXT, loss=of_tokens, mode="exact")
    assert sum(asked) == columns


def test_relative_flatness_of_positions():
    model = language("positions")
    found = ft.measure(model, TOKENS, NEXT, loss=of_tokens, mode="exact", panel=True)
    jacobians, hessian = factors(model, (TOKENS,), lambda z: of_tokens(z, NEXT))
    for layer in found.layers:
        if layer.name in ("inner.weight", "head.weight", "mix.weight"):
            rows = dict(model.named_parameters())[layer.name].detach()
            jacobian = jacobians[layer.name].reshape(-1, *rows.shape)
            blocks = torch.einsum("ask,ab,btk->st", jacobian, hessian, jacobian)
            expected = float((rows @ rows.T * blocks).sum())
            assert layer.relative_flatness == pytest.approx(expected, rel=1e-10)
