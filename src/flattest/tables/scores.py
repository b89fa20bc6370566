"""How well predictions fit true values, and how far that may be off by the chance of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

LEVEL = 0.95
"""The probability of the intervals of scores."""
_DRAWS, _FEWEST_DRAWS = 2000, 200  # bootstrap samples
_ENTRIES, _TOGETHER = 4_000_000, 500_000  # of all samples, and of those drawn at a time


@dataclass(frozen=True)
class Score:
    """How well predictions fit true values.

    Parameters
    ----------
    r2 : float
        ``1 - sum (y - f)**2 / sum (y - mean(y))**2``; NaN for a constant ``y``.
    rmse : float
        Root mean squared error, in the units of the target.
    interval : tuple of float, or None
        A 95 % interval of `r2` over the choice of the rows, where it was asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.scores import Score
    >>> Score.of(np.array([0.0, 2.0]), np.array([0.0, 1.0])).r2
    0.5
    """

    r2: float
    rmse: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(
        cls,
        true: Float[np.ndarray, " n"],
        predicted: Float[np.ndarray, "*r n"],
        rng: np.random.Generator | None = None,
    ) -> Score:
        """Compare true values with predictions.

        Parameters
        ----------
        true : ndarray of shape (n,)
            The values.
        predicted : ndarray of shape (n,) or (r, n)
            The predictions; several of each are compared one by one, and their squared errors
            averaged.
        rng : numpy.random.Generator, optional
            Draws rows for the interval, which the score has only then.

        Returns
        -------
        Score
            The score.
        """
        squares = np.square(true - predicted).reshape(-1, len(true)).mean(axis=0)
        total = float(np.square(true - true.mean()).sum())
        r2 = 1 - float(squares.sum()) / total if total else float("nan")
        found = None if rng is None or not total else interval_of_r2(true, squares, rng)
        return cls(r2, float(squares.mean()) ** 0.5, found)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, None for NaN."""
        found = {"r2": self.r2 if np.isfinite(self.r2) else None, "rmse": self.rmse}
        return found if self.interval is None else found | {"r2_interval": list(self.interval)}


def interval_of_r2(
    true: Float[np.ndarray, " n"], squares: Float[np.ndarray, " n"], rng: np.random.Generator
) -> tuple[float, float] | None:
    """Return a 95 % interval of R squared: its quantiles over rows drawn with replacement.

    It tells how far the score may be off because other rows might have come, for this model; not
    how much models differ that are fitted to other rows.

    Parameters
    ----------
    true : ndarray of shape (n,)
        True values.
    squares : ndarray of shape (n,)
        Squared errors.
    rng : numpy.random.Generator
        Draws the rows.

    Returns
    -------
    tuple of float, or None
        The ends; None where so few values differ that none can be given.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.scores import interval_of_r2
    >>> rng = np.random.default_rng(0)
    >>> y = rng.standard_normal(400)
    >>> low, high = interval_of_r2(y, 0.5 * rng.standard_normal(400) ** 2, rng)
    >>> low < 0.5 < high
    True
    """
    n = len(true)
    draws = int(np.clip(_ENTRIES // n, _FEWEST_DRAWS, _DRAWS))
    drawn, together = [], max(_TOGETHER // n, 1)
    for first in range(0, draws, together):
        rows = rng.integers(n, size=(min(together, draws - first), n))
        variance = true[rows].var(axis=1)
        varied = variance > 0
        drawn.append(1 - squares[rows[varied]].mean(axis=1) / variance[varied])
    found = np.concatenate(drawn)
    if len(found) < _FEWEST_DRAWS:
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval_of_difference(
    true: Float[np.ndarray, " n"],
    one: Float[np.ndarray, "*r n"],
    other: Float[np.ndarray, "*r n"],
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Return a 95 % interval of how much greater the R squared of one prediction is.

    Both are compared on the same rows drawn, since what is hard to predict is so for both: their
    own intervals may overlap where the difference is clear.

    Parameters
    ----------
    true : ndarray of shape (n,)
        True values.
    one, other : ndarray of shape (n,) or (r, n)
        The predictions; of several, squared errors are averaged.
    rng : numpy.random.Generator
        Draws the rows.

    Returns
    -------
    tuple of float, or None
        The ends; None where so few values differ that none can be given.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.scores import interval_of_difference
    >>> rng = np.random.default_rng(0)
    >>> y, noise = rng.standard_normal((2, 400))
    >>> low, high = interval_of_difference(y, y + 0.1 * noise, y + 0.5 * noise, rng)
    >>> low < 0.24 < high  # R squared of 0.99 and of 0.75
    True
    """
    squares = [np.square(true - each).reshape(-1, len(true)).mean(axis=0) for each in (one, other)]
    found = interval_of_r2(true, squares[0] - squares[1], rng)
    return None if found is None else (found[0] - 1, found[1] - 1)
