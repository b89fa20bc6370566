"""The smooth link: averages of Gaussian processes, in the units of the features and the targets.

A `Part` is a mixture of processes with the units in which it sees the targets; a `SmoothLink` has
one part, or one in linear units and one in logarithms, whose average predicts: `prediction.link`
does so, once the link is handed over to it as arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.denormals import no_denormals
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.mixture import Mixture
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.target_scale import TargetScale
from flattest.regression.projection_search import (
    Found,
    StartsOn,
    search,
    search_again,
    worth_fitting_again,
)
from flattest.regression.training_data import TrainingData
from flattest.regression.tuning import NETWORK_ERRORS
from flattest.regression.variation import Variation
from flattest.threads import one_thread

_FITTED = {"projection": "directions", "lengths": "lengths", "scale": "scale"}

StartsOf = Callable[[TrainingData], StartsOn]
"""Makes, for some rows, what makes the starts of a search on them."""


class Part(NamedTuple):
    """A mixture of processes, and the units in which it sees the targets.

    Parameters
    ----------
    mixture : Mixture
        The processes, conditioned on the training rows.
    units : TargetScale
        The units.
    share : float
        How much its predictions count in the average of the parts.
    network_error : float
        The variance, in its units, of the network's predictions as observations of the function.
    """

    mixture: Mixture
    units: TargetScale
    share: float = 1.0
    network_error: float = float(NETWORK_ERRORS[-1])


class SmoothLink(NamedTuple):
    """What a fit finds: processes that predict targets from standardised features.

    Parameters
    ----------
    parts : tuple of Part
        The best one first; their shares sum to 1.
    basis : Tensor of shape (d, h)
        The coordinates of the features in which the processes live.
    limits : Limits
        How far the function is followed.
    candidates : list of Process
        The processes that were compared for the first part.
    variation : Variation
        The directions along which the first part's mean varies.
    """

    parts: tuple[Part, ...]
    basis: Float[Tensor, "d h"]
    limits: Limits
    candidates: list[Process]
    variation: Variation

    @classmethod
    def fit(
        cls,
        data: TrainingData,
        units: TargetScale,
        y: Float[np.ndarray, " n"],
        k: int | None,
        starts_of: StartsOf,
        rng: np.random.Generator,
        step: Callable[[], None] = lambda: None,
    ) -> SmoothLink:
        """Search for the directions in the span of the features, and condition on all rows.

        Parameters
        ----------
        data : TrainingData
            The rows.
        units : TargetScale
            The units in which the processes are to see the targets.
        y : ndarray of shape (n,)
            The targets as they are.
        k : int, optional
            The number of directions; None for a choice by the evidence.
        starts_of : callable
            Makes what makes the starts of the search, for rows with targets in these units.
        rng : numpy.random.Generator
            Draws rows and rotations.
        step : callable
            Called after each step of the search.

        Returns
        -------
        SmoothLink
            With one part.
        """
        rows = _rows(data, units, y)
        k = min(k, data.basis.shape[1]) if k else None
        starts_on = starts_of(data._replace(target=rows.y[:, 0]))
        with one_thread(), no_denormals():
            found = search(rows, k, starts_on, rng, step, by_feature=data.has_axes)
        return cls._of_found(found, rows, units, data, rng)

    def fitted_again(
        self,
        factor: Float[np.ndarray, " d"],
        data: TrainingData,
        units: TargetScale,
        y: Float[np.ndarray, " n"],
        k: int | None,
        rng: np.random.Generator,
    ) -> SmoothLink | None:
        """Fit what this link's search compared to other rows, or in other units.

        The factor turns features in the units of these rows into those of this link. None where the
        features span another space.
        """
        if data.basis.shape != self.basis.shape:
            return None
        rows = _rows(data, units, y)
        k = min(k, data.basis.shape[1]) if k else None
        turn = data.basis.T @ (torch.from_numpy(factor).to(self.basis)[:, None] * self.basis)
        before = [
            process._replace(projection=turn @ process.projection)
            if process.free == "projection"
            else process
            for process in worth_fitting_again(self.candidates, len(rows.y))
        ]
        with one_thread(), no_denormals():
            found = search_again(rows, k, before, rng)
        return self._of_found(found, rows, units, data, rng)

    @classmethod
    def _of_found(
        cls,
        found: Found,
        rows: Data,
        units: TargetScale,
        data: TrainingData,
        rng: np.random.Generator,
    ) -> SmoothLink:
        """Condition what was found on all rows."""
        mixture = Mixture.of(found.processes, found.shares, rows, rng)
        return cls._of(mixture, units, data, found.candidates)

    @classmethod
    def _of(
        cls, mixture: Mixture, units: TargetScale, data: TrainingData, candidates: list[Process]
    ) -> SmoothLink:
        variation = _variation(mixture, data)
        z = data.inputs @ variation.vectors
        along = (variation.vectors, variation.values, z)
        limits = Limits.of(*(values.cpu().numpy() for values in along))
        return cls((Part(mixture, units),), data.basis, limits, candidates, variation)

    def conditioned_on(
        self, data: TrainingData, y: Float[np.ndarray, " n"], rng: np.random.Generator
    ) -> SmoothLink:
        """Condition the first part on other rows in the same units."""
        units = self.units.with_range(y)
        rows = _rows(data, units, y)
        mixture = Mixture.of(self.mixture.processes, list(self.mixture.shares), rows, rng)
        return self._of(mixture, units, data, self.candidates)

    def with_processes_of(
        self,
        other: SmoothLink,
        factor: Float[np.ndarray, " d"],
        data: TrainingData,
        y: Float[np.ndarray, " n"],
        rng: np.random.Generator,
    ) -> SmoothLink:
        """Take another link's processes and units, on the directions and the rows of this one.

        The factor turns features in the units of this link into those of the other.
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

    def averaged_with(self, other: SmoothLink, share: float) -> SmoothLink:
        """Average with a link of one part on the same directions, which counts that much."""
        (first,), (second,) = self.parts, other.parts
        return self._replace(parts=(first._replace(share=1 - share), second._replace(share=share)))

    @property
    def mixture(self) -> Mixture:
        """The first part's processes."""
        return self.parts[0].mixture

    @property
    def units(self) -> TargetScale:
        """The first part's units."""
        return self.parts[0].units

    @property
    def log_share(self) -> float:
        """How much the processes of the targets' logarithms count."""
        return sum((part.share for part in self.parts if part.units.logarithmic), 0.0)

    @property
    def n_directions(self) -> int:
        """The number of directions of the best process, one for a linear one."""
        best = self.mixture.processes[0]
        return 1 if best.shape == "linear" else best.n_directions

    @property
    def converged(self) -> bool:
        """Whether the best process came to a maximum of its marginal likelihood."""
        return self.mixture.processes[0].converged

    def left_out(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the first part's residuals of the training rows, and their standard errors.

        In its units. Where the conditioning is exact, each row is left out in its own residual.
        """
        if self.mixture.n_points == len(y):
            residual, variance = self.mixture.left_out()
            return residual, variance.sqrt()
        return self.residuals(inputs, y)

    def residuals(
        self, inputs: Float[Tensor, "n d"], y: Float[np.ndarray, " n"]
    ) -> tuple[Tensor, Tensor]:
        """Return the first part's residuals of any rows in its units, and their standard errors."""
        mean, variance, doubt = self.mixture(inputs @ self.basis)
        target = torch.from_numpy(self.units(y)).to(mean)
        return target - mean, (variance + doubt + self.mixture.noise).sqrt()


def _rows(data: TrainingData, units: TargetScale, y: Float[np.ndarray, " n"]) -> Data:
    """Return what processes are conditioned on: coordinates of the basis, targets in units."""
    target = torch.from_numpy(units(y)).to(data.target)
    return Data.of(data.inputs @ data.basis, target, data.weight)


def _variation(mixture: Mixture, data: TrainingData) -> Variation:
    """Decompose the average gradient outer product of the mean."""
    # In an orthonormal basis of the span: more digits than in all coordinates.
    Q = torch.linalg.qr(data.basis @ mixture.span)[0]
    slopes = mixture.gradients(data.inputs @ data.basis) @ (data.basis.T @ Q)
    weighted = slopes * (data.weight / len(slopes))[:, None]
    return Variation.of(weighted.T @ slopes, Q, weighted.sum(0))


def tabulated(processes: list[Process]) -> pd.DataFrame:
    """Tabulate processes as `MultiIndexRegressor.candidates_` shows them."""
    return pd.DataFrame(
        {
            "n_directions": [process.n_directions for process in processes],
            "kernel": [process.shape for process in processes],
            "additive": [process.additive for process in processes],
            "trend": [process.trend for process in processes],
            "fitted": [_FITTED[process.free] for process in processes],
            "log_evidence": [process.evidence for process in processes],
            "score": [process.score for process in processes],
            "converged": [process.converged for process in processes],
        }
    )
