"""The chain of layers: one bar for each, for small and for long modules."""

import pytest
import torch
from architectures import ARCHITECTURES
from matplotlib.colors import to_hex
from torch import nn

from flattest.figures import chain_of_layers, colour
from flattest.modules.symmetry.finding import find


def found(module, *inputs):
    return find(module.eval(), inputs, None, "keep", ("trace",))


def test_each_kind_of_channel_has_its_colour():
    module, inputs = ARCHITECTURES["residual block in place"](2)
    symmetries = found(module, *inputs)
    figure = chain_of_layers(symmetries)
    (axes,) = figure.axes
    layers = symmetries.layers()
    assert len(axes.get_yticklabels()) == len(layers)
    wanted = [
        (place, kind)
        for place, layer in enumerate(layers)
        for kind in ("free", "tied", "frozen")
        if getattr(layer, kind)
    ]
    hues = {colour(0).lower(): "free", colour(1).lower(): "tied", "#d9d9d9": "frozen"}
    drawn = [
        (round(bar.get_y() + bar.get_height() / 2), hues[to_hex(bar.get_facecolor())])
        for bar in axes.patches
    ]
    assert drawn == wanted
    texts = [text.get_text() for text in axes.texts]
    assert "3   batch norm after 2.a" in texts
    assert axes.get_title(loc="left") == f"{symmetries.n_scales} free scales"


@pytest.mark.parametrize("most", [1, 3, 60])
def test_long_modules_are_cut(most):
    layers = [part for _ in range(4) for part in (nn.Linear(3, 3), nn.ReLU())]
    figure = chain_of_layers(
        found(nn.Sequential(*layers, nn.Linear(3, 1)), torch.ones(2, 3)), most=most
    )
    assert len(figure.axes[0].get_yticklabels()) == min(most, 5)
    assert ("not shown" in figure.axes[0].get_title(loc="left")) == (most < 5)


def test_factors_of_groups_are_marked():
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
    figure = chain_of_layers(found(module, torch.ones(2, 3)))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["0  Linear *", "1  Linear *", "3  Linear"]
