"""Bad input meets one clear sentence and leaves the model alone; awkward valid input works.

These tests run without the run-time type checker, which would speak first: see the Makefile.
"""

import contextlib
import inspect
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from safetensors.torch import save_file
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

import flattest as ft

NAN, INF = float("nan"), float("inf")
N, D, M = 6, 3, 4
RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((N, D)), RNG.standard_normal((M, D))
Y, A = np.abs(X[:, 0]), RNG.standard_normal(M)
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)


def net() -> ft.TwoLayerNet:
    """Return a network in a state that careless code would change."""
    model = ft.TwoLayerNet(W, A, "relu")
    model.weights.grad = torch.ones_like(model.weights)
    model.coefficients.requires_grad_(False)
    return model.eval()


def spoiled(values: np.ndarray, value: float) -> np.ndarray:
    """Return a copy with one entry replaced."""
    values = values.copy()
    values[(2, *([0] * (values.ndim - 1)))] = value
    return values


def state(module: torch.nn.Module) -> dict[str, Any]:
    """Return all of a module that a function could change."""
    entries: dict[str, Any] = {"training": module.training, "names": sorted(vars(module))}
    for name, p in module.named_parameters():
        grad = None if p.grad is None else p.grad.tolist()
        entries[name] = (id(p), p.tolist(), p.requires_grad, p.dtype, p.device, grad)
    return entries


@contextlib.contextmanager
def unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Check that what happens inside leaves the module as it was."""
    before = state(module)
    yield
    assert state(module) == before


def _arguments() -> set[str]:
    """Return the names of all public objects and of their arguments."""
    names = set(ft.__all__) | {"inputs(n, d, rng)", "predict"}
    for public in (getattr(ft, name) for name in ft.__all__):  # loaded when asked for
        members = [public, *(vars(public).values() if inspect.isclass(public) else ())]
        for member in members:
            with contextlib.suppress(TypeError, ValueError):
                names |= set(inspect.signature(getattr(member, "__func__", member)).parameters)
    return names | {"init_scale", "objective", "trace_tol"}  # options of interpolate


ARGUMENTS = _arguments()
JARGON = re.compile(
    r"stride|has no attribute|Traceback|ufunc|ambiguous|unhashable|inhomogeneous|<class|at 0x"
    r"|not iterable|operand|positional argument|unexpected keyword|\bmat1\b|expected str|item\(\)"
)


def assert_clear(message: str, word: str) -> None:
    """Check that a message is one clear sentence about the right thing."""
    subject = re.match(r"(method )?'|[A-Z]|inputs\(n, d, rng\)|[a-z_]+", message)
    assert subject, message
    found = subject.group()
    assert not found.islower() or found in ARGUMENTS or found.endswith("'"), message
    assert word in message, f"{word!r} is not in: {message}"
    assert message.endswith("."), message
    assert "\n" not in message, message
    assert len(message) <= 300, message
    assert not re.search(r"[.!?] [A-Z]", message), f"two sentences: {message}"
    assert not JARGON.search(message), message


class Case:
    """A call that must fail: what kind of error, and a word that its message must contain."""

    def __init__(self, name: str, call: Callable[..., Any], error: type, word: str) -> None:
        self.name, self.call, self.error, self.word = name, call, error, word

    def check(self, *arguments: Any) -> None:
        with pytest.raises(self.error) as caught:
            self.call(*arguments)
        assert caught.type is self.error or issubclass(caught.type, OSError)
        assert_clear(str(caught.value), self.word)


def options(call: Callable[..., Any], **bad: list[tuple[Any, type, str]]) -> list[Case]:
    """Return one case per bad value of each keyword argument of a call on a network."""

    def case(name: str, number: int, value: Any, error: type, word: str) -> Case:
        return Case(f"{name}-{number}", lambda m: call(m, **{name: value}), error, word)

    return [case(k, i, *entry) for k, entries in bad.items() for i, entry in enumerate(entries)]


# Bad values of one kind of argument; the sentence must name the argument, and often more.

NOT_A_COUNT: list[tuple[Any, type, str]] = [
    (0, ValueError, "at least 1"),
    (-3, ValueError, "not -3"),
    (2.5, TypeError, "integer"),
    (True, TypeError, "bool"),
    ("10", TypeError, "str"),
    (NAN, TypeError, "float"),
]
NOT_A_TOLERANCE: list[tuple[Any, type, str]] = [
    (-1e-3, ValueError, "finite and at least 0"),
    (NAN, ValueError, "not nan"),
    (INF, ValueError, "not inf"),
    ("small", TypeError, "real number"),
    (None, TypeError, "real number"),
    (True, TypeError, "bool"),
]
NOT_A_SEED: list[tuple[Any, type, str]] = [
    ("seed", TypeError, "random_state"),
    (-1, ValueError, "random_state"),
    (1.5, TypeError, "random_state"),
    (True, TypeError, "random_state"),
    (np.random.RandomState(0), TypeError, "RandomState"),
]
NOT_AN_ACTIVATION: list[tuple[Any, type, str]] = [
    ("gelu", ValueError, "leaky_relu"),
    ("", ValueError, "activation"),
    (None, TypeError, "activation"),
    (1, TypeError, "activation"),
    (torch.nn.ReLU(), TypeError, "ReLU"),
    (["relu"], TypeError, "activation"),
    (ft.Homogeneous, TypeError, "activation"),
]

# Matrices and vectors. `like` in the name: only wrong beside a model of 3 features in float64.

BAD_MATRICES: dict[str, tuple[Any, type, str]] = {
    "nan": (spoiled(X, NAN), ValueError, "NaN or infinity in row 2"),
    "infinity": (spoiled(X, INF), ValueError, "NaN or infinity in row 2"),
    "nan tensor": (torch.from_numpy(spoiled(X, NAN)), ValueError, "row 2"),
    "none inside": ([[1.0, None, 2.0]] * N, ValueError, "NaN"),
    "one-dimensional": (X[0], ValueError, "reshape(1, -1)"),
    "a number": (3.0, ValueError, "two-dimensional"),
    "three-dimensional": (X[None], ValueError, "(1, 6, 3)"),
    "no rows": (X[:0], ValueError, "empty"),
    "no columns": (X[:, :0], ValueError, "empty"),
    "empty list": ([], ValueError, "empty"),
    "empty frame": (pd.DataFrame(), ValueError, "empty"),
    "series": (pd.Series(Y), ValueError, "two-dimensional"),
    "integer tensor": (torch.ones(N, D, dtype=torch.int64), TypeError, ".to(torch.float64)"),
    "boolean tensor": (torch.ones(N, D, dtype=torch.bool), TypeError, "torch.bool"),
    "complex tensor": (TX + 0j, TypeError, "complex"),
    "complex array": (X + 1j, TypeError, "real numbers"),
    "text array": (np.full((N, D), "a"), TypeError, "encode"),
    "text objects": (np.full((N, D), "a", dtype=object), TypeError, "encode"),
    "text column": (pd.DataFrame({"a": ["u", "v"], "b": [1, 2], "c": 0}), TypeError, "encode"),
    "dates": (np.full((N, D), "2020-01-01", dtype="datetime64[D]"), TypeError, "datetime64"),
    "file name": ("table.csv", TypeError, "str"),
    "bytes": (b"abc", TypeError, "bytes"),
    "dictionary": ({"a": 1.0}, TypeError, "dict"),
    "object": (object(), TypeError, "object"),
    "module": (torch.nn.Linear(2, 1), TypeError, "Linear"),
    "ragged": ([[1.0, 2.0, 3.0], [1.0]], ValueError, "rows differ in length"),
    "pair": ((TX, TY), ValueError, "rectangular"),
    "huge integer": ([[10**400, 1, 1]], TypeError, "numbers"),
    "sparse matrix": (scipy.sparse.csr_matrix(X), TypeError, "toarray()"),
    "sparse tensor": (TX.to_sparse(), TypeError, "to_dense()"),
    "rows elsewhere": (list(TX.to("meta")), TypeError, "torch.stack"),
    "meta tensor": (torch.empty(N, D, device="meta", dtype=torch.float64), ValueError, "meta"),
}
BAD_FOR_THE_MODEL: dict[str, tuple[Any, type, str]] = {
    "two features": (X[:, :2], ValueError, "has 2 features, but the model expects 3"),
    "float32": (TX.float(), TypeError, "torch.float32"),
    "half": (TX.half(), TypeError, "torch.float16"),
}
BAD_VECTORS: dict[str, tuple[Any, type, str]] = {
    "too short": (Y[:3], ValueError, "3 values"),
    "too long": (np.append(Y, 1.0), ValueError, "7 values"),
    "empty": ([], ValueError, "0 values"),
    "two columns": (np.stack([Y, Y], axis=1), ValueError, "(6, 2)"),
    "one row": (Y[None], ValueError, "(1, 6)"),
    "a number": (3.0, ValueError, "one number per"),
    "nan": (spoiled(Y, NAN), ValueError, "row 2"),
    "infinity": (spoiled(Y, -INF), ValueError, "row 2"),
    "none inside": ([None] * N, ValueError, "NaN"),
    "text": (["a"] * N, TypeError, "encode"),
    "column name": ("target", TypeError, "str"),
    "dictionaries": ([{}] * N, TypeError, "numbers"),
    "complex": (Y + 1j, TypeError, "real numbers"),
    "integer tensor": (torch.ones(N, dtype=torch.int64), TypeError, "y.to(torch.float64)"),
    "float32 tensor": (TY.float(), TypeError, "y.to(torch.float64)"),
    "meta tensor": (TY.to("meta"), ValueError, "y.to('cpu')"),
    "sparse": (scipy.sparse.csr_matrix(Y), TypeError, "toarray()"),
    "generator": ((value for value in Y), TypeError, "generator"),
}


def data_cases(
    call: Callable[[ft.TwoLayerNet, Any], Any], name: str, *tables: dict[str, Any]
) -> list[Case]:
    """Return one case per bad value of a matrix or vector; each must be called by its name."""

    def case(kind: str, value: Any, error: type, word: str) -> list[Case]:
        word = word.replace("y.", f"{name}.")
        return [Case(f"{name}: {kind}", lambda m: call(m, value), error, word)]

    return [c for table in tables for kind, entry in table.items() for c in case(kind, *entry)]


ACTIVATION = [
    *options(lambda m, name: ft.activation(name), name=NOT_AN_ACTIVATION),
    *options(
        lambda m, **k: ft.Homogeneous(**{"degree": 1, "positive": 1, "negative": 0, **k}),
        degree=[
            (0.5, ValueError, "at least 1"),
            (-1, ValueError, "at least 1"),
            (NAN, ValueError, "finite"),
            (INF, ValueError, "finite"),
            ("1", TypeError, "real number"),
            (None, TypeError, "real number"),
            (True, TypeError, "bool"),
            (1j, TypeError, "complex"),
            ([1], TypeError, "list"),
        ],
        positive=[(NAN, ValueError, "finite"), ("a", TypeError, "positive"), (0, ValueError, "0")],
        negative=[(-INF, ValueError, "finite"), (None, TypeError, "negative")],
    ),
    *options(
        lambda m, z: ft.activation("relu")(z),
        z=[
            ([1.0], TypeError, "z must be a torch.Tensor"),
            (np.ones(2), TypeError, "ndarray"),
            (None, TypeError, "NoneType"),
            (torch.tensor([1, 2]), TypeError, "floating-point"),
            (torch.tensor([1j]), TypeError, "floating-point"),
        ],
    ),
    Case("no mapping", lambda m: ft.Homogeneous.from_dict(5), TypeError, "mapping"),
    Case("no keys", lambda m: ft.Homogeneous.from_dict({}), ValueError, "keys"),
    Case("one key", lambda m: ft.Homogeneous.from_dict({"degree": 1}), ValueError, "negative"),
]

MISFITTING = {k: BAD_VECTORS[k] for k in ("two columns", "one row", "a number", "text", "nan")}
TYPED = {k: BAD_VECTORS[k] for k in ("integer tensor", "float32 tensor", "meta tensor", "complex")}

CONSTRUCTION = [
    *data_cases(lambda m, v: ft.TwoLayerNet(v, np.ones(N), "relu"), "weights", BAD_MATRICES),
    *data_cases(lambda m, v: ft.TwoLayerNet(TX, v, "relu"), "coefficients", MISFITTING, TYPED),
    *options(lambda m, activation: ft.TwoLayerNet(W, A, activation), activation=NOT_AN_ACTIVATION),
    Case("no weights", lambda m: ft.TwoLayerNet(None, A, "relu"), TypeError, "weights"),
    Case("no coefficients", lambda m: ft.TwoLayerNet(W, [], "relu"), ValueError, "empty"),
    Case("lengths", lambda m: ft.TwoLayerNet(W, A[:2], "relu"), ValueError, "4 rows (neurons)"),
    Case(
        "biases", lambda m: ft.TwoLayerNet.with_bias(W, [1.0], A, "relu"), ValueError, "biases has"
    ),
    Case(
        "nan bias",
        lambda m: ft.TwoLayerNet.with_bias(W, spoiled(A, NAN), A, "relu"),
        ValueError,
        "biases contains NaN",
    ),
    Case(
        "no bias to split",
        lambda m: ft.TwoLayerNet([[1.0]], [1.0], "relu").split_bias(),
        ValueError,
        "one feature only",
    ),
]

FORWARD = [
    Case("list", lambda m: m(X.tolist()), TypeError, "X must be a torch.Tensor"),
    Case("array", lambda m: m(X), TypeError, "not ndarray; use torch.from_numpy(X)."),
    Case("frame", lambda m: m(pd.DataFrame(X)), TypeError, "DataFrame"),
    Case("none", lambda m: m(None), TypeError, "X must"),
    Case("number", lambda m: m(3), TypeError, "X must"),
    Case("text", lambda m: m("x"), TypeError, "X must"),
    Case("one-dimensional", lambda m: m(TX[0]), ValueError, "(n, 3)"),
    Case("three-dimensional", lambda m: m(TX[None]), ValueError, "(n, 3)"),
    Case("two features", lambda m: m(TX[:, :2]), ValueError, "(6, 2)"),
    Case("float32", lambda m: m(TX.float()), TypeError, "X.to(torch.float64)"),
    Case("half", lambda m: m(TX.half()), TypeError, "X.to(torch.float64)"),
    Case("integers", lambda m: m(TX.long()), TypeError, "torch.int64"),
    Case("complex", lambda m: m(TX + 0j), TypeError, "torch.complex128"),
    Case("other device", lambda m: m(TX.to("meta")), ValueError, "the model is on cpu"),
]

OTHER_MODELS = {
    "linear layer": torch.nn.Linear(D, 1),
    "sequence": torch.nn.Sequential(torch.nn.Linear(D, 2), torch.nn.ReLU()),
    "none": None,
    "name": "net",
    "class": ft.TwoLayerNet,
    "state": ft.TwoLayerNet(W, A, "relu").state_dict(),
}


def model_cases(
    call: Callable[[Any], Any], error_for_modules: type | None = TypeError
) -> list[Case]:
    """Return one case per object that is no two-layer network, or no module at all."""
    return [
        Case(
            f"model: {name}",
            lambda m, other=other: call(other),
            error_for_modules or TypeError if isinstance(other, torch.nn.Module) else TypeError,
            "flattest.TwoLayerNet",
        )
        for name, other in OTHER_MODELS.items()
        if error_for_modules or not isinstance(other, torch.nn.Module)
    ]


RESCALE = [
    *model_cases(lambda other: ft.rescale(other, 2.0), None),
    *options(
        lambda m, scales: ft.rescale(m, scales),
        scales=[
            (0, ValueError, "positive"),
            (-1.0, ValueError, "is -1"),
            (NAN, ValueError, "NaN"),
            (INF, ValueError, "infinity"),
            (True, ValueError, "one number per neuron"),
            (np.complex128(1j), TypeError, "real numbers"),
            (np.array("a"), TypeError, "str"),
            (torch.ones((), device="meta"), ValueError, "meta"),
            ("2", TypeError, "scales"),
            (None, TypeError, "scales"),
            (1j, TypeError, "real numbers"),
            ([1, 2], ValueError, "4 numbers, one per neuron"),
            ([1, 2, 3, -4], ValueError, "positive"),
            ([[1, 2, 3, 4]], ValueError, "one number per neuron"),
            ([], ValueError, "empty"),
            ({}, TypeError, "dict"),
            (torch.ones(M, dtype=torch.int64), TypeError, "scales.to(torch.float64)"),
            (torch.ones(M, device="meta"), ValueError, "meta"),
            (1e-320, ValueError, "range of torch.float64"),
        ],
    ),
]
SHARPEN = [
    *model_cases(lambda other: ft.sharpen(other, 2.0), None),
    *options(
        lambda m, factor: ft.sharpen(m, factor),
        factor=[
            (0.5, ValueError, "at least 1"),
            (0, ValueError, "at least 1"),
            (-2.0, ValueError, "at least 1"),
            (NAN, ValueError, "finite"),
            (INF, ValueError, "finite"),
            (1e308, ValueError, "use a smaller one"),
            ("2", TypeError, "real number"),
            (None, TypeError, "real number"),
            (True, TypeError, "bool"),
            (1j, TypeError, "complex"),
            ([2.0], TypeError, "list"),
        ],
    ),
]
SPLIT = [
    *model_cases(lambda other: ft.split(other, 0, 2)),
    *options(
        lambda m, **k: ft.split(m, **{"neuron": 0, "copies": 2, **k}),
        neuron=[
            (-1, ValueError, "at least 0"),
            (M, ValueError, "less than the width 4"),
            (1.0, TypeError, "integer"),
            (True, TypeError, "bool"),
            (None, TypeError, "neuron"),
            (torch.tensor(1), TypeError, "Tensor"),
        ],
        copies=NOT_A_COUNT,
    ),
]
MERGE = [
    *model_cases(lambda other: ft.merge(other)),
    *options(lambda m, tol: ft.merge(m, tol), tol=NOT_A_TOLERANCE),
]
PRUNE = [
    *model_cases(lambda other: ft.prune(other)),
    *data_cases(lambda m, v: ft.prune(m, v), "X", BAD_MATRICES, BAD_FOR_THE_MODEL),
    *options(lambda m, tol: ft.prune(m, X, tol), tol=NOT_A_TOLERANCE),
]
APPEND = data_cases(lambda m, v: ft.append_bias_coordinate(v), "X", BAD_MATRICES)

NOT_MSE: list[tuple[Any, type, str]] = [
    ("mae", ValueError, "'mse'"),
    (None, ValueError, "'mse'"),
    (2, ValueError, "loss"),
    (torch.nn.MSELoss(), ValueError, "loss"),
]
BATCHES = {
    "y beside batches": (lambda f: f([(X, Y)], Y), TypeError, "y must be left out"),
    "triples": (lambda f: f([(X, Y, Y)]), TypeError, "pair (X, y)"),
    "no pairs": (lambda f: f(iter([X])), TypeError, "Batch 1 must be a pair"),
    "empty generator": (lambda f: f(pair for pair in ()), ValueError, "no batches"),
    "no targets": (lambda f: f(iter([(X, None)])), TypeError, "y of batch 1"),
    "second short": (lambda f: f([(X, Y), (X, Y[:2])]), ValueError, "y of batch 2"),
    "second narrow": (lambda f: f([(X, Y), (X[:, :2], Y)]), ValueError, "X of batch 2"),
    "second nan": (lambda f: f([(TX, TY), (spoiled(X, NAN), TY)]), ValueError, "X of batch 2"),
}


def batch_cases(function: Callable[..., Any]) -> list[Case]:
    return [
        Case(
            f"batches: {name}",
            lambda m, call=call: call(lambda *data: function(m, *data)),
            error,
            word,
        )
        for name, (call, error, word) in BATCHES.items()
    ]


def with_nan(model: ft.TwoLayerNet) -> ft.TwoLayerNet:
    model.weights.data[1, 0] = NAN
    return model


CHANGES: dict[str, Callable[[ft.TwoLayerNet], Any]] = {
    "rescale": lambda m: ft.rescale(m, 2.0),
    "sharpen": lambda m: ft.sharpen(m, 2.0),
    "split": lambda m: ft.split(m, 0, 2),
    "merge": ft.merge,
    "prune": ft.prune,
}
SPOILED_MODELS = [
    Case(f"{name}: {kind}", lambda m, f=f, spoil=spoil: f(spoil(net())), ValueError, word)
    for name, f in CHANGES.items()
    for kind, spoil, word in (
        ("nan", with_nan, "NaN or infinity in row 1"),
        ("meta", lambda m: m.to("meta"), "weights is on the meta device"),
        ("half", lambda m: with_nan(m).half(), "weights contains NaN"),
    )
]

MEASURE = [
    *model_cases(lambda other: ft.measure(other, X, Y), None),
    *data_cases(lambda m, v: ft.measure(m, v, Y), "X", BAD_MATRICES, BAD_FOR_THE_MODEL),
    *data_cases(lambda m, v: ft.measure(m, X, v), "y", BAD_VECTORS),
    *batch_cases(ft.measure),
    *options(
        lambda m, **k: ft.measure(m, X, Y, **k),
        loss=NOT_MSE,
        chunk_size=NOT_A_COUNT,
    ),
    Case("no targets", lambda m: ft.measure(m, X), TypeError, "y is missing"),
    Case("no data", lambda m: ft.measure(m, None, Y), TypeError, "X must"),
    Case("nan in the model", lambda m: ft.measure(with_nan(net()), X, Y), ValueError, "parameters"),
    Case("half model", lambda m: ft.measure(net().half(), X, Y), TypeError, "model.float()"),
]
SYMMETRIES = [
    *[
        Case(f"module-{i}", lambda m, v=v: ft.symmetries(v, X), TypeError, "module must be")
        for i, v in enumerate((None, 3, "net", X, torch.nn.ReLU, [net()]))
    ],
    *options(
        lambda m, **k: ft.symmetries(m, **{"example": X, **k}),
        example=[
            (None, TypeError, "example is None"),
            ("x.csv", TypeError, "example must be a tensor"),
            ({"x": None}, TypeError, "example holds no tensor"),
            ([], TypeError, "example holds no tensor"),
            (X[:0], ValueError, "example is empty"),
            (spoiled(X, NAN), ValueError, "example contains NaN"),
            (TX.float(), TypeError, "example has dtype torch.float32"),
            (iter([X]), TypeError, "arguments of one call"),
            (scipy.sparse.eye(3), TypeError, "example"),
        ],
        batch_norm=[
            ("fuse", ValueError, "batch_norm must be"),
            (None, ValueError, "batch_norm must be"),
            (True, ValueError, "batch_norm must be"),
        ],
        output=[(1.5, TypeError, "output must be"), (b"logits", TypeError, "output must be")],
    ),
    Case("nan", lambda m: ft.symmetries(with_nan(net()), X), ValueError, "parameters contain NaN"),
]
BALANCE = [
    *model_cases(lambda other: ft.balance(other, X, Y), None),
    *data_cases(lambda m, v: ft.balance(m, v), "X", BAD_MATRICES, BAD_FOR_THE_MODEL),
    *data_cases(lambda m, v: ft.balance(m, X, v), "y", BAD_VECTORS),
    *[case for case in batch_cases(ft.balance) if case.name != "batches: no targets"],
    *options(lambda m, loss: ft.balance(m, X, Y, loss=loss), loss=NOT_MSE),
    Case("no data", lambda m: ft.balance(m, None), TypeError, "X must"),
    Case("nan in the model", lambda m: ft.balance(with_nan(net()), X), ValueError, "parameters"),
]
LOWER_BOUND = [
    *data_cases(lambda m, v: ft.lower_bound(v, Y, width=3, activation="relu"), "X", BAD_MATRICES),
    *data_cases(lambda m, v: ft.lower_bound(TX, v, width=3, activation="relu"), "y", BAD_VECTORS),
    *options(
        lambda m, **k: ft.lower_bound(X, Y, **{"width": 3, "activation": "relu", **k}),
        width=[*NOT_A_COUNT, (None, TypeError, "width")],
        activation=NOT_AN_ACTIVATION,
    ),
]

INTERPOLATE = [
    *data_cases(lambda m, v: ft.interpolate(v, Y, width=3), "X", BAD_MATRICES),
    *data_cases(lambda m, v: ft.interpolate(TX, v, width=3), "y", BAD_VECTORS),
    *options(
        lambda m, **k: ft.interpolate(X, Y, **k),
        width=[*NOT_A_COUNT, (None, TypeError, "width")],
        activation=NOT_AN_ACTIVATION,
        method=[
            ("newton", ValueError, "gradient_descent"),
            ("", ValueError, "method"),
            (None, ValueError, "method"),
            (["flattest"], ValueError, "method"),
        ],
        tol=[(0, ValueError, "greater than 0"), *NOT_A_TOLERANCE[1:]],
        max_iter=NOT_A_COUNT,
        random_state=NOT_A_SEED,
        objective=[
            ("loss", ValueError, "reflected"),
            (None, ValueError, "objective"),
            (["trace"], ValueError, "objective"),
        ],
        trace_tol=NOT_A_TOLERANCE,
        init_scale=[(0.1, TypeError, "its options are objective, trace_tol")],
        widht=[(3, TypeError, "'widht'")],
    ),
    *options(
        lambda m, **k: ft.interpolate(X, Y, method="penalised", **k),
        penalised_objective=[("trace", TypeError, "its options are objective")],
    ),
    *options(
        lambda m, gd: ft.interpolate(X, Y, method="gradient_descent", init_scale=gd),
        gd=[(0, ValueError, "init_scale must be finite"), *NOT_A_TOLERANCE[1:]],
    ),
    Case("half", lambda m: ft.interpolate(TX.half(), TY.half()), TypeError, "X.double()"),
    Case("huge X", lambda m: ft.interpolate(1e200 * X, Y), ValueError, "rescale X"),
    Case("huge y", lambda m: ft.interpolate(X, 1e200 * Y), ValueError, "rescale y"),
    Case("tiny X", lambda m: ft.interpolate(1e-200 * X, Y), ValueError, "rescale X"),
]


def draw(m: Any = None, **changes: Any) -> Any:
    arguments = {"n_samples": 8, "n_features": 4, "links": ["relu"], "random_state": 0}
    return ft.make_multi_index(**{**arguments, **changes})


MULTI_INDEX = [
    *options(
        draw,
        n_samples=[*NOT_A_COUNT, (None, TypeError, "n_samples")],
        n_features=[*NOT_A_COUNT, (None, TypeError, "n_features")],
        links=[
            ("relux", ValueError, "links 'relux' is unknown"),
            (["relu", "gelu"], ValueError, "links[1] 'gelu' is unknown"),
            ("", ValueError, "unknown"),
            ([], ValueError, "links is empty"),
            (None, TypeError, "NoneType"),
            (5, TypeError, "links"),
            ({"relu": 1.0}, TypeError, "dict"),
            (["relu", None], TypeError, "links[1]"),
            ([(1.0,)], TypeError, "(coefficient, link) pair"),
            ([("a", "relu")], TypeError, "coefficient in links[0]"),
            ([(NAN, "relu")], ValueError, "finite"),
            (["relu"] * 5, ValueError, "4 features"),
            (lambda z: z[:2], ValueError, "elementwise"),
            (lambda z: z / 0, ValueError, "NaN or infinity"),
            (lambda z: None, TypeError, "must return"),
            (torch.nn.ReLU, TypeError, "ReLU"),
        ],
        directions=[
            ("random", ValueError, "orthonormal"),
            (None, TypeError, "directions"),
            (np.ones((2, 4)), ValueError, "(1, 4)"),
            (np.ones(4), ValueError, "(1, 4)"),
            ([[1, NAN, 0, 0]], ValueError, "NaN"),
            ([["a"] * 4], TypeError, "directions"),
            (torch.ones(1, 4, dtype=torch.int64), TypeError, "directions.to("),
            (torch.ones(1, 4, device="meta"), ValueError, "meta"),
            ([[1, 2], [3]], ValueError, "rectangular"),
        ],
        noise=NOT_A_TOLERANCE,
        inputs=[
            ("cauchy", ValueError, "student_t"),
            (None, TypeError, "inputs"),
            (5, TypeError, "inputs"),
            (lambda n, d, rng: None, TypeError, "inputs(n, d, rng)"),
            (lambda n, d, rng: np.ones((2, 2)), ValueError, "(8, 4)"),
            (lambda n, d, rng: np.full((n, d), NAN), ValueError, "NaN"),
            (lambda n, d, rng: torch.ones(n, d).long(), TypeError, "inputs(n, d, rng).to("),
        ],
        covariance=[
            (np.ones((2, 2)), ValueError, "(4, 4)"),
            (np.arange(16.0).reshape(4, 4), ValueError, "symmetric"),
            (-np.eye(4), ValueError, "positive semi-definite"),
            (NAN * np.eye(4), ValueError, "NaN"),
            ("identity", TypeError, "covariance"),
            (1j * np.eye(4), TypeError, "covariance"),
        ],
        degrees_of_freedom=[(3, ValueError, "student_t")],
        random_state=NOT_A_SEED,
        dtype=[
            (torch.int64, TypeError, "dtype must"),
            (torch.float16, TypeError, "dtype must"),
            ("float32", TypeError, "dtype must"),
            (None, TypeError, "dtype must"),
        ],
        device=[
            ("gpu", ValueError, "device 'gpu'"),
            ("cuda:99", ValueError, "not available"),
            (None, ValueError, "device"),
            ("meta", ValueError, "device 'meta'"),
        ],
    ),
    *options(
        lambda m, nu: draw(inputs="student_t", degrees_of_freedom=nu),
        nu=[(2, ValueError, "greater than 2"), *NOT_A_TOLERANCE[1:4]],
    ),
    Case(
        "model: rows",
        lambda m: ft.MultiIndexModel(np.eye(2), "abs"),
        ValueError,
        "one row per link",
    ),
    Case("model: wide", lambda m: draw()[2](X), ValueError, "3 features, but the model has 4"),
    Case("model: integers", lambda m: draw()[2](torch.ones(2, 4).int()), TypeError, "X.to("),
    Case("model: no samples", lambda m: draw()[2].sample(0), ValueError, "n_samples"),
    Case("error: none", lambda m: draw()[2].relative_error(None), TypeError, "predict"),
    Case("error: wide", lambda m: draw()[2].relative_error(lambda X: X), ValueError, "predict(X)"),
    Case(
        "error: nan",
        lambda m: draw()[2].relative_error(lambda X: NAN * X[:, 0]),
        ValueError,
        "predict returned NaN",
    ),
]

REGRESSOR = options(
    lambda m, **k: ft.MultiIndexRegressor(**{"cv": 2, "random_state": 0, **k}).fit(X, Y),
    width=[*NOT_A_COUNT, (None, TypeError, "width")],
    activation=NOT_AN_ACTIVATION,
    n_directions=[
        *NOT_A_COUNT[:4],
        ("all", ValueError, "'auto'"),
        (D + 1, ValueError, "3 features only"),
        (None, TypeError, "n_directions"),
    ],
    strengths=[
        ("strong", ValueError, "'auto'"),
        ([], ValueError, "at least one"),
        (0.1, ValueError, "sequence"),
        (None, ValueError, "sequence"),
        ([0.1, 0], ValueError, "greater than 0"),
        ([NAN], ValueError, "finite"),
        (["a"], TypeError, "real number"),
    ],
    cv=[(1, ValueError, "at least 2"), *NOT_A_COUNT[1:5], (None, TypeError, "cv")],
    max_iter=[*NOT_A_COUNT, (None, TypeError, "max_iter")],
    max_rounds=[*NOT_A_COUNT, (None, TypeError, "max_rounds")],
    penalty=[("ridge", ValueError, "penalty"), (None, ValueError, "penalty")],
    device=[("abacus", ValueError, "device"), (1.5, ValueError, "device")],
    random_state=NOT_A_SEED,
)

WRITTEN = {
    "format": "flattest.TwoLayerNet/1",
    "activation": json.dumps(ft.activation("relu").to_dict()),
}
TENSORS = {"weights": torch.from_numpy(W), "coefficients": torch.from_numpy(A)}


def foreign(tensors: dict[str, Tensor], **metadata: str) -> Callable[[Path], None]:
    return lambda path: save_file(tensors, path, metadata={**WRITTEN, **metadata})


def truncated(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        net().save(path)
        path.write_bytes(path.read_bytes()[:size])

    return write


UNREADABLE: dict[str, Callable[[Path], Any]] = {
    "folder": lambda path: path.mkdir(),
    "empty file": lambda path: path.touch(),
    "cut in the header": truncated(20),
    "cut in the tensors": truncated(-8),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(500)),
    "table": lambda path: path.write_text("a,b\n1,2\n" * 50),
    "pickle": lambda path: torch.save(net().state_dict(), path),
    "without metadata": lambda path: save_file(TENSORS, path),
    "other format": foreign(TENSORS, format="pt"),
    "broken activation": foreign(TENSORS, activation="{"),
    "impossible activation": foreign(
        TENSORS, activation='{"degree": 0, "positive": 1, "negative": 1}'
    ),
    "no weights": foreign({"coefficients": TENSORS["coefficients"]}),
    "too few coefficients": foreign({**TENSORS, "coefficients": torch.ones(2).double()}),
    "nan weights": foreign({**TENSORS, "weights": NAN * torch.ones(M, D).double()}),
    "integer weights": foreign({**TENSORS, "weights": torch.ones(M, D, dtype=torch.int64)}),
    "mixed dtypes": foreign({**TENSORS, "weights": torch.ones(M, D)}),
}


TABLES = {
    "activation": ACTIVATION,
    "TwoLayerNet": CONSTRUCTION,
    "forward": FORWARD,
    "rescale": RESCALE,
    "sharpen": SHARPEN,
    "split": SPLIT,
    "merge": MERGE,
    "prune": PRUNE,
    "append_bias_coordinate": APPEND,
    "spoiled models": SPOILED_MODELS,
    "measure": MEASURE,
    "symmetries": SYMMETRIES,
    "balance": BALANCE,
    "lower_bound": LOWER_BOUND,
    "interpolate": INTERPOLATE,
    "make_multi_index": MULTI_INDEX,
    "MultiIndexRegressor": REGRESSOR,
}
NUMBERED = [(name, case) for name, table in TABLES.items() for case in table]
NAMES = [f"{name}-{case.name}" for name, case in NUMBERED]


class TestBadInput:
    """Each call fails with one clear sentence, and changes nothing."""

    @pytest.mark.parametrize(("table", "case"), NUMBERED, ids=NAMES)
    def test_every_function(self, table: str, case: Case) -> None:
        model = net()
        with unchanged(model), warnings.catch_warnings():
            warnings.simplefilter("error")  # the sentence is all there is to read
            case.check(model)

    def test_the_tables_are_long_enough(self) -> None:
        assert all(len(table) >= 12 for table in TABLES.values())
        assert len(set(NAMES)) == len(NAMES) >= 600

    @pytest.mark.parametrize("kind", UNREADABLE)
    def test_load(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / "net.safetensors"
        UNREADABLE[kind](path)
        word = "net.safetensors"
        Case(kind, lambda: ft.TwoLayerNet.load(path), ValueError, word).check()

    def test_load_where_nothing_is(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.safetensors", str(tmp_path / "no folder" / "net")):
            Case(
                "missing", lambda path=path: ft.TwoLayerNet.load(path), OSError, "no model"
            ).check()

    @pytest.mark.parametrize("path", [None, 5, b"net"])
    def test_paths(self, path: Any) -> None:
        for call in (ft.TwoLayerNet.load, net().save):
            Case("path", lambda call=call: call(path), TypeError, "path must").check()

    @pytest.mark.parametrize("target", [".", "no folder/net", "file/net"])
    def test_save(self, target: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        Case(target, lambda: net().save(tmp_path / target), OSError, "folder").check()
        assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing written half


AWKWARD_X: dict[str, Any] = {
    "list": X.tolist(),
    "tuple of arrays": tuple(X),
    "list of NumPy scalars": [list(row) for row in X],
    "tuples of NumPy scalars": list(zip(*X.T, strict=True)),
    "frame": pd.DataFrame(X, columns=list("abc")),
    "nullable frame": pd.DataFrame(X, columns=list("abc")).convert_dtypes(),
    "object frame": pd.DataFrame(X).astype(object),
    "Fortran order": np.asfortranarray(X),
    "negative strides": X[::-1, ::-1][::-1, ::-1],
    "long double": X.astype(np.longdouble),
    "big endian": X.astype(">f8"),
    "tensor": TX,
    "transposed tensor": TX.T.contiguous().T,
    "every other column": TX.repeat_interleave(2, dim=1)[:, ::2],
    "attached tensor": TX.clone().requires_grad_(),
    "parameter": torch.nn.Parameter(TX.clone()),
    "list of tensors": list(TX),
    "list of attached tensors": list(TX.clone().requires_grad_()),
}
READ_ONLY = X.copy()
READ_ONLY.flags.writeable = False
AWKWARD_X["read-only"] = READ_ONLY
AWKWARD_Y: dict[str, Any] = {
    "column": Y[:, None],
    "list": Y.tolist(),
    "series": pd.Series(Y, index=range(N, 0, -1)),
    "frame": pd.DataFrame({"y": Y}),
    "column tensor": TY[:, None],
    "attached tensor": TY.clone().requires_grad_(),
    "list of tensors": list(TY),
    "every other entry": TY.repeat_interleave(2)[::2],
}


def assert_alike(one: ft.Flatness, other: ft.Flatness) -> None:
    """Compare measurements of the same data in two forms.

    Products of matrices may add up in another order where the entries lie otherwise in memory;
    sums of some ten terms agree to some ten rounding errors.
    """
    assert one.to_dict().keys() == other.to_dict().keys()
    for name in ("trace", "gauss_newton", "orbit_minimum", "lower_bound", "reflected", "loss"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-13), name
    for found, expected in zip(one.per_neuron, other.per_neuron, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def interpolate(*data: Any, **settings: Any) -> Any:
    """Interpolate with a search that is shorter than by default: how good it is, others test."""
    return ft.interpolate(*data, **{"width": 20, "max_iter": 300, "random_state": 0, **settings})


@pytest.mark.filterwarnings("error")
class TestAwkwardButValid:
    """Whatever form the same data come in, the results are the same."""

    @pytest.mark.parametrize("form", AWKWARD_X)
    def test_inputs(self, form: str) -> None:
        model, data = net(), AWKWARD_X[form]
        with unchanged(model):
            assert_alike(ft.measure(model, data, Y), ft.measure(model, X, Y))
            balanced = ft.balance(model, X).weights
            torch.testing.assert_close(
                ft.balance(model, data).weights, balanced, rtol=1e-13, atol=1e-13
            )
            assert ft.prune(model, data).width == ft.prune(model, X).width
        bound = {"width": 3, "activation": "relu"}
        expected = pytest.approx(ft.lower_bound(X, Y, **bound), rel=1e-13)
        assert ft.lower_bound(data, Y, **bound) == expected
        assert torch.equal(ft.append_bias_coordinate(data), ft.append_bias_coordinate(X))
        assert torch.equal(ft.TwoLayerNet(data, Y, "abs").weights, TX)
        result = interpolate(data, Y)
        assert result.converged
        assert result.net.weights.is_leaf
        assert np.array_equal(np.asarray(X), X)

    @pytest.mark.parametrize("form", AWKWARD_Y)
    def test_targets(self, form: str) -> None:
        model, data = net(), AWKWARD_Y[form]
        with unchanged(model):
            assert_alike(ft.measure(model, TX, data), ft.measure(model, X, Y))
        bound = {"width": 3, "activation": "relu2"}
        expected = pytest.approx(ft.lower_bound(X, Y, **bound), rel=1e-13)
        assert ft.lower_bound(TX, data, **bound) == expected
        assert interpolate(TX, data).converged

    @pytest.mark.parametrize("integers", [np.int64, np.int8, np.uint8, bool])
    def test_integer_arrays(self, integers: type) -> None:
        data = (X > 0).astype(integers)
        assert_alike(ft.measure(net(), data, Y), ft.measure(net(), data.astype(float), Y))
        assert ft.lower_bound(data, Y, width=1, activation="abs") > 0

    @pytest.mark.parametrize("batches", [list, iter, lambda pairs: (pair for pair in pairs)])
    def test_batches(self, batches: Callable[[Any], Any]) -> None:
        pairs = [(X[:1], Y[:1]), (TX[1:], TY[1:, None])]
        whole = ft.measure(net(), X, Y)
        assert ft.measure(net(), batches(pairs)).trace == pytest.approx(whole.trace, rel=1e-12)

    def test_a_data_loader(self) -> None:
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(TX, TY), batch_size=4)
        assert ft.measure(net(), loader).trace == pytest.approx(
            ft.measure(net(), X, Y).trace, rel=1e-12
        )

    def test_float32(self) -> None:
        model = net().float()
        single = ft.measure(model, TX.float(), TY.float())
        assert single.dtype == "torch.float32"
        # Arrays take the model's dtype.
        assert ft.measure(model, X, Y).trace == pytest.approx(single.trace, rel=1e-6)
        assert single.trace == pytest.approx(ft.measure(net(), X, Y).trace, rel=1e-5)
        for result in (ft.balance(model, X), ft.rescale(model, 2.0), ft.split(model, 0, 2)):
            assert result.weights.dtype == torch.float32
        result = interpolate(TX.float(), TY.float())
        assert result.converged
        assert result.net.weights.dtype == torch.float32

    @pytest.mark.parametrize("method", ["flattest", "gradient_descent"])
    def test_one_row(self, method: str) -> None:
        result = interpolate(X[:1], Y[:1], method=method, width=8)
        assert result.converged
        assert ft.measure(result.net, X[:1], Y[:1]).ratio >= 1 - 1e-12

    @pytest.mark.parametrize("name", ["relu", "abs", "quadratic", "cubic"])
    def test_more_features_than_samples(self, name: str) -> None:
        wide = np.random.default_rng(1).standard_normal((4, 11))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it may stop a little early
            result = interpolate(wide, [1, -2, 3, 0.5], activation=name, width=100)
        assert result.status in (ft.Status.CONVERGED, ft.Status.NOT_FLATTEST)
        assert result.train_error <= 1e-10

    @pytest.mark.parametrize("width", [1, 2])
    def test_one_feature(self, width: int) -> None:
        result = interpolate(X[:, :1], np.maximum(X[:, 0], 0), width=width)
        assert result.train_error <= 1e-10

    def test_rows_of_zeros(self) -> None:
        data, targets = np.vstack([X, np.zeros((2, D))]), np.append(Y, [0, 0])
        assert interpolate(data, targets).converged
        assert ft.measure(net(), np.zeros((2, D)), [0, 0]).trace == 0
        assert np.isnan(ft.measure(net(), np.zeros((2, D)), [0, 0]).ratio)

    @pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
    def test_constant_targets(self, value: float) -> None:
        result = interpolate(X, np.full(N, value))
        assert result.converged
        assert result.train_error <= 1e-10

    def test_constant_and_equal_features(self) -> None:
        data = np.column_stack([X, X[:, 0], np.ones(N), np.zeros(N)])
        assert interpolate(data, Y).converged

    def test_what_no_network_fits(self) -> None:
        twice = np.vstack([X, X[:1]]), np.append(Y, Y[0] + 1)
        for data, targets in (twice, (np.zeros((N, D)), Y)):
            with pytest.warns(ConvergenceWarning, match="above tol"):
                result = ft.interpolate(data, targets, width=10, max_iter=20, random_state=0)
            assert result.status is ft.Status.NOT_INTERPOLATING
            assert np.isfinite(result.flatness.trace)

    def test_interpolate_leaves_the_data_alone(self) -> None:
        data, targets = TX.clone().requires_grad_(), TY.clone()
        interpolate(data, targets, width=10)
        assert torch.equal(data, TX)
        assert torch.equal(targets, TY)
        assert data.requires_grad
        assert data.grad is None

    def test_numbers_of_other_types(self) -> None:
        result = ft.interpolate(
            X, Y, width=np.int64(20), max_iter=np.int32(200), tol=np.float32(1e-9), random_state=0
        )
        assert result.converged
        assert ft.split(net(), np.int64(1), np.uint8(2)).width == M + 1
        assert ft.rescale(net(), torch.tensor(2.0)).width == M
        assert ft.sharpen(net(), np.float32(2)).width == M
        assert ft.Homogeneous(np.int64(2), np.float32(1), 0) == ft.activation("relu2")

    def test_small_multi_index_data(self) -> None:
        for links, d in ((["relu"], 1), ("sin", 3), (["step", (-2, "abs")], 2)):
            data, labels, model = ft.make_multi_index(1, d, links, random_state=0)
            assert data.shape == (1, d)
            assert torch.equal(model(data), labels)

    @pytest.mark.parametrize("form", ["list", "frame", "read-only", "tensor", "Fortran order"])
    def test_regressor(self, form: str) -> None:
        model = ft.MultiIndexRegressor(
            width=4, max_iter=2, strengths=[0.1], cv=2, n_directions=1, random_state=0
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # two iterations are few
            expected = model.fit(X, Y).predict(X)
            again = model.fit(AWKWARD_X[form], Y).predict(AWKWARD_X[form])
            few = model.fit(X[:2], Y[:2]).predict(X)
        # The last digits of X, in which other forms may be added up otherwise, change some 1e-12.
        np.testing.assert_allclose(again, expected, rtol=0, atol=1e-9)
        assert few.shape == (N,)
        for targets in (np.ones(N), np.zeros(N)):
            np.testing.assert_allclose(model.fit(X, targets).predict(X), targets, atol=1e-12)


def test_what_is_no_flatness_cannot_be_merged() -> None:
    line = torch.nn.Linear(D, 1).double()
    part = ft.measure(line, X, Y)
    with pytest.raises(TypeError, match=r"parts\[1\] is of type int; only the Flatness of"):
        ft.Flatness.merge([part, 3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, f: ft.balance("net", X, Y), "model must be a torch.nn.Module"),
        (lambda m, f: ft.sharpen(None, 2, X), "model must be a torch.nn.Module"),
        (lambda m, f: ft.rescale([m], 2, X), "model must be a torch.nn.Module"),
        (lambda m, f: ft.quantise("net", 4), "module must be a torch.nn.Module"),
        (lambda m, f: ft.allocate_bits(None, m, budget=4), "flatness must be what"),
        (lambda m, f: ft.allocate_bits(f, None, budget=4), "module must be a torch.nn.Module"),
        (lambda m, f: ft.allocate_bits(f, m, budget=4, bits=4), "bits must be a list"),
        (lambda m, f: ft.allocate_bits(f, m, budget=[4]), "budget must be a real number"),
    ],
)
def test_what_is_no_module_is_not_moved_or_rounded(call: Any, message: str) -> None:
    line = torch.nn.Linear(D, 1).double()
    flatness = ft.measure(line, X, Y[:, None])
    with pytest.raises(TypeError, match=message):
        call(line, flatness)
