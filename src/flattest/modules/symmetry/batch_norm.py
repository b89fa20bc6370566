r"""Batch normalisation folded into the layer before it, on a copy.

With running statistics :math:`\mu, \sigma` fixed, :math:`\gamma (W x + b - \mu) / \sigma + \beta`
is a linear layer with weight :math:`s W`, :math:`s = \gamma / \sigma`, and bias
:math:`s (b - \mu) + \beta`. The copy has the same class and the same state-dict keys: the
normalisation stays as an identity (mean 0, variance 1 with eps, gain 1 without gradient), and its
bias is the folded layer's bias where that has none of its own. Folding is exact only where nothing
else sees the layer's output and nothing else uses its weight, which the graph shows.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from flattest.modules.symmetry.propagation import called_name, needed
from flattest.modules.symmetry.tracing import Trace

_EPS_POSITION = {"_native_batch_norm_legit_no_training": 6}
_NAMES = {
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
}


class Folding(NamedTuple):
    """A module with its batch normalisation folded.

    Parameters
    ----------
    module : torch.nn.Module
        The copy.
    folded : tuple of str
        The layers of batch normalisation that were folded.
    unfolded : dict of str to str
        Those that were not, and why.
    """

    module: nn.Module
    folded: tuple[str, ...]
    unfolded: dict[str, str]


class _Parts(NamedTuple):
    """The parameters and buffers of a layer and of the normalisation behind it."""

    weight: str
    bias: str | None
    transposed: bool
    groups: int
    gain: str
    shift: str
    mean: str
    variance: str
    eps: float


def fold(module: nn.Module, trace: Trace) -> Folding:
    """Fold batch normalisation wherever that is exact.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    trace : Trace
        Its operations.

    Returns
    -------
    Folding
        A copy, and what was done.
    """
    names = _names(trace)
    reachable = needed(trace.graph.graph)
    found: dict[str, _Parts | str] = {}
    for node in trace.graph.graph.nodes:
        if node in reachable and node.op == "call_function" and called_name(node) in _NAMES:
            layer = _layer(node, names)
            parts = _parts(node, names, reachable)
            # A layer that is called twice is folded at neither place.
            found[layer] = "it is used more than once" if layer in found else parts
    result = copy.deepcopy(module)
    folded = []
    for layer, parts in found.items():
        if not isinstance(parts, str):
            _fold(result, parts)
            folded.append(layer)
    unfolded = {layer: parts for layer, parts in found.items() if isinstance(parts, str)}
    return Folding(result, tuple(folded), unfolded)


def _names(trace: Trace) -> dict[fx.Node, str]:
    known = [*trace.parameters, *trace.buffers]
    places = [node for node in trace.graph.graph.nodes if node.op == "placeholder"]
    return dict(zip(places, known, strict=False))


def _layer(node: fx.Node, names: dict[fx.Node, str]) -> str:
    for argument in node.args[1:5]:
        if isinstance(argument, fx.Node) and argument in names:
            return names[argument].rpartition(".")[0]
    return node.name


def _parts(node: fx.Node, names: dict[fx.Node, str], reachable: set[fx.Node]) -> _Parts | str:
    """Return what is to be folded, or why it cannot be."""

    def used_once(value: Any) -> bool:
        return sum(user in reachable for user in value.users) == 1

    arguments: Any = node.args
    source, own = arguments[0], arguments[1:5]
    if called_name(node) not in _EPS_POSITION and arguments[5]:
        return "it normalises by the statistics of each batch"
    if not all(isinstance(value, fx.Node) and value in names for value in own):
        return "it has no gain and bias of its own"
    if not all(used_once(value) for value in own):
        return "its gain or bias is used elsewhere as well"
    if not isinstance(source, fx.Node) or called_name(source) not in ("convolution", "addmm", "mm"):
        return "what comes before it is no convolution or linear layer"
    if not used_once(source):
        return "the output of the layer before it is used elsewhere as well"
    inputs: Any = source.args
    if called_name(source) == "convolution":
        weight, bias = inputs[1], inputs[2]
        transposed, groups = bool(inputs[6]), int(inputs[8])
    else:
        turned, bias = (inputs[1], None) if called_name(source) == "mm" else (inputs[2], inputs[0])
        if called_name(turned) not in ("t", "transpose", "permute") or not used_once(turned):
            return "the layer before it is no linear layer of its own"
        weight, transposed, groups = turned.args[0], False, 1
    for value in (weight, bias):
        if value is not None and (value not in names or not used_once(value)):
            return "the layer before it shares its weight"
    eps = float(arguments[_EPS_POSITION.get(called_name(node), 7)])
    return _Parts(
        names[weight],
        None if bias is None else names[bias],
        transposed,
        groups,
        names[own[0]],
        names[own[1]],
        names[own[2]],
        names[own[3]],
        eps,
    )


@torch.no_grad()
def _fold(module: nn.Module, parts: _Parts) -> None:
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    weight, gain, shift = (tensors[name] for name in (parts.weight, parts.gain, parts.shift))
    mean, variance = tensors[parts.mean], tensors[parts.variance]
    sigma = (variance.double() + parts.eps).sqrt()
    centre = mean.double().clone()
    variance.fill_(1 - parts.eps)
    # What the rounded variance divides by is put into the weight.
    rest = (variance.double() + parts.eps).sqrt()
    scale = gain.double() / sigma * rest
    mean.zero_()
    beta = shift.double() - gain.double() / sigma * centre
    spread = weight.double()
    kernel = (1,) * (weight.ndim - 2)
    if parts.transposed:
        per_group = scale.view(parts.groups, 1, -1, *kernel)
        grouped = spread.view(parts.groups, -1, *spread.shape[1:])
        spread = (grouped * per_group).view(spread.shape)
    else:
        spread = spread * scale.view(-1, 1, *kernel)
    weight.copy_(spread)
    gain.fill_(1.0)
    gain.requires_grad_(False)
    if parts.bias is None:
        shift.copy_(beta)
    else:
        bias = tensors[parts.bias]
        bias.copy_(bias.double() * scale + beta * rest)
        shift.zero_()
        shift.requires_grad_(False)
