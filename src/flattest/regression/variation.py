"""Along which directions a function varies: the average gradient outer product, decomposed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.tuning import NEGLIGIBLE_DIRECTION


class Variation(NamedTuple):
    """Eigenvalues and eigenvectors of ``(1/n) sum_i w_i grad f(x_i) grad f(x_i)^T``.

    Parameters
    ----------
    values : Tensor of shape (k,)
        How much the function varies along each direction, largest first.
    vectors : Tensor of shape (d, k)
        The directions, orthonormal columns.
    slopes : Tensor of shape (k,)
        The average derivative along each direction.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "d k"]
    slopes: Float[Tensor, " k"]

    @classmethod
    def of(
        cls,
        outer: Float[Tensor, "r r"],
        basis: Float[Tensor, "d r"],
        mean: Float[Tensor, " r"],
    ) -> Variation:
        """Decompose an average gradient outer product, and the average gradient.

        Both in coordinates of an orthonormal basis.
        """
        values, vectors = torch.linalg.eigh(outer)
        vectors = vectors.flip(1)
        return cls(values.flip(0).clamp_min(0), basis @ vectors, vectors.T @ mean)

    @property
    def n_directions(self) -> int:
        """The number of directions that are not negligible."""
        return int((self.values > NEGLIGIBLE_DIRECTION * self.values.sum()).sum())

    @property
    def shares(self) -> Float[np.ndarray, " k"]:
        """The importances of the directions: the values as shares of their sum."""
        return (self.values / (float(self.values.sum()) or 1.0)).numpy()

    def to(self, device: str) -> Variation:
        """Move to a device."""
        return Variation(*(values.to(device) for values in self))
