"""The autograd graph of a module's outputs: where each parameter enters it.

A *use* is an edge from a node that works on data into one that does not: into the parameter itself,
a view of it, or something computed from parameters alone, such as a normalised weight. Two ways of
drawing that line are of use. *Near* to the parameters only views count as parameters; *far* from
them everything does that no data reach. Uses do not depend on modules: functional calls, slices of
weights and shared modules are found alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

Frontier = Literal["near", "far"]

_VIEWS = {
    f"{name}Backward{number}"
    for name in (
        *("Alias", "AsStrided", "Clone", "Permute", "ReshapeAlias", "Select", "Slice", "Split"),
        *("SplitWithSizes", "Squeeze", "T", "ToCopy", "Transpose", "Unbind", "UnsafeSplit"),
        *("UnsafeView", "Unsqueeze", "View"),
    )
    for number in range(3)
}
# Data enter through the indices or the sizes of these, which the graph does not show.
_DATA_WITHOUT_EDGE = {
    f"{name}Backward{number}"
    for name in ("Embedding", "EmbeddingBag", "Expand", "Gather", "Index", "IndexSelect", "Repeat")
    for number in range(2)
}


# Whose effect on the order of samples depends on values, not on shapes.
_BY_VALUE = ("Gather", "Index", "Masked", "PackPadded", "Scatter", "Sort", "Take", "Topk")


@dataclass(frozen=True)
class Use:
    """One edge at which a parameter, or what derives from it, meets data.

    Parameters
    ----------
    node : autograd node
        The node that works on data.
    slot : int
        Which of its inputs.
    source : autograd node
        The node that the edge leads to.
    output : int
        Which of its outputs.
    """

    node: Any
    slot: int
    source: Any
    output: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is used."""
        variable = getattr(self.source, "variable", None)
        if variable is not None:
            return tuple(variable.shape)
        return tuple(self.source._input_metadata[self.output].shape)

    @property
    def signature(self) -> tuple[Any, ...]:
        """What has to be equal for the same rule to be right again."""
        outputs = tuple(tuple(entry.shape) for entry in self.node._input_metadata)
        return self.node.name(), self.slot, self.source.name(), self.shape, outputs

    def pull_back(self, parameter: Tensor, gradients: Tensor) -> Tensor:
        """Return gradients by the parameter from gradients by what is used.

        Parameters
        ----------
        parameter : Tensor
            The parameter.
        gradients : Tensor of shape (b, *shape)
            A batch of them.

        Returns
        -------
        Tensor of shape (b, *parameter.shape)
            Likewise.
        """
        if getattr(self.source, "variable", None) is parameter:
            return gradients
        edge = GradientEdge(self.source, self.output)
        (result,) = torch.autograd.grad(
            [edge], [parameter], [gradients], retain_graph=True, is_grads_batched=True
        )
        return result


class Graph:
    """The nodes behind some outputs.

    Parameters
    ----------
    outputs : Tensor
        With their graph.
    parameters : sequence of Tensor
        The parameters that are measured.
    data : sequence of Tensor
        Leaves that are data.
    """

    def __init__(self, outputs: Tensor, parameters: list[Tensor], data: list[Tensor]) -> None:
        self.outputs = outputs
        self._numbers = {id(parameter): i for i, parameter in enumerate(parameters)}
        self.data = data
        self.order = list(_from_the_leaves(outputs.grad_fn))
        self._reached = self._parameters_below()
        self.names = {node.name() for node in self.order}

    def reached(self) -> set[int]:
        """Return the numbers of the parameters that the outputs depend on."""
        return set(self._reached.get(self.outputs.grad_fn, frozenset()))

    def depends_on_values(self) -> bool:
        """Tell whether values may reorder or route samples, so that no two graphs are alike."""
        return any(name.startswith(_BY_VALUE) for name in self.names)

    def has_low_precision(self) -> bool:
        """Tell whether anything in between is kept in half precision."""
        return any(
            entry.dtype in (torch.float16, torch.bfloat16)
            for node in self.order
            if not hasattr(node, "variable")
            for entry in node._input_metadata
        )

    def uses(self, frontier: Frontier) -> dict[int, list[Use]]:
        """List the uses of each parameter.

        Parameters
        ----------
        frontier : {"near", "far"}
            Where parameters end and data begin.

        Returns
        -------
        dict of int to list of Use
            By the parameter's number.
        """
        inside = self._views() if frontier == "near" else self._without_data()
        found: dict[int, list[Use]] = {}
        for node in self.order:
            if node in inside:
                continue
            for slot, (source, output) in enumerate(node.next_functions):
                if source in inside:
                    for number in sorted(self._reached[source]):
                        found.setdefault(number, []).append(Use(node, slot, source, output))
        return found

    def _parameters_below(self) -> dict[Any, frozenset[int]]:
        below: dict[Any, frozenset[int]] = {}
        nothing: frozenset[int] = frozenset()
        for node in self.order:
            variable = getattr(node, "variable", None)
            if variable is not None:
                number = self._numbers.get(id(variable))
                below[node] = nothing if number is None else frozenset({number})
                continue
            sets = {below[child] for child, _ in node.next_functions if child is not None}
            below[node] = next(iter(sets)) if len(sets) == 1 else nothing.union(*sets)
        return below

    def _is_parameter(self, node: Any) -> bool:
        return id(getattr(node, "variable", None)) in self._numbers

    def _views(self) -> set[Any]:
        """Collect parameters and their views."""
        inside: set[Any] = set()
        for node in self.order:
            is_view = node.name() in _VIEWS and node.next_functions[0][0] in inside
            if self._is_parameter(node) or is_view:
                inside.add(node)
        return inside

    def _without_data(self) -> set[Any]:
        """Collect what is computed from parameters alone, as far as the graph shows."""
        inside: set[Any] = set()
        for node in self.order:
            children = [child for child, _ in getattr(node, "next_functions", ()) if child]
            if self._is_parameter(node) or (
                children
                and node.name() not in _DATA_WITHOUT_EDGE
                and all(child in inside for child in children)
            ):
                inside.add(node)
        return inside


def permutation(use: Use, parameter: Tensor) -> Tensor | None:
    """Return where each entry of a parameter is in a view of it; None if the use is no view.

    Parameters
    ----------
    use : Use
        The use of the view.
    parameter : Tensor
        The parameter.

    Returns
    -------
    Tensor of int, of the parameter's shape, or None
        The number of the entry in the view, or -1 for entries that are not in it.
    """
    size = math.prod(use.shape)
    numbers = torch.arange(1, size + 1, device=parameter.device)
    # In two parts, each of which a float32 holds exactly.
    base = 1 << 12
    parts = torch.stack([numbers % base, numbers // base]).to(parameter.dtype)
    low, high = use.pull_back(parameter, parts.reshape(2, *use.shape)).round().long()
    index = high * base + low - 1
    counts = torch.bincount(index[index >= 0].flatten().clamp(max=size), minlength=size)
    return index if len(counts) == size and bool((counts == 1).all()) else None


def _from_the_leaves(root: Any) -> Iterator[Any]:
    """Yield every node behind one, each after all that it depends on."""
    done: set[Any] = set()
    stack = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if node in done:
            continue
        if expanded:
            done.add(node)
            yield node
            continue
        stack.append((node, True))
        for child, _ in node.next_functions:
            if child is not None and child not in done:
                stack.append((child, False))
