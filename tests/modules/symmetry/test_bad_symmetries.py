"""Bad input for `symmetries` meets one clear sentence, and leaves the model alone."""

import pytest
import torch
from architectures import Applied
from torch import nn

import flattest as ft

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
NAN = X.clone()
NAN[2, 1] = float("nan")


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def found():
    return ft.symmetries(net(), X)


def spoiled():
    model = net()
    model[0].weight.data[0, 0] = float("inf")
    return model


def training():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def random():
    return Applied(
        lambda m, x: m.b(m.a(x).relu()) * torch.rand(2), a=nn.Linear(3, 4), b=nn.Linear(4, 2)
    )


def several():
    return Applied(lambda m, x: (m.a(x), m.a(x)), a=nn.Linear(3, 4))


def complains():
    def forward(m, x):
        raise RuntimeError("no such device")

    return Applied(forward, a=nn.Linear(3, 4))


LENGTH = Applied(
    lambda m, x: m.b(m.a(x).relu() if len(x) < 5 else m.a(x).tanh()),
    a=nn.Linear(3, 4),
    b=nn.Linear(4, 2),
)

CASES = {
    "no example": (lambda: ft.symmetries(net(), None), TypeError, "example is None"),
    "text": (lambda: ft.symmetries(net(), "x.csv"), TypeError, "example must be a tensor"),
    "no tensor": (lambda: ft.symmetries(net(), {"x": None}), TypeError, "example holds no tensor"),
    "a loader": (
        lambda: ft.symmetries(net(), iter([X])),
        TypeError,
        "give the arguments of one call",
    ),
    "empty": (lambda: ft.symmetries(net(), X[:0]), ValueError, "example is empty"),
    "NaN": (lambda: ft.symmetries(net(), NAN), ValueError, "example contains NaN.* in row 2"),
    "wrong width": (
        lambda: ft.symmetries(net(), X[:, :2]),
        ValueError,
        "operations could not be recorded.*mat1 and mat2",
    ),
    "wrong dtype": (lambda: ft.symmetries(net(), X.double()), TypeError, "has dtype torch.float64"),
    "no parameters": (lambda: ft.symmetries(nn.ReLU(), X), ValueError, "no floating-point param"),
    "frozen": (
        lambda: ft.symmetries(net().requires_grad_(False), X),
        ValueError,
        "no trainable parameters",
    ),
    "infinite weight": (lambda: ft.symmetries(spoiled(), X), ValueError, "parameters contain NaN"),
    "lazy": (lambda: ft.symmetries(nn.LazyLinear(2), X), ValueError, "call it once"),
    "meta": (lambda: ft.symmetries(net().to("meta"), X), ValueError, "meta device"),
    "training mode": (lambda: ft.symmetries(training(), X), ValueError, r"call model.eval\(\)"),
    "batch norm": (
        lambda: ft.symmetries(net(), X, batch_norm="fuse"),
        ValueError,
        "batch_norm must be 'keep', 'fold' or 'affine', not 'fuse'",
    ),
    "output": (lambda: ft.symmetries(net(), X, output=1.5), TypeError, "output must be a name"),
    "several outputs": (
        lambda: ft.symmetries(several(), X),
        ValueError,
        "say with output= which part",
    ),
    "random outputs": (
        lambda: ft.symmetries(random(), X),
        ValueError,
        "differ between two calls on the same data",
    ),
    "forward fails": (lambda: ft.symmetries(complains(), X), ValueError, "no such device"),
    "scales of another length": (
        lambda: found().transformed(z=[1.0]),
        ValueError,
        r"z has shape \(1,\), but the module has 4 free scales",
    ),
    "infinite scales": (
        lambda: found().transformed(z=[float("inf")] * 4),
        ValueError,
        "z contains NaN or infinity",
    ),
    "no such group": (
        lambda: found().transformed(matrices={0: torch.eye(2)}),
        ValueError,
        "There is no group 0",
    ),
    "another graph for other data": (
        lambda: ft.symmetries(LENGTH, X).check(torch.cat([X, X])),
        ValueError,
        "does not hold on these data, where rescaling a.weight with a.bias with b.weight",
    ),
    "check on nothing": (lambda: found().check(None), TypeError, "X is None"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_meets_a_clear_sentence(name):
    call, error, message = CASES[name]
    with pytest.raises(error, match=message) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
