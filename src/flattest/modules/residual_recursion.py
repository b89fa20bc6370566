r"""Second derivatives behind chains of linear layers of any length, exactly, row by row.

From the last layer of a chain to the first, with the gradients c that arrive behind activations f,

.. math:: H_u = \mathrm{diag}(c f''(u)) + \sum_v \mathrm{diag}(f') W_v^\top H_v W_v
    \mathrm{diag}(f'), \qquad v = W_v f(u),

one matrix per row of data and layer (Dangel, Harmeling and Hennig 2020 use the like). For a width
of w that is about as much work as w / 3 double backward passes, for all layers together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.linearity import Node
from flattest.modules.residual_chains import Chains, Next

_ENTRIES = 1 << 20  # of the matrices of one layer that are held together
_PASSES = 6  # products of a layer's size in a double backward pass


class _Form(NamedTuple):
    """Symmetric matrices, one per row: a diagonal and the rest, if there is any."""

    own: Float[Tensor, "rows o"]
    rest: Float[Tensor, "rows o o"] | None

    def product(self, right: Float[Tensor, "rows o k"]) -> Float[Tensor, "rows o k"]:
        """Multiply with other matrices."""
        total = self.own[..., None] * right
        return total if self.rest is None else torch.baddbmm(total, self.rest, right)


def worth(chains: Chains, layers: Sequence[Node]) -> float:
    """Return how many double backward passes through the chains are as much work.

    Parameters
    ----------
    chains : Chains
        What follows the layers.
    layers : sequence of Node
        Those whose diagonals are wanted.

    Returns
    -------
    float
        The number.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_chains import Chains
    >>> from flattest.modules.residual_recursion import worth
    >>> first, second = torch.nn.Linear(2, 12), torch.nn.Linear(12, 12)
    >>> u = first(torch.ones(5, 2))
    >>> outputs = second(u.tanh()).tanh()
    >>> worth(Chains(outputs, torch.ones_like(outputs), [u.grad_fn]), [u.grad_fn])
    2.0
    """
    order = _order(chains, layers)
    inner = {entry.node for node in order for _, entry in _entries(chains, node)}
    work = size = 0
    for node in order:
        for _, (_, _, weight) in _entries(chains, node):
            outputs, inputs = weight.shape
            size += outputs * inputs
            work += outputs * inputs * (outputs + (inputs if node in inner else 0))
    return work / (_PASSES * size) if size else 0.0


def diagonals(chains: Chains, layers: Sequence[Node]) -> dict[Node, Float[Tensor, "rows o"]]:
    """Return the diagonals of the second derivatives in the results of layers, in float64.

    Parameters
    ----------
    chains : Chains
        What follows the layers.
    layers : sequence of Node
        The layers.

    Returns
    -------
    dict of Node to Tensor of shape (rows, o)
        By layer.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_chains import Chains
    >>> from flattest.modules.residual_recursion import diagonals
    >>> layers = [torch.nn.Linear(1, 1) for _ in range(3)]
    >>> for layer in layers:
    ...     _ = torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
    >>> first = u = layers[0](torch.ones(1, 1))
    >>> for layer in layers[1:]:
    ...     u = layer(u**2)
    >>> outputs = u**2  # the eighth power
    >>> chains = Chains(outputs, torch.ones(1, 1), [first.grad_fn])
    >>> diagonals(chains, [first.grad_fn])[first.grad_fn].item()
    56.0
    """
    found: dict[Node, Tensor] = {}
    by_rows: dict[int, list[Node]] = {}
    for layer in layers:
        by_rows.setdefault(layer._input_metadata[0].shape[0], []).append(layer)
    for rows, some in by_rows.items():
        order = _order(chains, some)
        widest = max(node._input_metadata[0].shape[-1] for node in order)
        step = max(1, _ENTRIES // widest**2)
        parts = [
            _of_rows(chains, order, some, slice(start, start + step))
            for start in range(0, rows, step)
        ]
        found |= {layer: torch.cat([part[layer] for part in parts]) for layer in some}
    return found


def _of_rows(
    chains: Chains, order: Sequence[Node], wanted: Sequence[Node], rows: slice
) -> dict[Node, Float[Tensor, "rows o"]]:
    """Return the diagonals of some rows, by one way back through the layers."""
    inner = {entry.node for node in order for _, entry in _entries(chains, node)}
    forms: dict[Node, _Form] = {}
    found = {}
    for layer in order:
        own: Tensor | None = None
        rest: Tensor | None = None
        beyond: Tensor | None = None
        for node in chains.following[layer]:
            if node in chains.derivatives:
                bend = chains.derivatives[node].bend[rows]
                own = bend if own is None else own + bend
        for slope, entry in _entries(chains, layer):
            if entry.node not in forms:
                continue
            moved = entry.weight * slope[rows, None, :]
            product = forms[entry.node].product(moved)
            diagonal = (moved.double() * product).sum(dim=1)
            beyond = diagonal if beyond is None else beyond + diagonal
            if layer in inner:
                term = moved.mT @ product
                rest = term if rest is None else rest + term
        if own is not None:
            forms[layer] = _Form(own, rest)
            found[layer] = own.double() if beyond is None else own.double() + beyond
    return {layer: found[layer] for layer in wanted}


def _entries(chains: Chains, layer: Node) -> Iterator[tuple[Float[Tensor, "rows o"], Next]]:
    """Yield the layers behind a layer, each with the slope of the activation between the two."""
    for node, entries in chains.following[layer].items():
        if node in chains.derivatives:
            for entry in entries:
                yield chains.derivatives[node].first, entry


def _order(chains: Chains, layers: Sequence[Node]) -> list[Node]:
    """Return layers and all that follow them, the last first."""
    found: set[Node] = set()
    left = list(layers)
    while left:
        node = left.pop()
        if node not in found:
            found.add(node)
            left += [entry.node for _, entry in _entries(chains, node)]
    return sorted(found, key=lambda node: -chains.place[node])
