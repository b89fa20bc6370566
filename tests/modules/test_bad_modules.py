"""Bad input for modules meets one clear sentence, and leaves the model alone."""

import inspect

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import flattest as ft

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(4, 2)
NAN = X.clone()
NAN[2, 1] = float("nan")


def line():
    return nn.Linear(3, 2)


def spoiled():
    model = line()
    model.weight.data[0, 0] = float("inf")
    return model


class Returns(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.function = line(), function

    def forward(self, x):
        return self.function(self.a(x))


def frozen():
    return line().requires_grad_(False)


def complex_model():
    model = line()
    model.register_parameter("c", nn.Parameter(torch.zeros(1, dtype=torch.complex64)))
    return model


def twice(model, batch):
    return ((model(batch[0]) - model(batch[0])) ** 2).mean()


def never(model, batch):
    return batch[1].mean()


def read_before():
    batches = iter([(X, Y)])
    next(batches)
    return batches


CASES = {
    "no parameters": (lambda: ft.measure(nn.ReLU(), X, X), ValueError, "no floating-point param"),
    "frozen": (lambda: ft.measure(frozen(), X, Y), ValueError, "parameters='all'"),
    "infinite weight": (lambda: ft.measure(spoiled(), X, Y), ValueError, "parameters contain NaN"),
    "complex weight": (lambda: ft.measure(complex_model(), X, Y), TypeError, "complex"),
    "lazy layer": (lambda: ft.measure(nn.LazyLinear(2), X, Y), ValueError, "call it once"),
    "meta": (lambda: ft.measure(nn.Linear(3, 2, device="meta"), X, Y), ValueError, "meta device"),
    "no data": (lambda: ft.measure(line(), None, Y), TypeError, "X is None"),
    "text": (lambda: ft.measure(line(), "data.csv", Y), TypeError, "X must be a tensor"),
    "no targets": (lambda: ft.measure(line(), X), TypeError, "y is missing"),
    "targets for batches": (
        lambda: ft.measure(line(), iter([(X, Y)]), Y),
        TypeError,
        "y must be left out",
    ),
    "no batches": (lambda: ft.measure(line(), iter([])), ValueError, "no batches"),
    "batches without targets": (
        lambda: ft.measure(line(), iter([X])),
        TypeError,
        r"Batch 1 must be a pair \(X, y\)",
    ),
    "dictionary without targets": (
        lambda: ft.measure(line(), iter([{"input": X}])),
        TypeError,
        "Batch 1 is a dictionary, whose targets are looked for under labels",
    ),
    "dictionary with two targets": (
        lambda: ft.measure(line(), {"input": X, "labels": Y, "y": Y}),
        TypeError,
        "labels and y",
    ),
    "empty": (lambda: ft.measure(line(), X[:0], Y[:0]), ValueError, r"X is empty.*\(0, 3\)"),
    "nan": (lambda: ft.measure(line(), NAN, Y), ValueError, "X contains NaN or infinity in row 2"),
    "nan in a batch": (
        lambda: ft.measure(line(), iter([(X, Y), (NAN, Y)])),
        ValueError,
        "X of batch 2 contains NaN or infinity in row 2",
    ),
    "nan in targets": (
        lambda: ft.measure(line(), X, torch.full((4, 2), float("nan"))),
        ValueError,
        "y contains NaN",
    ),
    "other dtype": (
        lambda: ft.measure(line(), X.double(), Y),
        TypeError,
        r"X has dtype torch.float64, but the model has torch.float32; use X.to\(torch.float32\)",
    ),
    "sparse tensor": (lambda: ft.measure(line(), X.to_sparse(), Y), TypeError, "X.to_dense()"),
    "sparse matrix": (
        lambda: ft.measure(line(), scipy.sparse.eye(3).tocsr(), Y[:3]),
        TypeError,
        "X.toarray()",
    ),
    "ragged lists": (
        lambda: ft.measure(line(), [[1.0, 2.0, 3.0], [1.0]], Y[:2]),
        ValueError,
        "differ in length",
    ),
    "dates": (
        lambda: ft.measure(line(), np.array([["2020-01-01"] * 3], dtype="M8[D]"), Y[:1]),
        TypeError,
        "real numbers",
    ),
    "words in a frame": (
        lambda: ft.measure(line(), pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), Y[:2]),
        TypeError,
        "must hold numbers",
    ),
    "wrong width": (
        lambda: ft.measure(line(), X[:, :2], Y),
        ValueError,
        r"forward pass failed on \d+ samples of X, each of shape \(2,\), with RuntimeError",
    ),
    "wrong names": (
        lambda: ft.measure(line(), {"inputs": X}, Y),
        ValueError,
        "forward pass failed on .* of X,.* with TypeError: .*inputs",
    ),
    "number of targets": (
        lambda: ft.measure(line(), X, Y[:3]),
        ValueError,
        "y has 3 values, but X has 4 samples",
    ),
    "shape of targets": (
        lambda: ft.measure(line(), X, torch.zeros(4, 3)),
        ValueError,
        r"y has shape \(4, 3\), but the model's outputs have shape \(4, 2\)",
    ),
    "integer outputs": (
        lambda: ft.measure(Returns(lambda z: z.argmax(1)), X, Y),
        TypeError,
        "before a decision such as argmax",
    ),
    "outputs without a name": (
        lambda: ft.measure(Returns(lambda z: (z, z)), X, Y),
        TypeError,
        "returns a tuple without logits; say with output=",
    ),
    "no such output": (
        lambda: ft.measure(Returns(lambda z: {"a": z}), X, Y, output="b"),
        TypeError,
        "output='b' is not a part of the dict",
    ),
    "output of another type": (
        lambda: ft.measure(line(), X, Y, output=1.5),
        TypeError,
        "output must be a name, a position or a function",
    ),
    "output that is no tensor": (
        lambda: ft.measure(Returns(lambda z: {"a": "z"}), X, Y, output="a"),
        TypeError,
        "output is of type str",
    ),
    "one number": (
        lambda: ft.measure(Returns(lambda z: z.sum()), X, Y),
        ValueError,
        "single number, not one per sample",
    ),
    "other rows": (
        lambda: ft.measure(Returns(lambda z: z[:3]), X, Y),
        ValueError,
        "3 rows for 4 samples",
    ),
    "infinite outputs": (
        lambda: ft.measure(Returns(lambda z: z / 0), X, Y),
        ValueError,
        "outputs contain NaN or infinity",
    ),
    "unknown parameters": (
        lambda: ft.measure(line(), X, Y, parameters="trainable"),
        ValueError,
        "'all' or a list",
    ),
    "pattern without match": (
        lambda: ft.measure(line(), X, Y, parameters=["layer*"]),
        ValueError,
        "No parameter's name matches 'layer\\*'; names are such as 'weight'",
    ),
    "no pattern": (lambda: ft.measure(line(), X, Y, parameters=[]), ValueError, "empty list"),
    "patterns that are no text": (
        lambda: ft.measure(line(), X, Y, parameters=[1]),
        TypeError,
        "must hold strings",
    ),
    "parameters of another type": (
        lambda: ft.measure(line(), X, Y, parameters=1),
        TypeError,
        "parameters must be None",
    ),
    "batch size": (
        lambda: ft.measure(line(), X, Y, batch_size=0),
        ValueError,
        "batch_size must be at least 1",
    ),
    "chunk size": (lambda: ft.measure(line(), X, Y, chunk_size=2), ValueError, "use batch_size"),
    "model called twice": (
        lambda: ft.measure(line(), (X, Y), loss=twice),
        ValueError,
        "called the model 2 times",
    ),
    "model never called": (
        lambda: ft.measure(line(), (X, Y), loss=never),
        ValueError,
        "called the model 0 times",
    ),
    "targets beside a loss of the batch": (
        lambda: ft.measure(line(), X, Y, loss=never),
        TypeError,
        "y must be left out",
    ),
    "no batch for a loss of the batch": (
        lambda: ft.measure(line(), 3, loss=never),
        TypeError,
        "must be a batch or an iterable",
    ),
    "memory that is no size": (
        lambda: ft.measure(line(), X, Y, memory="plenty"),
        ValueError,
        "memory must be a size such as '2 GiB'",
    ),
    "memory for less than a sample": (
        lambda: ft.measure(line(), X, Y, memory=10),
        ValueError,
        "one sample takes about",
    ),
    "two limits": (
        lambda: ft.measure(line(), X, Y, memory="1 GB", batch_size=2),
        ValueError,
        "give one of the two",
    ),
    "unknown mode": (
        lambda: ft.measure(line(), X, Y, mode="fast"),
        ValueError,
        "mode must be one of 'auto', 'exact', 'sampled', not 'fast'",
    ),
    "unknown residual": (
        lambda: ft.measure(line(), X, Y, residual="all"),
        ValueError,
        "residual must be one of",
    ),
    "tolerance of zero": (
        lambda: ft.measure(line(), X, Y, rtol=0.0),
        ValueError,
        "rtol must be",
    ),
    "eigenvalue of another matrix": (
        lambda: ft.measure(line(), X, Y, largest_eigenvalue="fisher"),
        ValueError,
        "largest_eigenvalue must be one of 'hessian', 'gauss_newton'",
    ),
    "random state": (
        lambda: ft.measure(line(), X, Y, random_state="seed"),
        TypeError,
        "random_state",
    ),
    "unknown loss": (
        lambda: ft.measure(line(), X, Y, loss="l2"),
        ValueError,
        "loss must be one of 'mse'",
    ),
    "class of a loss": (
        lambda: ft.measure(line(), X, Y, loss=nn.MSELoss),
        TypeError,
        r"loss is the class MSELoss; make one, as in MSELoss\(\)",
    ),
    "loss that cannot be called": (
        lambda: ft.measure(line(), X, Y, loss=3),
        TypeError,
        "loss must be a name, a torch.nn loss or a function",
    ),
    "loss per sample": (
        lambda: ft.measure(line(), X, Y, loss=nn.MSELoss(reduction="none")),
        ValueError,
        "gives no single loss",
    ),
    "loss of several values": (
        lambda: ft.measure(line(), X, Y, loss=lambda z, y: ((z - y) ** 2).mean(1)),
        (TypeError, ValueError),
        "one number",
    ),
    "loss that is not finite": (
        lambda: ft.measure(line(), X, Y, loss=lambda z, y: (z - y).pow(2).mean() / 0),
        ValueError,
        "NaN|inf",
    ),
    "loss that couples samples": (
        lambda: ft.measure(line(), X, Y, loss=lambda z, y: z.mean() ** 2),
        ValueError,
        "no sum over samples",
    ),
    "loss without outputs": (
        lambda: ft.measure(line(), X, Y, loss=lambda z, y: y.mean()),
        ValueError,
        "does not depend on the model's outputs",
    ),
    "loss cut off": (
        lambda: ft.measure(line(), X, Y, loss=lambda z, y: (z.detach() - y).pow(2).mean()),
        ValueError,
        "does not depend on the model's outputs",
    ),
    "all targets ignored": (
        lambda: ft.measure(line(), X, torch.full((4,), -100), loss="cross_entropy"),
        ValueError,
        "counts no sample",
    ),
    "classes out of range": (
        lambda: ft.measure(line(), X, torch.tensor([0, 1, 2, 0]), loss="cross_entropy"),
        ValueError,
        "y holds classes from 0 to 2, but the model has 2 outputs",
    ),
    "classes that are no integers": (
        lambda: ft.measure(line(), X, torch.zeros(4), loss="cross_entropy"),
        TypeError,
        "takes integer classes",
    ),
    "probabilities out of shape": (
        lambda: ft.measure(line(), X, torch.zeros(4, 3), loss="cross_entropy"),
        TypeError,
        "probabilities of shape",
    ),
    "classes for one number": (
        lambda: ft.measure(
            Returns(lambda z: z[:, 0]), X, torch.zeros(4).long(), loss="cross_entropy"
        ),
        ValueError,
        "needs outputs of shape",
    ),
    "batch norm in training": (
        lambda: ft.measure(nn.Sequential(line(), nn.BatchNorm1d(2)), X, Y),
        ValueError,
        r"1 is a BatchNorm1d in training mode.*call model.eval\(\) first",
    ),
    "dropout in training": (
        lambda: ft.measure(nn.Sequential(line(), nn.Dropout()), X, Y),
        ValueError,
        "1 is a Dropout in training mode, which draws at random",
    ),
    "random numbers": (
        lambda: ft.measure(Returns(lambda z: z + torch.rand_like(z)), X, Y),
        ValueError,
        "the model draws random numbers",
    ),
    "coupled samples": (
        lambda: ft.measure(Returns(lambda z: z - z.mean(0)), X, Y),
        ValueError,
        "depend on the other samples",
    ),
    "no gradient": (
        lambda: ft.measure(Returns(torch.Tensor.detach), X, Y),
        ValueError,
        "do not depend on any measured parameter",
    ),
    "reentrant checkpoint": (
        lambda: ft.measure(Returns(lambda z: checkpoint(torch.relu, z, use_reentrant=True)), X, Y),
        ValueError,
        "use_reentrant=False",
    ),
    "complex data": (
        lambda: ft.measure(line(), np.ones((4, 3), dtype=complex), Y),
        TypeError,
        "must hold real numbers",
    ),
    "data on the meta device": (
        lambda: ft.measure(line(), X.to("meta"), Y),
        ValueError,
        "meta device",
    ),
    "a single number": (
        lambda: ft.measure(line(), torch.tensor(1.0), Y),
        ValueError,
        "no dimension that samples could lie along",
    ),
    "read before": (
        lambda: ft.measure(line(), read_before(), loss="mse"),
        ValueError,
        "already read",
    ),
    "panel of a two-layer network": (
        lambda: ft.measure(ft.TwoLayerNet([[1.0]], [1.0], "abs"), [[1.0]], [1.0], panel=True),
        ValueError,
        "panel is not for two-layer networks",
    ),
    "output of a two-layer network": (
        lambda: ft.measure(ft.TwoLayerNet([[1.0]], [1.0], "abs"), [[1.0]], [1.0], output="logits"),
        ValueError,
        "output is not for two-layer networks",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_clear_sentence(name):
    call, error, message = CASES[name]
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    first = text.split()[0].partition("=")[0]
    # A sentence begins with a capital, the name of an argument or that of a layer.
    assert text[0].isupper() or first in inspect.signature(ft.measure).parameters or first == "1"
    assert "\n" not in text
