"""Flatness modulo symmetry for homogeneous networks, and multi-index models learned with it.

Every name is loaded when it is first used, with what it needs and no more.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flattest._version import __version__

if TYPE_CHECKING:
    from flattest.datasets import MultiIndexModel, make_multi_index
    from flattest.errors import FlattestError
    from flattest.figures.displays import DirectionsDisplay, LinkDisplay, PathDisplay
    from flattest.flatness import Flatness
    from flattest.interpolators import Interpolation, Iterate, Status, interpolate
    from flattest.measuring import balance, measure, rescale, sharpen
    from flattest.modules.balance_report import BalanceReport
    from flattest.modules.groups.lora import balance_lora
    from flattest.modules.groups.lora_factors import LoraBalance
    from flattest.modules.symmetry.finding import symmetries
    from flattest.modules.symmetry.result import Symmetries
    from flattest.orbit import Orbit
    from flattest.quantisation.allocation import allocate_bits
    from flattest.quantisation.bit_allocation import BitAllocation
    from flattest.quantisation.rounding import quantise
    from flattest.regression.regressor import MultiIndexRegressor
    from flattest.tables.transformer import TableEncoder
    from flattest.two_layer.activations import Homogeneous, activation
    from flattest.two_layer.bounds import lower_bound
    from flattest.two_layer.flatness import PerNeuron, TwoLayerFlatness
    from flattest.two_layer.networks import TwoLayerNet, append_bias_coordinate
    from flattest.two_layer.surgery import merge, prune, split

# Where each name is; a test compares it with the imports above, which editors read.
_HOMES = {
    "datasets": ("MultiIndexModel", "make_multi_index"),
    "errors": ("FlattestError",),
    "figures.displays": ("DirectionsDisplay", "LinkDisplay", "PathDisplay"),
    "flatness": ("Flatness",),
    "interpolators": ("Interpolation", "Iterate", "Status", "interpolate"),
    "measuring": ("balance", "measure", "rescale", "sharpen"),
    "modules.groups.lora": ("balance_lora",),
    "modules.groups.lora_factors": ("LoraBalance",),
    "modules.balance_report": ("BalanceReport",),
    "modules.symmetry.finding": ("symmetries",),
    "modules.symmetry.result": ("Symmetries",),
    "orbit": ("Orbit",),
    "quantisation.allocation": ("allocate_bits",),
    "quantisation.bit_allocation": ("BitAllocation",),
    "quantisation.rounding": ("quantise",),
    "regression.regressor": ("MultiIndexRegressor",),
    "tables.transformer": ("TableEncoder",),
    "two_layer.activations": ("Homogeneous", "activation"),
    "two_layer.bounds": ("lower_bound",),
    "two_layer.flatness": ("PerNeuron", "TwoLayerFlatness"),
    "two_layer.networks": ("TwoLayerNet", "append_bias_coordinate"),
    "two_layer.surgery": ("merge", "prune", "split"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BalanceReport",
    "BitAllocation",
    "DirectionsDisplay",
    "Flatness",
    "FlattestError",
    "Homogeneous",
    "Interpolation",
    "Iterate",
    "LinkDisplay",
    "LoraBalance",
    "MultiIndexModel",
    "MultiIndexRegressor",
    "Orbit",
    "PathDisplay",
    "PerNeuron",
    "Status",
    "Symmetries",
    "TableEncoder",
    "TwoLayerFlatness",
    "TwoLayerNet",
    "__version__",
    "activation",
    "allocate_bits",
    "append_bias_coordinate",
    "balance",
    "balance_lora",
    "interpolate",
    "lower_bound",
    "make_multi_index",
    "measure",
    "merge",
    "prune",
    "quantise",
    "rescale",
    "sharpen",
    "split",
    "symmetries",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
