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
from flattest.regression.training_data import Rows, Standardisation, TrainingData
from flattest.threads import one_thread

_ROWS = 4096  # predicted together, to bound the memory
_BEYOND = 0.75
"""How far beyond the training rows' range a link is followed along the most important direction, in
units of the range; along others less, in proportion to its slopes along them."""
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
    def of(
        cls,
        axes: Float[Tensor, "d k"],
        variation: Float[Tensor, " k"],
        inputs: Float[Tensor, "n d"],
    ) -> Limits:
        """Take the range of the training inputs, and some more along what matters."""
        z = inputs @ axes
        low, high = z.amin(0), z.amax(0)
        largest = variation.max().clamp_min(torch.finfo(z.dtype).tiny)
        margin = _BEYOND * (variation / largest).sqrt() * (high - low)
        return cls(axes, low - margin, high + margin)

    def __call__(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Pull inputs back to the limits."""
        z = inputs @ self.axes
        return inputs + (z.clamp(self.low, self.high) - z) @ self.axes.T


class Part(NamedTuple):
    """A mixture, and the units in which it sees the targets."""

    mixture: Mixture
    units: TargetScale
    share: float = 1.0
    """How much its predictions count in the average."""
    network_error: float = float(_NETWORK_ERRORS[-1])
    """The variance, in its units, of the network as an observation of the function."""

    def on(
        self, z: Float[Tensor, "n h"], y: Float[Tensor, " n"], weight: Float[Tensor, " n"]
    ) -> Part:
        """Condition on other rows."""
        return self._replace(mixture=self.mixture.on(Data.of(z, self.units(y), weight)))

    def __call__(
        self, z: Float[Tensor, "n h"], others: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the variance of new targets, a network's predictions observed."""
        return self._blend(*self.mixture(z), self.units(others), self.network_error)

    def _blend(
        self, mean: Tensor, variance: Tensor, others: Tensor, error: float
    ) -> tuple[Tensor, Tensor]:
        share = variance / (variance + error)
        mean = (1 - share) * mean + share * others
        return self.units.moments(mean, share * error, self.mixture.noise)

    def beside(
        self, z: Float[Tensor, "n h"], y: Float[Tensor, " n"], weight: Float[Tensor, " n"]
    ) -> Callable[[Tensor], tuple[float, np.ndarray]]:
        """Return what tells how a network's predictions of rows do, alone and blended."""
        mean, variance = self.mixture(z)
        target = self.units(y)

        def errors(outputs: Tensor) -> tuple[float, np.ndarray]:
            others = self.units(outputs)
            means = [self._blend(mean, variance, others, error)[0] for error in _NETWORK_ERRORS]
            squares = (torch.stack(means) - y).square()
            alone = float((weight * (others - target).square()).mean())
            return alone, (squares @ weight / len(y)).cpu().numpy()

        return errors

    def trusting(self, alone: float, blended: np.ndarray) -> Part:
        """Choose how far to trust a network, by what `beside` tells; not more than it deserves."""
        first = max(int(np.searchsorted(_NETWORK_ERRORS, alone)) - 1, 0)
        chosen = first + int(blended[first:].argmin())
        return self._replace(network_error=float(_NETWORK_ERRORS[chosen]))


class SmoothLink(NamedTuple):
    """Posteriors in one kind of units or in two, averaged, and the units of their inputs."""

    parts: tuple[Part, ...]
    """The best one first; the shares sum to 1."""
    basis: Float[Tensor, "d h"]
    limits: Limits
    candidates: pd.DataFrame
    """The processes compared for the first part."""
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
            (processes, shares), compared = search(data, rows, k, network, rng, max_rounds, step)
        return cls._of(Mixture.of(processes, shares, rows, rng), units, data, _table(compared))

    @classmethod
    def _of(
        cls, mixture: Mixture, units: TargetScale, data: TrainingData, candidates: pd.DataFrame
    ) -> SmoothLink:
        variation, axes = _variation(mixture, data)
        limits = Limits.of(axes, variation, data.inputs)
        return cls((Part(mixture, units),), data.basis, limits, candidates, variation)

    def on(
        self, data: TrainingData, y: Float[np.ndarray, " n"], rng: np.random.Generator
    ) -> SmoothLink:
        """Condition the first part on other rows, in the same units."""
        units = self.units.reaching(y)
        rows = _rows(data, units, y)
        mixture = Mixture.of(self.mixture.processes, list(self.mixture.shares), rows, rng)
        return self._of(mixture, units, data, self.candidates)

    def seen_by(
        self,
        other: SmoothLink,
        factor: Float[np.ndarray, " d"],
        data: TrainingData,
        y: Float[np.ndarray, " n"],
        rng: np.random.Generator,
    ) -> SmoothLink:
        """Take another link's processes instead, in its units, on the directions of this one.

        The factor turns standardised features into those that the other link has seen.
        """
        Q = self.mixture.span
        scaled = torch.from_numpy(factor).to(self.basis)[:, None] * other.basis
        turn = Q @ (Q.T @ (self.basis.T @ scaled))
        processes = [
            process._replace(projection=turn @ process.projection)
            for process in other.mixture.processes
        ]
        rows = _rows(data, other.units, y)
        mixture = Mixture.of(processes, list(other.mixture.shares), rows, rng)
        return self._replace(parts=(Part(mixture, other.units),))

    def averaged(self, other: SmoothLink, share: float) -> SmoothLink:
        """Average with a link of the same directions, which counts that much."""
        (first,), (second,) = self.parts, other.parts
        return self._replace(parts=(first._replace(share=1 - share), second._replace(share=share)))

    @property
    def mixture(self) -> Mixture:
        """The best part's processes."""
        return self.parts[0].mixture

    @property
    def units(self) -> TargetScale:
        """The best part's units."""
        return self.parts[0].units

    @property
    def log_share(self) -> float:
        """How much the targets' logarithms count."""
        return sum((part.share for part in self.parts if part.units.logarithmic), 0.0)

    def __call__(
        self, inputs: Float[Tensor, "n d"], others: Float[Tensor, " n"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the standard deviation of new targets, noise included.

        A network is taken for an observation of the function: it counts where the data say little,
        as beyond their range.
        """
        pairs = zip(inputs.split(_ROWS), others.split(_ROWS), strict=True)
        found = [self._average(rows @ self.basis, theirs) for rows, theirs in pairs]
        mean, variance = zip(*found, strict=True)
        return torch.cat(mean), torch.cat(variance).sqrt()

    def _average(self, z: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        each = zip(*(part(z, others) for part in self.parts), strict=True)
        means, variances = (torch.stack(values) for values in each)
        shares = means.new_tensor([part.share for part in self.parts])
        mean = shares @ means
        return mean, shares @ (variances + (means - mean).square())

    def beside(self, standardise: Standardisation, train: Rows, held_out: Rows) -> Beside:
        """Return what tells how predictions of held-out rows do, for each part.

        The processes forget these rows, unless rows are many: then a few make no difference.
        """

        def tensors(rows: Rows) -> list[Tensor]:
            inputs, *rest = (
                torch.from_numpy(values).to(self.basis)
                for values in (standardise(rows.X), rows.y, rows.weight)
            )
            return [inputs @ self.basis, *rest]

        parts = self.parts
        if len(train.y) <= self.mixture.n_points:
            parts = tuple(part.on(*tensors(train)) for part in parts)
        each = [part.beside(*tensors(held_out)) for part in parts]
        return lambda outputs: [errors(outputs) for errors in each]

    def trusting(self, errors: list[tuple[float, np.ndarray]]) -> SmoothLink:
        """Choose how far each part trusts a network, by what `beside` tells; no folds, no trust."""
        pairs = zip(self.parts, errors, strict=True)
        parts = tuple(part.trusting(*error) for part, error in pairs) if errors else self.parts
        return self._replace(parts=parts)

    def left_out(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the residuals of the training rows, left out where possible, and their errors.

        In the units of the first part, of which alone they are.
        """
        if self.mixture.n_points == len(y):  # conditioned exactly
            residual, variance = self.mixture.left_out()
            return residual, variance.sqrt()
        return self.residuals(inputs, y)

    def residuals(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the residuals of other rows in units of the first part, and their errors."""
        moments = [self.mixture(rows @ self.basis) for rows in inputs.split(_ROWS)]
        mean, variance = (torch.cat(values) for values in zip(*moments, strict=True))
        target = self.units(torch.from_numpy(y)).to(mean)
        return target - mean, (variance + self.mixture.noise).sqrt()

    @property
    def n_directions(self) -> int:
        """The number of directions of the best process."""
        return self.mixture.processes[0].n_directions

    @property
    def converged(self) -> bool:
        """Whether the best process came to a maximum of its marginal likelihood."""
        return self.mixture.processes[0].converged

    def to(self, device: str) -> SmoothLink:
        """Move to a device."""
        return self._replace(
            parts=tuple(part._replace(mixture=part.mixture.to(device)) for part in self.parts),
            basis=self.basis.to(device),
            limits=Limits(*(value.to(device) for value in self.limits)),
            variation=self.variation.to(device),
        )


def _rows(data: TrainingData, units: TargetScale, y: Float[np.ndarray, " n"]) -> Data:
    """Return what processes are conditioned on: coordinates of the basis, targets in units."""
    target = units(torch.from_numpy(y)).to(data.target)
    return Data.of(data.inputs @ data.basis, target, data.weight)


def _variation(
    mixture: Mixture, data: TrainingData
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d k"]]:
    """Decompose the average gradient outer product of the mean."""
    # In an orthonormal basis of the span: more digits than in all coordinates.
    Q = torch.linalg.qr(data.basis @ mixture.span)[0]
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
