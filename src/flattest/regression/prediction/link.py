"""The link that predicts: averages of processes, in the units of the features and the targets."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.average import Average
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.predictive import Predictive
from flattest.regression.prediction.target_scale import TargetScale


class LinkPart(NamedTuple):
    """An average of processes, and the units in which it sees the targets.

    Parameters
    ----------
    average : Average
        The processes, conditioned on the training rows.
    units : TargetScale
        The units.
    share : float
        How much its predictions count in the average of the parts.
    network_error : float
        The variance, in its units, of the network's predictions as observations of the function.
    """

    average: Average
    units: TargetScale
    share: float
    network_error: float

    def __call__(
        self, z: Float[np.ndarray, "n h"], outputs: Float[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return mean and variance of the function, where a network's predictions are observed."""
        mean, variance, doubt = self.average(z)
        mean = blend(mean, variance, self.units(outputs), self.network_error)
        return mean, variance + doubt


def blend(
    mean: Float[np.ndarray, " n"],
    variance: Float[np.ndarray, " n"],
    observed: Float[np.ndarray, " n"],
    error: float,
) -> Float[np.ndarray, " n"]:
    """Move the mean of a normal law towards an observation of the given error variance.

    The variance stays: what is observed has been learnt from the same rows, and makes nobody surer.
    """
    share = variance / (variance + error)
    return (1 - share) * mean + share * observed


class Link(NamedTuple):
    """What predicts targets from standardised features.

    Parameters
    ----------
    parts : tuple of LinkPart
        The best one first; their shares sum to 1.
    basis : ndarray of shape (d, h)
        The coordinates of the features in which the processes live.
    limits : Limits
        How far the function is followed.
    """

    parts: tuple[LinkPart, ...]
    basis: Float[np.ndarray, "d h"]
    limits: Limits

    def __call__(
        self, inputs: Float[np.ndarray, "n d"], outputs: Float[np.ndarray, " n"]
    ) -> Predictive:
        """Return the law of new targets, noise included.

        The outputs are a network's predictions. They are taken for observations of the function,
        and so count where the data say little, as beyond their range.
        """
        z = inputs @ self.basis
        functions = [part(z, outputs) for part in self.parts]
        means, variances = (np.stack(values) for values in zip(*functions, strict=True))
        return Predictive(
            units=tuple(part.units for part in self.parts),
            shares=tuple(part.share for part in self.parts),
            means=means,
            variances=variances,
            noises=np.array([part.average.noise for part in self.parts]),
        )
