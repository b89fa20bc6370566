"""Finding symmetries leaves the module, its settings and all random states as they were."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, Applied
from torch import nn

import flattest as ft


def remembered(model):
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(id(p), p.requires_grad, p.grad, type(p)) for p in model.parameters()],
        [(id(m), m.training, dict(m._forward_hooks), list(m.__dict__)) for m in model.modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )


def same(before, after):
    for one, other in zip(before, after, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other)
        elif isinstance(one, dict):
            assert list(one) == list(other)
            assert all(torch.equal(one[name], other[name]) for name in one)
        else:
            assert one == other


@pytest.mark.parametrize("batch_norm", ["keep", "fold"])
@pytest.mark.parametrize(
    "name", ["residual block in place", "transformer encoder layer", "spectral norm", "LSTM"]
)
def test_the_module_comes_back_as_it_was(name, batch_norm):
    inner, inputs = ARCHITECTURES[name](3)
    model = Applied(lambda m, *x: m.a(*x), a=inner, b=inner)  # two names of one submodule
    model.eval()
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    copies = [x.clone() for x in inputs]
    before = remembered(model)
    found = ft.symmetries(model, inputs, batch_norm=batch_norm)
    found.check(inputs)
    found.transformed(z=np.zeros(found.n_scales))
    same(before, remembered(model))
    assert all(torch.equal(x, y) for x, y in zip(inputs, copies, strict=True))


class Stops(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.a, self.error, self.calls = nn.Linear(3, 2), error, 0

    def forward(self, x):
        self.calls += 1
        if self.error:
            raise self.error
        return self.a(x)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("stop"), MemoryError()])
def test_an_interruption_leaves_it_as_it_was(error):
    model = Stops(error)
    before = remembered(model)
    with pytest.raises((KeyboardInterrupt, ValueError, MemoryError)):
        ft.symmetries(model, torch.ones(2, 3))
    same(before, remembered(model))
