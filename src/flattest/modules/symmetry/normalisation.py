"""Labels through normalisation layers: what they divide by has an eps, so the input is frozen."""

from __future__ import annotations

from typing import Any

from flattest.modules.symmetry import contraction
from flattest.modules.symmetry.labels import Labels, frozen
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.walk import Step, Walk


def layer_norm(walk: Walk, step: Step, x: Any, over: Any, gain: Any, bias: Any, *rest: Any) -> Any:
    """Normalise over the last dimensions."""
    walk.freeze(x, step.reason)
    return _affine(walk, step, gain, bias, trailing=0)


def group_norm(walk: Walk, step: Step, x: Any, gain: Any, bias: Any, *rest: Any) -> Any:
    """Normalise groups of channels."""
    walk.freeze(x, step.reason)
    return _affine(walk, step, gain, bias, trailing=len(step.shape) - 2)


def batch_norm(walk: Walk, step: Step, x: Any, gain: Any, bias: Any, *rest: Any) -> Any:
    """Normalise channels by the running statistics, or by those of the sample."""
    walk.freeze(x, step.reason)
    return _affine(walk, step, gain, bias, trailing=len(step.shape) - 2)


def rms_norm(walk: Walk, step: Step, x: Any, over: Any, gain: Any = None, *rest: Any) -> Any:
    """Divide by the root mean square of the last dimensions."""
    walk.freeze(x, step.reason)
    return _affine(walk, step, gain, None, trailing=0)


def weight_norm(walk: Walk, step: Step, v: Any, g: Any, axis: int = 0) -> Any:
    """Normalise a weight along all dimensions but one: its length counts, its scale does not."""
    labels = walk.labels(v)
    walk.tie(labels, [a for a in range(labels.ndim) if a != axis % labels.ndim])
    gain = walk.labels(g)
    return gain.expand(step.shape), frozen(step.shapes[1])


def _affine(walk: Walk, step: Step, gain: Any, bias: Any, trailing: int) -> Any:
    """Multiply by a gain and add a bias, per channel."""
    result: Labels = frozen(step.shape)
    shape = step.shape
    if gain is not None:
        if isinstance(gain, Raw) and not walk.forms.pieces.get(gain.name):
            own = gain.without_repeats()
            out = walk.fresh(own.shape, gain.name)
            walk.forms.bind(own, out, frozen(()))
            labels = out.expand(gain.shape)
        else:
            labels = walk.labels(gain)
        result = labels.reshape(*labels.shape, *(1,) * trailing).expand(shape)
    if bias is not None:
        shaped = bias
        for _ in range(trailing):
            shaped = contraction.unsqueezed(shaped, -1)
        result = contraction.add(walk, result, shaped).expand(shape)
    others = tuple(frozen(other) for other in step.shapes[1:])
    return (result, *others) if others else result
