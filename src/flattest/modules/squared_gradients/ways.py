"""The ways to the squared gradients of one graph: by rules, and sample by sample.

`Way` names one of the ways for one tensor. `by_rules` takes the rules at all uses of the tensors
that are to be taken that way; the cotangents of all nodes come from one batched backward pass, in
which no gradient of a parameter is formed. `sample_by_sample` is plain autograd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from flattest.modules.squared_gradients.forms import Forms
from flattest.modules.squared_gradients.graph import Frontier, Graph, Use
from flattest.modules.squared_gradients.layouts import Layout, Order, Unsupported
from flattest.modules.squared_gradients.one_tensor import Part, part, squares
from flattest.modules.squared_gradients.rules import ARRIVALS, RULES, Arrival


class Way(NamedTuple):
    """How the squared gradients of one tensor are computed.

    Parameters
    ----------
    batched : bool
        Whether one backward pass takes all columns together.
    frontier : {"near", "far"} or None
        The uses that rules are applied to; None goes sample by sample.
    order : {"samples first", "samples second"}
        How the rules find the samples.
    """

    batched: bool
    frontier: Frontier | None
    order: Order = "samples first"


RULED = [
    Way(batched, frontier, order)
    for batched in (True, False)
    for frontier in ("near", "far")
    for order in ("samples first", "samples second")
]
"""All ways by rules, the quickest first."""
_LOOPED = ("ConvolutionBackward0", "CudnnConvolutionBackward0")


def ruled(graph: Graph) -> list[Way]:
    """Return all ways by rules in the order in which they are tried.

    PyTorch has no batching rule for the backward pass of a convolution: it goes column by column,
    and takes columns apart and together at every node. One pass per column does not.

    Parameters
    ----------
    graph : Graph
        Of the outputs.

    Returns
    -------
    list of Way
        The quickest first.
    """
    batched_last = any(name in graph.names for name in _LOOPED)
    return sorted(RULED, key=lambda way: way.batched == batched_last)


SLOW = [Way(True, None), Way(False, None)]
"""Sample by sample; the last way is what all others are compared with."""


def by_rules(
    graph: Graph,
    columns: Float[Tensor, "c n *outputs"],
    signs: Float[Tensor, "c n"],
    parameters: list[Tensor],
    ways: dict[int, Way],
    forms: Mapping[int, Forms] | None = None,
) -> dict[int, Tensor]:
    """Return the squared gradients of the tensors that are taken by rules.

    Parameters
    ----------
    graph : Graph
        Of the outputs for n samples.
    columns : Tensor of shape (c, n, ...)
        Cotangents of the outputs.
    signs : Tensor of shape (c, n)
        Their signs.
    parameters : list of Tensor
        All parameters.
    ways : dict of int to Way
        The way of each tensor wanted.
    forms : mapping of int to Forms, optional
        Where forms of the single gradients by tensors are written.

    Returns
    -------
    dict of int to Tensor
        By number; tensors for which a rule is missing are left out.
    """
    results: dict[int, Tensor] = {}
    frontiers = {way.frontier for way in ways.values() if way.frontier is not None}
    uses = {frontier: graph.uses(frontier) for frontier in frontiers}
    for batched in (True, False):
        wanted = {
            number: uses[way.frontier].get(number, [])
            for number, way in ways.items()
            if way.frontier is not None and way.batched == batched
        }
        wanted = {
            number: found
            for number, found in wanted.items()
            if found and all(use.node.name() in RULES for use in found)
        }
        nodes = list({id(u.node): u.node for found in wanted.values() for u in found}.values())
        if not nodes:
            continue
        cotangents = _cotangents(graph.outputs, nodes, columns, batched)
        if cotangents is None:
            continue
        for number, found in wanted.items():
            way = ways[number]
            layout = Layout(columns.shape[1], way.order)
            try:
                parts = list(_parts(found, cotangents, layout, parameters[number], way))
                if parts:
                    own = None if forms is None else forms.get(number)
                    results[number] = squares(parts, signs, parameters[number], own)
                else:  # no gradient arrives
                    results[number] = torch.zeros_like(parameters[number])
            except (Unsupported, RuntimeError, IndexError):
                # A rule that does not fit the shapes at hand, which is why there are other ways;
                # an error of the model itself would have shown in the backward pass before.
                continue
    return results


def _parts(
    uses: list[Use], cotangents: dict[int, Tensor], layout: Layout, parameter: Tensor, way: Way
) -> Iterable[Part]:
    for use in uses:
        arrived = cotangents.get(id(use.node))
        if arrived is None:
            continue
        contribution = RULES[use.node.name()](use.node, use.slot, arrived, layout, use.shape)
        yield part(contribution, use, parameter, way.frontier == "near")


def _cotangents(
    outputs: Tensor, nodes: list[Any], columns: Tensor, batched: bool
) -> dict[int, Tensor] | None:
    """Return what rules need of the cotangents of nodes, for all columns; None where that fails."""
    edges = [GradientEdge(node, 0) for node in nodes]
    arrivals = [ARRIVALS[node.name()](node) if node.name() in ARRIVALS else None for node in nodes]
    try:
        found = gradients(outputs, edges, columns, batched, arrivals)
    except RuntimeError:
        if batched:  # an operation without a rule for batches
            return None
        raise
    return {
        id(node): values for node, values in zip(nodes, found, strict=True) if values is not None
    }


def gradients(
    outputs: Tensor,
    inputs: list[Any],
    columns: Tensor,
    batched: bool,
    arrivals: Sequence[Arrival | None] | None = None,
) -> list[Tensor | None]:
    """Return gradients for several cotangents, together or one after the other.

    Parameters
    ----------
    outputs : Tensor
        With their graph.
    inputs : list
        Tensors or edges.
    columns : Tensor of shape (c, ...)
        Cotangents of the outputs.
    batched : bool
        Whether to take them together.
    arrivals : sequence of callable or None, optional
        For each input, what is kept of a gradient by it.

    Returns
    -------
    list of Tensor or None
        One of shape (c, ...) for each input, None where no gradient arrives.
    """
    arrivals = [None] * len(inputs) if arrivals is None else arrivals
    if batched:
        together = torch.autograd.grad(
            outputs,
            inputs,
            columns,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        return [
            values
            if values is None or arrival is None
            else torch.stack([arrival(column) for column in values])
            for values, arrival in zip(together, arrivals, strict=True)
        ]
    stacks: list[Tensor | None] = [None] * len(inputs)
    for index, column in enumerate(columns):
        found: tuple[Tensor | None, ...] = torch.autograd.grad(
            outputs, inputs, column, retain_graph=True, allow_unused=True
        )
        for place, (values, arrival) in enumerate(zip(found, arrivals, strict=True)):
            if values is not None:
                kept = values if arrival is None else arrival(values)
                stack = stacks[place]
                if stack is None:
                    stack = stacks[place] = _empty_stack(kept, len(columns))
                    stack[:index] = 0
                stack[index] = kept
            elif (stack := stacks[place]) is not None:
                stack[index] = 0
    return stacks


def _empty_stack(entry: Tensor, length: int) -> Tensor:
    """Return room for several tensors, one per column.

    In memory samples come before columns, as products with each sample's patches need it.
    """
    axis = min(1, entry.ndim)
    shape = [*entry.shape[:axis], length, *entry.shape[axis:]]
    return entry.new_empty(shape).movedim(axis, 0)


def sample_by_sample(
    outputs: Float[Tensor, "1 *outputs"],
    columns: Float[Tensor, "c 1 *outputs"],
    signs: Float[Tensor, " c"],
    parameters: list[Tensor],
    batched: bool,
    forms: Mapping[int, Forms] | None = None,
) -> list[Tensor | None]:
    """Return the squared gradients for one sample, by plain autograd.

    Parameters
    ----------
    outputs : Tensor of shape (1, ...)
        The outputs for the sample alone.
    columns : Tensor of shape (c, 1, ...)
        Cotangents.
    signs : Tensor of shape (c,)
        Their signs.
    parameters : list of Tensor
        The parameters wanted.
    batched : bool
        Whether columns are taken together.
    forms : mapping of int to Forms, optional
        Where forms of the single gradients are written, by the place among the parameters wanted.

    Returns
    -------
    list of Tensor or None
        For each parameter the signed sum of squares over columns; None where no gradient arrives.
    """
    found = gradients(outputs, list(parameters), columns, batched)
    for place, own in ({} if forms is None else forms).items():
        values = found[place]
        if values is not None:
            own.write(values[:, None])
    return [
        None if values is None else torch.einsum("c...,c->...", values**2, signs)
        for values in found
    ]
