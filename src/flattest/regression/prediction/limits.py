"""How far beyond the training rows a function is followed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.tuning import FOLLOWED_BEYOND


class Limits(NamedTuple):
    """Bounds along the directions of a function, to which inputs are pulled back.

    Beyond them the function stays as it is there. A feature that is far out in a single row would
    otherwise decide that row's prediction, however little it matters.

    Parameters
    ----------
    axes : ndarray of shape (d, k)
        The directions, orthonormal columns.
    low, high : ndarray of shape (k,)
        The bounds.
    """

    axes: Float[np.ndarray, "d k"]
    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]

    @classmethod
    def of(
        cls,
        axes: Float[np.ndarray, "d k"],
        values: Float[np.ndarray, " k"],
        z: Float[np.ndarray, "n k"],
    ) -> Limits:
        """Take the range of the training inputs, and more along directions that matter more.

        How much the function varies along each direction is given by the values, the training
        inputs by their projections.
        """
        low, high = z.min(axis=0), z.max(axis=0)
        largest = max(values.max(), np.finfo(z.dtype).tiny)
        margin = FOLLOWED_BEYOND * np.sqrt(values / largest) * (high - low)
        return cls(axes, low - margin, high + margin)

    def __call__(self, inputs: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """Pull inputs back to the bounds."""
        z = inputs @ self.axes
        return inputs + (np.clip(z, self.low, self.high) - z) @ self.axes.T
