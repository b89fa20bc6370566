r"""The minimum over scales and linear groups together, by turns.

For fixed matrices the trace is a sum of exponentials of the scales, for fixed scales every group
has its closed form. Both steps go downhill on a function that is convex along the geodesics of
positive definite matrices, so that turns lead to its minimum, from anywhere.

Gradients are moved along: where a group has far to go, the way there loses digits once, and the
turns after it change little. At the minimum what flows into each scale flows out, and each group's
two factors balance. The rest bounds the error: no direction of norm one lowers the logarithm of the
function faster than the imbalance relative to the value, and its moment polytope keeps a distance
of ``1 / L`` from zero directions, with ``L`` the number of scales and coordinates in a path, so
that :math:`F^* \geq F (1 - L \|\mu\|_1 / F)`. To this is added by how much the gradients as they
came differ from those that were moved: the digits that were lost.

References
----------
P. Buergisser, C. Franks, A. Garg, R. Oliveira, M. Walter, A. Wigderson, "Towards a theory of
non-commutative optimization: geodesic 1st and 2nd order methods for moment maps and polytopes",
FOCS 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from flattest.modules.balancing.minimum import ScaleMinimum, minimise
from flattest.modules.balancing.terms import Listed, Part, Terms, Vector
from flattest.modules.groups.pairs import PairMinimum, minimise_pair, triangular, upright

_TURNS = 500
_TIGHT = 1e-28
"""The gap of steps over scales: half the square of the imbalance that is looked for."""
_PATIENCE = 5
"""Turns without progress before giving up."""
_ENOUGH = 1e-14
"""The imbalance, relative to the value, at which turns end."""


@dataclass(frozen=True)
class Side:
    """One factor of a group: triangles of its stacked gradients for each class of columns.

    Parameters
    ----------
    triangles : list of Tensor of shape (q, r), or (q, 1 + r) where a translation is allowed
        One for each class.
    out, into : array of int
        The channels of the class: one of them is 0, or both.
    """

    triangles: list[Tensor]
    out: np.ndarray
    into: np.ndarray

    def scaled(self, y: Vector) -> Tensor:
        """Return the triangle of all classes at channels' log scales y."""
        factors = np.exp(y[self.into] - y[self.out])
        parts = [f * triangle for f, triangle in zip(factors, self.triangles, strict=True)]
        return triangular(torch.cat(parts))

    def after(self, change: Callable[[Tensor], Tensor]) -> Side:
        """Return the factor with changed triangles."""
        return Side([change(triangle) for triangle in self.triangles], self.out, self.into)


@dataclass(frozen=True)
class Pair:
    """A group: what becomes ``M F``, what becomes ``M^-T F``, and what a translation changes.

    Parameters
    ----------
    forward, backward : sequence of Side
        The factors.
    translated : sequence of Side
        Factors ``U^T`` with the gradient of the outer bias as the first coordinate.
    """

    forward: Sequence[Side]
    backward: Sequence[Side]
    translated: Sequence[Side] = ()


@dataclass(frozen=True)
class Turned:
    """A group at the minimum.

    Parameters
    ----------
    pair : PairMinimum
        The matrix and its value.
    shift : Tensor of shape (r,) or None
        The translation of the inner bias.
    amounts : list of Listed
        The squared gradients there, before scales, of each factor: forward ones, backward ones,
        translated ones.
    """

    pair: PairMinimum
    shift: Tensor | None
    amounts: list[Listed]


@dataclass(frozen=True)
class JointMinimum:
    """The least trace over scales and groups.

    Parameters
    ----------
    value : float
        The minimum.
    scales : ScaleMinimum
        The last step over scales.
    groups : list of Turned
        The groups.
    gap : float
        A bound of ``value`` less the minimum.
    attained : bool
        Whether it is attained.
    n_turns : int
        The number of turns.
    """

    value: float
    scales: ScaleMinimum
    groups: list[Turned]
    gap: float
    attained: bool
    n_turns: int


def minimise_jointly(
    parts: Sequence[Part], channels: sparse.csr_array, pairs: Sequence[Pair]
) -> JointMinimum:
    """Minimise over scales and groups by turns.

    Parameters
    ----------
    parts : sequence of Grid or Listed
        What groups leave alone.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    pairs : sequence of Pair
        The groups.

    Returns
    -------
    JointMinimum
        The minimum.
    """
    z = np.zeros(channels.shape[1])
    size = len(z) + sum(_size(pair) for pair in pairs)
    best: JointMinimum | None = None
    before, waited = np.inf, 0
    ways = [_Way(pair) for pair in pairs]
    for turn in range(1, _TURNS + 1):
        y = channels @ z
        turned = [way.turn(y) for way in ways]
        listed = [part for at in turned for part in at.amounts]
        terms = Terms([*parts, *listed], channels)
        flows = terms.at(z)
        imbalance = float(np.abs(flows.inward - flows.outward).sum())
        imbalance += sum(at.pair.imbalance * at.pair.at_matrix for at in turned)
        found = minimise(terms, rtol=_TIGHT, start=z)
        attained = found.attained and all(at.pair.attained for at in turned)
        if not found.attained:
            # Vanishing terms never balance; the step over scales says how far the rest is.
            imbalance = 0.0 if found.n_steps == 0 else imbalance
        best = JointMinimum(
            found.value, found, turned, max(found.gap, size * imbalance), attained, turn
        )
        # Rounding ends the descent, and balance is as good as it gets.
        waited = waited + 1 if imbalance >= 0.99 * before else 0
        if imbalance <= _ENOUGH * found.value or waited > _PATIENCE or not pairs:
            break
        before, z = min(before, imbalance), found.log_scales
    assert best is not None
    y = channels @ best.scales.log_scales
    lost = sum(way.lost(at, y) for way, at in zip(ways, best.groups, strict=True))
    return replace(best, gap=best.gap + lost)


class _Way:
    """A group on its way: its gradients there, and the matrix and translation that lead there."""

    def __init__(self, pair: Pair) -> None:
        self._origin, self._pair = pair, pair
        self._matrix = torch.eye(_size(pair), dtype=torch.float64)
        self._inverse_transposed = self._matrix
        self._shift: Tensor | None = None

    def turn(self, y: Vector) -> Turned:
        """Go on by what is best at given scales; stay where an infimum would lead ever further."""
        best, shift = _best(self._pair, y)
        moved = _moved(self._pair, best, shift)
        matrix = best.matrix @ self._matrix
        inverse_transposed = best.inverse_transposed @ self._inverse_transposed
        if shift is not None:
            shift = shift @ self._inverse_transposed
            shift = shift if self._shift is None else self._shift + shift
        if best.attained:
            self._pair, self._matrix, self._shift = moved, matrix, shift
            self._inverse_transposed = inverse_transposed
        matrix, inverse_transposed = upright(matrix, inverse_transposed)
        whole = replace(best, matrix=matrix, inverse_transposed=inverse_transposed)
        return Turned(whole, shift, _amounts(moved))

    def lost(self, at: Turned, y: Vector) -> float:
        """Return by how much the gradients as they came differ from the moved ones."""
        total = 0.0
        ends = _amounts(_moved(self._origin, at.pair, at.shift))
        for one, other in zip(ends, at.amounts, strict=True):
            one.move(y)
            other.move(y)
            total += abs(float((one.values() - other.values()).sum()))
        return total


def _size(pair: Pair) -> int:
    return pair.forward[0].triangles[0].shape[1]


def _best(pair: Pair, y: Vector) -> tuple[PairMinimum, Tensor | None]:
    """Return the best matrix and translation at given scales."""
    first = triangular(torch.cat([side.scaled(y) for side in pair.forward]))
    rows = [side.scaled(y) for side in pair.backward]
    shift = None
    if pair.translated:
        whole = triangular(torch.cat([side.scaled(y) for side in pair.translated]))
        # What the bias's gradient explains of the factor's is taken away by the translation, and
        # the triangle below the first row is that of the rest.
        pivot, explained = whole[0, 0], whole[0, 1:]
        if pivot.abs() > 0:
            shift = -explained / pivot
            rows.append(whole[1:, 1:])
        else:
            rows.append(whole[:, 1:])
    return minimise_pair(first, torch.cat(rows)), shift


def _moved(pair: Pair, best: PairMinimum, shift: Tensor | None) -> Pair:
    """Return the gradients of a group's factors after a translation and a matrix."""

    def translated(own: Tensor) -> Tensor:
        bias, rest = own[:, :1], own[:, 1:]
        rest = rest if shift is None else rest + bias * shift
        return torch.cat([bias, rest @ best.matrix.T], dim=1)

    return Pair(
        [side.after(lambda own: own @ best.inverse_transposed.T) for side in pair.forward],
        [side.after(lambda own: own @ best.matrix.T) for side in pair.backward],
        [side.after(translated) for side in pair.translated],
    )


def _amounts(pair: Pair) -> list[Listed]:
    """Return the squared gradients of a group's factors, by class of columns."""
    result = []
    for sides, first in ((pair.forward, 0), (pair.backward, 0), (pair.translated, 1)):
        for side in sides:
            squares = [float(own[:, first:].square().sum()) for own in side.triangles]
            result.append(Listed(np.array(squares), side.out, side.into))
    return result
