"""Where the samples are in a tensor inside a network: which of its rows belong to which.

Samples come first in what a module is given, but layers fold other dimensions into theirs, before
or behind it, and recurrent networks and attention put time first. A rule reads a tensor in the
layout it is told; calibration finds out which one is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Order = Literal["samples first", "samples second"]


class Unsupported(Exception):  # noqa: N818 # never seen by callers: the next way is tried
    """A rule does not fit this case."""


@dataclass(frozen=True)
class Layout:
    """How samples lie along the leading dimensions.

    Parameters
    ----------
    n_samples : int
        The number of samples.
    order : {"samples first", "samples second"}
        Whether the leading dimension runs over samples and then over positions, or the other way.
    """

    n_samples: int
    order: Order = "samples first"

    def matrix(self, rows: Float[Tensor, "*c r k"]) -> Float[Tensor, "*c n t k"]:
        """Split the rows of a matrix into samples and positions.

        Parameters
        ----------
        rows : Tensor of shape (..., n t, k)
            The rows.

        Returns
        -------
        Tensor of shape (..., n, t, k)
            The same by sample.

        Raises
        ------
        Unsupported
            If their number is no multiple of the number of samples.
        """
        *columns, length, width = rows.shape
        if length % self.n_samples:
            raise Unsupported
        positions = length // self.n_samples
        if self.order == "samples first":
            return rows.reshape(*columns, self.n_samples, positions, width)
        return rows.reshape(*columns, positions, self.n_samples, width).transpose(-3, -2)

    def split(self, values: Float[Tensor, "c *shape"]) -> tuple[Tensor, int]:
        """Return values with a dimension for the samples alone, and which one it is.

        Parameters
        ----------
        values : Tensor of shape (c, ...)
            Columns of cotangents of a tensor.

        Returns
        -------
        values : Tensor
            With the leading dimension of the tensor split in two, if it is not the samples' alone.
        axis : int
            Where the samples are, columns not counted.

        Raises
        ------
        Unsupported
            If no dimension fits.
        """
        columns, length, *rest = values.shape if values.ndim > 1 else (len(values), 1)
        n = self.n_samples
        if self.order == "samples first":
            if length % n:
                raise Unsupported
            return values.reshape(columns, n, length // n, *rest), 0
        if rest and rest[0] == n:
            return values, 1
        if length % n:
            raise Unsupported
        return values.reshape(columns, length // n, n, *rest), 1

    def reduced(self, values: Float[Tensor, "c *shape"], shape: tuple[int, ...]) -> Tensor:
        """Sum what broadcasting repeated, sample by sample.

        Parameters
        ----------
        values : Tensor of shape (c, ...)
            Columns of cotangents of a tensor into which another was broadcast.
        shape : tuple of int
            The shape of the other.

        Returns
        -------
        Tensor of shape (c, n, *shape)
            The cotangents of the other.

        Raises
        ------
        Unsupported
            If the other has an entry per sample itself.
        """
        whole = tuple(values.shape[1:])
        padded = (1,) * (len(whole) - len(shape)) + tuple(shape)
        if len(padded) != len(whole) or not whole:
            raise Unsupported
        split, axis = self.split(values)
        sizes = list(padded)
        if split.ndim > values.ndim:
            # The leading dimension became two. The other tensor can have its length only where
            # there is one sample; else it would have an entry per sample.
            sizes = [1, 1, *padded[1:]]
            sizes[1 - axis] = padded[0]
            if padded[0] != 1 and self.n_samples > 1:
                raise Unsupported
        if sizes[axis] != 1:
            raise Unsupported
        # Behind columns and samples.
        moved = split.movedim(axis + 1, 1)
        del sizes[axis]
        summed = [2 + i for i, size in enumerate(sizes) if size == 1 and moved.shape[2 + i] != 1]
        if summed:
            moved = moved.sum(dim=summed)
        return moved.reshape(len(values), self.n_samples, *shape)
