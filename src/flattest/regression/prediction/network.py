"""A two-layer homogeneous network as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_ROWS = 8192  # evaluated together, to bound the memory


class Network(NamedTuple):
    r"""A network ``sum_j a_j s(w_j . x)``, the last input of which may be a constant 1.

    .. math:: s(z) = \alpha \max(z, 0)^p + \beta \max(-z, 0)^p

    Parameters
    ----------
    weights : ndarray of shape (m, d) or (m, d + 1)
        Row ``j`` is ``w_j``.
    coefficients : ndarray of shape (m,)
        The ``a_j``.
    degree, positive, negative : float
        The activation's ``p``, ``alpha`` and ``beta``.
    """

    weights: Float[np.ndarray, "m h"]
    coefficients: Float[np.ndarray, " m"]
    degree: float
    positive: float
    negative: float

    def __call__(self, inputs: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Evaluate on standardised features."""
        found = [self._outputs(inputs[i : i + _ROWS]) for i in range(0, len(inputs), _ROWS)]
        return np.concatenate([np.zeros(0), *found])

    def _outputs(self, inputs: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        d = inputs.shape[1]
        # A bias is the weight of the constant input.
        z = inputs @ self.weights[:, :d].T + self.weights[:, d:].sum(axis=1)
        slopes = np.where(z > 0, self.positive, self.negative)
        return (slopes * np.abs(z) ** self.degree) @ self.coefficients
