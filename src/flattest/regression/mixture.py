"""The average of Gaussian processes that explain the data about as well as the best one.

`contenders` chooses them and their shares, `Mixture` is the average, conditioned on rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.regression.evidence import factorise, left_out_density
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.occam import scored
from flattest.regression.posterior import Moments, Posterior
from flattest.regression.tuning import (
    BEHIND_NATS,
    BEHIND_NATS_PER_ROW,
    INDUCING_POINTS,
    LEAST_ODDS,
    MOST_AVERAGED,
)

_COLLINEAR, _TINY = 1e-8, 1e-100
_ROWS = 256  # evaluated together: their covariances with 1,000 points stay in the fast memory


def share_of_worse(gain: float, differences: Float[np.ndarray, " n"]) -> float:
    r"""Return how much the worse one of two models counts in their average.

    .. math::
        \Phi\Big(-\frac{\Delta}{2 s \sqrt n}\Big),

    where ``Delta`` is the sum by which the better one is better, and ``s`` the standard deviation
    of the differences of the ``n`` rows. Without the 2 this would be how often the other one is the
    better on rows drawn anew (the pseudo-Bayesian averaging of Yao, Vehtari, Simpson and Gelman,
    Bayesian Analysis 13, 2018). It is half as sure because the directions were fitted to the same
    rows.
    """
    error = float(differences.std()) * len(differences) ** 0.5
    return NormalDist().cdf(-gain / (2 * error)) if error else 0.5 if gain == 0 else 0.0


def contenders(
    best: Process, others: Iterable[Process], data: Data
) -> tuple[list[Process], list[float]]:
    """Return a process with the others that may be as good, and their shares.

    Of each kind (kernel, form and number of directions) only the best one is considered. A process
    of no more directions is projected to the span of the best one's, so that the average depends on
    these alone, unless a function of all features may be as good too. Only such functions count
    beside a linear one, since no other process has its single direction. A process without a score
    stands alone: nothing can be compared with it.
    """
    factored = factorise(data, best)
    if math.isinf(best.score) or factored is None:
        return [best], [1.0]
    density = left_out_density(data, factored)
    Q = torch.linalg.qr(best.projection)[0]
    linear = best.shape == "linear"
    kinds = {kind(best)}
    fewer, wider = [], []
    for process in sorted(others, key=lambda process: process.score, reverse=True):
        if process.shape == "linear" or kind(process) in kinds:
            continue
        kinds.add(kind(process))
        if process.free != "projection" and (linear or process.n_directions > best.n_directions):
            wider.append(process)
        elif process.n_directions <= best.n_directions and not linear:
            fewer.append(process)
    found = _likely(wider, best, density, data)
    if not found:
        fewer = [p._replace(projection=Q @ (Q.T @ p.projection)) for p in fewer]
    found = sorted([*found, *_likely(fewer, best, density, data)], key=lambda entry: -entry[0])
    odds, processes = zip((1.0, best), *found[: MOST_AVERAGED - 1], strict=True)
    return list(processes), [value / sum(odds) for value in odds]


def kind(process: Process) -> tuple[str, bool, bool, str, int]:
    """Return kernel, form and number of directions."""
    return process.shape, process.additive, process.trend, process.free, process.n_directions


def _likely(
    processes: list[Process], best: Process, density: Tensor, data: Data
) -> list[tuple[float, Process]]:
    """Score processes on the data, and return those that count with their odds."""
    found = []
    behind = min(BEHIND_NATS, BEHIND_NATS_PER_ROW * data.y.numel())
    for process in processes:
        factored = factorise(data, process)
        if factored is None:
            continue
        again = scored(data, process, factored)
        gain = max(best.score - again.score, 0.0)
        if gain >= behind:
            continue
        theirs = left_out_density(data, factored)
        share = share_of_worse(gain, (density - theirs).flatten().cpu().numpy())
        odds = share / (1 - share)
        if odds > LEAST_ODDS:
            found.append((odds, again))
    return found


class Mixture(NamedTuple):
    """The average of processes conditioned on the same rows.

    Parameters
    ----------
    posteriors : tuple of Posterior
        The conditioned processes, the best one first.
    shares : tuple of float
        How much each counts; the sum is 1.
    rows : Data or None
        The rows, where the conditioning is exact: with the processes they are all there is to know.
    """

    posteriors: tuple[Posterior, ...]
    shares: tuple[float, ...]
    rows: Data | None

    @classmethod
    def of(
        cls,
        processes: list[Process],
        shares: list[float],
        rows: Data,
        rng: np.random.Generator,
    ) -> Mixture:
        """Condition processes on all rows, through some of them where they are many."""
        n = len(rows.y)
        if n <= 2 * INDUCING_POINTS:
            return cls.exactly(processes, shares, rows)
        chosen = torch.from_numpy(rng.choice(n, INDUCING_POINTS, replace=False))
        points = rows.X[chosen.to(rows.X.device)]
        posteriors = tuple(Posterior.of(process, rows, points) for process in processes)
        return cls(posteriors, tuple(shares), None)

    @classmethod
    def exactly(cls, processes: list[Process], shares: list[float], rows: Data) -> Mixture:
        """Condition processes on all rows, however many they are."""
        posteriors = tuple(Posterior.of(process, rows) for process in processes)
        return cls(posteriors, tuple(shares), rows)

    def conditioned_on(self, rows: Data) -> Mixture:
        """Condition the same processes on other rows, exactly."""
        return self.exactly(self.processes, list(self.shares), rows)

    @property
    def processes(self) -> list[Process]:
        """The processes."""
        return [posterior.process for posterior in self.posteriors]

    @property
    def span(self) -> Float[Tensor, "d k"]:
        """An orthonormal basis of the directions on which any of the processes depends."""
        columns = torch.cat([process.projection for process in self.processes], dim=1)
        U, S, _ = torch.linalg.svd(
            columns / columns.norm(dim=0).clamp_min(_TINY), full_matrices=False
        )
        return U[:, S > _COLLINEAR * S[0]]

    @property
    def n_points(self) -> int:
        """The number of rows, or of inducing points, that it is conditioned on."""
        return len(self.posteriors[0].points)

    @property
    def noise(self) -> float:
        """The average variance of the noise."""
        noises = [process.noise * process.inflation for process in self.processes]
        return sum(s * noise for s, noise in zip(self.shares, noises, strict=True))

    def __call__(self, X: Float[Tensor, "n d"]) -> Moments:
        """Return the moments of the function, noise not included."""
        if len(X) > _ROWS:
            parts = [self(rows) for rows in X.split(_ROWS)]
            return Moments(*(torch.cat(values) for values in zip(*parts, strict=True)))
        means, variances, doubts = zip(
            *(posterior(X) for posterior in self.posteriors), strict=True
        )
        mean, variance = self._moments(list(zip(means, variances, strict=True)))
        return Moments(mean, variance, mean.new_tensor(self.shares) @ torch.stack(doubts))

    def left_out(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return each row's residual if it were left out, and the variance of that residual.

        For exact conditioning only.
        """
        return self._moments([posterior.left_out() for posterior in self.posteriors])

    def without(self, rows: Int[Tensor, " h"]) -> tuple[Float[Tensor, " h"], Float[Tensor, " h"]]:
        """Return mean and variance of the function at some rows, given the others only.

        For exact conditioning only. What is unknown of the directions is not counted.
        """
        assert self.rows is not None
        return self._moments([each.without(rows, self.rows) for each in self.posteriors])

    def gradients(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the gradients of the mean in the inputs."""
        if len(X) > _ROWS:
            return torch.cat([self.gradients(rows) for rows in X.split(_ROWS)])
        found = torch.zeros_like(X)
        for share, posterior in zip(self.shares, self.posteriors, strict=True):
            found.addmm_(posterior.gradients(X), posterior.process.projection.T, alpha=share)
        return found

    def _moments(self, each: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Average means; the variance is the average variance plus the variance of the means."""
        means, variances = (torch.stack(values) for values in zip(*each, strict=True))
        shares = means.new_tensor(self.shares)
        mean = shares @ means
        return mean, shares @ (variances + (means - mean).square())
