"""The smooth link: a Gaussian process of the directions, in the units of the regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.elimination import Beside, Network
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.mixture import Mixture
from flattest.regression.projection_search import search
from flattest.regression.target_scale import TargetScale
from flattest.regression.threads import one_thread
from flattest.regression.training_data import Rows, Standardisation, TrainingData

_ROWS = 4096  # predicted together, to bound the memory
_BEYOND = 0.5
"""How far beyond the training rows' range a link is followed, in units of the range."""
_NETWORK_ERRORS = np.append(np.geomspace(1e-4, 1e3, 15), 1e8)
"""Variances tried for a network as an observation of the function; the last one ignores it."""


class Limits(NamedTuple):
    """Where along its directions a link is followed; beyond, it stays as it is there.

    One feature that is far out in a single row, however little it matters, would otherwise decide
    that row's prediction.
    """

    axes: Float[Tensor, "d k"]
    low: Float[Tensor, " k"]
    high: Float[Tensor, " k"]

    @classmethod
    def of(cls, axes: Float[Tensor, "d k"], inputs: Float[Tensor, "n d"]) -> Limits:
        """Take the range of the training inputs, and some more."""
        z = inputs @ axes
        low, high = z.amin(0), z.amax(0)
        margin = _BEYOND * (high - low)
        return cls(axes, low - margin, high + margin)

    def __call__(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Pull inputs back to the limits."""
        z = inputs @ self.axes
        return inputs + (z.clamp(self.low, self.high) - z) @ self.axes.T


class SmoothLink(NamedTuple):
    """A mixture of posteriors, and the units of its inputs and outputs."""

    mixture: Mixture
    basis: Float[Tensor, "d h"]
    units: TargetScale
    limits: Limits
    candidates: pd.DataFrame
    """The processes compared."""
    variation: Float[Tensor, " k"]
    """Eigenvalues of the average gradient outer product, largest first; its eigenvectors are the
    axes of the limits."""

    @classmethod
    def fit(
        cls,
        data: TrainingData,
        units: TargetScale,
        y: Float[np.ndarray, " n"],
        k: int | None,
        network: Network,
        rng: np.random.Generator,
        max_rounds: int,
        step: Callable[[], None] = lambda: None,
    ) -> SmoothLink:
        """Search for the directions in the span of the features, and condition on all rows."""
        data = data._replace(target=units(torch.from_numpy(y)).to(data.target))
        k = min(k, data.basis.shape[1]) if k else None
        rows = Data.of(data.inputs @ data.basis, data.target, data.weight)
        with one_thread():
            processes, compared = search(data, rows, k, network, rng, max_rounds, step)
        mixture = Mixture.of(processes, rows, rng)
        variation, axes = _variation(mixture, data)
        limits = Limits.of(axes, data.inputs)
        return cls(mixture, data.basis, units, limits, _table(compared), variation)

    def __call__(
        self, inputs: Float[Tensor, "n d"], others: Float[Tensor, " n"], error: float
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the standard deviation of new targets, noise included.

        A network is taken for an observation of the function, of variance `error` in units of the
        process: it counts where the data say little, as beyond their range.
        """
        mean, variance = self._function(inputs)
        mean, variance = self._blend(mean, variance, self.units(others), error)
        return mean, variance.sqrt()

    def _blend(
        self, mean: Tensor, variance: Tensor, others: Tensor, error: float
    ) -> tuple[Tensor, Tensor]:
        """Combine the function with observations; moments of new targets."""
        share = variance / (variance + error)
        mean = (1 - share) * mean + share * others
        return self.units.moments(mean, share * error + self.mixture.noise)

    def beside(self, standardise: Standardisation, train: Rows, held_out: Rows) -> Beside:
        """Return what tells how predictions of held-out rows do, alone and blended.

        The process forgets these rows, unless rows are many: then a few make no difference to it.
        """

        def tensors(rows: Rows) -> list[Tensor]:
            values = standardise(rows.X), rows.y, rows.weight
            return [torch.from_numpy(value).to(self.basis) for value in values]

        link = self
        if len(train.y) <= self.mixture.n_points:
            inputs, y, weight = tensors(train)
            rows = Data.of(inputs @ self.basis, self.units(y), weight)
            link = self._replace(mixture=self.mixture.on(rows))
        inputs, y, weight = tensors(held_out)
        mean, variance = link._function(inputs)
        target = self.units(y)

        def errors(outputs: Tensor) -> tuple[float, np.ndarray]:
            others = self.units(outputs)
            blended = [self._blend(mean, variance, others, error)[0] for error in _NETWORK_ERRORS]
            squares = (torch.stack(blended) - y).square()
            unit_error = (weight * (others - target).square()).mean()
            return float(unit_error), (squares @ weight / len(y)).cpu().numpy()

        return errors

    def network_error(self, unit_error: float, blended: np.ndarray) -> float:
        """Choose how far to trust a network, by what `beside` tells; not more than it deserves."""
        first = max(int(np.searchsorted(_NETWORK_ERRORS, unit_error)) - 1, 0)
        chosen = first + blended[first:].argmin() if len(blended) else -1
        return float(_NETWORK_ERRORS[chosen])

    def _function(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of the function, in its own units."""
        parts = [self.mixture(rows @ self.basis) for rows in inputs.split(_ROWS)]
        mean, variance = zip(*parts, strict=True)
        return torch.cat(mean), torch.cat(variance)

    def left_out(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the residuals of the training rows, left out where possible, and their errors."""
        if self.mixture.n_points == len(y):  # conditioned exactly
            residual, variance = self.mixture.left_out()
            return residual, variance.sqrt()
        return self.residuals(inputs, y)

    def residuals(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the residuals of other rows in units of the process, and their errors."""
        mean, variance = self._function(inputs)
        target = self.units(torch.from_numpy(y)).to(mean)
        return target - mean, (variance + self.mixture.noise).sqrt()

    @property
    def converged(self) -> bool:
        """Whether the best process came to a maximum of its marginal likelihood."""
        return self.mixture.processes[0].converged

    def to(self, device: str) -> SmoothLink:
        """Move to a device."""
        return self._replace(
            mixture=self.mixture.to(device),
            basis=self.basis.to(device),
            limits=Limits(*(value.to(device) for value in self.limits)),
            variation=self.variation.to(device),
        )


def _variation(
    mixture: Mixture, data: TrainingData
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Decompose the average gradient outer product of the mean."""
    # In an orthonormal basis of the span: more digits than in all coordinates.
    Q = torch.linalg.qr(data.basis @ mixture.processes[0].projection)[0]
    M = Q.new_zeros(Q.shape[1], Q.shape[1])
    for rows, weight in zip(data.inputs.split(_ROWS), data.weight.split(_ROWS), strict=True):
        slopes = mixture.gradients(rows @ data.basis) @ (data.basis.T @ Q)
        M += (slopes * weight[:, None]).T @ slopes / len(data.inputs)
    values, vectors = torch.linalg.eigh(M)
    return values.flip(0).clamp_min(0), Q @ vectors.flip(1)


def _table(processes: list[Process]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n_directions": [process.n_directions for process in processes],
            "kernel": [process.shape for process in processes],
            "additive": [process.additive for process in processes],
            "trend": [process.trend for process in processes],
            "log_evidence": [process.evidence for process in processes],
            "score": [process.score for process in processes],
            "converged": [process.converged for process in processes],
        }
    )
