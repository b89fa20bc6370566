"""Designs in which one thing changes at a time: what a change does, all else being equal.

Each factor has a low and a high level. A trajectory starts at random levels and turns one factor
after the other, in random order, so that with k factors it visits k + 1 points, and neighbours
differ in one factor. The points of several trajectories are spread over all combinations, which
rank correlations over all of them need; the neighbours are pairs, which correlations within an axis
need.

References
----------
M. D. Morris, "Factorial Sampling Plans for Preliminary Computational Experiments", Technometrics
33, 1991.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def point(
    factors: Mapping[str, tuple[Any, Any]], position: int, random_state: int
) -> tuple[dict[str, Any], str]:
    """Return one point of a trajectory.

    Parameters
    ----------
    factors : mapping of str to (low, high)
        The two levels of each factor.
    position : int
        0 for the start, k for the end, where every factor has been turned.
    random_state : int
        The trajectory.

    Returns
    -------
    levels : dict
        The value of each factor.
    turned : str
        The factor in which this point differs from the one before; empty at the start.

    Raises
    ------
    ValueError
        If the trajectory has no such point.

    Examples
    --------
    >>> from flattest.uses.trajectories import point
    >>> factors = {"width": (8, 32), "depth": (1, 2)}
    >>> points = [point(factors, position, 0) for position in range(3)]
    >>> sum(points[0][0][name] != points[2][0][name] for name in factors)
    2
    >>> [turned for _, turned in points]
    ['', 'width', 'depth']
    """
    if not 0 <= position <= len(factors):
        raise ValueError(
            f"position must be between 0 and {len(factors)}, one for each factor, not {position}."
        )
    rng = np.random.default_rng(random_state)
    high = rng.integers(2, size=len(factors))
    order = rng.permutation(len(factors))
    high[order[:position]] ^= 1
    names = list(factors)
    levels = {name: factors[name][side] for name, side in zip(names, high, strict=True)}
    return levels, names[order[position - 1]] if position else ""
