r"""Quadratic forms of single gradients, beside the sums of their squares.

For the gradient ``g`` of one column and one sample by a tensor ``W``: its squared norm, whose
spread gives the standard error of drawn columns; the same with every entry weighed by ``W_k**2``,
for adaptive flatness; and ``tr(g^T W W^T g)`` with one row per output, for relative flatness.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

KINDS = 3
"""How many forms there are."""


@dataclass(frozen=True)
class Forms:
    """Where the forms of the gradients by one tensor are written, and what they need.

    Parameters
    ----------
    values : Tensor of shape (3, c, n)
        Squared norms, weighed ones and relative ones, for c columns and n samples.
    squares : Tensor or None
        The squares of the tensor's entries, of its shape; None if only the last form is wanted.
    gram : Tensor or None
        ``W W^T``, with all but the first dimension of the tensor in one; None if it is not wanted.
    transposed : bool
        Whether gradients come transposed, and the squares too.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.squared_gradients.forms import Forms
    >>> weight = torch.tensor([[1.0, 2.0]])
    >>> forms = Forms(torch.zeros(3, 1, 1), weight**2, weight @ weight.T)
    >>> forms.write(torch.tensor([[[[3.0, 1.0]]]]))
    >>> forms.values[:, 0, 0]
    tensor([10., 13., 50.])
    """

    values: Float[Tensor, "3 c n"]
    squares: Tensor | None
    gram: Tensor | None
    transposed: bool = False

    def of(self, start: int, stop: int) -> Forms:
        """Return those of some samples."""
        return replace(self, values=self.values[..., start:stop])

    def turned(self) -> Forms:
        """Return those of gradients that come transposed."""
        squares = None if self.squares is None else self.squares.mT
        return replace(self, squares=squares, transposed=True)

    def write(self, gradients: Float[Tensor, "c n ..."]) -> None:
        """Write the forms of gradients as they are.

        Parameters
        ----------
        gradients : Tensor of shape (c, n, *shape)
            The gradients.
        """
        columns, n = gradients.shape[:2]
        if self.squares is not None:
            flat = (gradients * gradients).reshape(columns, n, -1)
            self.values[0] = flat.sum(dim=-1)
            self.values[1] = flat @ self.squares.flatten()
        if self.gram is not None:
            rows = gradients.mT if self.transposed else gradients.flatten(3)
            self.values[2] = ((self.gram @ rows) * rows).sum(dim=(-2, -1))

    def write_factors(
        self, left: Float[Tensor, "cl n g o"], right: Float[Tensor, "cr n g p"]
    ) -> None:
        """Write the forms of outer products ``left right^T``, without forming these.

        Parameters
        ----------
        left, right : Tensor of shape (c or 1, n, g, ...)
            The factors, in g groups.
        """
        one, other = left * left, right * right
        if self.squares is not None:
            self.values[0] = (one.sum(dim=-1) * other.sum(dim=-1)).sum(dim=-1)
            weights = self.squares.reshape(*left.shape[2:], right.shape[-1])  # (g, o, p)
            spread = (one[..., None, :] @ weights)[..., 0, :]
            self.values[1] = (spread * other).sum(dim=(-2, -1))
        if self.gram is not None:
            rows, others = (right, one) if self.transposed else (left, other)
            # Rows of the tensor in different groups have no input in common.
            width = rows.shape[-1]
            blocks = self.gram.reshape(rows.shape[2], width, rows.shape[2], width)
            own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (g, o, o)
            form = ((rows[..., None, :] @ own)[..., 0, :] * rows).sum(dim=-1)
            self.values[2] = (form * others.sum(dim=-1)).sum(dim=-1)
