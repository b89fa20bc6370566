"""The average of processes conditioned on the same rows, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.conditioned import Conditioned, Moments, Seen
from flattest.regression.prediction.prior import Prior

_ROWS = 256  # evaluated together: their covariances with 1,000 points stay in the fast memory


class Average(NamedTuple):
    """The average of processes conditioned on the same rows.

    Parameters
    ----------
    each : tuple of Conditioned
        The processes, the best one first.
    shares : tuple of float
        How much each counts; the sum is 1.
    rows : Seen or None
        The rows, where the conditioning is exact: with the priors they are all there is to know.
    """

    each: tuple[Conditioned, ...]
    shares: tuple[float, ...]
    rows: Seen | None

    @classmethod
    def exactly(cls, priors: Sequence[Prior], shares: Sequence[float], rows: Seen) -> Average:
        """Condition processes on rows."""
        each = tuple(Conditioned.exactly(prior, rows) for prior in priors)
        return cls(each, tuple(shares), rows)

    @property
    def priors(self) -> list[Prior]:
        """The processes before they saw rows."""
        return [conditioned.prior for conditioned in self.each]

    @property
    def noise(self) -> float:
        """The average variance of the noise."""
        noises = [prior.noise * prior.inflation for prior in self.priors]
        return sum(s * noise for s, noise in zip(self.shares, noises, strict=True))

    def __call__(self, X: Float[np.ndarray, "n h"]) -> Moments:
        """Return the moments of the function, noise not included.

        The variance is the average variance plus the variance of the means.
        """
        if len(X) > _ROWS:
            parts = [self(X[i : i + _ROWS]) for i in range(0, len(X), _ROWS)]
            return Moments(*(np.concatenate(values) for values in zip(*parts, strict=True)))
        moments = [conditioned(X) for conditioned in self.each]
        means, variances, doubts = (np.stack(values) for values in zip(*moments, strict=True))
        shares = np.array(self.shares)
        mean = shares @ means
        return Moments(mean, shares @ (variances + np.square(means - mean)), shares @ doubts)
