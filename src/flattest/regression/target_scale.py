"""In what units a Gaussian process sees the targets: linear ones, or logarithms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import skew
from torch import Tensor

_BEYOND = 0.25
"""How far beyond the range of the targets their means are believed, in units of the range."""


class TargetScale(NamedTuple):
    """Targets of mean 0 and unit size, or their logarithms."""

    centre: float
    size: float
    least: float
    most: float
    """The range seen. Logarithms of smaller ones, as predictions may be, are the smallest one's."""
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
        """Measure the training targets, all positive where logarithms are wanted."""
        values = np.log(y) if logarithmic else y
        centre = float(np.average(values, weights=weight)) if centred else 0.0
        size = float(np.sqrt(np.average(np.square(values - centre), weights=weight)))
        return cls(centre, size or 1.0, float(y.min()), float(y.max()), logarithmic)

    def reaching(self, y: Float[np.ndarray, " n"]) -> TargetScale:
        """Return the same units where the range seen is that of other targets."""
        return self._replace(least=float(y.min()), most=float(y.max()))

    def __call__(self, y: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Return targets in these units."""
        values = y.clamp_min(self.least).log() if self.logarithmic else y
        return (values - self.centre) / self.size

    def log_slope(self, y: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Return the logarithm of the slope of the units in the targets, which turns densities."""
        return -np.log(self.size) - (np.log(y) if self.logarithmic else np.zeros_like(y))

    def moments(
        self, mean: Float[Tensor, " n"], variance: Float[Tensor, " n"], noise: float
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        r"""Turn the mean and variance of a function, and noise, into the moments of targets.

        Where the function is ``m`` and the noise of its normal logarithm ``w``, targets have mean

        .. math::
            \mu = e^{m + w / 2},

        believed up to a quarter of the range seen beyond it: exponentials of lines that go on soon
        exceed all bounds. A function of variance ``v`` would add ``v / 2`` to the exponent; but
        that is large only where little is known of it, least that it is normal. The variance is
        ``(e^{v + w} - 1) \mu^2``.
        """
        m, v, w = self.centre + self.size * mean, self.size**2 * variance, self.size**2 * noise
        if not self.logarithmic:
            return m, v + w
        highest = self.most + _BEYOND * (self.most - self.least)
        middle = torch.exp(m + w / 2).clamp_max(highest)
        return middle, (v + w).expm1() * middle**2


def may_be_logarithmic(y: Float[np.ndarray, " n"]) -> bool:
    """Tell whether logarithms are worth a try: of positive targets that they make less skewed."""
    if len(y) < 3 or y.min() <= 0 or np.ptp(y) == 0:
        return False
    return abs(float(skew(np.log(y)))) < abs(float(skew(y)))
