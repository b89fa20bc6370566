"""Linear layers with activations between them, read off an autograd graph.

A layer's result may go into functions of single entries, whose results go into further layers, row
by row: these are its chain. Of each such function the first and second derivatives are one number
per entry. `residual_known` and `residual_recursion` make second derivatives of whole chains of
them; `Chains.complete` proves where these are all the curvature that there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from flattest.modules.linearity import Node, curved, topological
from flattest.modules.linearity_rules import kind_of

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


class Next(NamedTuple):
    """A linear layer that takes an activation's result, row by row.

    Parameters
    ----------
    node : torch.autograd.graph.Node
        The layer's product.
    slot : int
        As which of its arguments it takes the result.
    weight : Tensor of shape (o_2, o)
        Its weight.
    """

    node: Node
    slot: int
    weight: Float[Tensor, "o_2 o"]


class Derivatives(NamedTuple):
    """The derivatives of an activation, entry by entry.

    Parameters
    ----------
    first : Tensor of shape (rows, o)
        The first ones.
    bend : Tensor of shape (rows, o)
        The second ones, times the gradient that arrives.
    """

    first: Float[Tensor, "rows o"]
    bend: Float[Tensor, "rows o"]


class Chains:
    """What follows linear layers: their activations, and the layers that these lead to.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, with their graph.
    cotangent : Tensor
        The gradient of the loss in them.
    layers : sequence of Node
        The products of the layers to begin with; all that follow them are taken too.

    Attributes
    ----------
    following : dict
        From the node of a layer to its activations, and from each of these to the layers behind.
    derivatives : dict
        From the node of an activation to its derivatives, where a gradient arrives and PyTorch has
        the second one.
    place : dict of Node to int
        The order of the network.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_chains import Chains
    >>> layer = torch.nn.Linear(1, 1)
    >>> outputs = layer(torch.ones(3, 1)) ** 2
    >>> node = outputs.grad_fn.next_functions[0][0]
    >>> chains = Chains(outputs, torch.ones_like(outputs), [node])
    >>> [derivatives.bend.shape for derivatives in chains.derivatives.values()]
    [torch.Size([3, 1])]
    >>> chains.complete() == {node}
    True
    """

    def __init__(self, outputs: Tensor, cotangent: Tensor, layers: Sequence[Node]) -> None:
        self._root = outputs.grad_fn
        self.place = {node: place for place, node in enumerate(topological(self._root))}
        consumers: dict[Node, list[tuple[Node, int]]] = {}
        for node in self.place:
            for slot, (source, _) in enumerate(node.next_functions):
                if source is not None:
                    consumers.setdefault(source, []).append((node, slot))
        self._layers = list(layers)
        self.following: dict[Node, dict[Node, list[Next]]] = {}
        left = list(layers)
        while left:
            layer = left.pop()
            if layer not in self.following:
                found = {n: _next_layers(consumers, n) for n in _activations(consumers, layer)}
                self.following[layer] = found
                left += [entry.node for entries in found.values() for entry in entries]
        # Each activation with the node that its argument comes from.
        sources = {node: layer for layer, found in self.following.items() for node in found}
        self.derivatives = _derivatives(outputs, cotangent, sources)

    def complete(self, depth: float | int = math.inf) -> set[Node]:
        """Return the layers behind whose results no curvature is left out.

        Parameters
        ----------
        depth : int
            How many activations of a chain count, one behind the other.

        Returns
        -------
        set of Node
            Those of which it is proved.
        """
        bits = {layer: 1 << number for number, layer in enumerate(self._layers)}
        covered: dict[Node, int] = {}
        for layer, bit in bits.items():
            for node in self._reached(layer, depth):
                covered[node] = covered.get(node, 0) | bit
        left = curved(self._root, bits, covered)
        return {layer for layer, bit in bits.items() if not left & bit}

    def _reached(self, layer: Node, depth: float | int) -> Iterator[Node]:
        """Yield the activations of a layer's chain whose argument has no other part of it."""
        left = [(layer, depth)]
        while left:
            current, remaining = left.pop()
            for node, entries in self.following[current].items():
                if remaining < 1 or node not in self.derivatives:
                    continue
                yield node
                # If the next layer added what depends on the first too, its own slope would be
                # another.
                left += [(e.node, remaining - 1) for e in entries if _adds_constants(e, layer)]


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


def _next_layers(consumers: Mapping[Node, list[tuple[Node, int]]], activation: Node) -> list[Next]:
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
                found.append(Next(node, slot, weight))
    return found


def _same_rows(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Tell whether tensors of two shapes are the same matrix, when seen as rows."""
    same_width = len(shape) > 0 and shape[-1] == other[-1]
    return bool(same_width and math.prod(shape) == math.prod(other))


def _derivatives(
    outputs: Tensor, cotangent: Tensor, sources: Mapping[Node, Node]
) -> dict[Node, Derivatives]:
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
        found[node] = Derivatives(first.detach(), bend.detach())
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


def _adds_constants(entry: Next, layer: Node) -> bool:
    """Tell whether all but one of a layer's arguments are independent of a node."""
    others = [
        source
        for slot, (source, _) in enumerate(entry.node.next_functions)
        if slot != entry.slot and source is not None
    ]
    return all(node is not layer for source in others for node in topological(source))
