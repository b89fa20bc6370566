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
from flattest.regression.training_data import Rows, TrainingData

_ROWS = 4096  # predicted together, to bound the memory
_FITS = 4
_FAR, _LARGE = 5.0, 3.0
"""Robust standard errors, and standard deviations of the other targets, beyond which a target is
an outlier."""
_EXTREME = 5.0
"""Distance from the median, in interquartile ranges, from which on a target is suspected."""
_SHARE, _MOST = 0.02, 0.1
"""The share of outliers expected beforehand, and the largest that is believed."""


class SmoothLink(NamedTuple):
    """A posterior of targets of unit variance, and how its inputs and outputs are scaled."""

    posterior: Posterior
    basis: Float[Tensor, "d h"]
    scale: float
    exact: bool
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
        exact = len(posterior.points) == len(data.target)
        return cls(posterior, data.basis, scale, exact, _table(compared))

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
        if self.exact:
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


class RobustFit(NamedTuple):
    """A link, the data it is fitted to, and the distinct rows that it leaves out as outliers."""

    link: SmoothLink
    data: TrainingData
    outliers: np.ndarray


def fit_robustly(
    rows: Rows,
    k: int | None,
    network: Network,
    rng: np.random.Generator,
    *,
    max_rounds: int,
    device: torch.device,
) -> RobustFit | None:
    r"""Fit a link; where targets lie far off, fit again without them, and take what fits better.

    A target is an outlier if it is more than 5 robust standard errors from what the other rows
    predict, and more than 3 of their standard deviations. Fits are compared by

    .. math::
        \sum_i \log\big((1 - \epsilon) \, N(r_i; 0, s_i^2) + \epsilon / \text{range}(y)\big)

    over all rows, ``r`` and ``s`` being residuals and standard errors without the row itself.

    Parameters
    ----------
    rows : Rows
        The data.
    k : int, optional
        The number of directions.
    network : Network
        What every network starts from.
    rng : numpy.random.Generator
        For the search.
    max_rounds : int
        Rounds of re-weighting.
    device : torch.device
        Where to compute.

    Returns
    -------
    RobustFit or None
        None where there is nothing to learn.
    """
    fits: list[tuple[float, RobustFit]] = []
    suspected = [np.zeros(len(rows.y), dtype=bool), _extreme(rows.y)]
    while suspected and len(fits) < _FITS:
        outliers = suspected.pop(0)
        tried = [fit.outliers for _, fit in fits]
        if outliers.mean() > _MOST or any((outliers == other).all() for other in tried):
            continue
        data = TrainingData.of(rows.without(outliers), bias=network.bias, device=device)
        if not data.varies:
            continue
        fit = RobustFit(SmoothLink.fit(data, k, network, rng, max_rounds), data, outliers)
        residual, error = _residuals(rows, fit)
        fits.append((_robust_likelihood(residual, error, float(np.ptp(rows.y))), fit))
        suspected.append(_far(residual, error, rows.y[~outliers]))
    return max(fits, key=lambda entry: entry[0])[1] if fits else None


def _extreme(y: np.ndarray) -> np.ndarray:
    """Suspect targets far from the median: a process may well follow outliers when it sees them."""
    low, middle, high = np.quantile(y, [0.25, 0.5, 0.75])
    return np.abs(y - middle) > _EXTREME * (high - low)


def _residuals(rows: Rows, fit: RobustFit) -> tuple[np.ndarray, np.ndarray]:
    """Predict each row from the others."""
    found = np.empty((2, len(rows.y)))
    found[:, ~fit.outliers] = torch.stack(fit.link.left_out(fit.data)).cpu().numpy()
    if fit.outliers.any():
        inputs = fit.data.standardise(rows.X[fit.outliers])
        target = rows.y[fit.outliers] - fit.data.standardise.intercept
        there = [torch.from_numpy(values).to(fit.data.inputs) for values in (inputs, target)]
        found[:, fit.outliers] = torch.stack(fit.link.residuals(*there)).cpu().numpy()
    return found[0], found[1]


def _far(residual: np.ndarray, error: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Tell the outliers."""
    relative = np.abs(residual) / error
    typical = 1.4826 * np.median(relative)
    return (relative > _FAR * typical) & (np.abs(residual) > _LARGE * others.std())


def _robust_likelihood(residual: np.ndarray, error: np.ndarray, span: float) -> float:
    normal = -0.5 * np.square(residual / error) - np.log(error) - 0.5 * np.log(2 * np.pi)
    spread = np.log(_SHARE / span) if span else -np.inf
    return float(np.logaddexp(np.log1p(-_SHARE) + normal, spread).sum())


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
