"""The average of Gaussian processes that look at the same directions with different kernels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.gaussian_process import Data, Posterior, Process, evidence

_MOST = 4
_BEHIND = 15.0
"""Nats, of all rows, from which on a process counts for nothing."""
_NATS = 6.0
"""Nats that divide a share by e. They would be 1 for evidence that is known; the evidence at
directions fitted to the same rows differs by several for the same truth."""
_INDUCING = 1000


def kindred(best: Process, others: Iterable[Process], data: Data) -> list[Process]:
    """Return a process, and those of other kernels that may be as good on the span of its columns.

    The best one of each kind is projected to the span, so that the average depends on no more
    directions. A linear function has only one, which no other shares; and nothing can be compared
    where rows are too few for any score.
    """
    if best.shape == "linear" or math.isinf(best.score):
        return [best]
    Q = torch.linalg.qr(best.projection)[0]
    kinds = {_kind(best)}
    found = []
    for process in sorted(others, key=lambda process: process.score, reverse=True):
        if _kind(process) in kinds or process.n_directions > best.n_directions:
            continue
        kinds.add(_kind(process))
        projected = process._replace(projection=Q @ (Q.T @ process.projection))
        found.append(projected.fitted(evidence(data, projected), data.y.numel()))
    near = [process for process in found if process.score > best.score - _BEHIND]
    near.sort(key=lambda process: process.score, reverse=True)
    return [best, *near[: _MOST - 1]]


def _kind(process: Process) -> tuple[str, bool, bool, str, int]:
    return process.shape, process.additive, process.trend, process.free, process.n_directions


class Mixture(NamedTuple):
    """Processes conditioned on the same rows, and their shares, the best one's first."""

    posteriors: tuple[Posterior, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, processes: list[Process], rows: Data, rng: np.random.Generator) -> Mixture:
        """Condition on all rows, through some of them where they are many; shares by the scores."""
        points, n = None, len(rows.y)
        if n > 2 * _INDUCING:
            chosen = torch.from_numpy(rng.choice(n, _INDUCING, replace=False))
            points = rows.X[chosen.to(rows.X.device)]
        best, *others = (process.score for process in processes)
        odds = [1.0, *(math.exp((score - best) / _NATS) for score in others)]
        posteriors = tuple(Posterior.of(process, rows, points) for process in processes)
        return cls(posteriors, tuple(value / sum(odds) for value in odds))

    def on(self, rows: Data) -> Mixture:
        """Condition the same processes on other rows, exactly."""
        return self._replace(posteriors=tuple(Posterior.of(p, rows) for p in self.processes))

    @property
    def processes(self) -> list[Process]:
        """The processes."""
        return [posterior.process for posterior in self.posteriors]

    @property
    def n_points(self) -> int:
        """The number of rows or inducing points."""
        return len(self.posteriors[0].points)

    @property
    def noise(self) -> float:
        """The average variance of the noise."""
        return sum(s * p.noise for s, p in zip(self.shares, self.processes, strict=True))

    def __call__(self, X: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the variance of the function, noise not included."""
        return self._moments([posterior(X) for posterior in self.posteriors])

    def left_out(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return each row's residual if it were left out, and the variance of that.

        For exact conditioning only.
        """
        return self._moments([posterior.left_out() for posterior in self.posteriors])

    def gradients(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the gradients of the mean in the inputs."""
        found = torch.zeros_like(X)
        for share, posterior in zip(self.shares, self.posteriors, strict=True):
            found.addmm_(posterior.gradients(X), posterior.process.projection.T, alpha=share)
        return found

    def to(self, device: str) -> Mixture:
        """Move to a device."""
        return self._replace(
            posteriors=tuple(posterior.to(device) for posterior in self.posteriors)
        )

    def _moments(self, each: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Average means; the variance is the average one and that of the means."""
        means, variances = (torch.stack(values) for values in zip(*each, strict=True))
        shares = means.new_tensor(self.shares)
        mean = shares @ means
        return mean, shares @ (variances + (means - mean).square())
