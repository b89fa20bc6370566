r"""The least noise of rounding, one step size per tensor, over all scales.

Rounding the weights of tensor l to multiples of a step, of which :math:`2^b` span its range, adds
noise of a variance proportional to :math:`\max |W_l|^2`, and so to the expected loss half of that
times the tensor's trace. Over scales,

.. math:: F(z) = \sum_l \max_e |W_e|^2 e^{2 c_e z} \sum_{e \in l} G_{ee} e^{-2 c_e z}

is convex: with a variable :math:`s_l` for the logarithm of each maximum it is a sum of exponentials
of linear functions under linear inequalities (`coupled_layers`), a geometric programme, which
`interior_point` solves from where ranges are equalised. Weights of 0 are rounded to 0 and make no
noise. Where their G is left out the minimum is attained, since no term falls along a direction in
which no weight outgrows its layer's maximum. Units that carry next to nothing are left at scale 1
(`nearly_dead`).

References
----------
S. Boyd, S.-J. Kim, L. Vandenberghe, A. Hassibi, "A tutorial on geometric programming",
Optimization and Engineering 8, 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Layer, Limits, with_maxima
from flattest.modules.balancing.equalisation import equalise
from flattest.modules.balancing.interior_point import InteriorPoint
from flattest.modules.balancing.nearly_dead import leave_alone
from flattest.modules.balancing.terms import Listed, Terms, Vector

_STEPS, _ROUNDS, _STILL = 100, 200, 1e-3
"""Steps at most, and of equalisation to start from: rounds, and the change that ends them."""
_FAINT = 1e-14
"""What holds scales where they are, all together, relative to the noise."""
_NOTHING = 0.1
"""What leaving units alone may cost, relative to the gap that is asked for."""
_FAR = 1e-3
"""The part of the noise at which the way begins anew."""
_MARGIN = 0.3
"""How far below their maxima weights are in the beginning, in logarithms."""


@dataclass(frozen=True)
class NoiseMinimum:
    """The least noise of rounding.

    Parameters
    ----------
    value : float
        The sum over tensors of the square of the largest weight times the trace.
    log_scales : array of shape (n,)
        Where it is.
    gap : float
        A bound of ``value`` less the infimum.
    before, equalised : float
        The value without scales, and that of cross-layer equalisation.
    left_alone : array of bool, of shape (n,)
        Scales left at 1, since their units carry nothing, or next to nothing.
    n_steps : int
        The steps taken.
    converged : bool
        Whether the gap is as small as was asked for.
    """

    value: float
    log_scales: Vector
    gap: float
    before: float
    equalised: float
    left_alone: Bool[np.ndarray, " n"]
    n_steps: int
    converged: bool


def noise(layers: Sequence[Layer], channels: sparse.csr_array, z: Vector) -> float:
    """Return the noise at a point.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    z : array of shape (n,)
        The log scales.

    Returns
    -------
    float
        The sum over layers of the square of the largest weight times the trace.
    """
    y, total = channels @ z, 0.0
    for layer in layers:
        v = layer.differences(y)
        top = float(np.max(layer.logarithms + v, initial=-np.inf))
        if math.isfinite(top):
            total += float((layer.amounts * np.exp(2 * (top - v))).sum())
    return total


def minimise_noise(
    layers: Sequence[Layer], channels: sparse.csr_array, rtol: float = 1e-7
) -> NoiseMinimum:
    """Minimise the noise over all scales.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    rtol : float
        The gap to stop at, relative to the value. Where the value without scales is within ten
        times that, no scale is changed.

    Returns
    -------
    NoiseMinimum
        The minimum.
    """
    channels = sparse.csr_array(channels)
    start = np.zeros(channels.shape[1])
    before = noise(layers, channels, start)
    equalised = equalise(layers, channels, _STILL, _ROUNDS)
    after = noise(layers, channels, equalised)
    # Without noise or without weights a layer asks for nothing, and its maximum would drift.
    live = [each for each in layers if each.amounts.any() and np.isfinite(each.logarithms).any()]
    if before == 0 or not live:
        idle = np.ones(len(start), dtype=bool)
        return NoiseMinimum(before, start, 0.0, before, after, idle, 0, True)
    best, best_value = (equalised, after) if after < before else (start, before)
    origin, scale = equalised, best_value
    inside, faint = _inside(live, channels, origin, scale)
    bound, steps = 0.0, 0
    while steps < _STEPS and best_value - bound > rtol * best_value:
        steps += 1
        bound = max(bound, scale * (inside.step() - float(faint.values().sum())))
        if not np.isfinite(inside.x).all():
            break
        z = origin + inside.x[: len(origin)]
        value = noise(layers, channels, z)
        if value < best_value:
            best, best_value = z, value
        if best_value < _FAR * scale:
            # Faint terms are faint beside what the noise is here.
            origin, scale = best, best_value
            inside, faint = _inside(live, channels, origin, scale)
    if before - bound <= 10 * rtol * before:
        best = start
    best, left_alone = leave_alone(live, channels, best, _NOTHING * rtol)
    value = noise(layers, channels, best)
    gap = max(value - bound, 0.0)
    converged = gap <= 10 * rtol * value
    return NoiseMinimum(value, best, gap, before, after, left_alone, steps, converged)


def _inside(
    layers: Sequence[Layer], channels: sparse.csr_array, z: Vector, scale: float
) -> tuple[InteriorPoint, Listed]:
    """Return a point with all weights below their layers' maxima, for the noise over a number.

    It is relative to `z`, where faint terms hold what nothing else does: scales of dead units would
    drift away for ever. These terms are returned, too.
    """
    n = len(z)
    moved = [layer.moved(channels @ z, scale) for layer in layers]
    own, ends = with_maxima(moved, channels)
    k = ends.shape[0]
    free = sparse.eye_array(n, n + len(layers))
    zero = sparse.csr_array((1, n + len(layers)))
    faint, units = np.full(2 * n, _FAINT / max(n, 1)), k + 1 + np.arange(n)
    ground = np.full(n, k)
    held = Listed(faint, np.concatenate([units, ground]), np.concatenate([ground, units]))
    terms = Terms(
        [*(layer.part() for layer in own), held],
        sparse.csr_array(sparse.vstack([ends, zero, free], format="csr")),
    )
    maxima = [float(layer.logarithms.max()) + _MARGIN for layer in moved]
    x = np.concatenate([np.zeros(n), np.array(maxima)])
    return InteriorPoint(terms, Limits(own, ends), x), held
