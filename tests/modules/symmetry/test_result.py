"""The result as people see it: tables in print, in notebooks and as a frame."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES
from scaling_architectures import SCALING
from torch import nn

import flattest as ft
from flattest.modules.symmetry.finding import find


def encoder():
    torch.manual_seed(0)
    layers = [
        *(nn.Linear(6, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        *(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5), nn.GELU(), nn.Linear(5, 2)),
    ]
    return nn.Sequential(*layers).double().eval(), torch.randn(2, 5, 6).double()


@pytest.fixture(scope="module")
def found():
    module, x = encoder()
    return find(module, x, None, "keep", ("trace",))


def test_it_prints_a_line_for_each_layer(found):
    lines = repr(found).splitlines()
    assert lines[0] == "Symmetries"
    assert lines[1].split() == ["layer", "kind", "free", "tied", "frozen", "why", "frozen"]
    # In the order of the graph, not of the names.
    names = [line.split()[0] for line in lines[2:-3]]
    assert names.index("1.norm1") < names.index("1.linear1")
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:-3]}
    assert rows["1.self_attn"] == ["MultiheadAttention", "24"]
    assert rows["4"] == ["Linear", "5", "GELU", "after", "4"]
    assert rows["6"] == ["Linear", "2", "the", "outputs"]
    assert lines[-3].strip() == "52 free scales, batch norm kept"
    assert lines[-2].strip() == "4 linear groups: general of size 4"
    assert "outputs change by" in lines[-1]


def test_it_shows_the_same_in_a_notebook(found):
    page = found._repr_html_()
    assert page.count("<tr>") == len(found.layers()) + 1
    for word in ("52 free scales", "MultiheadAttention", "GELU after 4"):
        assert word in page


def test_the_frame_has_a_row_for_each_tensor(found):
    frame = found.to_frame().set_index("name")
    assert list(frame.index) == [name for name, _ in found.module.named_parameters()]
    row = frame.loc["2.weight"]
    assert (row["layer"], row["kind"], row["shape"]) == ("2", "Linear", (12, 8))
    assert (row["free"], row["tied"], row["frozen"]) == (12, 0, 0)
    assert row["scales"] == 12 + 8
    channels = frame[["free", "tied", "frozen"]].sum(axis=1)
    assert (channels == frame["shape"].str[0]).all()


def test_scales_are_named_after_channels(found):
    assert len(found.scale_names) == found.n_scales == len(set(found.scale_names))
    assert "2.weight[11]" in found.scale_names


def test_ties_are_counted_on_both_sides():
    module, inputs = SCALING["residual layers"][0](2)
    layers = find(module, inputs, None, "keep", ("trace",)).layers()
    assert [(entry.layer, entry.free, entry.tied) for entry in layers] == [
        ("a", 0, 4),
        ("b", 5, 0),
        ("c", 0, 4),
        ("h", 0, 0),
    ]


def test_unknown_operations_are_reported_and_frozen():
    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.b(torch.special.bessel_j1(self.a(x)))

    found = ft.symmetries(Unknown().double(), torch.randn(4, 3).double())
    assert found.n_scales == 0
    assert found.unknown == {"special_bessel_j1": 1}
    assert found.frozen["a.weight"] == "special_bessel_j1, which has no rule, after a"
    assert "operations without a rule, frozen: special_bessel_j1 (1)" in repr(found)


def test_named_inputs_and_objects_with_logits():
    module, (x,) = ARCHITECTURES["object with logits"](3)
    assert ft.symmetries(module, x).n_scales == 0

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, features, mask=None):
            hidden = self.a(features).relu()
            return {"scores": self.b(hidden * mask), "hidden": hidden}

    example = {"features": torch.randn(5, 3), "mask": torch.ones(5, 1)}
    found = ft.symmetries(Named(), example, output="scores")
    assert found.n_scales == 4
    assert found.check({"mask": torch.rand(2, 1), "features": torch.randn(2, 3)}) < 1e-12
    # With the hidden layer among the outputs, nothing is left.
    outputs = lambda returned: torch.cat([returned["scores"], returned["hidden"]], 1)  # noqa: E731
    assert ft.symmetries(Named(), example, output=outputs).n_scales == 0


def test_wrapped_modules_are_unwrapped():
    module, x = encoder()
    wrapped = nn.DataParallel(module)
    found = ft.symmetries(wrapped, x)
    assert found.module is module
    assert found.transformed(wrapped, np.zeros(found.n_scales)).__class__ is nn.Sequential


def test_only_parameters_with_gradients_scale():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    found = ft.symmetries(module, torch.randn(5, 3))
    # Whatever goes into or comes out of the layer that is fixed has to stay.
    assert found.n_scales == 0
    assert found.frozen["2.weight"] == "it does not require gradients"
    module[2].requires_grad_(True)
    module[4].bias.requires_grad_(False)
    assert ft.symmetries(module, torch.randn(5, 3)).n_scales == 8
