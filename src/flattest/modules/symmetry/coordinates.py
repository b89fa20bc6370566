"""Which coordinates pass from one linear map to the next with nothing but linear maps between.

A second walk over the graph. Every output of a product with a weight is a *coordinate*; where a
tensor's entry is a linear image of one coordinate, the same for all of its kind, it carries the
coordinate's number. Where anything else happens to it, the coordinate is blocked. What is left when
the walk ends can be mixed with others that met the same operations: `linear_pairs` sorts that out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import fx

from flattest.modules.symmetry import rearrangement
from flattest.modules.symmetry.coordinate_products import biased, convolved, met, weighted
from flattest.modules.symmetry.coordinate_uses import NONE, Ledger
from flattest.modules.symmetry.labels import Labels, core, frozen
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.propagation import Propagation, called_name, needed, shapes_of
from flattest.modules.symmetry.rules import RULES
from flattest.modules.symmetry.walk import Constant, Step

_KEEPING = {"mul", "div", "view", "_unsafe_view", "clone", "expand", "_to_copy"}
_LINEAR = {"neg", "positive", "alias", "detach", "lift_fresh", "_to_copy", "to"}
_TURNING = {"permute", "transpose", "t", "unsqueeze"}
_SAME_ORDER = {"view", "_unsafe_view", "reshape", "expand", "clone", "_to_copy", "alias", "detach"}
_MOVED = {
    rearrangement.viewed,
    rearrangement.reshaped,
    rearrangement.copied,
    rearrangement.moved,
    rearrangement.joined,
    rearrangement.padded,
}


class Coordinates:
    """The walk; what it found is in `ledger`.

    Parameters
    ----------
    graph : torch.fx.Graph
        The operations.
    found : Propagation
        What is known of the graph's values.
    shapes : dict of str to tuple
        The shapes of the parameters.
    """

    def __init__(
        self, graph: fx.Graph, found: Propagation, shapes: dict[str, tuple[int, ...]]
    ) -> None:
        self._found = found
        self._values: dict[fx.Node, Labels | None] = {}
        self._sum_to_one: dict[fx.Node, int] = {}
        self.ledger = Ledger(shapes)
        reachable = needed(graph)
        for node in graph.nodes:
            if node not in reachable or node.op in ("placeholder", "get_attr"):
                continue
            if node.op == "output":
                self._block(*node.all_input_nodes)
            elif node.op == "call_function" and not isinstance(
                found.values[node], (Raw, Constant, list, tuple)
            ):
                self._values[node] = self._visit(node)
            elif isinstance(found.values[node], (list, tuple)):
                self._values[node] = self._visit_several(node)

    def _visit(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            several = self._of(node.args[0])
            index: Any = node.args[1]
            return several[index] if isinstance(several, (list, tuple)) else None
        name = called_name(node)
        rule = RULES.get(name)
        function = rule.apply if rule else None
        if name in ("mm", "bmm"):
            return self._matmul(node, node.args[0], node.args[1])
        if name in ("addmm", "baddbmm") and not node.kwargs:
            product = self._matmul(node, node.args[1], node.args[2])
            return self._add(node, product, node.args[0])
        if name == "convolution":
            return self._convolution(node)
        if name in ("add", "sub") and not node.kwargs:
            return self._add(node, self._of(node.args[0]), node.args[1], node.args[0])
        if name in ("mul", "div"):
            return self._multiply(node)
        if name in ("mean", "sum") and not node.kwargs:
            return self._reduce(node, name)
        if name == "_softmax" or (name == "_safe_softmax" and self._never_masked(node.args[0])):
            self._note_softmax(node)
        if name in _LINEAR:
            if name == "neg":
                self.ledger.unshift(self._of(node.args[0]))
            self._keep_sum(node)
            return self._of(node.args[0])
        if function in _MOVED:
            self._keep_sum(node)
            return self._move(node, function)
        self._block(*node.all_input_nodes)
        return None

    def _visit_several(self, node: fx.Node) -> Any:
        rule = RULES.get(called_name(node))
        if rule and rule.apply in _MOVED:
            return self._move(node, rule.apply)
        self._block(*node.all_input_nodes)
        return None

    def _of(self, argument: Any) -> Any:
        return self._values.get(argument) if isinstance(argument, fx.Node) else None

    def _block(self, *arguments: Any) -> None:
        for argument in arguments:
            self.ledger.block(self._of(argument))

    def _move(self, node: fx.Node, function: Any) -> Any:
        """Let entries move together with their coordinates."""
        if all(self._of(argument) is None for argument in node.all_input_nodes):
            return None

        def value(argument: Any) -> Any:
            if isinstance(argument, fx.Node):
                labels = self._of(argument)
                return frozen(shapes_of(argument)[0]) if labels is None else labels
            if isinstance(argument, (list, tuple)):
                return [value(part) for part in argument]
            return argument

        step = Step(node.target, "", "", shapes_of(node), False)
        args = [value(argument) for argument in node.args]
        return function(self._found.walk, step, *args, **node.kwargs)

    def _add(self, node: fx.Node, labels: Any, other: Any, first: Any = None) -> Any:
        """Add a bias, another image of the same coordinates, or a rotated one."""
        second = self._of(other)
        if labels is None and second is not None:
            labels, second, first, other = second, None, other, first
        if labels is None:
            return None
        shape = shapes_of(node)[0]
        labels = labels.expand(shape)
        if second is not None:
            one, two = core(labels, second.expand(shape))
            if bool((one != two).any()):
                there = (one > NONE) & (two > NONE)
                if not bool(there.all()):
                    self._block(node.args[0], node.args[1])
                    return None
                self.ledger.pairs.append((one.reshape(-1).numpy(), two.reshape(-1).numpy()))
            self.ledger.unshift(labels)
            return labels
        shifts = called_name(node) != "sub"
        value = self._found.values.get(other) if isinstance(other, fx.Node) else other
        if isinstance(value, Raw) and biased(self.ledger, labels, value, shifts=shifts):
            return labels
        self.ledger.block(labels)
        return None

    def _multiply(self, node: fx.Node) -> Any:
        """Multiply by numbers, and by what is the same for all coordinates."""
        first, second = node.args[:2]
        labels, other = self._of(first), self._of(second)
        if labels is not None and other is not None:
            self._block(first, second)
            return None
        if labels is None:
            if other is None or called_name(node) == "div":
                self._block(second)
                return None
            labels, second = other, first
        self.ledger.unshift(labels)
        shape = shapes_of(node)[0]
        labels = labels.expand(shape)
        if not isinstance(second, fx.Node):
            return labels
        value = self._found.values.get(second)
        factor = shapes_of(second)[0]
        small = core(labels)[0]
        along = [axis - labels.ndim for axis, size in enumerate(small.shape) if size > 1]
        same = all(-axis > len(factor) or factor[axis] == 1 for axis in along)
        if isinstance(value, Raw) or (not same and not isinstance(value, Constant)):
            self.ledger.block(labels)
            return None
        if not same and not self._constant_along(value, along):
            self.ledger.vary(labels)
        return labels

    def _constant_along(self, value: Any, axes: Sequence[int]) -> bool:
        tensor = value.value
        for axis in axes:
            there = -axis <= tensor.ndim and tensor.shape[axis] > 1
            if there and bool((tensor != tensor.narrow(axis, 0, 1)).any()):
                return False
        return True

    def _reduce(self, node: fx.Node, name: str) -> Any:
        """Sum or average over dimensions along which the coordinates are the same."""
        labels = self._of(node.args[0])
        if labels is None:
            return None
        axes = node.args[1] if len(node.args) > 1 else None
        some = range(labels.ndim) if not axes else [axes] if isinstance(axes, int) else axes
        chosen = [axis % labels.ndim for axis in cast("Sequence[int]", some)]
        if any(core(labels)[0].shape[axis] > 1 for axis in chosen):
            self.ledger.block(labels)
            return None
        if name == "sum":
            self.ledger.unshift(labels)
        shape = shapes_of(node)[0]
        kept = len(shape) == labels.ndim
        for axis in sorted(chosen, reverse=True):
            labels = labels.narrow(axis, 0, 1)
            labels = labels if kept else labels.squeeze(axis)
        return labels.expand(shape)

    def _note_softmax(self, node: fx.Node) -> None:
        self._sum_to_one[node] = cast("int", node.args[1]) % len(shapes_of(node)[0])

    def _never_masked(self, node: Any) -> bool:
        """Tell whether no row of scores can be infinite throughout, which gives a row of zeros."""
        while isinstance(node, fx.Node):
            name = called_name(node)
            if name in ("mm", "bmm", "baddbmm"):
                return True
            if name == "add" and isinstance(mask := self._found.values[node.args[1]], Constant):  # type: ignore[index]
                if bool(torch.isinf(mask.value).all(dim=-1).any()):
                    return False
            elif name not in _KEEPING:
                return False
            node = node.args[0]
        return False

    def _keep_sum(self, node: fx.Node) -> None:
        """Remember along which dimension a matrix sums to one."""
        source = node.all_input_nodes[0] if len(node.all_input_nodes) == 1 else None
        if source not in self._sum_to_one:
            return
        axis, name = self._sum_to_one[source], called_name(node)
        before, after = shapes_of(source)[0], shapes_of(node)[0]
        if name in _TURNING:
            marks = torch.zeros([1 + (a == axis) for a in range(len(before))], device="meta")
            turned = cast("Any", node.target)(marks, *node.args[1:], **node.kwargs)
            self._sum_to_one[node] = list(turned.shape).index(2)
            return
        behind = math.prod(before[axis + 1 :])
        for other, size in enumerate(after if name in _SAME_ORDER else ()):
            if size == before[axis] and math.prod(after[other + 1 :]) == behind:
                self._sum_to_one[node] = other

    def _matmul(self, node: fx.Node, first: Any, second: Any) -> Any:
        values = [self._found.values[argument] for argument in (first, second)]
        if isinstance(values[1], Raw):
            if isinstance(values[0], Raw):
                return None
            shape = shapes_of(first)[0]
            return weighted(self.ledger, self._of(first), shape, values[1])
        if isinstance(values[0], Raw):
            self._block(second)
            return None
        averages = self._sum_to_one.get(first) == len(shapes_of(first)[0]) - 1
        shape = shapes_of(node)[0]
        return met(self.ledger, self._of(first), self._of(second), shape, averages)

    def _convolution(self, node: fx.Node) -> Any:
        source, weight_node, bias = cast("tuple[Any, Any, Any]", node.args[:3])
        groups, transposed = node.args[8], bool(node.args[6])
        weight = self._found.values[weight_node]
        if not isinstance(weight, Raw) or groups != 1:
            self._block(source)
            return None
        shape = shapes_of(node)[0]
        result = convolved(self.ledger, self._of(source), shape, weight, transposed)
        if bias is None or result is None:
            return result
        value = self._found.values[bias]
        if isinstance(value, Raw):
            wide = replace(value, view=value.view.reshape(-1, *(1,) * (len(shape) - 2)))
            if biased(self.ledger, result, wide, shifts=True):
                return result
        self.ledger.block(result)
        return None
