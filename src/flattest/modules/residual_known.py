r"""The part of a linear layer's second derivative that is known without probing it.

The residual curvature in the result u of a linear layer, :math:`H_u`, is a sum over the nonlinear
nodes behind it. Two terms have a closed form in every row: that of an activation which u enters
itself, and that of the activation one linear layer W further on,

.. math:: K = \mathrm{diag}(c f''(u)) +
    \mathrm{diag}(f') W^\top \mathrm{diag}(c_2 f_2''(u_2)) W \mathrm{diag}(f'),
    \qquad u_2 = W f(u),

with c and :math:`c_2` the gradients that arrive behind the activations. Their diagonals take one
product with the squared weights. Where they are all there is, which the walk of `linearity` proves,
they are the trace; elsewhere a probe v is compared with what it says of K, of which the trace is
known: :math:`v^\top (H_u - K) v + \mathrm{tr} K` has the mean of :math:`v^\top H_u v` and lacks
the noise of K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from flattest.modules.linearity import Node, curved, topological
from flattest.modules.linearity_rules import kind_of
from flattest.modules.residual_uses import LinearUse, Use

_VIEWS = {"Alias", "ReshapeAlias", "UnsafeView", "View"}  # that keep entries in their order
# Functions of single entries, the same for all.
_PIECES = {
    *("Abs", "Clamp", "ClampMax", "ClampMin", "Hardshrink", "Hardsigmoid", "Hardtanh"),
    *("LeakyRelu", "Relu", "Softshrink", "Threshold"),
}
_SMOOTH = {
    *(
        "Celu",
        "Elu",
        "Exp",
        "Gelu",
        "Hardswish",
        "Log",
        "LogSigmoid",
        "Mish",
        "Pow",
        "Rsqrt",
        "Sigmoid",
    ),
    *("Silu", "Softplus", "Sqrt", "Tanh"),
}


class Ahead(NamedTuple):
    """The curvature of an activation behind the next linear layer.

    Parameters
    ----------
    slope : Tensor of shape (rows, o)
        The first derivative of the activation between the two layers.
    weight : Tensor of shape (o_2, o)
        The next layer's.
    bend : Tensor of shape (rows, o_2)
        The second derivative behind it, times the gradient that arrives.
    """

    slope: Float[Tensor, "rows o"]
    weight: Float[Tensor, "o_2 o"]
    bend: Float[Tensor, "rows o_2"]


@dataclass(frozen=True)
class Known:
    """The known part of a second derivative, one block per row.

    Parameters
    ----------
    own : Tensor of shape (rows, o)
        The diagonal from u's own activations.
    ahead : tuple of Ahead
        The terms from the next layers.
    complete : bool
        Whether it is proved that there is nothing else.
    """

    own: Float[Tensor, "rows o"]
    ahead: tuple[Ahead, ...]
    complete: bool

    def diagonal(self) -> Float[Tensor, "rows o"]:
        """Return the diagonal, in float64."""
        total = self.own.double()
        for slope, weight, bend in self.ahead:
            total = total + slope.double() ** 2 * (bend.double() @ weight.double() ** 2)
        return total

    def product(self, tangent: Float[Tensor, "rows o"]) -> Float[Tensor, "rows o"]:
        """Return the product with a tangent."""
        total = self.own * tangent
        for slope, weight, bend in self.ahead:
            total = total + slope * ((bend * ((slope * tangent) @ weight.mT)) @ weight)
        return total


class _Next(NamedTuple):
    """A linear layer that takes an activation's result, and the activations behind it."""

    node: Node
    slot: int
    weight: Float[Tensor, "o_2 o"]
    activations: list[Node]


class _Derivatives(NamedTuple):
    """Of an activation, entry by entry: the first, and the second times what arrives."""

    first: Float[Tensor, "rows o"]
    bend: Float[Tensor, "rows o"]


def known_curvatures(
    outputs: Tensor, cotangent: Tensor, uses: Sequence[Use]
) -> list[tuple[Use, Known | None]]:
    """Find what is known of the second derivatives in the results of uses.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, with their graph.
    cotangent : Tensor
        The gradient of the loss in them.
    uses : sequence of Use
        The operations.

    Returns
    -------
    list of (Use, Known or None)
        One per use; None where nothing is known.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_graph import find_uses
    >>> from flattest.modules.residual_known import known_curvatures
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> outputs = layer(torch.tensor([[1.0], [2.0]])) ** 2
    >>> uses = find_uses(outputs, dict(layer.named_parameters()))
    >>> ((_, known),) = known_curvatures(outputs, torch.ones_like(outputs), uses)
    >>> known.diagonal().flatten().tolist(), known.complete
    ([2.0, 2.0], True)
    """
    layers = [use.node for use in uses if isinstance(use, LinearUse)]
    if not layers:
        return [(use, None) for use in uses]
    consumers = _consumers(outputs.grad_fn)
    behind = {
        layer: {node: _next_layers(consumers, node) for node in _activations(consumers, layer)}
        for layer in layers
    }
    # Each activation with the node that its argument comes from.
    sources = {node: layer for layer in layers for node in behind[layer]}
    for following in behind.values():
        for entry in (entry for found in following.values() for entry in found):
            sources |= dict.fromkeys(entry.activations, entry.node)
    derivatives = _derivatives(outputs, cotangent, sources)
    complete = _complete(outputs, behind, derivatives)
    known = {
        layer: _known(following, derivatives, layer in complete)
        for layer, following in behind.items()
    }
    return [(use, known.get(use.node)) for use in uses]


def _known(
    following: Mapping[Node, list[_Next]],
    derivatives: Mapping[Node, _Derivatives],
    complete: bool,
) -> Known | None:
    """Put the terms of one layer's activations together."""
    own, terms = None, []
    for node in following:
        if node not in derivatives:
            continue
        first, bend = derivatives[node]
        own = bend if own is None else own + bend
        terms += [
            Ahead(first, entry.weight, derivatives[other].bend)
            for entry in following[node]
            for other in entry.activations
            if other in derivatives
        ]
    return None if own is None else Known(own, tuple(terms), complete)


def _consumers(root: Node) -> dict[Node, list[tuple[Node, int]]]:
    """Return where the result of each node goes."""
    found: dict[Node, list[tuple[Node, int]]] = {}
    for node in topological(root):
        for slot, (source, _) in enumerate(node.next_functions):
            if source is not None:
                found.setdefault(source, []).append((node, slot))
    return found


def _behind_views(
    consumers: Mapping[Node, list[tuple[Node, int]]], node: Node
) -> Iterator[tuple[Node, int]]:
    """Yield what takes the result of a node, or a view of it with its entries in their order."""
    for consumer, slot in consumers.get(node, ()):
        if kind_of(consumer) in _VIEWS:
            yield from _behind_views(consumers, consumer)
        else:
            yield consumer, slot


def _activations(consumers: Mapping[Node, list[tuple[Node, int]]], node: Node) -> list[Node]:
    """Return the functions of single entries that take a node's result."""
    shape = node._input_metadata[0].shape
    return [
        consumer
        for consumer, _ in _behind_views(consumers, node)
        if kind_of(consumer) in _PIECES | _SMOOTH
        and len(consumer.next_functions) == 1
        and _same_rows(consumer._input_metadata[0].shape, shape)
    ]


def _next_layers(consumers: Mapping[Node, list[tuple[Node, int]]], activation: Node) -> list[_Next]:
    """Return the linear layers that take an activation's result, row by row."""
    found = []
    shape = activation._input_metadata[0].shape
    for node, slot in _behind_views(consumers, activation):
        kind = kind_of(node)
        if (kind == "Addmm" and slot == 1 and node._saved_alpha == 1) or (
            kind == "Mm" and slot == 0
        ):
            weight = node._saved_mat2.detach().mT
            rows = node._input_metadata[0].shape[0]
            if _same_rows(shape, (rows, weight.shape[1])):
                found.append(_Next(node, slot, weight, _activations(consumers, node)))
    return found


def _same_rows(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Tell whether tensors of two shapes are the same matrix, when seen as rows."""
    same_width = len(shape) > 0 and shape[-1] == other[-1]
    return bool(same_width and math.prod(shape) == math.prod(other))


def _derivatives(
    outputs: Tensor, cotangent: Tensor, sources: Mapping[Node, Node]
) -> dict[Node, _Derivatives]:
    """Differentiate activations twice, which is quick as each entry depends on one entry only."""
    if not sources:
        return {}
    edges = [GradientEdge(node, 0) for node in sources]
    arriving: tuple[Tensor | None, ...] = torch.autograd.grad(
        outputs, edges, cotangent, retain_graph=True, allow_unused=True
    )
    found = {}
    for (node, source), edge, gradient in zip(sources.items(), edges, arriving, strict=True):
        if gradient is None:
            continue
        point = GradientEdge(source, 0)
        ones = torch.ones_like(gradient)
        (first,) = torch.autograd.grad([edge], [point], [ones], retain_graph=True)
        bend = torch.zeros_like(first)
        if kind_of(node) in _SMOOTH:
            second = _second(edge, point, gradient.detach())
            if second is None:
                continue
            bend = second
        found[node] = _Derivatives(first.detach(), bend.detach())
    return found


def _second(edge: GradientEdge, point: GradientEdge, gradient: Tensor) -> Tensor | None:
    """Return the second derivatives times what arrives; None where autograd has no way there."""
    (slopes,) = torch.autograd.grad([edge], [point], [gradient], create_graph=True)
    if not slopes.requires_grad:
        return None
    (second,) = torch.autograd.grad(
        slopes, [point], torch.ones_like(slopes), retain_graph=True, allow_unused=True
    )
    return second


def _complete(
    outputs: Tensor,
    behind: Mapping[Node, Mapping[Node, list[_Next]]],
    derivatives: Mapping[Node, _Derivatives],
) -> set[Node]:
    """Return the layers behind whose results nothing else is curved."""
    bits = {layer: 1 << number for number, layer in enumerate(behind)}
    covered: dict[Node, int] = {}
    for layer, following in behind.items():
        for node, entries in following.items():
            known = [node]
            for entry in entries:
                # If the next layer added what depends on u too, its own slope would be another.
                known += entry.activations if _adds_constants(entry, layer) else []
            for one in known:
                if one in derivatives:
                    covered[one] = covered.get(one, 0) | bits[layer]
    left = curved(outputs.grad_fn, bits, covered)
    return {layer for layer, bit in bits.items() if not left & bit}


def _adds_constants(entry: _Next, layer: Node) -> bool:
    """Tell whether all but one of a layer's arguments are independent of a node."""
    others = [
        source
        for slot, (source, _) in enumerate(entry.node.next_functions)
        if slot != entry.slot and source is not None
    ]
    return all(node is not layer for source in others for node in topological(source))
