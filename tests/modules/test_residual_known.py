"""What is known of second derivatives without probes, against the dense ones by autograd."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from modules_oracles import Case, Lambda, dense_diagonals, mlp, squared
from torch import Tensor, nn

from flattest.modules import residual_recursion
from flattest.modules.residual import residual_trace
from flattest.modules.residual_graph import find_uses
from flattest.modules.residual_known import Known, known_curvatures
from flattest.modules.residual_uses import Use

SMOOTH = {
    "celu": lambda x: F.celu(x, 0.7),
    "elu": lambda x: F.elu(x, 1.3),
    "exponential": torch.exp,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "log": lambda x: x.exp().log(),
    "log of sigmoid": F.logsigmoid,
    "mish": F.mish,
    "power": lambda x: x**3,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": lambda x: F.softplus(x, 2.0),
    "square": torch.square,
    "tanh": torch.tanh,
}
PIECES = {
    "absolute": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "leaky relu": F.leaky_relu,
    "relu": F.relu,
    "relu 6": F.relu6,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
}
FUNCTIONS = SMOOTH | PIECES


def case_of(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> Case:
    module = module.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) / 2)
    X = torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.randn(module(X).shape, generator=generator, dtype=torch.float64)
    return Case(module, X, targets, squared)


def known_of(case: Case) -> list[tuple[Use, Known | None, Tensor]]:
    """Return each use with what is known, and the dense second derivative in its result."""
    outputs, cotangent = case.linearised()
    found = known_curvatures(outputs, cotangent, find_uses(outputs, case.tensors))
    result = []
    for use, known in found:
        (gradient,) = torch.autograd.grad(outputs, use.edge, cotangent, create_graph=True)
        dense = torch.zeros(2 * [gradient.numel()], dtype=torch.float64)
        if gradient.requires_grad:
            rows = [
                torch.autograd.grad(entry, use.edge, retain_graph=True, allow_unused=True)[0]
                for entry in gradient.flatten()
            ]
            dense = torch.stack([dense[0] if row is None else row.flatten() for row in rows])
        result.append((use, known, dense))
    return result


def matrix(known: Known) -> Tensor:
    units = torch.eye(known.own.numel(), dtype=torch.float64)
    return torch.stack([known.product(unit.reshape(known.own.shape)).flatten() for unit in units])


def check(case: Case) -> list[bool]:
    """Compare with the dense matrices; return where two terms are all, by layer."""
    return [known is not None and known.complete for known in compared(case)]


def compared(case: Case) -> list[Known | None]:
    """Compare what is known of each layer with the dense matrices, and return it."""
    found = []
    for _, known, dense in known_of(case):
        if known is not None:
            own = matrix(known)
            size = max(1e-300, float(own.abs().max()))
            assert (own.diagonal() - known.diagonal().flatten()).abs().max() <= 1e-12 * size
            assert (own - own.mT).abs().max() <= 1e-12 * size
            if known.complete:
                assert (own - dense).abs().max() <= 1e-11 * max(size, float(dense.abs().max()))
            if known.whole is not None:
                difference = (known.whole.flatten() - dense.diagonal()).abs().max()
                assert difference <= 1e-11 * max(size, float(dense.abs().max()))
        found.append(known)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_activation(name: str) -> None:
    function = FUNCTIONS[name]
    module = Lambda(
        lambda self, x: self.last(function(self.second(function(self.first(x))))),
        first=nn.Linear(3, 4),
        second=nn.Linear(4, 3),
        last=nn.Linear(3, 2),
    )
    expected = [True, True, False] if name != "log" else [False, False, False]
    assert check(case_of(module, (5, 3))) == expected  # a function of a function is not looked into


class Net(nn.Module):
    """Layers of random widths, with ways around them and several axes of rows."""

    def __init__(self, widths: list[int], names: list[str], skip: int, bias: bool) -> None:
        super().__init__()
        pairs = zip([3, *widths], [*widths, 2], strict=True)
        self.layers = nn.ModuleList(nn.Linear(d, out, bias=bias) for d, out in pairs)
        self.functions, self.skip = [FUNCTIONS[name] for name in names], skip

    def forward(self, x: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers[:-1]):
            moved = self.functions[place](layer(x))
            around = place == self.skip and moved.shape == x.shape
            x = x + moved if around else moved
        return self.layers[-1](x)


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.sampled_from([*SMOOTH, "relu", "absolute"]), min_size=4, max_size=4),
    st.integers(0, 4),
    st.sampled_from([(1, 3), (4, 3), (2, 2, 3)]),
    st.booleans(),
    st.integers(0, 1 << 30),
)
def test_what_is_complete_is_all(
    widths: list[int], names: list[str], skip: int, shape: tuple[int, ...], bias: bool, seed: int
) -> None:
    case = case_of(Net(widths, names, skip, bias), shape, seed)
    found = compared(case)
    assert found[-1] is None  # the last layer is proved linear, so that nothing is to be known
    if skip >= len(widths) and "log" not in names[: len(widths)]:
        assert all(known.complete for known in found[-3:-1])
        assert all(known.exact for known in found[:-1])


def extra(rows: nn.Module, shape: tuple[int, ...] = (4, 3)) -> Case:
    return case_of(rows, shape, 1)


SMALL = {"a": nn.Linear(3, 3), "b": nn.Linear(3, 3), "c": nn.Linear(3, 2)}
MORE: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "a softmax": lambda s, x: s.c(s.b(s.a(x).tanh()).softmax(-1)),
    "layer norm": lambda s, x: s.c(F.layer_norm(s.a(x).tanh(), (3,))),
    "a product with itself": lambda s, x: s.c((u := s.a(x)).tanh() * u),
    "a bias that depends on it": lambda s, x: s.c(
        torch.addmm((u := s.a(x)), u.tanh(), s.b.weight).tanh()
    ),
    "a weight that depends on it": lambda s, x: s.c(
        torch.addmm(s.b.bias, (u := s.a(x)).tanh(), u[:3]).tanh()
    ),
    "a softmax further on": lambda s, x: s.c(s.b(s.b(s.a(x).tanh()).tanh()).softmax(-1)),
    "a late bias that depends on it": lambda s, x: s.c(
        torch.addmm((u := s.a(x)), s.b(u.tanh()).tanh(), s.b.weight).tanh()
    ),
    "a late sum that depends on it": lambda s, x: s.c(
        ((u := s.a(x)) + s.b(s.b(u.tanh()).tanh())).tanh()
    ),
    "two ways": lambda s, x: s.c(s.b((u := s.a(x)).tanh()).tanh() + u.cumsum(-1).exp()),
    "rows mixed": lambda s, x: s.c((s.a(x).tanh().T @ s.a(x).tanh()).tanh()),
    "turned": lambda s, x: s.c(s.a(x).T.reshape(4, 3).tanh() @ s.b.weight).exp(),
}


@pytest.mark.parametrize("name", MORE)
def test_what_is_not_all(name: str) -> None:
    """No claim where something else is curved, and estimates that are right all the same."""
    case = extra(Lambda(MORE[name], **SMALL))
    uses = {use.names[0]: known for use, known, _ in known_of(case)}
    first = uses.get("a.weight")
    assert first is None or not first.exact
    check(case)
    truth = dense_diagonals(case)
    found = residual_trace(
        case.linearised,
        case.tensors,
        method="estimate",
        n_probes=150,
        max_probes=150,
        random_state=0,
    )
    for one, entry in found.tensors.items():
        error = abs(entry.value - truth.residual(one))
        assert error <= 4.5 * (entry.standard_error or 0) + 1e-10 * truth.size, one


CHAINS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "three activations": lambda s, x: s.c(s.b(s.b(s.a(x).tanh()).tanh()).tanh()),
    "pieces between": lambda s, x: s.c(s.b(s.b(s.b(s.a(x).relu()).tanh()).abs()).exp()),
    "two functions of one result": lambda s, x: (
        s.c(s.b(s.b((u := s.a(x)).tanh()).tanh()).tanh()) + s.c(s.b(s.b(u.exp()).sin().tanh()))
    ),
    "two layers behind one": lambda s, x: (
        s.c(s.b(s.d(u := s.a(x).tanh()).tanh()).tanh()) + s.c(s.b(s.b(u).sigmoid()).exp())
    ),
    "smooth outputs": lambda s, x: s.c(s.b(s.a(x).tanh()).tanh()).exp(),
    "a last sum": lambda s, x: x + s.e(s.b(s.b(s.b(s.a(x).tanh()).tanh()).tanh()).tanh()),
    "rows in another shape": lambda s, x: s.c(
        s.b(s.b(s.a(x[:, None]).tanh().flatten(0, 1)).tanh().view(2, 2, 3)).tanh()
    ).exp(),
}


@pytest.mark.parametrize("method", ["exact", "estimate"])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_of_any_length(name: str, method: str) -> None:
    more = {"d": nn.Linear(3, 3, bias=False), "e": nn.Linear(3, 3)}
    case = extra(Lambda(CHAINS[name], **SMALL, **more))
    known = {use.names[0]: part for use, part, _ in known_of(case)}
    if name != "two functions of one result":  # a sine is not in the table
        assert known["a.weight"].whole is not None
    compared(case)
    truth = dense_diagonals(case)
    found = residual_trace(case.linearised, case.tensors, method=method, random_state=0)
    for one, entry in found.tensors.items():
        error = abs(entry.value - truth.residual(one))
        assert error <= 4.5 * (entry.standard_error or 0) + 1e-10 * truth.size, one


def test_rows_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(mlp(nn.GELU, 3, 4, 5, 4, 3, 2), (7, 3))
    whole = [known.whole for known in compared(case)[:3] if known is not None]
    monkeypatch.setattr(residual_recursion, "_ENTRIES", 50)  # two rows of five units
    parts = [known.whole for known in compared(case)[:3] if known is not None]
    for one, other in zip(whole[:2], parts[:2], strict=True):
        assert one.shape == (7, one.shape[1])
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)


def test_wide_layers_are_probed() -> None:
    """As much work as 64 double backwards is done exactly whatever is asked for; more is not."""
    wide = mlp(nn.GELU, 3, 250, 250, 250, 250, 2)
    case = case_of(wide, (2, 3))
    with torch.no_grad():
        for tensor in case.tensors.values():
            tensor /= 8
    found = residual_trace(case.linearised, case.tensors, method="estimate", random_state=0)
    exact = [entry.standard_error is None for entry in found.tensors.values()]
    assert exact == [False] * 2 + [True] * 8  # of the first layer only: it takes the most
    truth = residual_trace(case.linearised, case.tensors)
    assert truth.double_backwards == 0
    assert abs(found.value - truth.value) <= 4.5 * found.standard_error


def test_what_is_known_is_no_noise() -> None:
    """A second way with little curvature leaves little noise."""

    def outputs(self: nn.Module, x: Tensor) -> Tensor:
        u = self.a(x)
        return self.c(self.b(u.tanh()).tanh() + 1e-4 * u.softmax(-1))

    case = extra(Lambda(outputs, **SMALL), (20, 3))
    found = residual_trace(case.linearised, case.tensors, method="estimate", random_state=0)
    entry = found.tensors["a.weight"]
    assert 0 < entry.standard_error <= 1e-3 * abs(entry.value)


def test_samples_that_cannot_be_told_apart() -> None:
    """The closed form needs rows only, wherever they come from."""
    case = case_of(
        Lambda(
            lambda self, x: self.b(self.a(x).tanh()).roll(1, 0).cumsum(0),
            a=nn.Linear(3, 4),
            b=nn.Linear(4, 2),
        ),
        (5, 3),
    )
    truth = dense_diagonals(case)
    found = residual_trace(case.linearised, case.tensors, method="estimate")
    assert (found.double_backwards, found.standard_error) == (0, None)
    for name, entry in found.tensors.items():
        assert abs(entry.value - truth.residual(name)) <= 1e-10 * truth.size


def test_float32_and_frozen_layers() -> None:
    case = case_of(mlp(nn.GELU, 3, 5, 4, 2), (6, 3))
    truth = residual_trace(case.linearised, case.tensors).tensors["0.weight"].value
    case.module.float()
    case.inputs, case.targets = case.inputs.float(), case.targets.float()
    for name, tensor in case.module.named_parameters():
        tensor.requires_grad_(name == "0.weight")
    found = residual_trace(case.linearised, {"0.weight": case.module[0].weight})
    assert found.value == pytest.approx(truth, rel=1e-4)
    assert found.tensors["0.weight"].how == "exact: in closed form"
