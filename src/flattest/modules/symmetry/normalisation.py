"""Labels through normalisation layers: what they divide by has an eps, so the input is frozen."""

from __future__ import annotations

from typing import Any

from flattest.modules.symmetry import contraction
from flattest.modules.symmetry.labels import Labels, frozen
from flattest.modules.symmetry.parameters import Raw
from flattest.modules.symmetry.walk import Constant, Shift, Step, Walk


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
    trailing = len(step.shape) - 2
    if _folded(gain, *rest):
        result = walk.labels(x).expand(step.shape)
        if bias is not None:
            result = contraction.add(walk, result, _with_space(bias, trailing)).expand(step.shape)
        return (result, *(frozen(other) for other in step.shapes[1:]))
    if walk.affine and _shifts(walk, gain, bias, *rest):
        return _shifted(walk, step, x, gain, bias, *rest)
    walk.freeze(x, step.reason)
    return _affine(walk, step, gain, bias, trailing)


def _shifts(walk: Walk, gain: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> bool:
    """Tell whether gain and bias are weights of this layer alone, with fixed statistics."""
    weights = all(
        isinstance(value, Raw) and not walk.forms.pieces.get(value.name) for value in (gain, bias)
    )
    fixed = isinstance(mean, Constant) and isinstance(variance, Constant)
    return weights and fixed and bool(mean.value.numel()) and not (rest and rest[0] is True)


def _shifted(
    walk: Walk, step: Step, x: Any, gain: Raw, bias: Raw, mean: Any, variance: Any, *rest: Any
) -> Any:
    """Let the input scale: the gain makes up for it, and the bias shifts besides."""
    labels = walk.labels(x)
    axes = [axis for axis in range(labels.ndim) if axis != 1]
    into = contraction.known(walk, walk.tie(labels, axes).reshape(-1))
    out = walk.fresh(gain.shape, gain.name)
    walk.forms.bind(gain, out, into)
    walk.forms.bind(bias, out, frozen(()))
    centre = mean.value.double() / (variance.value.double() + rest[-1]).sqrt()
    walk.shifts.append(Shift(gain.name, bias.name, centre.cpu(), into, step.reason))
    wide = out.reshape(1, -1, *(1,) * (len(step.shape) - 2)).expand(step.shape)
    return (wide, *(frozen(other) for other in step.shapes[1:]))


def _folded(gain: Any, mean: Any, variance: Any, *rest: Any) -> bool:
    """Tell whether all but the bias is an identity, as folding leaves it."""
    constants = (gain, mean, variance)
    if not all(isinstance(value, Constant) and value.value.numel() for value in constants):
        return False
    if rest and rest[0] is True:
        return False
    scale = (variance.value.double() + rest[-1]).rsqrt()
    one = bool((gain.value == 1).all()) and bool(((scale - 1).abs() < 1e-6).all())
    return one and not bool(mean.value.any())


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


def _with_space(bias: Any, trailing: int) -> Any:
    for _ in range(trailing):
        bias = contraction.unsqueezed(bias, -1)
    return bias


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
        result = contraction.add(walk, result, _with_space(bias, trailing)).expand(shape)
    others = tuple(frozen(other) for other in step.shapes[1:])
    return (result, *others) if others else result
