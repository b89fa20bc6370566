r"""Linear equations between log scales, solved exactly.

Nearly all of them say that two scales are equal, or that one is zero; these are the components of a
graph. Some say that one scale is the sum of two others, as in a product. They are simplified by
the components until nothing changes, and what remains is eliminated in rational numbers, so that
"free" and "frozen" never depend on a tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

FROZEN = 0
"""The variable that is zero."""


class Solution(NamedTuple):
    """All solutions of the equations.

    Parameters
    ----------
    basis : csr_matrix of shape (n_variables, n_free)
        Every variable as a combination of the free ones. Row 0 is zero.
    free : ndarray of shape (n_free,)
        Which variables are the free ones.
    """

    basis: csr_matrix
    free: np.ndarray


class Equations:
    """A growing system of equations between variables, of which number 0 is zero."""

    def __init__(self, n_variables: int = 1) -> None:
        self.n_variables = n_variables
        self._equal: list[Int[np.ndarray, "n 2"]] = []
        self._reasons: list[tuple[np.ndarray, str]] = []
        self._sums: list[tuple[Int[np.ndarray, "n k"], Float[np.ndarray, " k"]]] = []

    def fresh(self, count: int) -> Int[np.ndarray, " count"]:
        """Return new variables.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        ndarray of shape (count,)
            Their numbers.
        """
        first = self.n_variables
        self.n_variables += count
        return np.arange(first, first + count)

    def equate(self, first: np.ndarray, second: np.ndarray) -> None:
        """Demand that variables are equal in pairs.

        Parameters
        ----------
        first, second : ndarray of int
            Variables, of equal shapes.
        """
        pairs = np.stack([first.ravel(), second.ravel()], axis=1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        if len(pairs):
            self._equal.append(np.unique(pairs, axis=0) if len(pairs) > 1 else pairs)

    def freeze(self, variables: np.ndarray, reason: str) -> None:
        """Demand that variables are zero.

        Parameters
        ----------
        variables : ndarray of int
            Which.
        reason : str
            Why, for `reason`.
        """
        found = np.unique(variables)
        found = found[found != FROZEN]
        if len(found):
            self._reasons.append((found, reason))

    def relate(self, variables: np.ndarray, coefficients: Sequence[float]) -> None:
        """Demand that weighed sums of variables are zero.

        Parameters
        ----------
        variables : ndarray of int, of shape (n, k)
            One equation per row.
        coefficients : sequence of k floats
            The weights, the same in each.
        """
        if len(variables):
            self._sums.append((variables, np.asarray(coefficients, dtype=np.float64)))

    def solve(self) -> Solution:
        """Solve the equations.

        Returns
        -------
        Solution
            All solutions.
        """
        pairs = self._pairs()
        blocks = [(ids, np.broadcast_to(weights, ids.shape).copy()) for ids, weights in self._sums]
        while True:
            root = self._components(pairs)
            found = [pairs]
            remaining = []
            for ids, weights in blocks:
                ids, weights, implied = _simplify(root[ids], weights)
                remaining.append((ids, weights))
                found.append(implied)
            blocks = remaining
            if sum(map(len, found)) == len(pairs):
                break
            pairs = np.concatenate(found)
        return _assemble(root, _eliminate(blocks))

    def reasons(self) -> Reasons:
        """Return an explanation of what is frozen, by the equalities that lead there."""
        return Reasons(self.n_variables, self._equal, self._reasons, self._sums)

    def _pairs(self) -> Int[np.ndarray, "n 2"]:
        frozen = [np.stack([found, np.zeros_like(found)], axis=1) for found, _ in self._reasons]
        return np.concatenate([np.zeros((0, 2), dtype=np.int64), *self._equal, *frozen])

    def _components(self, pairs: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, " variables"]:
        """Return for each variable the first one that is equal to it."""
        n = self.n_variables
        graph = csr_matrix((np.ones(len(pairs), dtype=np.int8), pairs.T), shape=(n, n))
        count, labels = connected_components(graph, directed=False)
        first = np.full(count, n)
        np.minimum.at(first, labels, np.arange(n))
        return first[labels]


class Reasons:
    """Why variables are zero: the nearest demand in the graph of equations."""

    def __init__(
        self,
        n_variables: int,
        equal: list[np.ndarray],
        frozen: list[tuple[np.ndarray, str]],
        sums: list[tuple[np.ndarray, np.ndarray]],
    ) -> None:
        self._texts = [text for _, text in frozen]
        starts, ends = [], []
        for pairs in equal:
            starts.append(pairs[:, 0])
            ends.append(pairs[:, 1])
        for ids, _ in sums:
            for column in range(1, ids.shape[1]):
                starts.append(ids[:, column - 1])
                ends.append(ids[:, column])
        for number, (found, _) in enumerate(frozen):
            # One node for each demand, all of them beside variable 0.
            starts.append(found)
            ends.append(np.full(len(found), n_variables + number))
            starts.append(np.array([n_variables + number]))
            ends.append(np.array([FROZEN]))
        size = n_variables + len(frozen)
        first = np.concatenate([np.zeros(0, dtype=np.int64), *starts])
        second = np.concatenate([np.zeros(0, dtype=np.int64), *ends])
        keep = ((first != FROZEN) & (second != FROZEN)) | (first >= n_variables)
        ones = np.ones(int(keep.sum()), dtype=np.int8)
        graph = csr_matrix((ones, (first[keep], second[keep])), shape=(size, size))
        self._n = n_variables
        _, self._before = breadth_first_order(graph, FROZEN, directed=False)

    def of(self, variable: int) -> str | None:
        """Return why a variable is zero; None if no demand leads there.

        Parameters
        ----------
        variable : int
            Its number.

        Returns
        -------
        str or None
            The reason of the nearest demand.
        """
        while variable > 0:
            variable = int(self._before[variable])
            if variable >= self._n:
                return self._texts[variable - self._n]
        return None


_Block = tuple[Int[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]


def _simplify(
    ids: Int[np.ndarray, "n k"], weights: Float[np.ndarray, "n k"]
) -> tuple[np.ndarray, np.ndarray, Int[np.ndarray, "m 2"]]:
    """Merge equal variables; take out equations that say that two are equal or one is zero."""
    ids, weights = ids.copy(), weights.copy()
    width = ids.shape[1]
    for i in range(width):
        for j in range(i + 1, width):
            same = ids[:, i] == ids[:, j]
            weights[same, i] += weights[same, j]
            weights[same, j] = 0.0
    weights[ids == FROZEN] = 0.0
    ids[weights == 0] = FROZEN
    terms = (weights != 0).sum(axis=1)
    # Terms first, so that an equation of two has them in the first two columns.
    order = np.argsort(weights == 0, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    weights = np.take_along_axis(weights, order, axis=1)
    single = terms == 1
    equal = np.zeros_like(single)
    if width > 1:
        equal = (terms == 2) & (weights[:, 0] == -weights[:, 1])
    implied = [np.stack([ids[single, 0], np.zeros(single.sum(), dtype=np.int64)], axis=1)]
    if width > 1:
        implied.append(ids[equal, :2])
    rest = (terms > 0) & ~single & ~equal
    return ids[rest], weights[rest], np.concatenate(implied)


_Row = dict[int, Fraction]


def _eliminate(blocks: list[_Block]) -> dict[int, _Row]:
    """Express variables by later-created ones' substitutes, in rational numbers."""
    solved: dict[int, _Row] = {}
    seen: set[tuple[tuple[int, float], ...]] = set()
    for ids, weights in blocks:
        for names, values in zip(ids.tolist(), weights.tolist(), strict=True):
            key = tuple(
                sorted((name, value) for name, value in zip(names, values, strict=True) if value)
            )
            if key in seen:
                continue
            seen.add(key)
            row = _reduce({name: Fraction(value) for name, value in key}, solved)
            if row:
                # The newest variable is mostly one that only stands for a sum.
                pivot = max(row)
                weight = row.pop(pivot)
                solved[pivot] = {name: -value / weight for name, value in row.items()}
    return {name: _reduce(row, solved) for name, row in solved.items()}


def _reduce(row: _Row, solved: dict[int, _Row]) -> _Row:
    """Substitute what is solved until nothing of it is left."""
    row = dict(row)
    while True:
        name = next((name for name in row if name in solved), None)
        if name is None:
            return row
        weight = row.pop(name)
        for other, value in solved[name].items():
            total = row.get(other, Fraction(0)) + weight * value
            if total:
                row[other] = total
            else:
                row.pop(other, None)


def _assemble(root: Int[np.ndarray, " variables"], solved: dict[int, _Row]) -> Solution:
    roots = np.unique(root)
    free = np.array([r for r in roots.tolist() if r != FROZEN and r not in solved], dtype=np.int64)
    column = {int(r): number for number, r in enumerate(free)}
    rows, columns, values = list(free), list(range(len(free))), [1.0] * len(free)
    for name, row in solved.items():
        for other, value in row.items():
            rows.append(name)
            columns.append(column[other])
            values.append(float(value))
    n = len(root)
    basis = csr_matrix((values, (rows, columns)), shape=(n, len(free)))
    return Solution(basis[root], free)
