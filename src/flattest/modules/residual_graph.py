"""Reading off an autograd graph which operation each parameter tensor enters.

A tensor is followed through views of it that hold each of its entries at most once. What it enters
after them decides whether it has a use with quiet probes; the uses are in `residual_uses`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flattest.modules.linearity import Node, topological
from flattest.modules.linearity_rules import kind_of
from flattest.modules.residual_uses import (
    ConvolutionUse,
    EmbeddingUse,
    EntrywiseUse,
    LinearUse,
    Use,
)

_VIEWS = {
    *("Alias", "Permute", "ReshapeAlias", "Select", "Slice", "Squeeze", "T", "Transpose"),
    *("Unsqueeze", "View"),
}


class Entry(NamedTuple):
    """Where a tensor enters: the operation, as which argument, and in what shape."""

    node: Node
    slot: int
    shape: tuple[int, ...]


class _Graph:
    """Where the tensors of interest enter a graph."""

    def __init__(self, root: Node, tensors: Mapping[str, Tensor]) -> None:
        self.place: dict[Node, int] = {}
        self._consumers: dict[Node, list[tuple[Node, int]]] = {}
        leaves: dict[int, Node] = {}
        for place, node in enumerate(topological(root)):
            self.place[node] = place
            if hasattr(node, "variable"):
                leaves[id(node.variable)] = node
            for slot, (source, _) in enumerate(node.next_functions):
                if source is not None:
                    self._consumers.setdefault(source, []).append((node, slot))
        self.entries = {
            name: entry
            for name, tensor in tensors.items()
            if (entry := self._enters(leaves.get(id(tensor)), tuple(tensor.shape)))
        }

    def _enters(self, node: Node, shape: tuple[int, ...]) -> Entry | None:
        """Return the one operation that a tensor enters."""
        while len(found := self._consumers.get(node, [])) == 1:
            consumer, slot = found[0]
            if kind_of(consumer) not in _VIEWS and not _is_selection(consumer):
                return Entry(consumer, slot, shape)
            node, shape = consumer, tuple(consumer._input_metadata[0].shape)
        return None

    def name_at(self, node: Node, slot: int, ndim: int = 1) -> str | None:
        """Return the name of the tensor that enters a node as an argument, if it is wanted."""
        return next(
            (
                name
                for name, entry in self.entries.items()
                if entry[:2] == (node, slot) and len(entry.shape) == ndim
            ),
            None,
        )


def find_uses(outputs: Tensor, tensors: Mapping[str, Tensor]) -> list[Use]:
    """Return the operations that one or two of the tensors enter, and that they enter alone.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, with their graph.
    tensors : mapping of str to Tensor
        The parameter tensors of interest, by name; two names must not share a tensor.

    Returns
    -------
    list of Use
        Each name at most once, in the order of the network. Tensors that enter several operations,
        or one of another kind, are in none.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_graph import find_uses
    >>> layer = torch.nn.Linear(2, 3)
    >>> outputs = layer(torch.ones(4, 2)).tanh()
    >>> [use.names for use in find_uses(outputs, dict(layer.named_parameters()))]
    [('weight', 'bias')]
    """
    graph = _Graph(outputs.grad_fn, tensors)
    uses: dict[str, Use] = {}
    with torch.no_grad():
        # Weights first: they take the bias that enters the same operation with them.
        for name in sorted(graph.entries, key=lambda name: -len(graph.entries[name].shape)):
            use = None if name in uses else _use(graph, name, graph.entries[name])
            if use is not None:
                uses |= dict.fromkeys(use.names, use)
    found = {id(use): use for use in uses.values()}
    return sorted(found.values(), key=lambda use: graph.place[use.node])


def _use(graph: _Graph, name: str, entry: Entry) -> Use | None:
    """Return the use of a tensor in an operation, if that is of a kind with quiet probes."""
    node, slot, shape = entry
    kind = kind_of(node)
    if kind == "Mm" and slot == 1:
        return LinearUse(node, (name,), node._saved_self.detach())
    if kind == "Addmm" and slot == 2 and node._saved_alpha == node._saved_beta == 1:
        names = _with(name, graph.name_at(node, 0))
        return LinearUse(node, names, node._saved_mat1.detach())
    if kind == "Convolution" and slot == 1:
        names = _with(name, graph.name_at(node, 2))
        return ConvolutionUse(node, names, node._saved_input.detach(), shape)
    if kind == "Embedding" and not (node._saved_scale_grad_by_freq or node._saved_sparse):
        return EmbeddingUse(node, (name,), node._saved_indices, node._saved_padding_idx)
    if kind in ("NativeLayerNorm", "NativeBatchNorm") and slot in (1, 2):
        return _norm(graph, name, entry)
    return _entrywise(name, entry)


def _norm(graph: _Graph, name: str, entry: Entry) -> Use | None:
    """Return the use of a norm's gain and bias, of which the gain scales the normed input."""
    node, slot, shape = entry
    ndim = len(node._input_metadata[0].shape)
    x = node._saved_input
    if kind_of(node) == "NativeLayerNorm":
        normed = (x - node._saved_result1) * node._saved_result2
    elif node._saved_training:
        return None
    else:
        shape = _over_channels(shape, ndim)
        mean, variance = (
            statistic.reshape(_over_channels(statistic.shape, ndim))
            for statistic in (node._saved_running_mean, node._saved_running_var)
        )
        normed = (x - mean) / (variance + node._saved_eps).sqrt()
    names = _with(name, graph.name_at(node, 3 - slot, len(entry.shape)))
    factors = {1: normed, 2: None}
    order = (slot, 3 - slot)[: len(names)]
    full = (1,) * (ndim - len(shape)) + shape
    return EntrywiseUse(node, names, tuple(factors[at] for at in order), (full,) * len(names))


def _entrywise(name: str, entry: Entry) -> Use | None:
    """Return the use of a tensor that is added, or multiplied entry by entry."""
    node, slot, shape = entry
    kind = kind_of(node)
    result = tuple(node._input_metadata[0].shape)
    factor = None
    if kind == "Mul":
        factor = (node._saved_other if slot == 0 else node._saved_self).detach().expand(result)
    elif kind == "Convolution" and slot == 2:
        shape = _over_channels(shape, len(result))
    elif not (
        (kind == "Add" and (slot == 0 or node._saved_alpha == 1))
        or (kind == "Addmm" and slot == 0 and node._saved_beta == 1)
    ):
        return None
    if not len(shape) <= len(result) > 0:
        return None
    return EntrywiseUse(node, (name,), (factor,), ((1,) * (len(result) - len(shape)) + shape,))


def _with(name: str, partner: str | None) -> tuple[str, ...]:
    return (name,) if partner is None else (name, partner)


def _over_channels(shape: Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return the shape that broadcasts one number per channel over (n, channels, ...)."""
    return (1, *shape, *(1,) * (ndim - 2))


def _is_selection(node: Node) -> bool:
    """Tell whether a node looks up different rows, the same for all samples: positions."""
    if kind_of(node) != "Embedding":
        return False
    indices = node._saved_indices
    alike = indices.ndim == 1 or (indices.ndim == 2 and len(indices) == 1)
    different = alike and len(indices.unique()) == indices.numel()
    return bool(different and not (indices == node._saved_padding_idx).any())
