"""The model comes back as it was, after success, errors and Ctrl-C; what cannot be is refused."""

import contextlib
import copy
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import flattest as ft
from flattest.modules import guards

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(4, 2)


class Remembers(nn.Module):
    """A module whose forward pass leaves traces, as caches and counters do."""

    def __init__(self):
        super().__init__()
        self.a, self.h = nn.Linear(3, 4), nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.cache = None
        self.counts = {"calls": 0}
        self.my_hooks = ["a list", "of their own"]
        self.b = self.a  # one module under two names

    def forward(self, x):
        self.calls += 1
        self.counts["calls"] += 1
        self.cache = self.norm(self.b(x)).relu()
        torch.rand(1)
        return self.h(self.cache)


def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Remembers()
    made.norm.eval()
    made.a.weight.grad = torch.ones_like(made.a.weight)
    made.h.bias.requires_grad_(False)
    return made


def state(module):
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    settings = (
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
    )
    attributes = {
        name: {k: id(v) for k, v in vars(part).items()} for name, part in module.named_modules()
    }
    values = {
        name: (id(t), t.tolist(), t.requires_grad, None if t.grad is None else t.grad.tolist())
        for name, t in tensors.items()
    }
    modes = {name: part.training for name, part in module.named_modules()}
    return settings, attributes, values, modes, list(module.state_dict())


@contextlib.contextmanager
def unchanged(module):
    before = state(module)
    try:
        yield
    finally:
        after = state(module)
        for one, other in zip(before, after, strict=True):
            assert one == other


def raising(error):
    calls = []

    def loss(z, y):
        calls.append(None)
        if len(calls) > 1:
            raise error
        return F.mse_loss(z, y)

    return loss


def test_after_success():
    module = model()
    seen = []
    handles = [
        module.register_forward_hook(lambda *a: seen.append("forward")),
        module.a.register_full_backward_hook(lambda *a: seen.append("backward")),
        module.h.weight.register_hook(lambda g: seen.append("tensor") or 7 * g),
    ]
    with unchanged(module):
        flatness = ft.measure(module, X, Y)
    assert module.counts == {"calls": 0}
    assert set(seen) == {"forward"}
    assert flatness.gauss_newton == ft.measure(model(), X, Y).gauss_newton
    seen.clear()
    module(X).sum().backward()
    assert seen == ["forward", "tensor", "backward"]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt(), MemoryError()])
def test_after_an_error(error):
    module = model()
    # Errors of the loss are told with its name; what is no Exception passes through.
    with unchanged(module), pytest.raises((type(error), ValueError)):
        ft.measure(module, X, Y, loss=raising(error))


def test_under_no_grad_and_in_a_fast_attention_setting():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0, batch_first=True).double().eval()
    inputs = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)).double()
    with unchanged(layer):
        inside = ft.measure(layer, inputs, torch.zeros_like(inputs)).gauss_newton
        with torch.no_grad():
            assert ft.measure(layer, inputs, torch.zeros_like(inputs)).gauss_newton == inside
            assert not torch.is_grad_enabled()


def test_the_callers_inputs_stay():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x):
            return self.a(x.mul_(2))

    inputs = X.clone()
    ft.measure(Overwrites(), inputs, Y)
    assert torch.equal(inputs, X)
    assert not inputs.requires_grad


def test_random_states_of_numpy_and_python_come_back():
    # Outside of `measure`, for the type checker of the tests draws numbers itself.
    states = guards.random_states(model())
    random.random()
    np.random.standard_normal()  # noqa: NPY002
    torch.rand(1)
    guards.restore_random_states(states)
    again = guards.random_states(model())
    assert torch.equal(again[0], states[0])
    assert again[2][1].tolist() == states[2][1].tolist()
    assert again[3] == states[3]


def test_many_calls_warn_of_nothing():
    module = model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = {ft.measure(module, X, Y).gauss_newton for _ in range(10)}
    assert len(values) == 1
    assert torch.equal(module.a.weight.grad, torch.ones(4, 3))


def test_embeddings_that_renormalise():
    table = nn.Embedding(5, 2, max_norm=0.1)
    with unchanged(table):
        ft.measure(table, torch.tensor([0, 3]), torch.zeros(2, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_on_a_copy(dtype):
    half = model().to(dtype)
    with unchanged(half):
        flatness = ft.measure(half, X.to(dtype), Y.to(dtype))
    single = copy.deepcopy(half).float()
    expected = ft.measure(single, X.to(dtype).float(), Y)
    assert flatness.gauss_newton == expected.gauss_newton
    assert flatness.dtype == "torch.float32"
    assert f"float32 copy of a {dtype} model" in flatness.provenance["gauss_newton"].why


def test_half_precision_inside_is_not_called_exact():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 2)

        def forward(self, x):
            return F.linear(x.bfloat16(), self.a.weight.bfloat16()).float() + self.a.bias

    flatness = ft.measure(Inside(), X, Y)
    assert not flatness.provenance["gauss_newton"].exact
    assert "half precision" in flatness.provenance["gauss_newton"].why
    assert not flatness.layers[0].exact
    # A caller's autocast is no part of the model: it is left out.
    module = model()
    expected = ft.measure(module, X, Y).gauss_newton
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert ft.measure(module, X, Y).gauss_newton == expected
        assert torch.is_autocast_enabled("cpu")


def test_wrappers_are_taken_off():
    inner = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    expected = ft.measure(inner, X, Y)
    for wrapped in (torch.compile(inner), nn.DataParallel(inner)):
        found = ft.measure(wrapped, X, Y)
        assert [layer.name for layer in found.layers] == [layer.name for layer in expected.layers]
        assert found.gauss_newton == expected.gauss_newton


def functional_dropout(m, x):
    return F.dropout(m.a(x), 0.5)


class Made(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def reentrant(m, x):
    x = x.clone().requires_grad_()
    return checkpoint(lambda v: m.a(v).tanh(), x, use_reentrant=True)


REFUSED = {
    "batch norm": (
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
        r"1 is a BatchNorm1d in training mode.*model\.eval\(\)",
    ),
    "dropout": (nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1)), r"Dropout in training mode"),
    "functional dropout": (
        Made(functional_dropout, a=nn.Linear(3, 2)),
        "draws random numbers, as dropout does",
    ),
    "functional batch norm": (
        Made(lambda m, x: F.batch_norm(m.a(x), None, None, training=True), a=nn.Linear(3, 2)),
        "depend on the other samples",
    ),
    "mean over the batch": (
        Made(lambda m, x: m.a(x) - m.a(x).mean(0), a=nn.Linear(3, 2)),
        "depend on the other samples",
    ),
    "recurrent dropout": (
        Made(lambda m, x: m.r(x)[0], r=nn.LSTM(3, 2, 2, dropout=0.5)),
        "draws random numbers",
    ),
    "reentrant checkpoint": (Made(reentrant, a=nn.Linear(3, 2)), "use_reentrant=False"),
    "no graph": (Made(lambda m, x: m.a(x).detach(), a=nn.Linear(3, 2)), "no_grad or detach"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_remedy(name):
    module, message = REFUSED[name]
    module.train()
    inputs = X[:, None] if name == "recurrent dropout" else X
    with unchanged(module), pytest.raises(ValueError, match=message):
        ft.measure(module, inputs, Y[:, None] if name == "recurrent dropout" else Y)


def test_what_is_harmless_in_training_mode_is_measured():
    for layer in (nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.Dropout(0.0), nn.Softplus()):
        module = nn.Sequential(nn.Linear(3, 2), layer).train()
        with unchanged(module):
            assert ft.measure(module, X, Y).gauss_newton > 0
    batch_norm = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2).eval())
    batch_norm[1].train(False)
    assert ft.measure(batch_norm, X, Y).gauss_newton > 0
