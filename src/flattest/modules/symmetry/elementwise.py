"""Labels through functions of single entries, products, powers and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flattest.modules.symmetry import contraction
from flattest.modules.symmetry.labels import ANY, Labels, compact, frozen, map_core
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.walk import Constant, Step, Walk


def passes(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
    """Leave labels as they are: f(c x) = c f(x), or f(c x) = f(x) c up to a constant factor."""
    labels = walk.labels(x).expand(step.shape)
    if len(step.shapes) == 1:
        return labels
    return (labels, *(frozen(shape) for shape in step.shapes[1:]))


def freezes(walk: Walk, step: Step, *arguments: Any, **options: Any) -> Any:
    """Freeze all arguments."""
    walk.freeze([*arguments, *options.values()], step.reason)
    return walk.frozen_results(step)


def ignores(walk: Walk, step: Step, *arguments: Any, **options: Any) -> Any:
    """Return something that does not scale whatever the arguments do, such as a sign."""
    return walk.frozen_results(step)


def added(walk: Walk, step: Step, x: Any, y: Any, alpha: float = 1) -> Labels:
    """Add or subtract."""
    if alpha == 0:
        return walk.labels(x).expand(step.shape)
    if not isinstance(y, (Raw, Constant, Tensor)):
        x, y = y, x
    if not isinstance(x, (Raw, Constant, Tensor)):
        if x != 0 and math.isfinite(x):
            walk.freeze(y, step._replace(title=f"adding {x:.4g}").reason)
        return walk.labels(y).expand(step.shape)
    if isinstance(y, Constant) and not isinstance(x, Constant):
        x, y = y, x
    if isinstance(x, Constant) and not isinstance(y, Constant):
        plain = step.title in ("a sum", "a difference")
        title = "adding a constant" if plain else f"{step.title} beside a constant"
        _freeze_beside(walk, y, x, step._replace(title=title).reason)
    return contraction.add(walk, x, y).expand(step.shape)


def _freeze_beside(walk: Walk, value: Any, constant: Constant, reason: str) -> None:
    """Freeze a value where what is added to it is a constant that is not zero."""
    labels = walk.labels(constant)
    if bool((labels != ANY).all()):
        if isinstance(value, Raw):
            walk.freeze(value, reason)
        else:
            walk.freeze(walk.labels(value), reason)
        return
    wide = walk.labels(value)
    walk.freeze(map_core(lambda a, b: torch.where(b == ANY, ANY, a), wide, labels), reason)


def unified(walk: Walk, step: Step, x: Any, y: Any, *rest: Any, **options: Any) -> Labels:
    """Choose between two entries: both have the same scale."""
    return added(walk, step, x, y)


def multiplied(walk: Walk, step: Step, x: Any, y: Any) -> Labels:
    """Multiply."""
    if isinstance(x, (int, float)) or (isinstance(x, Raw) and not isinstance(y, Raw)):
        x, y = y, x
    if isinstance(y, Raw) and not isinstance(x, Raw) and (found := _gain(walk, step, x, y, 1)):
        return found[0]
    return walk.combine((walk.labels(x), 1.0), (walk.labels(y), 1.0)).expand(step.shape)


def divided(walk: Walk, step: Step, x: Any, y: Any, **options: Any) -> Labels:
    """Divide, without rounding."""
    if options.get("rounding_mode") is not None:
        walk.freeze([x, y], step.reason)
        return frozen(step.shape)
    if isinstance(y, Raw) and not isinstance(x, Raw) and (found := _gain(walk, step, x, y, -1)):
        return found[0]
    return walk.combine((walk.labels(x), 1.0), (walk.labels(y), -1.0)).expand(step.shape)


def _gain(walk: Walk, step: Step, x: Any, weight: Raw, power: int) -> tuple[Labels] | None:
    """Multiply or divide by a weight that takes the form it needs, if it has none yet."""
    labels = walk.labels(x)
    if walk.forms.pieces.get(weight.name) or bool((labels == ANY).any()):
        return None
    shape = torch.broadcast_shapes(labels.shape, weight.shape)
    wide = labels.expand(shape)
    extra = len(shape) - len(weight.shape)
    steps = weight.view.stride()
    for axis, size in enumerate(shape):
        inner = axis - extra
        repeated = inner < 0 or weight.shape[inner] == 1 or steps[inner] == 0
        if repeated and size > 1:
            if wide.stride(axis) != 0:
                return None
            wide = wide.narrow(axis, 0, 1)
    single = weight.without_repeats()
    source = wide.reshape(wide.shape[extra:])
    result = walk.fresh(single.shape, weight.name)
    walk.forms.bind(single, *((result, source) if power == 1 else (source, result)))
    return (result.expand(weight.shape).expand(step.shape),)


def squared(walk: Walk, step: Step, x: Any) -> Labels:
    """Square."""
    return raised(walk, step, x, 2)


def root(walk: Walk, step: Step, x: Any) -> Labels:
    """Take the square root."""
    return raised(walk, step, x, 0.5)


def inverse_root(walk: Walk, step: Step, x: Any) -> Labels:
    """Take one over the square root."""
    return raised(walk, step, x, -0.5)


def inverse(walk: Walk, step: Step, x: Any) -> Labels:
    """Take one over."""
    return raised(walk, step, x, -1)


def raised(walk: Walk, step: Step, x: Any, power: Any) -> Labels:
    """Raise to a power, which is a number."""
    if not isinstance(power, (int, float)):
        walk.freeze([x, power], step.reason)
        return frozen(step.shape)
    return walk.combine((walk.labels(x), float(power))).expand(step.shape)


def clamped(walk: Walk, step: Step, x: Any, low: Any = None, high: Any = None) -> Labels:
    """Clip: at 0 and at infinity that is homogeneous."""
    for bound in (low, high):
        if isinstance(bound, (Raw, Tensor, Constant)):
            walk.freeze([x, low, high], step.reason)
            return frozen(step.shape)
        if bound is not None and bound != 0 and math.isfinite(bound):
            title = f"clipping at {bound:.4g}" if step.title == "clipping" else step.title
            title = "ReLU6" if (step.title, low, high) == ("Hardtanh", 0, 6) else title
            walk.freeze(x, step._replace(title=title).reason)
    return walk.labels(x).expand(step.shape)


def clipped_below(walk: Walk, step: Step, x: Any, low: Any) -> Labels:
    """Clip from below."""
    return clamped(walk, step, x, low)


def clipped_above(walk: Walk, step: Step, x: Any, high: Any) -> Labels:
    """Clip from above."""
    return clamped(walk, step, x, None, high)


def thresholded(walk: Walk, step: Step, x: Any, threshold: float, value: float) -> Labels:
    """Replace what is below a threshold."""
    if threshold != 0 or value != 0:
        walk.freeze(x, step.reason)
    return walk.labels(x).expand(step.shape)


def shrunk(walk: Walk, step: Step, x: Any, threshold: float = 0.5) -> Labels:
    """Shrink towards zero."""
    if threshold != 0:
        walk.freeze(x, step.reason)
    return walk.labels(x).expand(step.shape)


def with_slope(walk: Walk, step: Step, x: Any, slope: Any) -> Labels:
    """Multiply negative entries by a learnt slope, which has to stay as it is."""
    walk.freeze(slope, f"slope of {step.reason}")
    return walk.labels(x).expand(step.shape)


def gated(walk: Walk, step: Step, x: Any, axis: int = -1) -> Labels:
    """Multiply one half by a sigmoid of the other, which is frozen."""
    half, gate = walk.labels(x).chunk(2, axis)
    walk.freeze(gate, f"gate of {step.reason}")
    return half.expand(step.shape)


def chosen(walk: Walk, step: Step, condition: Any, x: Any, y: Any) -> Labels:
    """Choose by a condition: entry by entry if it is a constant, else both have one scale."""
    if isinstance(condition, Constant):
        labels = (walk.labels(x), walk.labels(y))
        where = condition.value.bool().cpu()
        return compact(torch.where(where, *labels).expand(step.shape))
    return _either(walk, step, x, y)


def _either(walk: Walk, step: Step, x: Any, y: Any) -> Labels:
    """Choose between two values: numbers count as constants."""

    def value(one: Any) -> Any:
        return Constant(torch.tensor(float(one))) if isinstance(one, (int, float)) else one

    return added(walk, step._replace(title="a choice"), value(x), value(y))


def masked(walk: Walk, step: Step, x: Any, mask: Any, value: Any) -> Labels:
    """Fill entries with a value."""
    return chosen(walk, step, mask, value, x)


def compared(walk: Walk, step: Step, x: Any, y: Any) -> Labels:
    """Compare: with 0 the answer does not depend on the scale."""
    if isinstance(y, (int, float)):
        if y != 0 and math.isfinite(y):
            walk.freeze(x, step._replace(title=f"comparison with {y:.4g}").reason)
    elif isinstance(x, Raw) and isinstance(y, Raw):
        walk.unify(walk.labels(x), walk.labels(y))
    else:
        added(walk, step._replace(title="comparison with a constant"), x, y)
    return frozen(step.shape)


def reduced(walk: Walk, step: Step, x: Any, axes: Any = None, *rest: Any, **options: Any) -> Any:
    """Sum, average or compare along dimensions: everything along them has one scale."""
    labels = walk.labels(x)
    some = _axes(axes, labels.ndim)
    result = walk.tie(labels, some).reshape(_kept(labels.shape, some, step.shape))
    results = tuple(
        result.expand(shape) if number == 0 else frozen(shape)
        for number, shape in enumerate(step.shapes)
    )
    return results[0] if len(results) == 1 else results


def norm(
    walk: Walk, step: Step, x: Any, order: Any = 2, axes: Any = None, *rest: Any, **options: Any
) -> Labels:
    """Take a vector norm."""
    if isinstance(order, (int, float)) and order == 0:
        return frozen(step.shape)
    result: Labels = reduced(walk, step, x, axes)
    return result


def scanned(walk: Walk, step: Step, x: Any, axis: int = -1, *rest: Any, **options: Any) -> Any:
    """Accumulate or sort along a dimension."""
    labels, axis = walk.labels(x), options.get("dim", axis)
    tied = walk.tie(labels, [axis])
    results = tuple(
        tied.select(axis, 0).unsqueeze(axis).expand(shape) if number == 0 else frozen(shape)
        for number, shape in enumerate(step.shapes)
    )
    return results[0] if len(results) == 1 else results


def top(walk: Walk, step: Step, x: Any, count: int, axis: int = -1, *rest: Any) -> Any:
    """Take the largest along a dimension."""
    return scanned(walk, step, x, axis)


def ranked(walk: Walk, step: Step, x: Any, axis: Any = None, *rest: Any, **options: Any) -> Labels:
    """Find which entry is the largest: all that are compared have one scale."""
    labels = walk.labels(x)
    walk.tie(labels, _axes(axis, labels.ndim))
    return frozen(step.shape)


def product_along(
    walk: Walk, step: Step, x: Any, axis: int | None = None, *rest: Any, **options: Any
) -> Labels:
    """Multiply all entries along a dimension."""
    labels = walk.labels(x)
    if axis is None:
        labels, axis = labels.reshape(-1), 0
    parts = labels.unbind(axis)
    result = parts[0]
    for part in parts[1:]:
        result = walk.combine((result, 1.0), (part, 1.0))
    return result.reshape(step.shape) if result.numel() else frozen(step.shape)


def pooled(n_space: int) -> Callable[..., Any]:
    """Return the rule of a pool over the last dimensions: a channel has one scale."""

    def rule(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Any:
        labels = walk.labels(x)
        tied = walk.tie(labels, range(labels.ndim - n_space, labels.ndim))
        results = tuple(
            tied.expand(shape) if number == 0 else frozen(shape)
            for number, shape in enumerate(step.shapes)
        )
        return results[0] if len(results) == 1 else results

    return rule


def _axes(axes: Any, ndim: int) -> list[int]:
    if axes is None or (isinstance(axes, (list, tuple)) and not axes):
        return list(range(ndim))
    return [axis % ndim for axis in ([axes] if isinstance(axes, int) else axes)] if ndim else []


def _kept(shape: torch.Size, axes: list[int], wanted: tuple[int, ...]) -> tuple[int, ...]:
    if len(wanted) == len(shape):
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def scaled_down(walk: Walk, step: Step, x: Any, *rest: Any, **options: Any) -> Labels:
    """Convert to another type: rounding to integers needs the scale."""
    if step.discrete:
        walk.freeze(x, step.reason)
        return frozen(step.shape)
    return walk.labels(x).expand(step.shape)
