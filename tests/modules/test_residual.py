"""The residual part of the trace: against the dense Hessian less the dense Gauss-Newton matrix."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modules_oracles import (
    NETWORKS,
    Case,
    Dense,
    LanguageModel,
    Residual,
    dense_diagonals,
    make_case,
    mlp,
    squared,
    tokens_cross_entropy,
)
from sklearn.datasets import load_digits
from torch import Tensor, nn

from flattest.modules import residual_probing
from flattest.modules.residual import ResidualTrace, added, residual_trace, unique
from flattest.modules.residual_blocks import find_layouts
from flattest.modules.residual_graph import find_uses
from flattest.modules.residual_uses import Layout

TWICE = [name for name in NETWORKS if name != "embedding bag"]


@pytest.fixture(scope="module")
def truths() -> dict[str, tuple[Case, Dense]]:
    """The dense matrices of every network, computed once."""
    return {name: (case := make_case(name), dense_diagonals(case)) for name in TWICE}


def residual(case: Case, **options: object) -> ResidualTrace:
    return residual_trace(case.linearised, case.tensors, **options)


def digits(n: int) -> tuple[Tensor, Tensor]:
    X, y = load_digits(return_X_y=True)
    return torch.from_numpy(X[:n]) / 16 - 0.3, torch.from_numpy(y[:n])


def trained(module: nn.Module, inputs: Tensor, targets: Tensor, loss: Any, steps: int) -> Case:
    module = module.double()
    descent = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(steps):
        descent.zero_grad()
        loss(module(inputs), targets).backward()
        descent.step()
    module.zero_grad()
    return Case(module.eval(), inputs, targets, loss)


def gelu_mlp(n: int, steps: int, width: int = 64, hidden: int = 3) -> Case:
    """A few hidden layers on the first n digits."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = mlp(nn.GELU, 64, *[width] * hidden, 10)
        return trained(module, *digits(n), F.cross_entropy, steps)


def around(n: int, steps: int, width: int = 64) -> Case:
    """Layers with ways around them on the first n digits: not all of their curvature is known."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        blocks = (Residual(nn.Linear(width, width), nn.GELU()) for _ in range(3))
        module = nn.Sequential(nn.Linear(64, width), *blocks, nn.Linear(width, 10))
        return trained(module, *digits(n), F.cross_entropy, steps)


def transformer_block() -> Case:
    """A language model of one block, trained a little on random tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        tokens = torch.randint(0, 8, (16, 6))
        module = LanguageModel(8, 8, 6, 1, tied=False)
        return trained(module, tokens, tokens.roll(-1, 1), tokens_cross_entropy, 20)


def hessian_trace(case: Case, residual_part: float) -> float:
    """Return tr G by the softmax's columns, one backward pass each, plus the residual part."""
    gauss_newton = 0.0
    for x in case.inputs:
        z = case.module(x[None])[0]
        p = z.detach().softmax(-1)
        rows = []
        for entry in z:
            found = torch.autograd.grad(entry, list(case.tensors.values()), retain_graph=True)
            rows.append(torch.cat([part.flatten() for part in found]))
        J = torch.stack(rows)
        gauss_newton += (p @ J.square().sum(1) - (p @ J).square().sum()).item()
    return gauss_newton / len(case.inputs) + residual_part


@pytest.mark.parametrize("name", TWICE)
def test_exact(name: str, truths: dict[str, tuple[Case, Dense]]) -> None:
    case, truth = truths[name]
    found = residual(case, method="exact")
    assert set(found.tensors) == set(case.tensors)
    for one, entry in found.tensors.items():
        assert abs(entry.value - truth.residual(one)) <= 1e-10 * truth.size, one
        assert entry.standard_error is None
        assert entry.value == 0 or not entry.proof.linear
    total = sum(truth.residual(one) for one in case.tensors)
    assert abs(found.value - total) <= 1e-10 * truth.size
    assert found.standard_error is None
    assert found.interval() == (found.value, found.value)


@pytest.mark.parametrize("name", TWICE)
def test_estimate_is_unbiased(name: str, truths: dict[str, tuple[Case, Dense]]) -> None:
    case, truth = truths[name]
    found = residual(case, method="estimate", n_probes=150, random_state=1, max_probes=150)
    for one, entry in found.tensors.items():
        error = abs(entry.value - truth.residual(one))
        # A layer's own rounding is what is left where all signs give one value.
        assert error <= 4.5 * (entry.standard_error or 0) + 1e-10 * truth.size, (one, entry)
    if found.standard_error is not None:
        total = sum(truth.residual(one) for one in case.tensors)
        assert abs(found.value - total) <= 4.5 * found.standard_error + 1e-10 * truth.size


# Networks with tensors that enter several operations, or one without quiet probes.
LOUD = {
    "prelu then gelu": {"1.weight"},
    "one prelu": {"1.weight"},
    "tied language model": {"tokens.weight"},
    "lstm": {"layer.weight_hh_l0", "layer.bias_hh_l0"},
    "gru": {"layer.weight_hh_l0", "layer.bias_hh_l0"},
    "rnn relu": {"layer.weight_hh_l0"},
    "lstm cells": {"cell.weight_ih", "cell.weight_hh", "cell.bias_ih", "cell.bias_hh"},
    "gru cells": {"cell.weight_ih", "cell.weight_hh", "cell.bias_ih", "cell.bias_hh"},
    "shared relu": {"0.weight"},
    "shared tanh": {"0.weight", "0.bias"},
    "weight norm": {
        "0.parametrizations.weight.original1",
        "2.parametrizations.weight.original1",
    },
    "spectral norm": {"0.parametrizations.weight.original"},
    "sliced weight": {"w"},
    "einsum": {"w"},
}


@pytest.mark.parametrize("name", TWICE)
def test_signs_per_sample_wherever_they_can_be(name: str) -> None:
    found = residual(make_case(name), method="estimate", n_probes=2)
    loud = {one for one, entry in found.tensors.items() if "tensor's entries" in entry.how}
    assert loud == LOUD.get(name, set())


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: around(16, 8, 12), id="mlp"),
        pytest.param(transformer_block, id="transformer", marks=pytest.mark.slow),
    ],
)
def test_coverage(make: Any) -> None:
    """Intervals of 95 % hold the exact value in 92 to 98 % of 200 seeds."""
    case = make()
    truth = residual(case, method="exact").value
    runs = [residual(case, method="estimate", n_probes=4, random_state=seed) for seed in range(200)]
    held = [low <= truth <= high for low, high in (run.interval() for run in runs)]
    assert 0.92 <= np.mean(held) <= 0.98
    # The standard error is right on average too, against the spread over seeds.
    spread = np.std([run.value for run in runs])
    stated = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
    assert 0.85 <= stated / spread <= 1.15


@pytest.mark.parametrize("steps", [0, 8])
def test_a_probe_is_quiet(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One double backward: at most 2 % of tr H, where Hutchinson's on R has many times that.

    That is without the closed form, as for wider layers.
    """
    monkeypatch.setattr(residual_probing, "_CLOSED_FORM", 0)
    case = gelu_mlp(64, steps)
    probes = 16
    found = residual(case, method="estimate", n_probes=probes, random_state=0)
    per_product = found.standard_error * found.double_backwards**0.5
    assert per_product <= 0.02 * hessian_trace(case, found.value)
    outputs, cotangent = case.linearised()
    tensors = [
        case.tensors[name] for name, entry in found.tensors.items() if not entry.proof.linear
    ]
    gradients = torch.autograd.grad(outputs, tensors, cotangent, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    plain = []
    for _ in range(100):
        signs = [
            torch.randint(0, 2, t.shape, generator=generator).double() * 2 - 1 for t in tensors
        ]
        products = torch.autograd.grad(gradients, tensors, signs, retain_graph=True)
        plain.append(sum((a * b).sum().item() for a, b in zip(signs, products, strict=True)))
    assert np.std(plain) >= 8 * per_product


@pytest.mark.parametrize("method", ["auto", "exact", "estimate"])
@pytest.mark.parametrize("name", ["mlp gelu", "deep mlp gelu"])
def test_multilayer_perceptrons_need_no_probe(name: str, method: str) -> None:
    found = residual(case := make_case(name, n=5), method=method)
    truth = dense_diagonals(case)
    assert (found.double_backwards, found.standard_error) == (0, None)
    for name, entry in found.tensors.items():
        assert entry.how == "exact: in closed form" or entry.proof.linear
        assert abs(entry.value - truth.residual(name)) <= 1e-10 * truth.size


@pytest.mark.parametrize("steps", [0, 60])
def test_five_hidden_layers_need_no_probe(steps: int) -> None:
    """One double backward per unit says the same."""
    case = gelu_mlp(16, steps, hidden=5)
    found = residual(case, method="estimate")
    assert (found.double_backwards, found.standard_error) == (0, None)
    outputs, cotangent = case.linearised()
    layers = find_uses(outputs, case.tensors)[:-1]
    edges = [use.edge for use in layers]
    gradients = torch.autograd.grad(outputs, edges, cotangent, create_graph=True)
    for use, edge, gradient in zip(layers, edges, gradients, strict=True):
        rows = torch.eye(gradient.shape[1], dtype=gradient.dtype)[:, None].expand(-1, 16, -1)
        (products,) = torch.autograd.grad(
            gradient, edge, rows, retain_graph=True, is_grads_batched=True
        )
        diagonal = products.diagonal(dim1=0, dim2=2)  # by samples and units
        for name, sizes in zip(use.names, use.sizes(), strict=True):
            truth = (sizes @ diagonal).sum().item()
            size = (sizes @ diagonal.abs()).sum().item()
            assert abs(found.tensors[name].value - truth) <= 1e-11 * size


def test_stops_at_the_standard_error_wanted() -> None:
    case = around(16, 8, 12)
    rough = residual(case, method="estimate", n_probes=4, random_state=0)
    wanted = rough.standard_error / 3
    found = residual(
        case, method="estimate", standard_error=wanted, max_probes=1000, random_state=0
    )
    assert found.converged
    assert wanted / 2 <= found.standard_error <= wanted
    assert found.double_backwards > rough.double_backwards
    short = residual(case, method="estimate", standard_error=wanted / 10, max_probes=4)
    assert not short.converged
    assert short.standard_error > wanted / 10


def test_auto_is_exact_as_far_as_it_is_cheap() -> None:
    case = around(5, 3, 4)
    truth = residual(case, method="exact")
    assert residual(case).tensors == truth.tensors
    assert truth.double_backwards == 4 + 4 + 4  # the first three layers, of four units each
    found = residual(case, exact_up_to=4)
    exact = {name for name, e in found.tensors.items() if e.standard_error is None}
    assert len(exact) == 6  # one of these, one in closed form, and the last, which is proved
    assert found.double_backwards >= 4 + 2
    assert residual(case, exact_up_to=0).tensors != truth.tensors


def test_seeds_repeat_and_differ() -> None:
    case = around(8, 3, 8)
    one, two = (residual(case, method="estimate", random_state=3).value for _ in range(2))
    assert one == two
    assert one != residual(case, method="estimate", random_state=4).value
    generator = np.random.default_rng(3)
    values = {residual(case, method="estimate", random_state=generator).value for _ in range(2)}
    assert len(values) == 2


@pytest.mark.parametrize("name", ["residual gelu", "cnn gelu", "time major", "transformer"])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_batch_sizes(name: str, n: int) -> None:
    case = make_case(name, n=n)
    truth = dense_diagonals(case)
    total = sum(truth.residual(one) for one in case.tensors)
    assert abs(residual(case, method="exact").value - total) <= 1e-10 * truth.size
    found = residual(case, method="estimate", n_probes=100, random_state=0, max_probes=100)
    assert abs(found.value - total) <= 4.5 * found.standard_error + 1e-10 * truth.size


def as_module(function: Any, **parts: Any) -> nn.Module:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x: Tensor) -> Tensor:
            return function(self, x)

    return Module().double().eval()


SHUFFLE = torch.tensor([3, 0, 5, 1, 2, 4])


@pytest.mark.parametrize(
    "function",
    [
        # Samples in another order inside: signs per sample would be given to the wrong rows.
        lambda self, x: self.last(self.first(x[SHUFFLE]).tanh())[SHUFFLE.argsort()].tanh(),
        # Samples that influence each other, as in a contrastive loss or batch norm in training.
        lambda self, x: (h := self.last(self.first(x).tanh())) - h.exp().mean(0),
        # Two samples that alone share something.
        lambda self, x: (
            (h := self.last(self.first(x).tanh()))
            * torch.cat([h[1:2], torch.ones_like(h[:4]), h[:1]])
        ),
        # Outputs that are no samples at all.
        lambda self, x: self.last(self.first(x).tanh()).square().mean(0).exp(),
    ],
    ids=["another order", "all together", "two together", "no samples"],
)
def test_samples_are_told_apart_or_not_used(function: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = as_module(function, first=nn.Linear(3, 4), last=nn.Linear(4, 2))
        x = torch.randn(6, 3, dtype=torch.float64)
        case = Case(module, x, torch.randn_like(module(x)), squared)
    truth = dense_diagonals(case)
    found = residual(case, method="estimate", n_probes=300, random_state=0, max_probes=300)
    for name, entry in found.tensors.items():
        error = abs(entry.value - truth.residual(name))
        assert error <= 4.5 * (entry.standard_error or 0) + 1e-10 * truth.size
    exact = residual(case, method="exact")
    for name, entry in exact.tensors.items():
        assert abs(entry.value - truth.residual(name)) <= 1e-10 * truth.size


@pytest.mark.parametrize("name", ["time major", "attention module", "language model"])
def test_as_many_tokens_as_samples(name: str) -> None:
    """Shapes do not say which axis has the samples; the test of the rows must, for any signs."""
    case = make_case(name)
    assert case.outputs().shape[0] == case.inputs.shape[1] == 3
    truth = residual(case, method="exact", random_state=0)
    for seed in range(1, 30):
        found = residual(case, method="exact", random_state=seed)
        assert found.value == pytest.approx(truth.value, rel=1e-12)


def test_vanishing_gradients_tell_nothing() -> None:
    """Squares at 0 have no gradient but curvature: rows must not be divided on a guess."""
    layer = nn.Linear(2, 2).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    module = as_module(
        lambda self, x: self.layer(x.transpose(0, 1).flatten(0, 1)).view(3, 4, 2).sum(0).square(),
        layer=layer,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        case = Case(
            module,
            torch.randn(4, 3, 2, dtype=torch.float64),
            torch.randn(4, 2, dtype=torch.float64),
            squared,
        )
    truth = dense_diagonals(case)
    total = sum(truth.residual(name) for name in case.tensors)
    assert residual(case, method="exact").value == pytest.approx(total, rel=1e-12)
    found = residual(case, method="estimate", n_probes=300, random_state=0)
    assert "in the tensor's entries" in found.tensors["layer.weight"].how
    assert abs(found.value - total) <= 4.5 * found.standard_error + 1e-12


def test_many_samples_are_told_apart() -> None:
    """Two of 400 samples that influence each other are noticed, whichever they are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Linear(2, 2).double()
        x = torch.randn(400, 2, dtype=torch.float64)
    for one, other in ((0, 17), (1, 290), (0, 289), (5, 22), (398, 399)):
        swapped = torch.zeros(400, 400, dtype=torch.float64)
        swapped[one, other] = 1

        def outputs(mix: Tensor) -> Tensor:
            h = layer(x).tanh()
            return h + mix @ h

        for mix, layout in ((swapped, None), (0 * swapped, Layout(400))):
            z = outputs(mix)
            uses = find_uses(z, dict(layer.named_parameters()))
            assert find_layouts(z, uses, torch.Generator()) == [layout]


def test_float32_stays_close() -> None:
    case = make_case("transformer")
    truth = residual(case, method="exact").value
    case.module.float()
    case.inputs, case.targets = case.inputs.float(), case.targets.float()
    assert residual(case, method="exact").value == pytest.approx(truth, rel=1e-4, abs=1e-5)


def test_recurrent_layers_in_float32() -> None:
    """PyTorch's fused layer has no second derivative; the parts have, and settings come back."""
    case = make_case("lstm")
    truth = residual(case, method="exact").value
    case.module.float()
    case.inputs, case.targets = case.inputs.float(), case.targets.float()
    before = torch.backends.mkldnn.enabled
    assert residual(case, method="exact").value == pytest.approx(truth, rel=1e-4, abs=1e-5)
    assert torch.backends.mkldnn.enabled is before


def test_tied_tensors_count_once() -> None:
    case = make_case("tied language model")
    once = residual(case, method="exact")
    case.tensors = dict(case.module.named_parameters(remove_duplicate=False))
    twice = residual(case, method="exact")
    assert twice.value == pytest.approx(once.value, rel=1e-12)
    assert twice.tensors["head.weight"].value == 0
    assert twice.tensors["head.weight"].how == "counted under tokens.weight"
    assert "head.weight" not in unique(case.tensors)


@pytest.mark.parametrize("method", ["exact", "estimate"])
def test_parts_add_up_to_the_whole(method: str) -> None:
    case = around(16, 8, 12)
    whole = residual(case, method="exact")
    rng = np.random.default_rng(0)
    parts = []
    for rows in (slice(0, 3), slice(3, 16)):
        _, cotangent = case.linearised()
        part = Case(case.module, case.inputs[rows], case.targets[rows], case.loss)
        parts.append(
            residual_trace(
                lambda part=part, c=cotangent[rows]: (part.outputs(), c),
                case.tensors,
                method=method,
                n_probes=30,
                random_state=rng,
            )
        )
    found = added(iter(parts))
    tolerance = 1e-12 + 4 * (found.standard_error or 0)
    assert abs(found.value - whole.value) <= tolerance
    assert found.double_backwards == sum(part.double_backwards for part in parts)
    for name, entry in found.tensors.items():
        assert entry.proof == whole.tensors[name].proof
        assert abs(entry.value - whole.tensors[name].value) <= 1e-12 + 4 * (
            entry.standard_error or 0
        )
    if method == "estimate":
        assert found.standard_error == pytest.approx(
            math.hypot(*(part.standard_error for part in parts))
        )
        least = min(part.degrees_of_freedom for part in parts)
        most = sum(part.degrees_of_freedom for part in parts)
        assert least <= found.degrees_of_freedom <= most


def test_parts_of_different_tensors() -> None:
    one, two = residual(make_case("linear")), residual(make_case("mlp relu"))
    with pytest.raises(ValueError, match="of the same tensors"):
        added([one, two])
    with pytest.raises(ValueError, match="at least one"):
        added([])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["mlp gelu", "cnn gelu", "transformer", "language model", "lstm"])
def test_on_cuda(name: str) -> None:
    case = make_case(name)
    truth = residual(case, method="exact").value
    case.module.cuda()
    case.inputs, case.targets = case.inputs.cuda(), case.targets.cuda()
    case.tensors = dict(case.module.named_parameters())
    assert residual(case, method="exact").value == pytest.approx(truth, rel=1e-8, abs=1e-10)
    found = residual(case, method="estimate", n_probes=50, random_state=0)
    assert abs(found.value - truth) <= 4.5 * found.standard_error + 1e-10


def test_nothing_unproven() -> None:
    found = residual(make_case("mlp relu"))
    assert (found.value, found.standard_error, found.double_backwards) == (0, None, 0)
    assert residual_trace(make_case("mlp relu").linearised, {}).value == 0


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_changed(fails: bool) -> None:
    case = make_case("transformer")
    for tensor in case.tensors.values():
        tensor.grad = torch.ones_like(tensor)
    before = {name: tensor.clone() for name, tensor in case.module.state_dict().items()}
    state, fused = torch.get_rng_state(), torch.backends.cuda.flash_sdp_enabled()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002  that this is left alone is the point

    def linearised() -> tuple[Tensor, Tensor]:
        if fails:
            raise KeyboardInterrupt
        return case.linearised()

    try:
        residual_trace(linearised, case.tensors, n_probes=2)
    except KeyboardInterrupt:
        assert fails
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert torch.backends.cuda.flash_sdp_enabled() is fused
    assert not case.module.training
    for name, tensor in case.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    for tensor in case.tensors.values():
        assert tensor.requires_grad
        assert torch.equal(tensor.grad, torch.ones_like(tensor))


def test_what_has_no_second_derivative() -> None:
    bag = nn.EmbeddingBag(5, 3)
    module = as_module(lambda self, x: self.bag(x).tanh(), bag=bag)
    x = torch.tensor([[0, 1], [2, 3]])
    case = Case(module, x, torch.zeros(2, 3, dtype=torch.float64), squared)
    with pytest.raises(NotImplementedError, match="no second derivative of an operation"):
        residual(case)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "best"}, ValueError, "method must be one of auto, exact, estimate"),
        ({"n_probes": 1}, ValueError, "n_probes must be at least 2"),
        ({"max_probes": 0}, ValueError, "max_probes must be at least 2"),
        ({"exact_up_to": -1}, ValueError, "exact_up_to must be at least 0"),
        ({"standard_error": 0.0}, ValueError, "standard_error must be finite and greater"),
        ({"random_state": -1}, ValueError, "random_state must not be negative"),
    ],
)
def test_bad_options(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        residual(make_case("linear"), **options)


def test_shapes_that_differ() -> None:
    case = make_case("linear")
    with pytest.raises(ValueError, match="of one shape"):
        residual_trace(lambda: (case.outputs(), torch.ones(2)), case.tensors)
