"""A Gaussian process before it has seen rows, as arrays: what a fit has found of it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.kernels import kernel


class Prior(NamedTuple):
    r"""A Gaussian process of ``z = B^T x`` with noise; `gaussian_process.Process` has its formula.

    Parameters
    ----------
    shape : str
        The kernel.
    projection : ndarray of shape (h, k)
        ``B``.
    variances : ndarray of shape (q,)
        One per term of the kernel.
    noise : float
        The variance of the noise of a row that counts once.
    inflation : float
        How much larger all variances are than those of the process.
    additive : bool
        Whether it is a sum of functions of one column each.
    trend : bool
        Whether a linear function is added; its variance is the last one.
    free : {"projection", "lengths", "scale"}
        What of the projection was fitted: all of it, its columns' lengths, or one common factor.
    """

    shape: str
    projection: Float[np.ndarray, "h k"]
    variances: Float[np.ndarray, " q"]
    noise: float
    inflation: float = 1.0
    additive: bool = False
    trend: bool = False
    free: Literal["projection", "lengths", "scale"] = "projection"

    @property
    def n_directions(self) -> int:
        """The number of combinations."""
        return self.projection.shape[1]

    @property
    def terms(self) -> list[tuple[float, str, slice]]:
        """The kernels that are added: variance, shape, and the coordinates of ``z``."""
        each = [slice(i, i + 1) for i in range(self.n_directions)]
        parts = each if self.additive else [slice(None)]
        kinds = [(self.shape, part) for part in parts] + [("linear", slice(None))] * self.trend
        return [(v, *kind) for v, kind in zip(self.variances.tolist(), kinds, strict=True)]

    def covariance(
        self, z: Float[np.ndarray, "n k"], others: Float[np.ndarray, "m k"]
    ) -> Float[np.ndarray, "n m"]:
        """Return the kernel between projected points."""
        total = np.zeros((len(z), len(others)))
        for v, shape, part in self.terms:
            here = z[:, part]
            there = here if others is z else others[:, part]
            value = kernel(shape, here, there)[0]
            total += np.multiply(value, v, out=value)
        return total

    def variance(self, z: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
        """Return the variance of the function at projected points."""
        total = np.zeros(len(z))
        for v, shape, _ in self.terms:
            total += v * np.square(z).sum(axis=1) if shape == "linear" else v
        return total

    def columns(
        self,
        X: Float[np.ndarray, "n h"],
        z: Float[np.ndarray, "n k"],
        points: Float[np.ndarray, "m k"],
        weights: Float[np.ndarray, " m"],
    ) -> Float[np.ndarray, "n p"]:
        """Return how the mean ``k(z, points) weights`` depends on what was fitted of ``B``.

        One column per entry, times the entries' root mean square; where only lengths were fitted,
        one per logarithm of a length; where only the scale was, one. `flattest.regression.occam`
        says why, and has the same for fits.
        """
        slopes = self._slopes(z, points, weights)
        if self.free == "scale":
            return (slopes * z).sum(axis=1, keepdims=True)
        if self.free == "lengths":
            return slopes * z
        size = np.sqrt(np.square(self.projection).mean())
        return (X[:, :, None] * (slopes * size)[:, None, :]).reshape(len(X), -1)

    def _slopes(
        self,
        z: Float[np.ndarray, "n k"],
        points: Float[np.ndarray, "m k"],
        weights: Float[np.ndarray, " m"],
    ) -> Float[np.ndarray, "n k"]:
        """Differentiate ``k(z, points) weights`` in ``z``."""
        found = np.zeros_like(z)
        for v, shape, part in self.terms:
            here, there = z[:, part], points[:, part]
            if shape == "linear":
                found += v * (weights @ there)
            else:
                slope = kernel(shape, here, there)[1]
                # The sum over points of 2 v slope weights (z - point), by one product.
                sums = slope @ np.column_stack([weights, weights[:, None] * there])
                found[:, part] += 2 * v * (sums[:, :1] * here - sums[:, 1:])
        return found
