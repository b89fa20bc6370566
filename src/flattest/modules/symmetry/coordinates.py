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
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, fx

from flattest.modules.symmetry import rearrangement
from flattest.modules.symmetry.labels import Labels, core, frozen
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.propagation import Propagation, called_name, needed, shapes_of
from flattest.modules.symmetry.rules import RULES
from flattest.modules.symmetry.walk import Constant, Step

_NONE = 0
_KEEPING = {"mul", "div", "view", "_unsafe_view", "clone", "expand", "_to_copy"}
_LINEAR = {"neg", "positive", "alias", "detach", "lift_fresh", "_to_copy", "to"}
_MOVED = {
    rearrangement.viewed,
    rearrangement.reshaped,
    rearrangement.copied,
    rearrangement.moved,
    rearrangement.joined,
    rearrangement.padded,
}


class Slot(NamedTuple):
    """Where coordinates are in a parameter.

    Parameters
    ----------
    name : str
        The parameter.
    axis : int
        The dimension that holds them.
    at : tuple of (int, int)
        Dimensions held at one position.
    """

    name: str
    axis: int
    at: tuple[tuple[int, int], ...] = ()


class Use(NamedTuple):
    """Coordinates that a parameter leads to, or that it takes.

    Parameters
    ----------
    ids : ndarray of int
        The coordinates.
    positions : ndarray of int
        Where each is along the parameter's dimension.
    slot : Slot
        Which dimension of which parameter.
    mark : int
        A number for the operation and the part of a batch of matrices: coordinates are alike if
        their marks are.
    out : ndarray of int or None
        For a parameter that takes coordinates, those that it leads to.
    bias : bool
        Whether the parameter is added.
    """

    ids: np.ndarray
    positions: np.ndarray
    slot: Slot
    mark: int
    out: np.ndarray | None = None
    bias: bool = False


class Coordinates:
    """The walk, and what it found.

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
        self._found, self._shapes = found, shapes
        self._values: dict[fx.Node, Labels | None] = {}
        self._sum_to_one: set[fx.Node] = set()
        self._n = 1
        self._marks = 0
        self.into: list[Use] = []
        self.out_of: list[Use] = []
        self.duals: list[tuple[np.ndarray, np.ndarray]] = []
        self.alike: list[tuple[np.ndarray, np.ndarray]] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._blocked: list[np.ndarray] = []
        self._varied: list[np.ndarray] = []
        self._not_affine: list[np.ndarray] = []
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

    @property
    def n_coordinates(self) -> int:
        """The number of coordinates, counted from 1."""
        return self._n

    def flags(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which coordinates are blocked, scaled one by one, and not shifted as a whole."""
        found = []
        for ids in (self._blocked, self._varied, self._not_affine):
            flag = np.zeros(self._n, dtype=bool)
            for some in ids:
                flag[some] = True
            found.append(flag)
        return found[0], found[1], found[2]

    # The walk.

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
                self._note(self._not_affine, self._of(node.args[0]))
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
            self._note(self._blocked, self._of(argument))

    def _note(self, where: list[np.ndarray], labels: Any) -> None:
        for part in labels if isinstance(labels, (list, tuple)) else [labels]:
            if part is not None:
                ids = torch.unique(core(part)[0]).numpy()
                where.append(ids[ids > _NONE])

    def _fresh(self, count: int) -> np.ndarray:
        self._n += count
        return np.arange(self._n - count, self._n)

    def _mark(self, count: int = 1) -> int:
        self._marks += count
        return self._marks - count

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
        value = self._found.values.get(other) if isinstance(other, fx.Node) else other
        if second is not None:
            one, two = core(labels, second.expand(shape))
            if bool((one != two).any()):
                there = (one > _NONE) & (two > _NONE)
                if not bool(there.all()):
                    self._block(node.args[0], node.args[1])
                    return None
                self.pairs.append((one.reshape(-1).numpy(), two.reshape(-1).numpy()))
            self._note(self._not_affine, labels)
            return labels
        if isinstance(value, Raw) and self._bias(labels, value):
            return labels
        self._note(self._blocked, labels)
        return None

    def _bias(self, labels: Labels, raw: Raw) -> bool:
        """Take a weight that is added, one entry for each coordinate."""
        single = raw.without_repeats()
        wide = [axis for axis, size in enumerate(single.shape) if size > 1]
        if len(wide) != 1:
            return False
        axis = wide[0] - len(raw.shape) + labels.ndim
        small = core(labels)[0]
        if small.numel() != small.shape[axis] or small.shape[axis] != single.shape[wide[0]]:
            return False
        ids = small.reshape(-1).numpy()
        located = self._locate(single, wide[0])
        if located is None or len(np.unique(ids)) < len(ids) or (ids <= _NONE).any():
            return False
        slot, positions = located
        self.into.append(Use(ids, positions, slot, self._mark(), bias=True))
        return True

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
        self._note(self._not_affine, labels)
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
            self._note(self._blocked, labels)
            return None
        if not same and not self._constant_along(value, along):
            self._note(self._varied, labels)
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
            self._note(self._blocked, labels)
            return None
        if name == "sum":
            self._note(self._not_affine, labels)
        shape = shapes_of(node)[0]
        kept = len(shape) == labels.ndim
        for axis in sorted(chosen, reverse=True):
            labels = labels.narrow(axis, 0, 1)
            labels = labels if kept else labels.squeeze(axis)
        return labels.expand(shape)

    def _note_softmax(self, node: fx.Node) -> None:
        axis = node.args[1]
        if axis in (-1, len(shapes_of(node)[0]) - 1):
            self._sum_to_one.add(node)

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
        """Remember which matrices have rows that sum to one."""
        source = node.all_input_nodes[0] if len(node.all_input_nodes) == 1 else None
        turned = called_name(node) in ("permute", "transpose", "t")
        if source in self._sum_to_one and not turned:
            same = shapes_of(node)[0][-1:] == shapes_of(source)[0][-1:]
            if same:
                self._sum_to_one.add(node)

    # Products.

    def _matmul(self, node: fx.Node, first: Any, second: Any) -> Any:
        values = [self._found.values[argument] for argument in (first, second)]
        if isinstance(values[0], Raw) and isinstance(values[1], Raw):
            return None
        if isinstance(values[1], Raw):
            return self._with_weight(first, values[1])
        if isinstance(values[0], Raw):
            self._block(second)
            return None
        a, b = self._of(first), self._of(second)
        if a is None and b is None:
            return None
        shape = shapes_of(node)[0]
        if a is None:
            small = core(b)[0]
            if small.shape[-2] > 1:
                self._block(second)
                return None
            self._meet(b[..., 0, :])
            if first not in self._sum_to_one:
                self._note(self._not_affine, b)
            return b[..., :1, :].expand(shape)
        if b is None:
            if core(a)[0].shape[-1] > 1:
                self._block(first)
                return None
            self._meet(a[..., :, 0])
            self._note(self._not_affine, a)
            return a[..., :, :1].expand(shape)
        if core(a)[0].shape[-2] > 1 or core(b)[0].shape[-1] > 1:
            self._block(first, second)
            return None
        queries, keys = a[..., 0, :], b[..., :, 0]
        if bool((queries <= _NONE).any()) or bool((keys <= _NONE).any()):
            self._block(first, second)
            return None
        self._meet(queries)
        self._meet(keys)
        self.duals.append(tuple(t.reshape(-1).numpy() for t in core(queries, keys)))  # type: ignore[arg-type]
        return None

    def _meet(self, labels: Labels) -> None:
        """Note which coordinates meet which matrices of a batch (..., i)."""
        flat = core(labels)[0].expand(*labels.shape[:-1], -1).reshape(-1, labels.shape[-1])
        if core(labels)[0].shape[-1] == 1:
            flat = flat[:, :1]
        first = self._mark(len(flat))
        rows = torch.arange(len(flat))[:, None].expand(flat.shape)
        there = flat > _NONE
        self.alike.append((flat[there].numpy(), (rows[there] + first).numpy()))

    def _with_weight(self, source: Any, weight: Raw) -> Any:
        """Take coordinates into a weight, and lead to new ones."""
        labels = self._of(source)
        single = weight.without_repeats()
        lead = single.shape[:-2]
        if math.prod(lead) > 1:
            # A batch of matrices: each is a weight of its own.
            return self._with_weights(source, single, weight)
        flat = Raw(single.name, single.view.reshape(single.shape[-2:]))
        out, into = self._locate(flat, 1), self._locate(flat, 0)
        ids = self._fresh(flat.shape[1])
        if labels is not None:
            small = core(labels)[0]
            if into is None or small.numel() != small.shape[-1]:
                self._block(source)
            else:
                self._take(small.reshape(-1), into, ids if out is not None else None)
        if out is None:
            return None
        self.into.append(Use(ids, out[1], out[0], self._mark()))
        shape = (*shapes_of(source)[0][:-1], flat.shape[1])
        return torch.from_numpy(ids).expand(shape)

    def _with_weights(self, source: Any, single: Raw, weight: Raw) -> Any:
        labels = self._of(source)
        lead, n_out = single.shape[:-2], single.shape[-1]
        wide = torch.broadcast_shapes(shapes_of(source)[0][:-2], weight.shape[:-2])
        ids = np.zeros((*lead, n_out), dtype=np.int64)
        rows = None
        if labels is not None:
            inner = labels.expand(*wide, *labels.shape[-2:])
            for axis, size in enumerate(lead):
                if size == 1 and wide[axis] > 1 and inner.stride(axis) == 0:
                    inner = inner.narrow(axis, 0, 1)
            if inner.stride(-2) == 0 or inner.shape[-2] == 1:
                rows = inner[..., 0, :]
            if rows is None or rows.shape[:-1] != lead:
                self._block(source)
                rows = None
        for index in np.ndindex(*lead):
            one = Raw(single.name, single.view[index])
            out, into = self._locate(one, 1), self._locate(one, 0)
            new = self._fresh(n_out)
            if rows is not None and into is not None:
                self._take(rows[index], into, None)
            elif rows is not None:
                self._block(source)
            if out is None:
                return None
            self.into.append(Use(new, out[1], out[0], self._mark()))
            ids[index] = new
        shape = (*wide, shapes_of(source)[0][-2], n_out)
        return torch.from_numpy(ids).unsqueeze(-2).expand(shape)

    def _take(
        self, labels: Tensor, located: tuple[Slot, np.ndarray], out: np.ndarray | None
    ) -> None:
        there = (labels > _NONE).numpy()
        slot, positions = located
        self.out_of.append(
            Use(labels.numpy()[there], positions[there], slot, self._mark(), out=out)
        )

    def _convolution(self, node: fx.Node) -> Any:
        source, weight_node, bias = cast("tuple[Any, Any, Any]", node.args[:3])
        groups, transposed = node.args[8], node.args[6]
        weight = self._found.values[weight_node]
        if not isinstance(weight, Raw) or groups != 1:
            self._block(source)
            return None
        axes = (1, 0) if transposed else (0, 1)
        out, into = self._locate(weight, axes[0]), self._locate(weight, axes[1])
        labels = self._of(source)
        if labels is not None:
            small = core(labels)[0]
            if into is None or small.numel() != small.shape[1]:
                self._block(source)
            else:
                self._note(self._not_affine, labels)
                self._take(small.reshape(-1), into, None)
        if out is None:
            return None
        ids = self._fresh(weight.shape[axes[0]])
        self.into.append(Use(ids, out[1], out[0], self._mark()))
        shape = shapes_of(node)[0]
        result = torch.from_numpy(ids).view(1, -1, *(1,) * (len(shape) - 2)).expand(shape)
        if bias is None:
            return result
        value = self._found.values[bias]
        if isinstance(value, Raw):
            wide = value.view.reshape(-1, *(1,) * (len(shape) - 2))
            if self._bias(result, Raw(value.name, wide)):
                return result
        self._note(self._blocked, result)
        return None

    def _locate(self, raw: Raw, axis: int) -> tuple[Slot, np.ndarray] | None:
        """Say which dimension of the parameter a dimension of a view is, and where on it."""
        shape = self._shapes[raw.name]
        steps = torch.empty(shape, device="meta").stride()
        offset = int(raw.view.storage_offset())
        places = [(offset // step) % size for step, size in zip(steps, shape, strict=True)]
        used: dict[int, int] = {}
        for inner, (size, step) in enumerate(zip(raw.view.shape, raw.view.stride(), strict=True)):
            if size == 1:
                continue
            same = [a for a in range(len(shape)) if steps[a] == step and shape[a] > 1]
            if not same or places[same[0]] + size > shape[same[0]]:
                return None
            used[same[0]] = inner
        target = next((a for a, inner in used.items() if inner == axis), None)
        if target is None:
            return None
        for other, inner in used.items():
            # All of every other dimension belongs to the factor.
            if inner != axis and raw.view.shape[inner] != shape[other]:
                return None
        at = tuple((a, places[a]) for a in range(len(shape)) if a not in used and shape[a] > 1)
        positions = places[target] + np.arange(raw.view.shape[axis])
        return Slot(raw.name, target, at), positions
