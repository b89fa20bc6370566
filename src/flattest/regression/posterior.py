"""A process conditioned on rows: what it predicts there and elsewhere, and how surely."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.regression.evidence import slopes_of_mean
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.occam import design
from flattest.regression.tuning import JITTER


class Moments(NamedTuple):
    """The mean and the variance of a function at some points, in two parts.

    Parameters
    ----------
    mean : Tensor of shape (n,)
        The mean.
    variance : Tensor of shape (n,)
        The variance of the function of known directions. It depends on the points through these
        directions only, as the mean does.
    doubt : Tensor of shape (n,)
        What is added because the directions are not quite known.
    """

    mean: Float[Tensor, " n"]
    variance: Float[Tensor, " n"]
    doubt: Float[Tensor, " n"]


class Posterior(NamedTuple):
    """A process conditioned on rows: ``mean = k w`` and ``variance = k(x, x) - k C k^T``.

    Parameters
    ----------
    process : Process
        The process.
    points : Tensor of shape (m, k)
        The projections of the rows, or of the inducing points, on which ``k`` is evaluated.
    weights : Tensor of shape (m,)
        ``w``.
    explained : Tensor of shape (m, m)
        ``C``; the inverse of the targets' covariance where the conditioning is exact.
    turn, known : Tensor of shape (p, p) and (m, p)
        What is left unknown of the directions: with the columns ``c`` of `occam.design` at a new
        point, the squared length of ``c turn - k known`` adds to the variance. No columns where
        rows are so many that it does not count.
    """

    process: Process
    points: Float[Tensor, "m k"]
    weights: Float[Tensor, " m"]
    explained: Float[Tensor, "m m"]
    turn: Float[Tensor, "p p"]
    known: Float[Tensor, "m p"]

    @classmethod
    def of(
        cls, process: Process, data: Data, points: Float[Tensor, "m d"] | None = None
    ) -> Posterior:
        """Condition on rows, all in one block: exactly, or through inducing points.

        The latter takes the process for a deterministic function of its values at these points
        (DTC in Quinonero-Candela and Rasmussen, JMLR 6, 2005).
        """
        at = (data.X if points is None else points) @ process.projection
        identity = torch.eye(len(at), dtype=at.dtype, device=at.device)
        K = process.covariance(at, at)
        if points is None:
            return cls._exact(process, data, at, K)
        K.diagonal().add_(JITTER * max(process.variance, 1.0))
        factor = torch.linalg.cholesky(K)
        A, b = identity.clone(), at.new_zeros(len(at), 1)
        for X, y, spread in zip(*(values.split(len(at)) for values in data), strict=True):
            V = torch.linalg.solve_triangular(
                factor, process.covariance(at, X @ process.projection), upper=False
            )
            V, y = V / spread.sqrt(), y / spread.sqrt()[:, None]
            A.addmm_(V, V.T, alpha=1 / process.noise)
            b.addmm_(V, y, alpha=1 / process.noise)
        inner = torch.linalg.cholesky(A)
        half = torch.linalg.solve_triangular(factor, identity, upper=False)
        weights = half.T @ torch.cholesky_solve(b, inner)
        explained = half.T @ (identity - torch.cholesky_inverse(inner)) @ half
        nothing = at.new_zeros(0, 0)
        return cls(process, at, weights[:, 0], explained, nothing, at.new_zeros(len(at), 0))

    @classmethod
    def _exact(
        cls, process: Process, data: Data, z: Float[Tensor, "n k"], K: Float[Tensor, "n n"]
    ) -> Posterior:
        """Condition on rows with the prior covariance ``K`` of the function."""
        K.diagonal().add_(process.noise * data.spread + JITTER * process.variance)
        explained = torch.cholesky_inverse(torch.linalg.cholesky(K))
        weights = explained @ data.y[:, 0]
        columns = design(process, data.X, z, z, weights[:, None])
        inner = columns.T @ explained @ columns
        inner.diagonal().add_(1)
        identity = torch.eye(len(inner), dtype=z.dtype, device=z.device)
        turn = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), identity, upper=False).T
        return cls(process, z, weights, explained, turn, explained @ columns @ turn)

    def left_out(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return each row's residual if it were left out, and the variance of that residual.

        For exact conditioning only. The directions forget the row too, to first order.
        """
        precision = self.explained.diagonal() - self.known.square().sum(1)
        return self.weights / precision, self.process.inflation / precision

    def without(
        self, rows: Int[Tensor, " h"], data: Data
    ) -> tuple[Float[Tensor, " h"], Float[Tensor, " h"]]:
        """Return mean and variance of the function at some rows, of which it knows the others only.

        For exact conditioning only, on these data. The directions stay as they are.
        """
        covariance = torch.linalg.inv(self.explained[rows][:, rows])
        mean = data.y[rows, 0] - covariance @ self.weights[rows]
        noise = self.process.noise * data.spread[rows] + JITTER * self.process.variance
        variance = (covariance.diagonal() - noise).clamp_min(0)
        return mean, self.process.inflation * variance

    def __call__(self, X: Float[Tensor, "n d"]) -> Moments:
        """Return the moments of the function, noise not included."""
        z = X @ self.process.projection
        k = self.process.covariance(z, self.points)
        variance = (self.process.prior(z) - ((k @ self.explained) * k).sum(1)).clamp_min(0)
        doubt = torch.zeros_like(variance)
        if self.turn.numel():
            columns = design(self.process, X, z, self.points, self.weights[:, None])
            doubt = (columns @ self.turn - k @ self.known).square().sum(1)
        inflation = self.process.inflation
        return Moments(k @ self.weights, inflation * variance, inflation * doubt)

    def gradients(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the gradients of the mean in ``z``."""
        z = X @ self.process.projection
        return slopes_of_mean(self.process, z, self.points, self.weights[:, None])
