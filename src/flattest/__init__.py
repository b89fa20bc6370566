"""Flatness modulo symmetry for homogeneous networks, and multi-index models learned with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flattest._version import __version__
from flattest.activations import Homogeneous, activation
from flattest.bounds import lower_bound
from flattest.datasets import MultiIndexModel, make_multi_index
from flattest.flatness import Flatness, PerNeuron, measure
from flattest.interpolators import Interpolation, Iterate, Status, interpolate
from flattest.networks import TwoLayerNet, append_bias_coordinate
from flattest.regression import MultiIndexRegressor
from flattest.surgery import merge, prune, split
from flattest.symmetry import balance, rescale, sharpen

if TYPE_CHECKING:
    from flattest.figures.displays import DirectionsDisplay, LinkDisplay, PathDisplay

__all__ = [
    "DirectionsDisplay",
    "Flatness",
    "Homogeneous",
    "Interpolation",
    "Iterate",
    "LinkDisplay",
    "MultiIndexModel",
    "MultiIndexRegressor",
    "PathDisplay",
    "PerNeuron",
    "Status",
    "TwoLayerNet",
    "__version__",
    "activation",
    "append_bias_coordinate",
    "balance",
    "interpolate",
    "lower_bound",
    "make_multi_index",
    "measure",
    "merge",
    "prune",
    "rescale",
    "sharpen",
    "split",
]


def __getattr__(name: str) -> Any:
    # The displays bring matplotlib, which takes a second to import: only for those who draw.
    if name in ("DirectionsDisplay", "LinkDisplay", "PathDisplay"):
        from flattest.figures import displays

        return getattr(displays, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
