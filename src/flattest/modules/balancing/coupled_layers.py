r"""Layers whose largest weight counts: a variable for the logarithm of each one's maximum.

An entry that leads from channel i to channel o of layer l has the exponent
:math:`v = y_o - y_i - s_l`: its weight stays below the layer's maximum if
:math:`\ln|w| + v \leq 0`, and its part in the noise is :math:`a\, e^{-2 v}`. Hessians of both are
sums of ``k v v^T``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from scipy import sparse
from scipy.sparse import linalg

from flattest.modules.balancing.newton import conjugate_gradients
from flattest.modules.balancing.terms import Vector

Entries = Float[np.ndarray, "..."]
Solve = Callable[[Vector, float], tuple[Vector, Vector]]
_DENSE = 1500
"""Variables up to which systems are solved by one Cholesky factorisation."""
_STRONG = 0.1
"""Couplings above this part of what they couple are in the preconditioner."""
_RIDGE = 1e-12
"""What is added to diagonals, since scaling whole layers changes nothing."""


class Layer:
    """The entries of one weight, summed and maximised over those with the same two channels.

    Parameters
    ----------
    amounts : array of shape (r, c) or (t,)
        Their parts in the trace.
    logarithms : array of the same shape
        The logarithms of their sizes; minus infinity for weights that are 0.
    out, into : array of int, of shapes (r,) and (c,), or both (t,)
        The channels of rows and columns, or of each entry.
    """

    def __init__(
        self,
        amounts: Entries,
        logarithms: Entries,
        out: Int[np.ndarray, " r"],
        into: Int[np.ndarray, " c"],
    ) -> None:
        self.amounts, self.logarithms, self.out, self.into = amounts, logarithms, out, into

    def differences(self, y: Vector) -> Entries:
        """Return what the first channel of each entry has more than the second."""
        out, into = y[self.out], y[self.into]
        return out[:, None] - into if self.amounts.ndim == 2 else out - into

    def gather(self, values: Entries, totals: Vector, sign: int) -> None:
        """Add values to the totals of their first channels, and `sign` times to the second's."""
        grid = values.ndim == 2
        rows, columns = (values.sum(1), values.sum(0)) if grid else (values, values)
        totals += np.bincount(self.out, rows, len(totals))
        totals += sign * np.bincount(self.into, columns, len(totals))


class Couplings:
    r"""The matrix :math:`\sum_e k_e v_e v_e^T` in free scales and the layers' maxima.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    weights : sequence of array
        The k of each layer's entries, at least 0.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    """

    def __init__(
        self, layers: Sequence[Layer], weights: Sequence[Entries], channels: sparse.csr_array
    ) -> None:
        self._layers, self._weights, self._channels = layers, weights, channels
        m, self._n = channels.shape
        size = m + len(layers)
        eye = sparse.eye_array(len(layers))
        self._basis = sparse.csr_array(sparse.block_diag([channels, eye], format="csr"))
        self._diagonal = np.zeros(size)
        rows, columns, values = [], [], []
        for number, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
            layer.gather(weight, self._diagonal[:m], 1)
            self._diagonal[m + number] = weight.sum()
            crossed = np.zeros(m)
            layer.gather(-weight, crossed, -1)
            touched = np.flatnonzero(crossed)
            rows.append(touched)
            columns.append(np.full(len(touched), m + number))
            values.append(crossed[touched])
        self._arrow = sparse.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size)
        )

    def product(self, direction: Vector) -> Vector:
        """Return the matrix times a vector of scales and maxima."""
        whole = self._basis @ direction
        m = len(whole) - len(self._layers)
        result = self._diagonal * whole + self._arrow @ whole + self._arrow.T @ whole
        for layer, weight in zip(self._layers, self._weights, strict=True):
            out, into = whole[layer.out], whole[layer.into]
            if weight.ndim == 2:
                of_rows, of_columns = weight @ into, out @ weight
            else:
                of_rows, of_columns = weight * into, weight * out
            result[:m] -= np.bincount(layer.out, of_rows, m)
            result[:m] -= np.bincount(layer.into, of_columns, m)
        return self._basis.T @ result

    def diagonal(self) -> Vector:
        """Return the diagonal, or more where one scale enters an entry twice."""
        return self._basis.power(2).T @ self._diagonal

    def factorised(self) -> Solve:
        """Return a function that solves with right sides.

        Returns
        -------
        callable
            From a right side, and the residual to stop at relative to it, to the solution and the
            residual.
        """
        precondition = self._preconditioner()
        return lambda right, rtol: conjugate_gradients(self.product, precondition, right, rtol)

    def _preconditioner(self) -> Callable[[Vector], Vector]:
        r"""Factorise the matrix with its weak couplings moved to the diagonal.

        Where :math:`k (o - i - l)^2` is replaced by that and :math:`k (o + i)^2`, the coupling of o
        and i is gone, and the sum is no smaller. Near the solution the strong couplings are those
        of the largest weights, a few for each channel.
        """
        m = len(self._diagonal) - len(self._layers)
        everything = len(self._layers) + self._n <= _DENSE
        rows, columns, values = [], [], []
        diagonal = self._diagonal.copy()
        for layer, weight in zip(self._layers, self._weights, strict=True):
            if weight.ndim == 1:
                rows.append(layer.out)
                columns.append(layer.into)
                values.append(-weight)
                continue
            if everything:
                strong = weight > 0
            else:
                of_rows, of_columns = self._diagonal[layer.out], self._diagonal[layer.into]
                least = _STRONG * np.minimum(of_rows[:, None], of_columns)
                strong = weight > least
                layer.gather(np.where(strong, 0.0, weight), diagonal[:m], 1)
            row, column = np.nonzero(strong)
            rows.append(layer.out[row])
            columns.append(layer.into[column])
            values.append(-weight[row, column])
        size = len(diagonal)
        half = sparse.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (size, size)
        )
        half = half + self._arrow
        whole = half + half.T + sparse.diags_array(diagonal)
        matrix = self._basis.T @ whole @ self._basis
        ridge = _RIDGE * (matrix.diagonal() + matrix.diagonal().mean() * _RIDGE)
        ridge[ridge == 0] = 1.0
        matrix = matrix + sparse.diags_array(ridge)
        if everything:
            factor = scipy.linalg.cho_factor(matrix.toarray(), check_finite=False)
            return lambda right: scipy.linalg.cho_solve(factor, right, check_finite=False)
        options = {"SymmetricMode": True}
        decomposed = linalg.splu(
            sparse.csc_array(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options=options,
        )
        return decomposed.solve
