"""One call for any module and any form of data, and what the figures say of themselves."""

import csv
import io
import json
import math
from collections import UserDict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from hypothesis import given
from oracles import problems
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import flattest as ft
from flattest.modules.measuring import measure as measure_module

GENERATOR = torch.Generator().manual_seed(0)
N = 6
X = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randint(0, 2, (N,), generator=GENERATOR)


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()


EXPECTED = ft.measure(network(), X, Y, loss="cross_entropy").gauss_newton


@given(problems())
def test_two_layer_networks_measured_as_modules(problem):
    # The closed form is the oracle of the general route.
    net = problem.net
    closed = ft.measure(net, problem.X, problem.y)
    found = measure_module(net, problem.X, problem.y)
    scale = max(closed.gauss_newton, 1e-300)
    assert abs(found.gauss_newton - closed.gauss_newton) <= 1e-12 * scale
    for one, other in zip(closed.layers, found.layers, strict=True):
        assert one.name == other.name
        assert abs(one.gauss_newton - other.gauss_newton) <= 1e-12 * scale
    assert found.loss == pytest.approx(closed.loss, rel=1e-12, abs=1e-25)


def test_a_sequential_is_a_two_layer_network():
    relu = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 1, bias=False))
    relu = relu.double()
    net = ft.TwoLayerNet(relu[0].weight.detach(), relu[2].weight.detach()[0], "relu")
    y = X[:, 0].abs()
    found, closed = ft.measure(relu, X, y), ft.measure(net, X, y)
    assert found.gauss_newton == pytest.approx(closed.gauss_newton, rel=1e-12)
    assert found.layers[0].gauss_newton == pytest.approx(closed.layers[0].gauss_newton, rel=1e-12)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, input_ids, attention_mask=None, scale=1.0):
        logits = self.body(input_ids if attention_mask is None else input_ids * attention_mask)
        return SimpleNamespace(logits=scale * logits, cache=[logits])


ONES = torch.ones(N, 1, dtype=torch.float64)
PAIRS = [(X[:2], Y[:2]), (X[2:], Y[2:])]


def whole_loss(model, batch):
    return F.cross_entropy(model(batch["input_ids"]).logits, batch["labels"])


FORMS = {
    "arrays": lambda **k: ft.measure(network(), X.numpy(), Y.numpy(), **k),
    "lists": lambda **k: ft.measure(network(), X.tolist(), Y.tolist(), **k),
    "read-only and reversed arrays": lambda **k: ft.measure(
        network(), np.ascontiguousarray(X.numpy()[::-1])[::-1], Y.numpy().astype(np.int32), **k
    ),
    "data frames": lambda **k: ft.measure(
        network(), pd.DataFrame(X.numpy()), pd.Series(Y.numpy()), **k
    ),
    "list of pairs": lambda **k: ft.measure(network(), PAIRS, **k),
    "generator": lambda **k: ft.measure(network(), iter(PAIRS), **k),
    "loader": lambda **k: ft.measure(network(), DataLoader(TensorDataset(X, Y), batch_size=4), **k),
    "shuffling loader": lambda **k: ft.measure(
        network(), DataLoader(TensorDataset(X, Y), batch_size=4, shuffle=True), **k
    ),
    "micro-batches": lambda **k: ft.measure(network(), X, Y, batch_size=4, **k),
    "single samples": lambda **k: ft.measure(network(), X, Y, batch_size=1, **k),
    "dictionary of inputs": lambda **k: ft.measure(Tokens(), {"input_ids": X}, Y, **k),
    "dictionary with targets": lambda **k: ft.measure(
        Tokens(), {"input_ids": X, "attention_mask": ONES, "labels": Y}, **k
    ),
    "dictionaries as batches": lambda **k: ft.measure(
        Tokens(), [{"input_ids": x, "labels": y} for x, y in PAIRS], **k
    ),
    "mappings of other classes": lambda **k: ft.measure(
        Tokens(), iter([UserDict(input_ids=x, label=y) for x, y in PAIRS]), **k
    ),
    "tuple of inputs": lambda **k: ft.measure(Tokens(), (X, ONES), Y, **k),
    "pairs of tuples": lambda **k: ft.measure(
        Tokens(), iter([((x, ONES[: len(x)]), y) for x, y in PAIRS]), **k
    ),
    "constant among the inputs": lambda **k: ft.measure(
        Tokens(), {"input_ids": X / 2, "scale": 1.0, "attention_mask": 2 * ONES[0]}, Y, **k
    ),
    "name of the output": lambda **k: ft.measure(Tokens(), X, Y, output="logits", **k),
    "function of the output": lambda **k: ft.measure(
        Tokens(), X, Y, output=lambda returned: returned.cache[0], **k
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_data(name):
    assert FORMS[name](loss="cross_entropy").gauss_newton == pytest.approx(EXPECTED, rel=1e-12)


@pytest.mark.parametrize("returned", [tuple, list, dict])
def test_outputs_inside_what_the_model_returns(returned):
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            logits = self.body(x)
            if returned is dict:
                return {"features": x, "logits": logits, "scores": 2 * logits}
            return returned([x, logits])

    kwargs = {"loss": "cross_entropy", "output": "logits" if returned is dict else 1}
    assert ft.measure(Returns(), X, Y, **kwargs).gauss_newton == pytest.approx(EXPECTED, rel=1e-12)

    def loss(model, batch):
        answer = model(batch[0])
        return F.cross_entropy(answer["logits"] if returned is dict else answer[1], batch[1])

    kwargs["loss"] = loss
    assert ft.measure(Returns(), (X, Y), **kwargs).gauss_newton == pytest.approx(
        EXPECTED, rel=1e-12
    )


@pytest.mark.parametrize("sizes", [[6], [2, 4], [1, 1, 4]])
def test_loss_of_model_and_batch(sizes):
    batches = [
        {"input_ids": x, "labels": y} for x, y in zip(X.split(sizes), Y.split(sizes), strict=True)
    ]
    data = batches[0] if len(batches) == 1 else iter(batches)
    found = ft.measure(Tokens(), data, loss=whole_loss)
    assert found.gauss_newton == pytest.approx(EXPECTED, rel=1e-10)
    assert found.n_samples == N
    again = ft.measure(Tokens(), batches, loss=whole_loss, batch_size=2)
    assert again.gauss_newton == pytest.approx(EXPECTED, rel=1e-10)


def test_a_weight_used_twice():
    # f(w) = (w (w x) - y)**2 at w = 1, x = 2, y = 1: the Gauss-Newton part is 2 (2 w x)**2.
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(1, 1, bias=False)
            nn.init.ones_(self.a.weight)

        def forward(self, x):
            return self.a(self.a(x))

    assert ft.measure(Twice().double(), [[2.0]], [1.0]).gauss_newton == pytest.approx(32)


def test_tied_tensors_count_once():
    tied, inputs = ARCHITECTURES["tied language model"](3)
    assert [n for n, _ in tied.named_parameters()].count("e.weight") == 1
    y = torch.randint(0, 7, (3, 4), generator=GENERATOR)
    found = ft.measure(tied, *inputs, y, loss="cross_entropy")
    assert found.n_parameters == sum(p.numel() for p in tied.parameters())
    both = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    both["b"].weight = both["a"].weight
    model = nn.Sequential(both["a"], nn.Tanh(), both["b"]).double()
    assert [layer.name for layer in ft.measure(model, X, X).layers] == [
        "0.weight",
        "0.bias",
        "2.bias",
    ]


def test_unused_and_frozen_parameters():
    model = network()
    model.add_module("spare", nn.Identity())
    model.spare.register_parameter("extra", nn.Parameter(torch.ones(5).double()))
    found = ft.measure(model, X, Y, loss="cross_entropy")
    rows = {layer.name: layer for layer in found.layers}
    assert rows["spare.extra"].unused
    assert rows["spare.extra"].gauss_newton == 0
    assert not rows["0.bias"].unused
    assert found.gauss_newton == pytest.approx(EXPECTED, rel=1e-12)
    model[0].requires_grad_(False)
    trainable = ft.measure(model, X, Y, loss="cross_entropy")
    assert [layer.name for layer in trainable.layers] == ["2.weight", "2.bias", "spare.extra"]
    assert trainable.n_left_out == 16
    assert "15 parameters (16 more left out)" in repr(trainable)
    everything = ft.measure(model, X, Y, loss="cross_entropy", parameters="all")
    assert everything.gauss_newton == pytest.approx(EXPECTED, rel=1e-12)
    assert [layer.frozen for layer in everything.layers] == [True, True, False, False, False]
    some = ft.measure(model, X, Y, loss="cross_entropy", parameters=["0.*", "*.extra"])
    assert [layer.name for layer in some.layers] == ["0.weight", "0.bias", "spare.extra"]
    assert some.diagonal()["0.bias"].shape == (4,)
    assert not any(p.requires_grad for p in model[0].parameters())


def test_rows_of_an_embedding_that_nobody_takes():
    table = nn.Embedding(5, 2).double()
    found = ft.measure(table, torch.tensor([1, 3, 3]), torch.zeros(3, 2).double())
    assert found.diagonal()["weight"][:, 0].tolist() == pytest.approx([0, 1 / 3, 0, 2 / 3, 0])


def test_the_result_says_what_was_measured_and_what_not():
    found = ft.measure(network(), X, Y, loss="cross_entropy", residual="none")
    assert [row.label for row in found.rows()] == ["Gauss-Newton part", "adaptive flatness", "loss"]
    assert "trace of the Hessian" not in repr(found) + found._repr_html_()
    assert math.isnan(found.trace)
    assert math.isnan(found.residual)
    assert found.provenance["trace"].why == "not measured, as residual='none'"
    assert found.provenance["gauss_newton"].exact
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["trace"] is None
    assert "diagonals" not in values
    assert values["layers"][0]["kind"] == "Linear"


def test_the_table_per_layer():
    model = network()
    found = ft.measure(model, X, Y, loss="cross_entropy")
    frame = found.per_layer
    assert frame["share"].sum() == pytest.approx(1)
    assert frame["gauss_newton"].sum() == pytest.approx(found.gauss_newton)
    diagonal, weight = found.diagonal()["0.weight"], model[0].weight.detach()
    first = frame.iloc[0]
    assert first["name"] == "0.weight"
    assert first["shape"] == (4, 3)
    assert first["squared_norm"] == pytest.approx(float((weight**2).sum()))
    mean = float(diagonal.mean()) + first["residual"] / 12
    assert first["trace_per_parameter"] == pytest.approx(mean)
    assert first["relative_trace"] == pytest.approx(mean * float((weight**2).sum()))
    assert first["adaptive"] == pytest.approx(float((diagonal * weight**2).sum()))
    without = ft.measure(model, X, Y, loss="cross_entropy", residual="none").per_layer
    assert without[["trace", "share", "relative_trace"]].isna().all(axis=None)
    assert without["gauss_newton"].tolist() == frame["gauss_newton"].tolist()
    table = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["name"] for row in table] == [layer.name for layer in found.layers]


def test_csv_files(tmp_path):
    found = ft.measure(network(), X, Y, loss="cross_entropy")
    assert found.to_csv(tmp_path / "layers.csv") is None
    assert (tmp_path / "layers.csv").read_text() == found.to_csv()


def test_rescaling_leaves_the_adaptive_flatness_alone():
    model = network()
    before = ft.measure(model, X, Y, loss="cross_entropy")
    with torch.no_grad():
        model[0].weight *= 10
        model[0].bias *= 10
        model[2].weight /= 10
    after = ft.measure(model, X, Y, loss="cross_entropy")
    assert after.gauss_newton > 5 * before.gauss_newton
    assert after.adaptive == pytest.approx(before.adaptive, rel=1e-12)


def test_two_layer_networks_have_no_diagonal():
    flatness = ft.measure(ft.TwoLayerNet([[1.0]], [1.0], "relu"), [[1.0]], [1.0])
    with pytest.raises(ValueError, match="kept no diagonal"):
        flatness.diagonal()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_linear_network_of_any_depth_by_hand(dtype):
    # f(x) = w_2 w_1 x: gradients w_2 x and w_1 x.
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)).to(dtype)
    nn.init.constant_(model[0].weight, 3)
    nn.init.constant_(model[1].weight, 5)
    found = ft.measure(model, [[2.0], [1.0]], [0.0, 0.0])
    assert found.gauss_newton == pytest.approx(2 * 34 * 2.5)
    assert found.dtype == str(dtype)
