"""The units in which a Gaussian process sees the targets: linear ones, or logarithms."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.tuning import BELIEVED_BEYOND_TARGETS


class TargetScale(NamedTuple):
    """A map from targets, or their logarithms, to mean 0 and unit size.

    Parameters
    ----------
    centre, size : float
        The mean and the standard deviation of what is scaled.
    least, most : float
        The range of the training targets. Predictions may lie below it, where logarithms need not
        exist: they count as the least one.
    logarithmic : bool
        Whether logarithms are scaled.
    """

    centre: float
    size: float
    least: float
    most: float
    logarithmic: bool

    @classmethod
    def of(
        cls,
        y: Float[np.ndarray, " n"],
        weight: Float[np.ndarray, " n"],
        *,
        logarithmic: bool,
        centred: bool,
    ) -> TargetScale:
        """Measure training targets, which must be positive where logarithms are wanted."""
        values = np.log(y) if logarithmic else y
        centre = float(np.average(values, weights=weight)) if centred else 0.0
        size = float(np.sqrt(np.average(np.square(values - centre), weights=weight)))
        return cls(centre, size or 1.0, float(y.min()), float(y.max()), logarithmic)

    def with_range(self, y: Float[np.ndarray, " n"]) -> TargetScale:
        """Return the same units with the range of other training targets."""
        return self._replace(least=float(y.min()), most=float(y.max()))

    def __call__(self, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return targets in these units."""
        values = np.log(np.maximum(y, self.least)) if self.logarithmic else y
        return (values - self.centre) / self.size

    def log_slope(self, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the logarithm of the derivative of the units, by which densities change."""
        return -np.log(self.size) - (np.log(y) if self.logarithmic else np.zeros_like(y))

    def moments(
        self, mean: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"], noise: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        r"""Turn mean and variance of a function in these units, and noise, into those of targets.

        Linear units only scale them. A target whose logarithm is normal with mean ``m`` and noise
        variance ``w`` has the mean

        .. math::
            \mu = e^{m + w / 2},

        which is cut off a quarter of a range beyond the training targets. A variance ``v`` of the
        function itself would add ``v / 2`` to the exponent; it does not, because ``v`` is large
        only where little is known of the function, least of all that it is normal. It counts in
        the variance, ``(e^{v + w} - 1) \mu^2``.
        """
        m, v = self.unscaled(mean, variance, noise)
        if not self.logarithmic:
            return m, v
        with np.errstate(over="ignore"):  # a variance may be infinite
            middle = np.exp(m + self.size**2 * noise / 2)
            return middle, np.expm1(v) * middle**2

    def unscaled(
        self, mean: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"], noise: float
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return mean and variance, noise included, of targets or of their logarithms.

        The mean of a logarithm is lowered to where that of the target is believed.
        """
        m, w = self.centre + self.size * mean, self.size**2 * noise
        if self.logarithmic:
            highest = self.most + BELIEVED_BEYOND_TARGETS * (self.most - self.least)
            m = np.minimum(m, math.log(highest) - w / 2)
        return m, self.size**2 * variance + w


def may_be_logarithmic(y: Float[np.ndarray, " n"]) -> bool:
    """Tell whether logarithms are worth a try: targets are positive, and less skewed as such."""
    if len(y) < 3 or y.min() <= 0 or np.ptp(y) == 0:
        return False
    # It takes a second to import, and predictions have no use for it.
    from scipy.stats import skew

    return abs(float(skew(np.log(y)))) < abs(float(skew(y)))
