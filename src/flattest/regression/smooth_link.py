"""The smooth link: a Gaussian process of the directions, in the units of the regression."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.gaussian_process import Posterior, Process
from flattest.regression.projection_search import condition, search

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
        inputs: Float[Tensor, "n d"],
        target: Float[Tensor, " n"],
        basis: Float[Tensor, "d h"],
        k: int | None,
        rng: np.random.Generator,
    ) -> SmoothLink:
        """Search for the directions in the span of a basis, and condition on all rows."""
        X, scale = inputs @ basis, float(target.square().mean().sqrt())
        y = target / scale
        process, compared = search(X, y, min(k, X.shape[1]) if k else None, rng)
        return cls(condition(process, X, y, rng), basis, scale, _table([*compared, process]))

    def __call__(
        self, inputs: Float[Tensor, "n d"], others: Float[Tensor, " n"], error: float
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the standard deviation of new targets, noise included.

        Another regression is taken for an observation of the function, of variance `error`, its
        mean squared error: it counts where the data say little, as beyond their range.
        """
        noise = self.scale**2 * self.posterior.process.noise
        parts = [self.posterior(rows @ self.basis) for rows in inputs.split(_ROWS)]
        mean, variance = (torch.cat(values) for values in zip(*parts, strict=True))
        variance = self.scale**2 * variance
        share = variance / (variance + error)
        mean = (1 - share) * self.scale * mean + share * others
        return mean, (share * error + noise).sqrt()

    def gradients(self, inputs: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
        """Eigenvalues and vectors of the average gradient outer product, largest first."""
        B = self.basis @ self.posterior.process.projection
        M = B.new_zeros(B.shape[1], B.shape[1])
        for rows in inputs.split(_ROWS):
            slopes = self.posterior.gradients(rows @ self.basis)
            M += slopes.T @ slopes * (self.scale**2 / len(inputs))
        # From an orthonormal basis of the span: more digits than from B M B^T.
        Q, R = torch.linalg.qr(B)
        values, vectors = torch.linalg.eigh(R @ M @ R.T)
        return values.flip(0).clamp_min(0), Q @ vectors.flip(1)

    @property
    def converged(self) -> bool:
        """Whether the process came to a maximum of its marginal likelihood."""
        return self.posterior.process.converged


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
