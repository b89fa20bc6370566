"""Labels through operations that move, repeat, select and fill in entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN
from flattest.modules.symmetry.labels import ANY, Labels, compact, rearranged
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.walk import Constant, Step, Walk


def viewed(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Take a view: of a weight it is one of its entries, of labels the same view."""
    if isinstance(x, Raw):
        moved = step.target(x.view, *rest, **options)
        views = list(moved) if isinstance(moved, (list, tuple)) else [moved]
        if all(_memory(view) == _memory(x.view) for view in views):
            found = [Raw(x.name, view) for view in views]
            return found if isinstance(moved, (list, tuple)) else found[0]
        x = walk.labels(x)
    return step.target(walk.labels(x), *rest, **options)


def reshaped(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Give another shape, in a copy where a view is not possible."""
    if isinstance(x, Raw):
        try:
            return Raw(x.name, x.view.view(step.shape))
        except RuntimeError:
            x = walk.labels(x)
    return compact(walk.labels(x).reshape(step.shape))


def copied(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Copy."""
    return x if isinstance(x, Raw) else walk.labels(x).expand(step.shape)


def written(walk: Walk, step: Step, x: Any, source: Any, *rest: Any) -> Any:
    """Overwrite all of a tensor."""
    return walk.labels(source).expand(step.shape)


def moved(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Move or repeat entries, or fill in zeros: run on the labels."""
    return _of_all(rearranged(step.target, walk.labels(x), *rest, **options))


def joined(walk: Walk, step: Step, parts: Any, axis: int = 0) -> Labels:
    """Put tensors side by side."""
    return compact(step.target([walk.labels(part) for part in parts], axis))


def padded(walk: Walk, step: Step, x: Any, widths: Any, value: float = 0) -> Labels:
    """Put a border around."""
    fill = ANY if value == 0 or abs(value) == float("inf") else FROZEN
    return compact(step.target(walk.labels(x), widths, fill))


def scattered(walk: Walk, step: Step, x: Any, source: Any, *rest: Any, **options: Any) -> Labels:
    """Overwrite a view."""
    labels = walk.labels(x).expand(step.shape).contiguous()
    return compact(step.target(labels, walk.labels(source).contiguous(), *rest, **options))


def indexed(walk: Walk, step: Step, x: Any, indices: Any) -> Labels:
    """Select by indices: exactly by constants, else from all that they range over."""
    labels = walk.labels(x)
    if all(index is None or isinstance(index, Constant) for index in indices):
        return compact(labels[tuple(_plain(index) for index in indices)])
    axes: list[int] = []
    axis = 0
    for index in indices:
        wide = 1
        if index is not None:
            mask = isinstance(index, Constant) and index.value.dtype == torch.bool
            wide = index.value.ndim if mask else 1
            axes.extend(range(axis, axis + wide))
        axis += wide
    tied = walk.tie(labels, axes).expand(labels.shape)
    zeros = [
        index if index is None else Constant(torch.zeros(index.shape, dtype=torch.int64))
        for index in indices
    ]
    found = tied[tuple(slice(None) if z is None else z.value for z in zeros)]
    return compact(found.expand(step.shape))


def gathered(walk: Walk, step: Step, x: Any, axis: int, index: Any, **options: Any) -> Labels:
    """Select along a dimension."""
    labels = walk.labels(x)
    if isinstance(index, Constant):
        return compact(step.target(labels, axis, index.value.cpu(), **options))
    tied = walk.tie(labels, [axis]).expand(labels.shape)
    zeros = torch.zeros(index.shape, dtype=torch.int64)
    return compact(step.target(tied, axis, zeros, **options))


def written_by_index(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Labels:
    """Write or add at indices: everything has one scale."""
    tensors = [value for value in rest if isinstance(value, (Tensor, Raw, Constant))]
    source = tensors[-1] if tensors else rest[-1]
    labels = walk.labels(x)
    one = walk.tie_all(labels)
    other = walk.tie_all(walk.labels(source))
    return walk.unify(one, other).expand(step.shape)


def added_by_index(
    walk: Walk, step: Step, x: Any, axis: int, index: Any, source: Any, **options: Any
) -> Labels:
    """Add or write slices at indices along a dimension."""
    base, new = walk.labels(x), walk.labels(source)
    if new.ndim != base.ndim:
        return written_by_index(walk, step, x, source)
    together = walk.unify(walk.tie(base, [axis]), walk.tie(new, [axis]))
    return together.expand(step.shape)


def filled(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Constant:
    """Make a tensor of the shape of another, with a value of its own."""
    name = str(step.target._schema.name)
    value = 0.0
    if "full" in name or name.endswith("fill"):
        value = float(rest[-1])
    elif "ones" in name:
        value = 1.0
    return Constant(torch.full((), value).expand(step.shape))


def spread(n_space: int) -> Callable[..., Any]:
    """Return the rule of an enlargement of the last dimensions: a channel has one scale."""

    def rule(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Labels:
        labels = walk.labels(x)
        return walk.tie(labels, range(labels.ndim - n_space, labels.ndim)).expand(step.shape)

    return rule


def _of_all(value: Any) -> Any:
    return [compact(part) for part in value] if isinstance(value, (tuple, list)) else value


def _plain(index: Any) -> Any:
    return slice(None) if index is None else index.value.cpu()


def _memory(view: Tensor) -> int:
    """Return what tells apart the memory of tensors without data."""
    return int(view.untyped_storage()._cdata)
