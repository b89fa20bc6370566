"""How far beyond the training rows a function is followed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.tuning import FOLLOWED_BEYOND
from flattest.regression.variation import Variation


class Limits(NamedTuple):
    """Bounds along the directions of a function, to which inputs are pulled back.

    Beyond them the function stays as it is there. A feature that is far out in a single row would
    otherwise decide that row's prediction, however little it matters.

    Parameters
    ----------
    axes : Tensor of shape (d, k)
        The directions, orthonormal columns.
    low, high : Tensor of shape (k,)
        The bounds.
    """

    axes: Float[Tensor, "d k"]
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]

    @classmethod
    def of(cls, variation: Variation, inputs: Float[Tensor, "n d"]) -> Limits:
        """Take the range of the training inputs, and more along directions that matter more."""
        z = inputs @ variation.vectors
        low, high = z.amin(0), z.amax(0)
        largest = variation.values.max().clamp_min(torch.finfo(z.dtype).tiny)
        margin = FOLLOWED_BEYOND * (variation.values / largest).sqrt() * (high - low)
        return cls(variation.vectors, low - margin, high + margin)

    def __call__(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Pull inputs back to the bounds."""
        z = inputs @ self.axes
        return inputs + (z.clamp(self.low, self.high) - z) @ self.axes.T

    def to(self, device: str) -> Limits:
        """Move to a device."""
        return Limits(*(values.to(device) for values in self))
