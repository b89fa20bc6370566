"""The law of new targets: an average of normal ones, in linear units and in logarithms."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.target_scale import TargetScale

_BISECTIONS = 60  # of an interval, down to its last digits


class Predictive(NamedTuple):
    r"""The predictive law of targets: ``u(y)`` is normal, for one unit ``u`` or an average of two.

    .. math::
        p(y) = \sum_j w_j \, N\big(u_j(y); m_j, s_j^2\big) \, u_j'(y)

    Parameters
    ----------
    units : tuple of TargetScale
        The units ``u`` of each part.
    shares : tuple of float
        How much each counts, ``w``.
    means, variances, noises : ndarray of shape (p, n), (p, n) and (p,)
        Each part's mean and variance of the function, and variance of the noise, in its units.
    """

    units: tuple[TargetScale, ...]
    shares: tuple[float, ...]
    means: Float[np.ndarray, "p n"]
    variances: Float[np.ndarray, "p n"]
    noises: Float[np.ndarray, " p"]

    def moments(self) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return the mean and the standard deviation of the targets."""
        each = [
            units.moments(mean, variance, float(noise))
            for units, mean, variance, noise in zip(
                self.units, self.means, self.variances, self.noises, strict=True
            )
        ]
        means, variances = (np.stack(values) for values in zip(*each, strict=True))
        shares = np.array(self.shares)
        mean = shares @ means
        return mean, np.sqrt(shares @ (variances + np.square(means - mean)))

    def quantile(self, probability: float) -> Float[np.ndarray, " n"]:
        """Return the value below which a new target lies with a probability between 0 and 1."""
        z = NormalDist().inv_cdf(probability)
        each = np.stack([self._values(part, z) for part in range(len(self.units))])
        low, high = each.min(axis=0), each.max(axis=0)
        # The quantile of an average lies between those of its parts.
        for _ in range(_BISECTIONS if len(each) > 1 else 0):
            middle = (low + high) / 2
            below = self._distribution(middle) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return (low + high) / 2

    def interval(self, level: float) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return the ends of intervals that hold new targets with a probability.

        As probable a target lies below them as above.
        """
        low, high = (self.quantile((1 + sign * level) / 2) for sign in (-1, 1))
        return low, high

    def log_density(self, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the logarithm of the density at targets."""
        total = np.full(len(y), -np.inf)
        for part, (units, share) in enumerate(zip(self.units, self.shares, strict=True)):
            mean, deviation = self._normal(part)
            # No logarithm has a target that is not positive.
            there = y > 0 if units.logarithmic else np.isfinite(y)
            values = np.log(y, where=there, out=np.zeros_like(y)) if units.logarithmic else y
            z = (values - mean) / deviation
            each = np.log(share / (math.sqrt(2 * math.pi) * deviation)) - z**2 / 2
            each -= values if units.logarithmic else 0
            total = np.logaddexp(total, np.where(there, each, -np.inf))
        return total

    def sample(self, n_samples: int, rng: np.random.Generator) -> Float[np.ndarray, "n n_samples"]:
        """Draw targets, each row on its own."""
        size = (self.means.shape[1], n_samples)
        chosen = rng.choice(len(self.shares), size, p=np.divide(self.shares, sum(self.shares)))
        z = rng.standard_normal(size)
        each = [self._values(part, z) for part in range(len(self.units))]
        return np.choose(chosen, each)

    def _normal(self, part: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return a part's mean and standard deviation of targets in its units, unscaled."""
        units, noise = self.units[part], self.noises[part]
        mean, variance = units.unscaled(self.means[part], self.variances[part], float(noise))
        return mean, np.sqrt(variance)

    def _values(self, part: int, z: float | np.ndarray) -> np.ndarray:
        """Return the targets that lie ``z`` standard deviations above a part's mean."""
        mean, deviation = self._normal(part)
        if isinstance(z, np.ndarray):
            mean, deviation = mean[:, None], deviation[:, None]
        values = mean + z * deviation
        with np.errstate(over="ignore"):  # the end of an interval may be infinite
            return np.exp(values) if self.units[part].logarithmic else values

    def _distribution(self, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the probability of targets below these."""
        from scipy.special import ndtr  # most laws have one part, and do without

        total = np.zeros_like(y)
        for part, (units, share) in enumerate(zip(self.units, self.shares, strict=True)):
            mean, deviation = self._normal(part)
            with np.errstate(divide="ignore"):
                # No logarithm lies below a target that is not positive.
                values = np.log(np.maximum(y, 0)) if units.logarithmic else y
            total += share * ndtr((values - mean) / deviation)
        return total
