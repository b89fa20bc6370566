"""What is known of the minimum of a network's trace over its symmetries."""

from __future__ import annotations

import math
from typing import NamedTuple


class Orbit(NamedTuple):
    """The minimum of the Gauss-Newton trace over all networks that symmetries make of one.

    Parameters
    ----------
    minimum : float
        The minimum, or the infimum where it is not attained.
    ratio : float
        The network's own Gauss-Newton trace over it: how much sharper it is than it need be.
    gap : float
        A bound of ``minimum`` less the true infimum, from a dual point. Relative to `minimum` it is
        the certificate.
    attained : bool
        Whether a network attains the minimum.
    why : str
        How the minimum was found, and what to do where something is left to do.
    symmetry : str
        ``"scales"``, or ``"all"`` for linear groups as well.
    batch_norm : str
        Whether batch normalisation was kept or folded: the minimum is over that parametrisation.
    n_scales, n_groups : int
        The numbers of free scales and of linear groups.
    n_left_alone : int
        Scales left at 1, since nothing flows through them, or too little to matter.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU(), torch.nn.Linear(1, 1))
    >>> for p, value in zip(net.parameters(), (4.0, 0.0, 1.0, 0.0)):
    ...     _ = torch.nn.init.constant_(p, value)
    >>> found = ft.measure(net.double(), [[1.0]], [[4.0]], symmetry="scales").orbit
    >>> round(found.minimum, 9), round(found.ratio, 9), found.attained
    (24.627416998, 1.54299576, True)
    """

    minimum: float
    ratio: float
    gap: float
    attained: bool
    why: str
    symmetry: str
    batch_norm: str
    n_scales: int
    n_groups: int = 0
    n_left_alone: int = 0

    @property
    def certificate(self) -> float:
        """The gap relative to the minimum."""
        return self.gap / self.minimum if self.minimum else math.inf if self.gap else 0.0
