"""Two ways of tracing: they agree, and the second is there where the first refuses."""

import pytest
import torch
from scaling_architectures import ALL
from torch import nn

from flattest.modules.symmetry.finding import find

FEW = [
    "LeNet",
    "residual block in place",
    "multi-head attention, time first",
    "rotary embedding",
    "RNN",
]


def scales(name, front_end):
    module, inputs = ALL[name](2)
    found = find(module, inputs, None, "keep", (front_end,))
    return found.n_scales, found.frozen, len(found.groups), found.unknown


def agree(name):
    refused = {"mixture of experts", "python control flow"}  # their branches depend on the data
    if name in refused:
        with pytest.raises(ValueError, match="could not be recorded"):
            scales(name, "export")
    else:
        assert scales(name, "export") == scales(name, "trace")


@pytest.mark.parametrize("name", FEW)
def test_front_ends_agree(name):
    agree(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in FEW])
def test_all_front_ends_agree(name):
    agree(name)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.a(x)
        return self.b(hidden.relu() if x.sum() > 0 else hidden.tanh())


def test_a_branch_that_depends_on_data_is_traced_and_checked():
    module = Branching().double()
    x = torch.ones(2, 3, dtype=torch.float64)
    found = find(module, x, None, "keep", ("export", "trace"))
    assert found.n_scales == 4
    with pytest.raises(ValueError, match=r"rescaling a\.weight with a\.bias with b\.weight"):
        found.check(-x)


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.a(x).relu()
        return self.b(hidden / float(hidden.max()))


def test_a_number_that_python_reads_must_not_change():
    found = find(Normalised().double(), torch.rand(2, 3).double(), None, "keep", ("trace",))
    assert found.n_scales == 0
    assert found.frozen["a.bias"] == "a number read by Python after a"
