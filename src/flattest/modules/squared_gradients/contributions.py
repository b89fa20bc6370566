"""What one use of a parameter adds to its per-sample gradients, in the form that is cheapest.

A rule turns the cotangents at one node of the autograd graph into one of three forms. Each can
`form` the per-sample gradients of some samples, for all columns, and sum their squares without
forming all of them at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.modules.squared_gradients.forms import Forms

CHUNK = 1 << 19
"""Entries of per-sample gradients that are formed together: some MB, which stay in the cache."""


class Contribution(ABC):
    """Per-sample gradients by one tensor, of shape (c, n, *shape) for c columns.

    Attributes
    ----------
    shape : tuple of int
        The shape of the tensor.
    """

    shape: tuple[int, ...]

    @abstractmethod
    def form(self, start: int, stop: int) -> Tensor:
        """Return the gradients of some samples, of shape (c, stop - start, *shape)."""

    def squares(self, signs: Float[Tensor, "c n"], forms: Forms | None = None) -> Tensor:
        """Return the sum of signed squares over columns and samples, of the tensor's shape.

        Forms of the single gradients are written into `forms`, if that is given.
        """
        total = signs.new_zeros(self.shape)
        for start, stop in chunks(signs, self.shape):
            part = None if forms is None else forms.of(start, stop)
            total += weighed(self.form(start, stop), signs[:, start:stop], part)
        return total


def chunks(signs: Float[Tensor, "c n"], shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield ranges of samples whose gradients for all columns fit into one chunk.

    Parameters
    ----------
    signs : Tensor of shape (c, n)
        As many columns and samples as there are.
    shape : tuple of int
        The shape of one gradient.

    Yields
    ------
    start, stop : int
        The range.
    """
    columns, n = signs.shape
    step = max(1, CHUNK // max(1, columns * math.prod(shape)))
    for start in range(0, n, step):
        yield start, min(n, start + step)


def weighed(gradients: Tensor, signs: Float[Tensor, "c n"], forms: Forms | None = None) -> Tensor:
    """Sum signed squares over columns and samples.

    Parameters
    ----------
    gradients : Tensor of shape (c, n, ...)
        The gradients.
    signs : Tensor of shape (c, n)
        Their signs.
    forms : Forms, optional
        Where forms of the single gradients are written.

    Returns
    -------
    Tensor
        Of the remaining shape.
    """
    flat = gradients.reshape(signs.numel(), -1)
    squares = flat * flat
    if forms is not None:
        forms.write(gradients)
    return (signs.reshape(1, -1) @ squares).reshape(gradients.shape[2:])


@dataclass(frozen=True)
class Dense(Contribution):
    """Gradients as they are.

    Parameters
    ----------
    gradients : Tensor of shape (c, n, *shape)
        The gradients.
    """

    gradients: Float[Tensor, "c n *shape"]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The shape of the tensor."""
        return tuple(self.gradients.shape[2:])

    def form(self, start: int, stop: int) -> Tensor:
        """Return the gradients of some samples."""
        return self.gradients[:, start:stop]

    def squares(self, signs: Float[Tensor, "c n"], forms: Forms | None = None) -> Tensor:
        """Return the sum of signed squares."""
        return weighed(self.gradients, signs, forms)


@dataclass(frozen=True)
class Outer(Contribution):
    """Sums over positions of outer products, in groups: linear layers and convolutions.

    Parameters
    ----------
    left : Tensor of shape (c or 1, n, g, o, t)
        One factor at each of t positions.
    right : Tensor of shape (c or 1, n, g, p, t)
        The other factor; at most one of the two is the same for all columns.
    shape : tuple of int
        The tensor's shape, ``g o p`` entries in this order.
    """

    left: Float[Tensor, "cl n g o t"]
    right: Float[Tensor, "cr n g p t"]
    shape: tuple[int, ...]

    def form(self, start: int, stop: int) -> Tensor:
        """Return the gradients of some samples, by one batched product for all columns."""
        left, right = self.left[:, start:stop], self.right[:, start:stop]
        if right.shape[0] == 1:
            product = _fold(left) @ right[0].mT  # (n, g, c o, p)
            columns, n, g, o, _ = left.shape
            product = product.reshape(n, g, columns, o, -1).permute(2, 0, 1, 3, 4)
        else:
            product = left @ right.mT
        return product.reshape(product.shape[0], stop - start, *self.shape)

    def squares(self, signs: Float[Tensor, "c n"], forms: Forms | None = None) -> Tensor:
        """Return the sum of signed squares; with one position each, squares factorise."""
        if self.left.shape[-1] > 1:
            in_place = self.right.shape[0] == 1 and self.left.shape[2] == 1
            return (self._squares_in_place if in_place else super().squares)(signs, forms)
        if forms is not None:
            forms.write_factors(self.left[..., 0], self.right[..., 0])
        left, right = (part[..., 0] ** 2 for part in (self.left, self.right))
        if left.shape[0] == len(signs):
            left = torch.einsum("cngo,cn->ngo", left, signs)
            right = right[0] if right.shape[0] == 1 else right.sum(dim=0)
        else:
            left, right = left[0], torch.einsum("cngp,cn->ngp", right, signs)
        return torch.einsum("ngo,ngp->gop", left, right).reshape(self.shape)

    def _squares_in_place(self, signs: Float[Tensor, "c n"], forms: Forms | None) -> Tensor:
        """Square products where they are, samples before columns: without groups no copy is due."""
        total = signs.new_zeros(self.shape)
        columns = len(signs)
        for start, stop in chunks(signs, self.shape):
            product = _fold(self.left[:, start:stop]) @ self.right[0, start:stop].mT
            if forms is not None:
                single = product.reshape(stop - start, columns, *self.shape).transpose(0, 1)
                forms.of(start, stop).write(single)
            flat = product.reshape((stop - start) * columns, -1).square_()
            own = signs[:, start:stop].T.reshape(1, -1)
            total += (own @ flat).reshape(self.shape)
        return total

    @staticmethod
    def joined(parts: list[Outer]) -> Outer | None:
        """Return the sum of several of the same form, as more positions; None where it has none.

        Parameters
        ----------
        parts : list of Outer
            Gradients by the same tensor.

        Returns
        -------
        Outer or None
            The sum.
        """
        first = parts[0]
        for part in parts:
            same_left = part.left.shape[:-1] == first.left.shape[:-1]
            if not (same_left and part.right.shape[:-1] == first.right.shape[:-1]):
                return None
        left = torch.cat([part.left for part in parts], dim=-1)
        return Outer(left, torch.cat([part.right for part in parts], dim=-1), first.shape)


def _fold(left: Float[Tensor, "c n g o t"]) -> Float[Tensor, "n g co t"]:
    columns, n, g, o, t = left.shape
    return left.permute(1, 2, 0, 3, 4).reshape(n, g, columns * o, t)


@dataclass(frozen=True)
class Rows(Contribution):
    """Gradients of a table of which each sample takes a few rows: embeddings.

    Parameters
    ----------
    values : Tensor of shape (c, u, d)
        The gradient by each row that a sample takes.
    sample, row : Tensor of shape (u,)
        Which sample takes which row; no pair occurs twice.
    shape : tuple of int
        The shape of the table, (rows, d).
    n_samples : int
        The number of samples.
    """

    values: Float[Tensor, "c u d"]
    sample: Int[Tensor, " u"]
    row: Int[Tensor, " u"]
    shape: tuple[int, ...]
    n_samples: int

    def form(self, start: int, stop: int) -> Tensor:
        """Return the gradients of some samples, with all their zeros."""
        inside = (self.sample >= start) & (self.sample < stop)
        sample, row = self.sample[inside] - start, self.row[inside]
        gradients = self.values.new_zeros(len(self.values), stop - start, *self.shape)
        gradients[:, sample, row] = self.values[:, inside]
        return gradients

    def squares(self, signs: Float[Tensor, "c n"], forms: Forms | None = None) -> Tensor:
        """Return the sum of signed squares, without the zeros."""
        if forms is not None and forms.squares is not None:
            squares = self.values**2
            forms.values[0].zero_().index_add_(1, self.sample, squares.sum(dim=-1))
            weighed_ones = (squares * forms.squares[self.row]).sum(dim=-1)
            forms.values[1].zero_().index_add_(1, self.sample, weighed_ones)
        squares = torch.einsum("cud,cu->ud", self.values**2, signs[:, self.sample])
        return self.values.new_zeros(self.shape).index_add_(0, self.row, squares)
