r"""Sums of exponentials of log scales, their derivatives, and products with their Hessian.

Every entry of a weight has a channel that it leads to and one that it comes from, with log scales
``y``, and is multiplied by ``exp(y_out - y_in)``; its part in the trace is divided by the square of
that. A layer is therefore a matrix of amounts between two lists of channels, whose row and
column sums at any ``y`` are products with that matrix: no exponential is taken per entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

Vector = Float[np.ndarray, " n"]
PerChannel = Float[np.ndarray, " m"]
_RANGE = 100.0
"""The largest exponent of a factor, far from where exponentials overflow."""


class Grid:
    """Terms between every channel of one list and every one of another: a dense layer.

    Parameters
    ----------
    amounts : array of shape (r, c)
        At least 0.
    out : array of int, of shape (r,)
        The channel of each row.
    into : array of int, of shape (c,)
        The channel of each column.
    """

    def __init__(
        self,
        amounts: Float[np.ndarray, "r c"],
        out: Int[np.ndarray, " r"],
        into: Int[np.ndarray, " c"],
    ) -> None:
        self.amounts, self.out, self.into = amounts, out, into
        self._based, self._base = amounts, (np.zeros(len(out)), np.zeros(len(into)))
        self._factors = (np.ones(len(out)), np.ones(len(into)))

    def move(self, y: PerChannel) -> None:
        """Go to channels' log scales `y`."""
        rows, columns = -2 * y[self.out], 2 * y[self.into]
        changes = (rows - self._base[0], columns - self._base[1])
        if max(np.abs(change).max(initial=0.0) for change in changes) > _RANGE:
            with np.errstate(divide="ignore", over="ignore"):
                self._based = np.exp(np.log(self.amounts) + rows[:, None] + columns)
            self._base, changes = (rows, columns), (np.zeros(len(rows)), np.zeros(len(columns)))
        self._factors = (np.exp(changes[0]), np.exp(changes[1]))

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums of the terms over columns, by row, and over rows, by column."""
        rows, columns = self._factors
        return rows * (self._based @ columns), columns * (rows @ self._based)

    def product(self, of_rows: np.ndarray, of_columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the matrix of terms times values of columns, and its transpose times rows'."""
        rows, columns = self._factors
        right = rows * (self._based @ (columns * of_columns))
        return right, columns * ((rows * of_rows) @ self._based)

    def values(self) -> np.ndarray:
        """Return the terms."""
        return self._factors[0][:, None] * self._based * self._factors[1]

    def some(self, which: np.ndarray) -> Grid:
        """Return the same with the amounts of the other terms set to 0."""
        return Grid(np.where(which, self.amounts, 0.0), self.out, self.into)


class Listed:
    """Terms with two channels each, in any combination: grouped layers, biases, gains.

    Parameters
    ----------
    amounts : array of shape (t,)
        At least 0.
    out, into : array of int, of shape (t,)
        The channels of each term.
    """

    def __init__(
        self,
        amounts: Float[np.ndarray, " t"],
        out: Int[np.ndarray, " t"],
        into: Int[np.ndarray, " t"],
    ) -> None:
        self.amounts, self.out, self.into = amounts, out, into
        with np.errstate(divide="ignore", invalid="ignore"):
            self._logarithms = np.log(amounts)
        self._values = amounts

    def move(self, y: PerChannel) -> None:
        """Go to channels' log scales `y`."""
        with np.errstate(over="ignore"):
            self._values = np.exp(self._logarithms - 2 * (y[self.out] - y[self.into]))

    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the terms, for their first and for their second channels."""
        return self._values, self._values

    def product(self, of_rows: np.ndarray, of_columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the terms times values of their second channels, and times those of the first."""
        return self._values * of_columns, self._values * of_rows

    def values(self) -> np.ndarray:
        """Return the terms."""
        return self._values

    def some(self, which: np.ndarray) -> Listed:
        """Return the same with the amounts of the other terms set to 0."""
        return Listed(np.where(which, self.amounts, 0.0), self.out, self.into)


Part = Grid | Listed


@dataclass(frozen=True)
class Flows:
    """A sum of exponentials at a point, and what flows through its scales.

    Parameters
    ----------
    value : float
        The sum.
    inward, outward : array of shape (n,)
        The sums of the terms that a scale divides, and of those that it multiplies, times the size
        of its exponents. The gradient is twice the second less the first.
    curvature : array of shape (m,)
        Of every channel: the sum of all its terms.
    """

    value: float
    inward: Vector
    outward: Vector
    curvature: PerChannel


class Terms:
    r"""The function :math:`F(z) = \sum_t a_t \exp(-2 (y_{o(t)} - y_{i(t)}))`, ``y = channels z``.

    Parameters
    ----------
    parts : sequence of Grid or Listed
        The terms.
    channels : sparse array of shape (m, n)
        The log scales of the m channels, as combinations of n free ones.
    """

    def __init__(self, parts: Sequence[Part], channels: sparse.csr_array) -> None:
        self.parts = list(parts)
        self.channels = sparse.csr_array(channels, dtype=np.float64)
        # Kept apart so that flows in and out can differ by a hundred orders of magnitude.
        self._up = sparse.csr_array(self.channels.maximum(0))
        self._down = sparse.csr_array((-self.channels).maximum(0))
        self._squared = sparse.csr_array(self.channels.power(2))

    @property
    def n_scales(self) -> int:
        """The number of scales."""
        return int(self.channels.shape[1])

    def at(self, z: Vector) -> Flows:
        """Go to a point.

        Parameters
        ----------
        z : array of shape (n,)
            The log scales.

        Returns
        -------
        Flows
            The value there, and the flows.
        """
        y = self.channels @ z
        into_channel, out_of_channel = np.zeros(len(y)), np.zeros(len(y))
        value = 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            for part in self.parts:
                part.move(y)
                rows, columns = part.sums()
                value += float(rows.sum())
                _add(into_channel, part.out, rows)
                _add(out_of_channel, part.into, columns)
            return Flows(
                value,
                self._up.T @ into_channel + self._down.T @ out_of_channel,
                self._up.T @ out_of_channel + self._down.T @ into_channel,
                into_channel + out_of_channel,
            )

    def diagonal(self, curvature: PerChannel) -> Vector:
        """Return the Hessian's diagonal where no term has one scale twice, else more.

        Parameters
        ----------
        curvature : array of shape (m,)
            As in `Flows`.

        Returns
        -------
        array of shape (n,)
            The diagonal.
        """
        return 4 * (self._squared.T @ curvature)

    def product(self, direction: Vector, curvature: PerChannel) -> Vector:
        """Return the Hessian at the last point, times a direction.

        Parameters
        ----------
        direction : array of shape (n,)
            The direction.
        curvature : array of shape (m,)
            As in `Flows`, of that point.

        Returns
        -------
        array of shape (n,)
            The product.
        """
        along = self.channels @ direction
        result = curvature * along
        for part in self.parts:
            of_rows, of_columns = part.product(along[part.out], along[part.into])
            _add(result, part.out, -of_rows)
            _add(result, part.into, -of_columns)
        return 4 * (self.channels.T @ result)

    def largest_change(self, direction: Vector) -> float:
        """Bound the change of any term's exponent along a direction.

        Parameters
        ----------
        direction : array of shape (n,)
            The direction.

        Returns
        -------
        float
            The bound, reached where all terms of a layer occur.
        """
        along = self.channels @ direction
        bound = 0.0
        for part in self.parts:
            if isinstance(part, Listed):
                changes = np.abs(along[part.out] - along[part.into])
                bound = max(bound, float(changes.max(initial=0.0)))
            elif part.amounts.size:
                rows, columns = along[part.out], along[part.into]
                bound = max(bound, rows.max() - columns.min(), columns.max() - rows.min())
        return 2 * float(bound)

    def widest(self) -> float:
        """Return a bound of the sum of the sizes of a term's exponents."""
        sizes = np.asarray(abs(self.channels).sum(axis=1)).ravel()
        return max(
            (
                sizes[part.out].max(initial=0.0) + sizes[part.into].max(initial=0.0)
                for part in self.parts
            ),
            default=0.0,
        )


def _add(totals: np.ndarray, where: np.ndarray, values: np.ndarray) -> None:
    totals += np.bincount(where, weights=values, minlength=len(totals))
