"""Flatness modulo symmetry for homogeneous networks, and multi-index models learned with it."""

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

__all__ = [
    "Flatness",
    "Homogeneous",
    "Interpolation",
    "Iterate",
    "MultiIndexModel",
    "MultiIndexRegressor",
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
