r"""The least trace over all invertible matrices between two factors, in closed form.

With ``F -> M F`` for one factor and ``H -> M^-T H`` for the other, gradients become ``M^-T g`` and
``M h``. With :math:`G = \sum g g^T`, :math:`K = \sum h h^T` and :math:`P = M^T M` the two factors'
part in the Gauss-Newton trace is

.. math:: \operatorname{tr}(P^{-1} G) + \operatorname{tr}(P K) \geq 2 \| R_K R_G^T \|_*,

with any factors :math:`G = R_G^T R_G`, :math:`K = R_K^T R_K` and the nuclear norm. It is attained
where ``P K P = G``, the geometric mean of ``G`` and the inverse of ``K``. From the singular value
decomposition :math:`R_K R_G^T = U S V^T` follow :math:`M = S^{-1/2} V^T R_G` and
:math:`M^{-T} = S^{-1/2} U^T R_K`, without an inverse. The factors are the triangular ones of the
stacked gradients: formed from ``G`` and ``K``, half of the digits would be lost.

References
----------
R. Bhatia, "Positive Definite Matrices", 2007, chapter 4 (geometric means).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_RANK = 1e-13
"""Singular values below this part of the largest are rounding."""
_RIDGE = 1e-7
"""What is added to a singular factor, relative to its size, to have an invertible matrix."""


@dataclass(frozen=True)
class PairMinimum:
    r"""The least trace of a pair of factors.

    Parameters
    ----------
    value : float
        The infimum of :math:`\operatorname{tr}(P^{-1} G) + \operatorname{tr}(P K)`.
    matrix, inverse_transposed : Tensor of shape (r, r)
        ``M`` and ``M^-T``.
    attained : bool
        Whether any matrix attains the infimum; otherwise `matrix` comes near.
    at_matrix : float
        The value at `matrix`.
    imbalance : float
        The largest entry of :math:`M^{-T} G M^{-1} - M K M^T`, which is 0 at the minimum, relative
        to the value.
    """

    value: float
    matrix: Float[Tensor, "r r"]
    inverse_transposed: Float[Tensor, "r r"]
    attained: bool
    at_matrix: float
    imbalance: float


def triangular(
    rows: Float[Tensor, "n r"], before: Float[Tensor, "k r"] | None = None
) -> Float[Tensor, "q r"]:
    """Return a triangular R with ``R^T R`` the sum over rows of their outer squares.

    Parameters
    ----------
    rows : Tensor of shape (n, r)
        The rows; computed with in float64.
    before : Tensor of shape (k, r), optional
        The factor of earlier rows.

    Returns
    -------
    Tensor of shape (min(n + k, r), r)
        The factor of all.
    """
    rows = rows.double()
    if before is not None:
        rows = torch.cat([before, rows])
    return torch.linalg.qr(rows, mode="r").R


def minimise_pair(first: Float[Tensor, "k r"], second: Float[Tensor, "l r"]) -> PairMinimum:
    r"""Minimise over all invertible matrices.

    Parameters
    ----------
    first : Tensor of shape (k, r)
        Stacked gradients of what becomes ``M F``, or their triangular factor.
    second : Tensor of shape (l, r)
        The same of what becomes ``M^-T H``.

    Returns
    -------
    PairMinimum
        The minimum.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.groups.pairs import minimise_pair
    >>> G, K = torch.tensor([[4.0]], dtype=torch.float64), torch.tensor([[1.0]]).double()
    >>> found = minimise_pair(G.sqrt(), K.sqrt())
    >>> round(found.value, 12), round(found.at_matrix, 12), found.attained
    (4.0, 4.0, True)
    """
    first, second, size = triangular(first), triangular(second), first.shape[1]
    value = 2 * float(torch.linalg.svdvals(second @ first.T).sum())
    ranks = [_rank(factor) for factor in (first, second)]
    attained = min(ranks) == size
    if not attained:
        if not (first.any() and second.any()):
            # One side is zero: scaling goes on for ever, and nothing is gained by a part of it.
            eye = torch.eye(size, dtype=torch.float64, device=first.device)
            whole = float(first.square().sum() + second.square().sum())
            both_zero = whole == 0
            return PairMinimum(0.0, eye, eye, both_zero, whole, 0.0 if both_zero else 1.0)
        first, second = (_regular(factor) for factor in (first, second))
    left, singular, right = torch.linalg.svd(second @ first.T, full_matrices=False)
    root = singular.rsqrt()[:, None]
    matrix, inverse_transposed = root * (right @ first), root * (left.T @ second)
    # M times its inverse is the identity up to rounding that the condition of the factors
    # multiplies; one step of Newton's iteration for the inverse takes that away.
    error = torch.eye(size, dtype=matrix.dtype, device=matrix.device)
    error = error - matrix @ inverse_transposed.T
    inverse_transposed = inverse_transposed + error.T @ inverse_transposed
    matrix, inverse_transposed = upright(matrix, inverse_transposed)
    moved = first @ inverse_transposed.T, second @ matrix.T
    squares = [part.T @ part for part in moved]
    at_matrix = float(sum(square.trace() for square in squares))
    difference = float((squares[0] - squares[1]).abs().max())
    return PairMinimum(
        value, matrix, inverse_transposed, attained, at_matrix, difference / max(value, at_matrix)
    )


def upright(
    matrix: Float[Tensor, "r r"], inverse_transposed: Float[Tensor, "r r"]
) -> tuple[Float[Tensor, "r r"], Float[Tensor, "r r"]]:
    """Of all M with one P, return the symmetric one: the identity where nothing is to be gained.

    Parameters
    ----------
    matrix, inverse_transposed : Tensor of shape (r, r)
        ``M`` and ``M^-T``.

    Returns
    -------
    matrix, inverse_transposed : Tensor of shape (r, r)
        The same, turned.
    """
    turn, _, kept = torch.linalg.svd(matrix)
    rotation = (turn @ kept).T
    return rotation @ matrix, rotation @ inverse_transposed


def _rank(factor: Float[Tensor, "k r"]) -> int:
    singular = torch.linalg.svdvals(factor)
    return int((singular > _RANK * singular.max()).sum()) if singular.numel() else 0


def _regular(factor: Float[Tensor, "k r"]) -> Float[Tensor, "q r"]:
    """Add a little in every direction."""
    size = factor.shape[1]
    ridge = _RIDGE * float(torch.linalg.matrix_norm(factor)) / math.sqrt(size)
    eye = torch.eye(size, dtype=factor.dtype, device=factor.device)
    return triangular(ridge * eye, factor)
