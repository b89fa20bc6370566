"""The Hessian trace of modules: Gauss-Newton part and residual part together."""

import math

import pytest
import torch
from modules_oracles import NETWORKS, Residual, dense_diagonals, make_case
from torch import nn

import flattest as ft

# An embedding bag has no second derivative in PyTorch, so no dense Hessian either.
KINDS = [name for name in NETWORKS if "bag" not in name][::6]


def _mlp(activation: nn.Module, seed: int = 0, more: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    # With ways around them, for which there is no closed form.
    hidden = [Residual(nn.Linear(6, 6), activation) for _ in range(more)]
    return nn.Sequential(
        *(nn.Linear(4, 6), activation, *hidden),
        *(nn.Linear(6, 5), activation, nn.Linear(5, 3)),
    )


def _data(n: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return X, torch.randint(3, (n,), generator=generator)


def _dense_trace(net: nn.Module, X: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    names, tensors = zip(*net.named_parameters(), strict=True)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(net, dict(zip(names, values, strict=True)), (X,))
        return nn.functional.cross_entropy(logits, y)

    found = {}
    for position, (name, tensor) in enumerate(zip(names, tensors, strict=True)):
        hessian = torch.func.hessian(loss, argnums=position)(*(t.detach() for t in tensors))
        found[name] = float(hessian.reshape(tensor.numel(), tensor.numel()).trace())
    return found


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Tanh()], ids=repr)
@pytest.mark.parametrize(("more", "batch_size"), [(0, None), (1, None), (1, 5)])
def test_exact_traces_are_those_of_the_dense_hessian(activation, more, batch_size) -> None:
    net, (X, y) = _mlp(activation, more=more).double(), _data()
    expected = _dense_trace(net, X, y)
    flatness = ft.measure(net, X, y, loss="cross_entropy", residual="exact", batch_size=batch_size)
    size = sum(map(abs, expected.values()))
    for layer in flatness.layers:
        assert layer.trace == pytest.approx(expected[layer.name], rel=1e-10, abs=1e-10 * size)
        assert layer.exact
        assert layer.trace == layer.gauss_newton + layer.residual
    assert flatness.trace == pytest.approx(sum(expected.values()), rel=1e-10)
    assert flatness.provenance["trace"].exact
    assert flatness.standard_error == {}
    if not isinstance(activation, nn.ReLU):
        how = "double backward passes on" if more else "closed forms on"
        assert how in flatness.provenance["residual"].why


def test_batches_weigh_as_in_the_whole() -> None:
    net, (X, y) = _mlp(nn.GELU()).double(), _data()
    whole = ft.measure(net, X, y, loss="cross_entropy", residual="exact")
    parts = [(X[:1], y[:1]), (X[1:8], y[1:8]), (X[8:], y[8:])]
    summed = ft.measure(net, parts, loss="cross_entropy", residual="exact")
    assert summed.trace == pytest.approx(whole.trace, rel=1e-12)
    assert summed.residual == pytest.approx(whole.residual, rel=1e-10)
    loss = nn.CrossEntropyLoss(reduction="sum")
    assert ft.measure(net, X, y, loss=loss, residual="exact").residual == pytest.approx(
        12 * whole.residual, rel=1e-10
    )


def test_a_relu_network_has_no_residual_part_and_says_why() -> None:
    net, (X, y) = _mlp(nn.ReLU()).double(), _data()
    flatness = ft.measure(net, X, y, loss="cross_entropy")
    assert flatness.residual == 0
    assert flatness.trace == flatness.gauss_newton
    assert "piecewise linear in every parameter" in flatness.provenance["residual"].why
    assert [row.label for row in flatness.rows()][:3] == [
        "trace of the Hessian",
        "Gauss-Newton part",
        "residual part",
    ]


def test_estimates_come_with_a_standard_error_that_holds() -> None:
    net, (X, y) = _mlp(nn.GELU(), more=1).double(), _data()
    expected = sum(_dense_trace(net, X, y).values())
    misses = 0
    for seed in range(30):
        flatness = ft.measure(
            net, X, y, loss="cross_entropy", residual="estimate", random_state=seed
        )
        error = flatness.standard_error["trace"]
        assert not flatness.provenance["trace"].exact
        assert "exact" not in {row.label: row.mark for row in flatness.rows()}["residual part"]
        misses += abs(flatness.trace - expected) > 3 * error
    assert misses <= 2
    again = [
        ft.measure(net, X, y, loss="cross_entropy", residual="estimate", random_state=7).trace
        for _ in range(2)
    ]
    assert again[0] == again[1]


def test_without_the_residual_part_no_trace_is_shown() -> None:
    net, (X, y) = _mlp(nn.GELU()).double(), _data()
    flatness = ft.measure(net, X, y, loss="cross_entropy", residual="none")
    assert math.isnan(flatness.trace)
    assert "trace of the Hessian" not in repr(flatness)
    assert "Gauss-Newton part" in repr(flatness)
    assert flatness.to_dict()["trace"] is None
    with pytest.raises(ValueError, match="residual must be one of 'auto', 'exact'"):
        ft.measure(net, X, y, loss="cross_entropy", residual="some")


def test_what_has_no_second_derivative_is_said_and_refused_on_demand() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.EmbeddingBag(7, 4, mode="max"), nn.GELU(), nn.Linear(4, 3)).double()
    X, y = torch.randint(7, (6, 3)), torch.randint(3, (6,))
    flatness = ft.measure(net, X, y, loss="cross_entropy")
    assert math.isnan(flatness.residual)
    assert "not measured: " in flatness.provenance["trace"].why
    assert flatness.gauss_newton > 0
    with pytest.raises(NotImplementedError):
        ft.measure(net, X, y, loss="cross_entropy", residual="exact")


def test_a_weight_used_twice() -> None:
    # f(w) = (w (w x) - y)^2 at w = 1, x = 2, y = 1.
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False).double()
            nn.init.ones_(self.layer.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(self.layer(x))

    flatness = ft.measure(Twice(), torch.tensor([[2.0]]).double(), torch.tensor([[1.0]]).double())
    assert flatness.gauss_newton == pytest.approx(32)
    assert flatness.trace == pytest.approx(40)
    assert flatness.provenance["trace"].exact


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_many_kinds_against_the_dense_hessian(name: str) -> None:
    case = make_case(name)
    dense = dense_diagonals(case)
    try:
        flatness = ft.measure(
            case.module.eval(), case.inputs, case.targets, loss=case.loss, residual="exact"
        )
    except (ValueError, NotImplementedError) as error:
        pytest.skip(str(error))
    expected = sum(float(diagonal.sum()) for diagonal in dense.hessian.values())
    assert flatness.trace == pytest.approx(expected, abs=1e-9 * dense.size)
