"""Labels through operations that move, repeat, select and fill in entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN
from flattest.modules.symmetry.labels import ANY, Labels, compact, frozen, rearranged
from flattest.modules.symmetry.parameters import Copied, Raw
from flattest.modules.symmetry.walk import Constant, Step, Walk


def viewed(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Take a view: of a weight it is one of its entries, of labels the same view."""
    if isinstance(x, Copied):
        moved = step.target(x.view, *rest, **options)
        if isinstance(moved, Tensor) and moved.numel() == x.view.numel():
            return Copied(x.name, moved)
        x = walk.labels(x)
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
        if isinstance(x, Copied):
            return Copied(x.name, x.view.reshape(step.shape))
        try:
            return Raw(x.name, x.view.view(step.shape))
        except RuntimeError:
            if walk.forms.is_whole(x):
                return Copied(x.name, x.positions().reshape(step.shape))
            x = walk.labels(x)
    return compact(walk.labels(x).reshape(step.shape))


def restrided(
    walk: Walk, step: Step, x: Any, size: Any, strides: Any, offset: int | None = None
) -> Labels:
    """Read memory in another order: exact from the start of what is laid out like the argument."""
    labels = walk.labels(x)
    laid_out = torch.empty_strided(labels.shape, step.strides, dtype=torch.int64).copy_(labels)
    reach = sum((n - 1) * s for n, s in zip(size, strides, strict=True)) + 1
    if offset or reach * laid_out.element_size() > laid_out.untyped_storage().nbytes():
        walk.freeze(x, step.reason)
        return frozen(step.shape)
    return compact(laid_out.as_strided(size, strides).clone())


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
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1:
        return _taken(walk, step, labels, *given[0])
    tied = walk.tie(labels, [axis for axis, _ in given]).expand(labels.shape)
    zeros = [
        slice(None) if index is None else torch.zeros(index.shape, dtype=torch.int64)
        for index in indices
    ]
    return compact(tied[tuple(zeros)].expand(step.shape))


def _taken(walk: Walk, step: Step, labels: Labels, axis: int, index: Any) -> Labels:
    """Select along a dimension by numbers, or along as many as a mask has."""
    mask = len(index.shape) > 1 and len(step.shape) == labels.ndim - len(index.shape) + 1
    count = len(index.shape) if mask else 1
    tied = walk.tie(labels, range(axis, axis + count))
    for _ in range(count):
        tied = tied.select(axis, 0)
    for _ in range(len(step.shape) - tied.ndim):
        tied = tied.unsqueeze(axis)
    return tied.expand(step.shape)


def gathered(walk: Walk, step: Step, x: Any, axis: int, index: Any, **options: Any) -> Labels:
    """Select along a dimension."""
    labels = walk.labels(x)
    if isinstance(index, Constant):
        return compact(step.target(labels, axis, index.value.cpu(), **options))
    tied = walk.tie(labels, [axis]).expand(labels.shape)
    zeros = torch.zeros(index.shape, dtype=torch.int64)
    return compact(step.target(tied, axis, zeros, **options))


def put(walk: Walk, step: Step, x: Any, where: Any, source: Any, *rest: Any) -> Labels:
    """Write or add at indices or where a mask says: what they range over has one scale."""
    indices = where if isinstance(where, (list, tuple)) else []
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    base, new = walk.labels(x), walk.labels(source)
    if len(given) == 1 and len(given[0][1].shape) == 1 and new.ndim <= base.ndim:
        axis = given[0][0]
        rows = walk.tie(new, [axis]) if new.ndim == base.ndim else new
        return walk.unify(walk.tie(base, [axis]), rows).expand(step.shape)
    return walk.unify(walk.tie_all(base), walk.tie_all(new)).expand(step.shape)


def put_along(
    walk: Walk, step: Step, x: Any, axis: int, where: Any, source: Any, *rest: Any, **options: Any
) -> Labels:
    """Write or add at indices along a dimension: everything has one scale."""
    if options.get("reduce", rest[0] if rest else "sum") in ("prod", "multiply"):
        walk.freeze([x, source], step.reason)
        return frozen(step.shape)
    return put(walk, step, x, where, source)


def added_by_index(
    walk: Walk, step: Step, x: Any, axis: int, index: Any, source: Any, **options: Any
) -> Labels:
    """Add or write slices at indices along a dimension."""
    base, new = walk.labels(x), walk.labels(source)
    if new.ndim != base.ndim:
        return put(walk, step, x, index, source)
    together = walk.unify(walk.tie(base, [axis]), walk.tie(new, [axis]))
    return together.expand(step.shape)


def filled(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Make a tensor of the shape of another, with a value of its own."""
    name = str(step.target._schema.name)
    value: Any = 1.0 if "ones" in name else 0.0
    if "full" in name or name.endswith("fill"):
        value = rest[-1]
    if isinstance(value, (int, float)):
        return Constant(torch.full((), float(value)).expand(step.shape))
    return walk.labels(value).expand(step.shape)


def sampled(walk: Walk, step: Step, x: Any, grid: Any, *rest: Any) -> Labels:
    """Interpolate at positions, which have to stay; a channel has one scale."""
    walk.freeze(grid, f"positions of {step.reason}")
    labels = walk.labels(x)
    space = range(2, labels.ndim)
    return walk.tie(labels, space).expand(step.shape)


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
