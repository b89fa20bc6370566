"""Standard units of features and targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Standardisation(NamedTuple):
    """The map to centred inputs of unit variance and centred targets.

    Parameters
    ----------
    mean, inverse_scale : ndarray of shape (d,)
        What is taken from each feature, and what it is then multiplied with; 0 for constant ones.
    intercept : float
        What is taken from the targets.
    """

    mean: np.ndarray
    inverse_scale: np.ndarray
    intercept: float

    @classmethod
    def of(
        cls,
        X: Float[np.ndarray, "n d"],
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"],
        *,
        centred: bool,
    ) -> Standardisation:
        """Measure training data; without centring, means are 0 and variances those about 0."""
        mean = np.average(X, axis=0, weights=weight) if centred else np.zeros(X.shape[1])
        size = np.abs(X - mean).max(axis=0)
        # Rounding leaves something of a constant column; dividing by it would blow it up.
        varies = size > 1e-13 * np.abs(X).max(axis=0)
        unit = np.where(varies, size, 1.0)
        rms = np.sqrt(np.average(np.square((X - mean) / unit), axis=0, weights=weight))
        inverse = np.divide(1 / unit, rms, out=np.zeros_like(unit), where=varies)
        return cls(mean, inverse, float(np.average(y, weights=weight)) if centred else 0.0)

    @property
    def scale(self) -> np.ndarray:
        """The standard deviations; 0 for constant columns."""
        inverse = self.inverse_scale
        return np.divide(1.0, inverse, out=np.zeros_like(inverse), where=inverse > 0)

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """Return the inputs in standard units."""
        return (X - self.mean) * self.inverse_scale
