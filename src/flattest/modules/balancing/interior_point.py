r"""A primal-dual interior-point method for sums of exponentials under linear inequalities.

Minimised is a sum of exponentials of ``x`` where all slacks :math:`\sigma_c = -(b_c + J_c x)` are
at least 0. Each inequality has a multiplier, and the products of slacks and multipliers are brought
down together (Mehrotra's predictor and corrector). Inequalities without a multiplier are not
forgotten: steps stop before their boundary, and they get one when they come near.

With the terms corrected to first order along a step as weights, as in `newton`, and the multipliers
after it, flows balance: that is a dual point, and its value a lower bound, if none is negative. An
inequality and the term of the same entry have the same exponent, so that either takes over what the
other has below 0. What is no rigorous bound is how residuals of the linear systems are counted, at
the step's length, and what neither can take over, where a weight or its trace is 0.

References
----------
S. Mehrotra, "On the implementation of a primal-dual interior point method", SIAM Journal on
Optimization 2, 1992.

S. Boyd, S.-J. Kim, L. Vandenberghe, A. Hassibi, "A tutorial on geometric programming",
Optimization and Engineering 8, 2007 (the dual).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Limits, Numbers
from flattest.modules.balancing.newton import conjugate_gradients
from flattest.modules.balancing.strong_couplings import approximate_inverse
from flattest.modules.balancing.terms import Terms, Vector

_LEAST = 1e-4
"""The least part that products of slacks and multipliers aim at in one step."""
_ROUGH, _FINE = 1e-3, 1e-2
"""Residuals of linear systems, relative to their right sides: predictor, corrector."""
_UNBALANCED = 0.1
"""How large products are kept, relative to what balancing would gain to first order."""
_INSIDE = 0.99
"""The part of the way to the boundary that is gone."""
_LONGEST = 2.0
"""The largest change of a term's exponent in one step."""
_FARTHEST = 2.0
"""The largest change of a term's exponent along a step that yields a bound."""
_NEAR = 0.3
"""The slack below which an inequality gets a multiplier."""


class _Direction(NamedTuple):
    """A direction, with the change of the inequalities' exponents and of their multipliers."""

    x: Vector
    change: Vector
    multipliers: Vector
    residual: Vector


class InteriorPoint:
    """A point inside, with multipliers.

    Parameters
    ----------
    terms : Terms
        The sum of exponentials.
    limits : Limits
        The inequalities.
    x : array of shape (n,)
        Where to start: all slacks are positive.

    Attributes
    ----------
    x : array of shape (n,)
        The point.
    """

    def __init__(self, terms: Terms, limits: Limits, x: Vector) -> None:
        self._terms, self._limits, self.x = terms, limits, x
        self._entries = np.zeros(0, dtype=np.int64)
        self._multipliers = np.zeros(0)
        first = limits.first(x)
        # The multipliers of the central path where the gap is the value.
        self._watch(first, terms.at(x).value / max(len(first), 1))

    def _watch(self, entries: Numbers, mu: float) -> None:
        """Give inequalities a multiplier, if they have none yet."""
        every = np.union1d(self._entries, entries)
        known = np.searchsorted(every, self._entries)
        self._amounts, logarithms, self._exponents = self._limits.of(every)
        slack = -(logarithms + self._exponents @ self.x)
        self._slack = np.maximum(
            slack, np.finfo(np.float64).eps
        )  # rounding may take the last digit
        multipliers = mu / self._slack
        multipliers[known] = self._multipliers
        self._entries, self._multipliers = every, multipliers

    def step(self) -> float:
        """Take a step, and return a lower bound of the minimum.

        Returns
        -------
        float
            The bound; minus infinity where the step is too long to give one.
        """
        flows = self._terms.at(self.x)
        gradient = 2 * (flows.outward - flows.inward)
        transposed = sparse.csr_array(self._exponents.T)
        stiffness = self._multipliers / self._slack
        precondition = approximate_inverse(
            self._terms,
            flows.curvature,
            sparse.csr_array(transposed @ (sparse.diags_array(stiffness) @ self._exponents)),
        )

        def product(x: Vector) -> Vector:
            own = transposed @ (stiffness * (self._exponents @ x))
            return self._terms.product(x, flows.curvature) + own

        def direction(aims: Vector, rtol: float) -> _Direction:
            right = -gradient - transposed @ (aims / self._slack)
            x, residual = conjugate_gradients(product, precondition, right, rtol)
            change = self._exponents @ x
            after = (aims + self._multipliers * change) / self._slack
            return _Direction(x, change, after - self._multipliers, residual)

        # Mehrotra's predictor: how far could one go straight to the solution?
        straight = direction(np.zeros_like(self._slack), _ROUGH)
        primal = min(1.0, _until_zero(self._slack, -straight.change))
        dual = min(1.0, _until_zero(self._multipliers, straight.multipliers))
        gap = float(self._multipliers @ self._slack)
        reached = float(
            (self._multipliers + dual * straight.multipliers)
            @ (self._slack - primal * straight.change)
        )
        target = gap * max(_LEAST, (reached / gap) ** 3)
        # Where multipliers do not balance the terms yet, small products would only pin the point to
        # the boundary.
        imbalance = float(gradient @ straight.x + self._multipliers @ straight.change)
        mu = max(target, _UNBALANCED * abs(imbalance)) / len(self._slack)
        corrected = direction(mu + primal * dual * straight.multipliers * straight.change, _FINE)
        largest = self._terms.largest_change(corrected.x)
        bound = -math.inf
        if largest <= _FARTHEST:
            curvature = float(corrected.x @ self._terms.product(corrected.x, flows.curvature))
            bound = flows.value - 0.5 * (1 + largest) * curvature - self._distance(corrected)
            if largest > 1:
                bound -= self._taken_over_from_terms(corrected)
        self._go(corrected, largest, mu)
        return bound

    def _distance(self, direction: _Direction) -> float:
        """Return how far multipliers and residuals put the dual point below the terms."""
        after = self._multipliers + direction.multipliers
        distance = float(np.maximum(after, 0.0) @ self._slack)
        distance += float(np.abs(direction.residual) @ np.abs(direction.x))
        negative = after < 0
        more, change = -0.5 * after[negative], direction.change[negative]
        terms = self._amounts[negative] * np.exp(-2 * (self._exponents[negative] @ self.x))
        weights = terms * np.maximum(1 - 2 * change, 0.0) + more
        seen = terms > 0
        distance += float(more[seen] @ np.log(weights[seen] / terms[seen]))
        return distance + 2 * float(more[~seen] @ np.abs(change[~seen]))

    def _taken_over_from_terms(self, direction: _Direction) -> float:
        """Return what it costs that inequalities take over from terms with negative weights."""
        entries = self._limits.growing(direction.x, 0.5)
        amounts, logarithms, exponents = self._limits.of(entries)
        v, change = exponents @ self.x, exponents @ direction.x
        multipliers = 2 * amounts * np.exp(-2 * v) * (2 * change - 1)
        return float(multipliers @ np.where(np.isfinite(logarithms), -(logarithms + v), change))

    def _go(self, direction: _Direction, largest: float, mu: float) -> None:
        """Go along a direction as far as is safe."""
        longest = min(1.0, _LONGEST / largest) if largest > 0 else 1.0
        # No exponent changes by more than half of what its term's does.
        close = self._limits.near(self.x, _NEAR + 0.5 * longest * largest)
        _, logarithms, exponents = self._limits.of(close)
        slack, change = -(logarithms + exponents @ self.x), exponents @ direction.x
        primal = min(longest, _INSIDE * _until_zero(slack, -change))
        dual = min(1.0, _INSIDE * _until_zero(self._multipliers, direction.multipliers))
        self.x = self.x + primal * direction.x
        self._multipliers = self._multipliers + dual * direction.multipliers
        self._watch(close[slack - primal * change < _NEAR], mu)


def _until_zero(values: Vector, change: Vector) -> float:
    """Return after which part of a change the first value is 0."""
    falling = change < 0
    if not falling.any():
        return math.inf
    return float((values[falling] / -change[falling]).min())
