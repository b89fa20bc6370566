"""Kernels of distances, and the linear one, for predictions: values and slopes.

The same functions as in `flattest.regression.kernels`, which fits use.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from flattest.regression.tuning import NO_DISTANCE


def _gaussian(r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value = np.exp(np.multiply(r2, -0.5, out=r2), out=r2)
    return value, value * -0.5


def _matern52(r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r = np.sqrt(np.multiply(r2, 5, out=r2), out=r2)
    decay = np.exp(-r)
    slope = (r + 1) * decay
    value = np.multiply(r, r, out=r)
    value *= decay
    value /= 3
    value += slope
    return value, np.multiply(slope, -5 / 6, out=slope)


def _matern12(r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r = np.sqrt(r2, out=r2)
    value = np.exp(-r)
    r[r < NO_DISTANCE] = np.inf  # at the kink the slope is 0
    slope = np.divide(value, r, out=r)
    return value, np.multiply(slope, -0.5, out=slope)


SHAPES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "matern52": _matern52,
    "gaussian": _gaussian,
    "matern12": _matern12,
}
"""Value and derivative of each radial kernel as functions of the squared distance.

The argument is overwritten.
"""


def kernel(
    shape: str, z: Float[np.ndarray, "n k"], others: Float[np.ndarray, "m k"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "n m"] | float]:
    """Return a kernel between points, and its slope in the squared distance.

    Parameters
    ----------
    shape : str
        The kernel. The linear one, ``z . z'``, is no function of the distance; its slope is 0.
    z, others : ndarray of shape (n, k) and (m, k)
        The points. If both are one array, distances of points to themselves are 0, without
        rounding, which a square root would magnify.

    Returns
    -------
    value, slope : ndarray of shape (n, m)
        Value and slope.
    """
    if shape == "linear":
        return z @ others.T, 0.0
    squares = _squared_distances(z, others)
    if z is others:
        np.fill_diagonal(squares, 0)
    return SHAPES[shape](squares)


def _squared_distances(
    z: Float[np.ndarray, "n k"], others: Float[np.ndarray, "m k"]
) -> Float[np.ndarray, "n m"]:
    """Return ``|z|^2 - 2 z . z' + |z'|^2`` by one product of matrices."""
    left = np.column_stack([np.square(z).sum(axis=1), np.ones(len(z)), -2 * z])
    right = np.column_stack([np.ones(len(others)), np.square(others).sum(axis=1), others])
    squares = left @ right.T
    return np.maximum(squares, 0, out=squares)
