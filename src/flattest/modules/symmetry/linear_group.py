r"""Pairs of factors between which any invertible matrix can be moved.

Where a network computes :math:`U V x` with nothing but linear maps in between, M V and
:math:`U M^{-1}` compute the same for every M in GL(r): value and output projection of an attention
head, the factors of a low-rank layer, the two matrices of a LoRA adapter. Query and key, which only
meet in :math:`q^T k`, become M Q and :math:`M^{-T} K`. Written with the r coordinates as rows, one
side always transforms as :math:`F \to M F` and the other as :math:`F \to M^{-T} F`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


class Kind(enum.Enum):
    """Which matrices a group allows; the member's value says so."""

    GENERAL = "any invertible matrix"
    PAIRED = "a rotation and a scale in each pair of coordinates"


@dataclass(frozen=True, eq=False)
class Factor:
    """A part of a parameter tensor as a matrix whose rows are the coordinates of a group.

    Parameters
    ----------
    name : str
        The parameter.
    axis : int
        Which of its dimensions holds the coordinates.
    rows : Tensor of shape (r,)
        The coordinates' positions along it.
    at : tuple of (int, int)
        Other dimensions that are held at one position: (dimension, position).
    """

    name: str
    axis: int
    rows: Tensor
    at: tuple[tuple[int, int], ...] = ()

    def read(self, tensor: Tensor) -> Shaped[Tensor, "r c"]:
        """Return the factor.

        Parameters
        ----------
        tensor : Tensor
            The parameter, or anything of its shape, such as its gradient.

        Returns
        -------
        Tensor of shape (r, c)
            A copy.
        """
        rows = self.rows.to(tensor.device)
        return self._view(tensor).index_select(0, rows).reshape(len(rows), -1)

    def write(self, tensor: Tensor, matrix: Shaped[Tensor, "r c"]) -> None:
        """Overwrite the factor in a tensor.

        Parameters
        ----------
        tensor : Tensor
            The parameter, or anything of its shape; changed in place.
        matrix : Tensor of shape (r, c)
            The new factor.
        """
        view = self._view(tensor)
        rows = self.rows.to(tensor.device)
        values = matrix.to(tensor).reshape(len(rows), *view.shape[1:])
        view.index_copy_(0, rows, values)

    def _view(self, tensor: Tensor) -> Tensor:
        """Return the part of a tensor at the fixed positions, with the coordinates first."""
        view = tensor.detach().movedim(self.axis, 0)
        # Later dimensions first, so that the earlier ones keep their numbers.
        for dimension, position in sorted(self.at, reverse=True):
            view = view.select(dimension + (dimension < self.axis), position)
        return view


@dataclass(frozen=True, eq=False)
class Translation:
    r"""A shift between two biases: :math:`c \to c + \delta`, :math:`d \to d - U \delta`.

    Parameters
    ----------
    bias : Factor
        The bias c of the inner coordinates, of shape (r, 1).
    shifts : sequence of (Factor, Factor)
        Each factor :math:`U^T`, of shape (r, c), with the bias d of shape (c, 1).
    """

    bias: Factor
    shifts: Sequence[tuple[Factor, Factor]]


@dataclass(frozen=True, eq=False)
class LinearGroup:
    """Factors that a matrix M moves between without a change of the function.

    Parameters
    ----------
    name : str
        Where it is.
    kind : Kind
        Which matrices are allowed.
    size : int
        The number r of coordinates.
    forward : sequence of Factor
        What becomes M F: the inner projection and its bias.
    backward : sequence of Factor
        What becomes M^-T F: the outer projection, transposed; the keys for queries.
    pairs : Tensor of shape (r/2, 2) or None
        Which coordinates are rotated together, where the kind is PAIRED.
    translation : Translation or None
        The shift that is allowed besides.
    """

    name: str
    kind: Kind
    size: int
    forward: Sequence[Factor]
    backward: Sequence[Factor]
    pairs: Tensor | None = None
    translation: Translation | None = None

    def transform(
        self, tensors: dict[str, Tensor], M: Float[Tensor, "r r"], delta: Tensor | None = None
    ) -> None:
        """Apply a matrix, and a translation before it, to parameters in place.

        Parameters
        ----------
        tensors : dict of str to Tensor
            The parameters by name.
        M : Tensor of shape (r, r)
            An invertible matrix that the kind allows.
        delta : Tensor of shape (r,), optional
            The shift of the inner bias.
        """
        if delta is not None:
            self._translate(tensors, delta)
        M = M.double()
        for factor in self.forward:
            tensor = tensors[factor.name]
            values = factor.read(tensor).double()
            factor.write(tensor, M.to(values.device) @ values)
        for factor in self.backward:
            tensor = tensors[factor.name]
            values = factor.read(tensor).double()
            factor.write(tensor, torch.linalg.solve(M.to(values.device).T, values))

    def _translate(self, tensors: dict[str, Tensor], delta: Tensor) -> None:
        if self.translation is None:
            raise ValueError(f"The group {self.name} allows no translation; leave delta out.")
        bias = self.translation.bias
        values = bias.read(tensors[bias.name]).double()
        delta = delta.double().to(values.device)[:, None]
        bias.write(tensors[bias.name], values + delta)
        for factor, outer in self.translation.shifts:
            change = factor.read(tensors[factor.name]).double().T @ delta
            outer.write(tensors[outer.name], outer.read(tensors[outer.name]).double() - change)
