"""Two factors of an adapter, with what is known of inputs and cotangents, and their balance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.groups.pairs import minimise_pair

_ROUNDINGS, _LEAST = 64, 1e-12
"""How many units of rounding the product may change by, or by this much."""


class LoraBalance(NamedTuple):
    """A balanced adapter.

    Parameters
    ----------
    A, B : Tensor
        The factors, of the shapes, dtypes and devices that they had.
    trace : float
        The trace by both factors before.
    minimum : float
        Its infimum over all factors of the same product.
    attained : bool
        Whether some factors attain it; those returned come near otherwise. With B = 0, as adapters
        start, the infimum is 0 and the factors are left alone.
    change : float
        The largest change of an entry of the product, relative to its largest entry.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.balance_lora([[8.0]], [[0.5]]).ratio
    8.03125
    """

    A: Tensor
    B: Tensor
    trace: float
    minimum: float
    attained: bool
    change: float

    @property
    def ratio(self) -> float:
        """The trace over the minimum; infinite where that is 0."""
        return self.trace / self.minimum if self.minimum else math.inf


@dataclass(frozen=True)
class Moments:
    """What samples tell of an adapted layer.

    Parameters
    ----------
    inputs : Tensor of shape (n, d) or None
        Rows ``|c| x`` of inputs x and cotangents c; None stands for the identity.
    cotangents : Tensor of shape (n, m) or None
        Rows ``|x| c``, likewise.
    """

    inputs: Tensor | None
    cotangents: Tensor | None


def balance_factors(
    A: Float[Tensor, "r d"], B: Float[Tensor, "m r"], moments: Moments | None = None
) -> LoraBalance:
    """Balance two factors.

    Parameters
    ----------
    A : Tensor of shape (r, d)
        The first.
    B : Tensor of shape (m, r)
        The second.
    moments : Moments, optional
        Of inputs and cotangents; isotropic by default.

    Returns
    -------
    LoraBalance
        The balanced factors.
    """
    moments = moments or Moments(None, None)
    first, second = A.double(), B.double()
    of_A = second if moments.cotangents is None else moments.cotangents @ second
    of_B = first.T if moments.inputs is None else moments.inputs @ first.T
    trace = float(of_A.square().sum() + of_B.square().sum())
    found = minimise_pair(of_A, of_B)
    # An infimum is only approached, so that a second time there would always be a little to gain.
    worthwhile = 1 - 1e-12 if found.attained else 0.99
    if found.at_matrix >= trace * worthwhile:
        return LoraBalance(A, B, trace, found.value, found.attained, 0.0)
    balanced = (found.matrix @ first).to(A.dtype), (second @ found.inverse_transposed.T).to(B.dtype)
    before, after = second @ first, balanced[1].double() @ balanced[0].double()
    change = float((after - before).abs().max() / before.abs().max())
    if not change <= max(_LEAST, _ROUNDINGS * torch.finfo(A.dtype).eps):
        raise ValueError(
            f"Balancing A and B would change their product by {change:.1g}, more than the rounding "
            f"of {A.dtype}; their gradients are too nearly singular. Convert both to float64."
        )
    return LoraBalance(*balanced, trace, found.value, found.attained, change)
