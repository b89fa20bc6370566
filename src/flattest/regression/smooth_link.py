"""The smooth link: a Gaussian process of the directions, in the units of the regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.elimination import Network
from flattest.regression.gaussian_process import Data, Posterior, Process
from flattest.regression.projection_search import condition, search
from flattest.regression.threads import one_thread
from flattest.regression.training_data import TrainingData

_ROWS = 4096  # predicted together, to bound the memory


class SmoothLink(NamedTuple):
    """A posterior of targets of unit variance, and how its inputs and outputs are scaled."""

    posterior: Posterior
    basis: Float[Tensor, "d h"]
    scale: float
    candidates: pd.DataFrame
    """The processes compared."""

    @classmethod
    def fit(
        cls,
        data: TrainingData,
        k: int | None,
        network: Network,
        rng: np.random.Generator,
        max_rounds: int,
    ) -> SmoothLink:
        """Search for the directions in the span of the features, and condition on all rows."""
        scale = float((data.weight * data.target.square()).mean().sqrt())
        k = min(k, data.basis.shape[1]) if k else None
        rows = Data.of(data.inputs @ data.basis, data.target / scale, data.weight)
        with one_thread():
            process, compared = search(data, rows, k, network, rng, max_rounds)
        posterior = condition(process, rows, rng)
        return cls(posterior, data.basis, scale, _table(compared))

    def __call__(
        self, inputs: Float[Tensor, "n d"], others: Float[Tensor, " n"], error: float
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the standard deviation of new targets, noise included.

        Another regression is taken for an observation of the function, of variance `error`, its
        mean squared error: it counts where the data say little, as beyond their range.
        """
        mean, variance = self._function(inputs)
        share = variance / (variance + error)
        mean = (1 - share) * mean + share * others
        return mean, (share * error + self.noise).sqrt()

    def _function(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of the function."""
        parts = [self.posterior(rows @ self.basis) for rows in inputs.split(_ROWS)]
        mean, variance = (torch.cat(values) for values in zip(*parts, strict=True))
        return self.scale * mean, self.scale**2 * variance

    @property
    def noise(self) -> float:
        """The variance of the noise."""
        return self.scale**2 * self.posterior.process.noise

    def left_out(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Return the residuals of the training rows, left out where possible, and their errors."""
        if len(self.posterior.points) == len(data.target):  # conditioned exactly
            residual, variance = self.posterior.left_out()
            return self.scale * residual, self.scale * variance.sqrt()
        return self.residuals(data.inputs, data.target)

    def residuals(self, inputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the residuals of other rows, and their standard errors."""
        mean, variance = self._function(inputs)
        return target - mean, (variance + self.noise).sqrt()

    def gradients(self, data: TrainingData) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of the average gradient outer product, largest first."""
        B = self.basis @ self.posterior.process.projection
        M = B.new_zeros(B.shape[1], B.shape[1])
        for rows, weight in zip(data.inputs.split(_ROWS), data.weight.split(_ROWS), strict=True):
            slopes = self.posterior.gradients(rows @ self.basis)
            M += (slopes * weight[:, None]).T @ slopes * (self.scale**2 / len(data.inputs))
        # From an orthonormal basis of the span: more digits than from B M B^T.
        Q, R = torch.linalg.qr(B)
        values, vectors = torch.linalg.eigh(R @ M @ R.T)
        return values.flip(0).clamp_min(0), Q @ vectors.flip(1)

    @property
    def converged(self) -> bool:
        """Whether the process came to a maximum of its marginal likelihood."""
        return self.posterior.process.converged

    def to(self, device: str) -> SmoothLink:
        """Move to a device."""
        process = self.posterior.process
        process = process._replace(
            projection=process.projection.to(device), variances=process.variances.to(device)
        )
        tensors = (value.to(device) for value in self.posterior[1:])
        return self._replace(posterior=Posterior(process, *tensors), basis=self.basis.to(device))


def _table(processes: list[Process]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n_directions": [process.n_directions for process in processes],
            "kernel": [process.shape for process in processes],
            "additive": [process.additive for process in processes],
            "log_evidence": [process.evidence for process in processes],
            "score": [process.score for process in processes],
            "converged": [process.converged for process in processes],
        }
    )
