r"""The least noise of rounding, one step size per tensor, over all scales.

Rounding the weights of tensor l to multiples of a step, of which :math:`2^b` span its range, adds
noise of a variance proportional to :math:`\max |W_l|^2`, and so to the expected loss half of that
times the tensor's trace. Over scales,

.. math:: F(z) = \sum_l \max_e |W_e|^2 e^{2 c_e z} \sum_{e \in l} G_{ee} e^{-2 c_e z}

is convex: with a variable :math:`s_l` for the logarithm of each maximum it is a sum of exponentials
of linear functions under linear constraints, a geometric programme. It is solved by a primal-dual
interior-point method, whose Newton steps are bounded by what they change the terms by. The error is
told as in `newton`, by the dual point that each step yields: multipliers and corrected terms whose
flows balance. Here that is an estimate to first order and no rigorous bound: slightly negative
multipliers are cut off at 0, and what is left of the imbalance is counted at the step's length.

References
----------
S. Boyd, S.-J. Kim, L. Vandenberghe, A. Hassibi, "A tutorial on geometric programming",
Optimization and Engineering 8, 2007.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Couplings, Entries, Layer, Solve
from flattest.modules.balancing.equalisation import equalise
from flattest.modules.balancing.terms import Vector

_STEPS, _ROUNDS = 100, 200
_LEAST = 1e-4
"""The least part that products of slacks and multipliers aim at in one step."""
_ROUGH, _FINE = 1e-3, 1e-6
"""Residuals of linear systems, relative to their right sides."""
_UNBALANCED = 3.0
"""How large products are kept, relative to what balancing would gain to first order."""
_BENT = 0.25
"""The largest square of a predicted change that corrects the terms."""
_INSIDE = 0.99
"""The part of the way to the boundary that is gone."""
_LONGEST = 2.0
"""The largest change of a term's exponent in one step."""
_MARGIN = 1.0
"""How far below their maxima weights are in the beginning, in logarithms."""


class _Direction(NamedTuple):
    """A direction of scales, maxima and multipliers, and the change of entries' exponents."""

    z: Vector
    s: np.ndarray
    changes: list[Entries]
    multipliers: list[Entries]
    lost: float
    predicted: _Direction | None
    trust: float


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
    equalised = equalise(layers, channels, _ROUGH, _ROUNDS)
    after = noise(layers, channels, equalised)
    live = [layer for layer in layers if np.isfinite(layer.logarithms).any()]
    if before == 0 or not live:
        return NoiseMinimum(before, start, 0.0, before, after, 0, True)
    best = equalised if after < before else start
    state = _Interior(live, channels, equalised, min(before, after))
    best_value, bound, steps = min(before, after), -math.inf, 0
    while steps < _STEPS:
        steps += 1
        bound = max(bound, state.step())
        value = noise(layers, channels, state.z)
        if value < best_value:
            best, best_value = state.z.copy(), value
        if best_value - bound <= rtol * best_value:
            break
    gap = best_value - bound
    if before - bound <= 10 * rtol * before:
        best, best_value, gap = start, before, before - bound
    converged = gap <= 10 * rtol * best_value
    return NoiseMinimum(best_value, best, max(gap, 0.0), before, after, steps, converged)


class _Interior:
    """The interior-point method: a point, slacks and multipliers."""

    def __init__(
        self, layers: Sequence[Layer], channels: sparse.csr_array, z: Vector, scale: float
    ) -> None:
        self._layers, self._channels, self._scale = layers, channels, scale
        self.z = z.copy()
        y = channels @ z
        self._s = np.array(
            [float(np.max(layer.logarithms + layer.differences(y))) for layer in layers]
        )
        self._s += _MARGIN
        self._slack: list[Entries] = []
        self._terms: list[Entries] = []
        self._evaluate()
        self._count = sum(int(np.isfinite(slack).sum()) for slack in self._slack)
        # Multipliers like those of the central path where the gap is the value.
        mu = sum(float(term.sum()) for term in self._terms) / self._count
        self._multipliers = [mu / slack for slack in self._slack]

    def _evaluate(self) -> None:
        y = self._channels @ self.z
        self._slack, self._terms = [], []
        for layer, s in zip(self._layers, self._s, strict=True):
            v = layer.differences(y) - s
            self._slack.append(-(layer.logarithms + v))
            v *= -2
            self._terms.append(layer.amounts * np.exp(v, out=v) / self._scale)

    def step(self) -> float:
        """Take a step, and return a lower bound of the minimum."""
        gap = self._products(0.0, 0.0)
        mu = gap / self._count
        stiffness = [
            4 * term + multiplier / slack
            for slack, term, multiplier in zip(
                self._slack, self._terms, self._multipliers, strict=True
            )
        ]
        matrix = Couplings(self._layers, stiffness, self._channels)
        solve = matrix.factorised()
        # Mehrotra's predictor: how far could one go straight to the solution?
        straight = self._direction(solve, 0.0, None, _ROUGH)
        primal, dual = self._room(straight, 1.0)
        reached = self._products(primal, dual, straight)
        target = mu * max(_LEAST, (reached / gap) ** 3)
        # Where multipliers do not balance the terms yet, small products would only pin the point to
        # the boundary.
        target = max(target, _UNBALANCED * abs(self._imbalance(straight)) / self._count)
        return self._go(self._direction(solve, target, straight, _FINE, primal * dual))

    def _imbalance(self, direction: _Direction) -> float:
        """Return what the terms change to first order, less what the multipliers' forces do."""
        return sum(
            float(np.vdot(2 * term - multiplier, v))
            for term, multiplier, v in zip(
                self._terms, self._multipliers, direction.changes, strict=True
            )
        )

    def _products(self, primal: float, dual: float, direction: _Direction | None = None) -> float:
        """Return the sum of slacks times multipliers, after parts of a direction."""
        total = 0.0
        for number, (slack, multiplier) in enumerate(
            zip(self._slack, self._multipliers, strict=True)
        ):
            finite = np.where(np.isfinite(slack), slack, 0.0)
            if direction is not None:
                finite = finite - primal * np.where(finite, direction.changes[number], 0.0)
                multiplier = multiplier + dual * direction.multipliers[number]
            total += float(np.vdot(multiplier, finite))
        return total

    def _direction(
        self,
        solve: Solve,
        mu: float,
        predicted: _Direction | None,
        rtol: float,
        trust: float = 0.0,
    ) -> _Direction:
        """Solve for a direction, corrected to second order by the one predicted."""
        force = np.zeros(self._channels.shape[0])
        of_maxima = np.zeros(len(self._layers))
        aims: list[Any] = []
        for number, (layer, slack, term) in enumerate(
            zip(self._layers, self._slack, self._terms, strict=True)
        ):
            aim: Any = mu
            pull = 2 * term
            if predicted is not None:
                v = predicted.changes[number]
                aim = mu + trust * predicted.multipliers[number] * v
                pull = pull * (1 + 2 * trust * np.minimum(v * v, _BENT))
            push = pull - aim / slack
            layer.gather(push, force, -1)
            of_maxima[number] = -push.sum()
            aims.append(aim)
        right = np.concatenate([self._channels.T @ force, of_maxima])
        found, residual = solve(right, rtol)
        n = len(self.z)
        dy, ds = self._channels @ found[:n], found[n:]
        changes = [layer.differences(dy) - d for layer, d in zip(self._layers, ds, strict=True)]
        multipliers = [
            (aim + multiplier * v) / slack - multiplier
            for aim, v, slack, multiplier in zip(
                aims, changes, self._slack, self._multipliers, strict=True
            )
        ]
        lost = float(np.abs(residual) @ np.abs(found))
        return _Direction(found[:n], ds, changes, multipliers, lost, predicted, trust)

    def _room(self, direction: _Direction, part: float) -> tuple[float, float]:
        """Return which parts of a direction keep slacks and multipliers positive."""
        primal = dual = 1.0
        for slack, multiplier, v, step in zip(
            self._slack, self._multipliers, direction.changes, direction.multipliers, strict=True
        ):
            primal = min(primal, part * _until_zero(slack, -v))
            dual = min(dual, part * _until_zero(multiplier, step))
        return primal, dual

    def _go(self, direction: _Direction) -> float:
        """Go along a direction as far as is safe; return the bound of its whole step."""
        bound = self._bound(direction)
        largest = max(float(np.abs(v).max(initial=0.0)) for v in direction.changes)
        primal, dual = self._room(direction, _INSIDE)
        primal = min(primal, _LONGEST / (2 * largest)) if largest else primal
        self.z = self.z + primal * direction.z
        self._s = self._s + primal * direction.s
        for multiplier, step in zip(self._multipliers, direction.multipliers, strict=True):
            multiplier += dual * step
        self._evaluate()
        return bound

    def _bound(self, direction: _Direction) -> float:
        """Return the value of the dual point that a direction leads to."""
        value = gap = lowest = 0.0
        for number, (slack, term, multiplier) in enumerate(
            zip(self._slack, self._terms, self._multipliers, strict=True)
        ):
            weights = -2 * direction.changes[number]
            if direction.predicted is not None:
                v = direction.predicted.changes[number]
                weights = weights + 2 * direction.trust * np.minimum(v * v, _BENT)
            lowest = min(lowest, float(weights.min(initial=0.0)))
            after = multiplier + direction.multipliers[number]
            value += float(term.sum())
            gap += 0.5 * (1 - lowest) * float(np.vdot(term, weights * weights))
            negative = np.minimum(after, 0.0)
            gap += float(np.vdot(after - negative, np.where(np.isfinite(slack), slack, 0.0)))
            gap += abs(float(np.vdot(negative, direction.changes[number])))
        return (value - gap - direction.lost) * self._scale if lowest >= -1 else -math.inf


def _until_zero(values: Entries, change: Entries) -> float:
    """Return after which part of a change the first value is 0."""
    falling = change < 0
    if not falling.any():
        return math.inf
    return float((values[falling] / -change[falling]).min())
