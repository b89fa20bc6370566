"""Gaussian processes of a few linear combinations of the features, the combinations fitted too.

The combinations are parameters of the kernel, like the noise, and all of them maximise the marginal
likelihood (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5). Large
data are cut into blocks, which are taken for independent of one another.

`Process` is a process with its parameters, `fit_process` maximises their likelihood, `Posterior` is
a process conditioned on rows.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import Bounds, minimize
from torch import Tensor

from flattest.regression.kernels import kernel
from flattest.regression.tuning import (
    JITTER,
    LBFGS_MEMORY,
    LOG_LENGTH,
    LOG_NOISE,
    LOG_VARIANCE,
    Effort,
)

_IMPOSSIBLE = -1e10  # the evidence of what cannot be computed


class Process(NamedTuple):
    r"""A Gaussian process of ``z = B^T x`` with noise.

    .. math::
        k(x, x') = v \, \kappa(|z - z'|^2) \quad\text{or, additive,}\quad
        \sum_l v_l \, \kappa\big((z_l - z'_l)^2\big);

    the shape ``"linear"`` stands for ``v z . z'``, which may also be added to another one, a trend.

    Parameters
    ----------
    shape : str
        The kernel.
    projection : Tensor of shape (d, k)
        ``B``.
    variances : Tensor of shape (q,)
        One per term of the kernel.
    noise : float
        The variance of the noise of a row that counts once.
    additive : bool
        Whether it is a sum of functions of one column each.
    free : {"projection", "lengths", "scale"}
        What of the projection is fitted: all of it, its columns' lengths, or one common factor.
    trend : bool
        Whether a linear function is added; its variance is the last one.
    evidence : float
        The log marginal likelihood of the data that it was fitted to.
    score : float
        The evidence less the price of the parameters.
    converged : bool
        Whether the fit came to a maximum.
    """

    shape: str
    projection: Float[Tensor, "d k"]
    variances: Float[Tensor, " q"]
    noise: float
    additive: bool = False
    free: Literal["projection", "lengths", "scale"] = "projection"
    trend: bool = False
    evidence: float = -math.inf
    score: float = -math.inf
    converged: bool = False

    @property
    def n_directions(self) -> int:
        """The number of combinations."""
        return self.projection.shape[1]

    @property
    def n_parameters(self) -> int:
        """The number of parameters fitted, less the turns of the projection that change nothing."""
        d, k = self.projection.shape
        turns = 0 if self.additive else k * (k - 1) // 2
        free = {"projection": d * k - turns, "lengths": k, "scale": 1}[self.free]
        return free + len(self.variances) + 1

    @property
    def terms(self) -> list[tuple[str, slice]]:
        """The kernels that are added, and the coordinates of ``z`` on which each depends."""
        each = [slice(i, i + 1) for i in range(self.n_directions)]
        parts = each if self.additive else [slice(None)]
        return [(self.shape, part) for part in parts] + [("linear", slice(None))] * self.trend

    def covariance(self, z: Tensor, others: Tensor) -> Tensor:
        """Return the kernel between projected points."""
        total = z.new_zeros(*z.shape[:-1], others.shape[-2])
        for v, (shape, part) in zip(self.variances, self.terms, strict=True):
            here = z[..., part]
            there = here if others is z else others[..., part]
            total.addcmul_(kernel(shape, here, there)[0], v)
        return total

    def prior(self, z: Tensor) -> Tensor:
        """Return the prior variance at projected points."""
        total = z.new_zeros(z.shape[:-1])
        for v, (shape, _) in zip(self.variances, self.terms, strict=True):
            total += v * z.square().sum(-1) if shape == "linear" else v
        return total

    @property
    def variance(self) -> float:
        """The sum of the variances."""
        return float(self.variances.sum())

    def fitted(self, evidence: float, n_rows: int) -> Process:
        """Return it with its evidence and its score.

        The price of the parameters is Schwarz's, with Hurvich and Tsai's correction for a number of
        them that is not small beside that of rows. With fewer than two rows per parameter anything
        can be explained, and the score is minus infinity.
        """
        p, n = self.n_parameters, n_rows
        price = p * math.log(n) / 2 + p * (p + 1) / (n - p - 1) if 2 * p <= n else math.inf
        return self._replace(evidence=evidence, score=evidence - price)


class Data(NamedTuple):
    """Inputs, targets, and how noisy each row is beside one that counts once.

    A row that counts ``w`` times has the noise variance of a mean of ``w``: its `spread` is
    ``1 / w``. Leading dimensions are blocks.
    """

    X: Float[Tensor, "*b n d"]
    y: Float[Tensor, "*b n 1"]
    spread: Float[Tensor, "*b n"]

    @classmethod
    def of(
        cls, X: Float[Tensor, "n d"], y: Float[Tensor, " n"], weight: Float[Tensor, " n"]
    ) -> Data:
        """Make a single block of rows with their weights."""
        return cls(X, y[:, None], 1 / weight)

    def take(self, rows: Tensor) -> Data:
        """Return some of the rows."""
        return Data(self.X[rows], self.y[rows], self.spread[rows])

    def blocks(self, size: int) -> Data:
        """Cut into as few equal blocks as are needed, none larger than the size.

        The few rows that do not fill a block of their own are left over.
        """
        n = len(self.y)
        b = -(-n // size)
        m = n // b
        return Data(
            self.X[: b * m].reshape(b, m, -1),
            self.y[: b * m].reshape(b, m, 1),
            self.spread[: b * m].reshape(b, m),
        )


def fit_process(data: Data, start: Process, effort: Effort) -> Process:
    r"""Maximise the marginal likelihood, summed over the blocks, by L-BFGS.

    .. math::
        -\tfrac12 y^T K^{-1} y - \tfrac12 \log\det K - \tfrac n2 \log 2 \pi

    Parameters
    ----------
    data : Data
        Blocks of rows; the targets of mean 0.
    start : Process
        Where to start.
    effort : Effort
        When to stop.

    Returns
    -------
    Process
        The best found.
    """
    base, k, q = start.projection, start.n_directions, len(start.variances)
    free = start.free == "projection"
    # The projection is a matrix times a scale, or one for each of its columns. Where the matrix is
    # free the scale is redundant, but along it lie the long valleys of smooth functions, which are
    # straight in the logarithms of scale and variance.
    scale = base.norm(dim=0, keepdim=True)
    if not start.additive and start.free != "lengths":
        scale = scale.square().mean(1, keepdim=True).sqrt()
    scale = scale.clamp_min(1e-3 * float(scale.max()) or 1.0)
    unit = base / scale
    size, scales = unit.numel() if free else 0, scale.numel()
    first = unit.flatten().cpu().numpy()[:size]
    logs = [scale.log().flatten(), start.variances.log()]
    theta = np.concatenate([first, *(x.cpu().numpy() for x in logs), [math.log(start.noise)]])
    ranges = [(-np.inf, np.inf)] * size + [LOG_LENGTH] * scales + [LOG_VARIANCE] * q
    low, high = np.array([*ranges, LOG_NOISE]).T
    rows = data.y.numel()

    def at(theta: np.ndarray) -> Process:
        values = torch.from_numpy(theta).to(base)
        matrix = values[:size].reshape(base.shape) if free else unit
        return start._replace(
            projection=matrix * values[size : size + scales].exp(),
            variances=values[size + scales : -1].exp(),
            noise=math.exp(theta[-1]),
        )

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        process = at(theta)
        value, slope, *rest = evidence_and_slopes(data, process)
        factor = torch.from_numpy(theta[size : size + scales]).to(base).exp()
        in_scale = (slope * process.projection).sum(0)
        in_scale = in_scale if scales == k else in_scale.sum(0, keepdim=True)
        slopes = [(slope * factor).flatten()[:size], in_scale]
        return -value / rows, -np.concatenate([*(x.cpu().numpy() for x in slopes), *rest]) / rows

    end = minimize(
        objective,
        np.clip(theta, low, high),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(low, high),
        options={"maxiter": effort.max_iter, "maxcor": LBFGS_MEMORY, "ftol": effort.tol},
    )
    return at(end.x).fitted(-float(end.fun) * rows, rows)._replace(converged=bool(end.success))


def evidence(data: Data, process: Process) -> float:
    """Return the log marginal likelihood, summed over the blocks."""
    factored = _factorise(data, process)
    return factored.evidence if factored else _IMPOSSIBLE


def left_out_density(data: Data, process: Process) -> tuple[float, Float[Tensor, "b n"]]:
    """Return the evidence, and the log density of each target given the others of its block."""
    factored = _factorise(data, process)
    if factored is None:
        return _IMPOSSIBLE, torch.full_like(data.spread, _IMPOSSIBLE)
    precision = torch.cholesky_inverse(factored.factor).diagonal(dim1=1, dim2=2)
    squares = factored.weights[..., 0].square() / precision
    return factored.evidence, (precision.log() - squares - math.log(2 * math.pi)) / 2


def trend_slope(data: Data, process: Process) -> float:
    """Return the derivative of the evidence in the variance of an added linear function, at 0."""
    factored = _factorise(data, process)
    if factored is None:
        return 0.0
    z = factored.z
    spread = (z * torch.cholesky_solve(z, factored.factor)).sum()
    return float((z.mT @ factored.weights).square().sum() - spread) / 2


class _Factored(NamedTuple):
    """The covariance of a process on data, factorised.

    The projections, each term's kernel with its slope, the Cholesky factor, the covariance's
    solution for the targets, and the evidence.
    """

    z: Float[Tensor, "b n k"]
    terms: list[tuple[Tensor, Tensor]]
    factor: Float[Tensor, "b n n"]
    weights: Float[Tensor, "b n 1"]
    evidence: float


def _factorise(data: Data, process: Process) -> _Factored | None:
    """Factorise the covariance of the targets; None where it is not positive definite."""
    z = data.X @ process.projection
    terms = []
    K = z.new_zeros(*data.y.shape[:2], data.y.shape[1])
    for v, (shape, part) in zip(process.variances, process.terms, strict=True):
        zp = z[..., part]
        terms.append(kernel(shape, zp, zp))
        K.addcmul_(terms[-1][0], v)
    K.diagonal(dim1=1, dim2=2).add_(process.noise * data.spread + JITTER * process.variance)
    factor, info = torch.linalg.cholesky_ex(K)
    if bool(info.any()):
        return None
    weights = torch.cholesky_solve(data.y, factor)
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum()
    fit = -(data.y * weights).sum() / 2 - log_det - data.y.numel() * math.log(2 * math.pi) / 2
    return _Factored(z, terms, factor, weights, float(fit))


def evidence_and_slopes(
    data: Data, process: Process
) -> tuple[float, Tensor, np.ndarray, np.ndarray]:
    """Return the evidence, and its slopes in the projection, log variances and log noise.

    They are ``tr(G dK)`` with ``G = (K^-1 y y^T K^-1 - K^-1) / 2``.
    """
    factored = _factorise(data, process)
    if factored is None:
        q = len(process.variances)
        return _IMPOSSIBLE, torch.zeros_like(process.projection), np.zeros(q), np.zeros(1)
    z, terms, factor, weights, found = factored
    # G, from which all slopes follow.
    G = torch.cholesky_inverse(factor).baddbmm_(weights, weights.mT, beta=-0.5, alpha=0.5)
    diagonal = G.diagonal(dim1=1, dim2=2)
    trace, in_noise = float(diagonal.sum()), float((diagonal * data.spread).sum())
    in_projection, in_variances = torch.zeros_like(process.projection), []
    for v, (shape, part), (value, slope) in zip(
        process.variances, process.terms, terms, strict=True
    ):
        in_variances.append(float(v * (torch.vdot(G.flatten(), value.flatten()) + JITTER * trace)))
        zp = z[..., part]
        if shape == "linear":
            pulled = G @ zp / 2
        else:
            H = slope.mul_(G)
            pulled = H.sum(-1, keepdim=True) * zp - H @ zp
        in_projection[:, part] += 4 * v * (data.X.mT @ pulled).sum(0)
    return found, in_projection, np.array(in_variances), np.array([process.noise * in_noise])


def gradients(data: Data, process: Process) -> Float[Tensor, "n k"]:
    """Return the gradients in ``z`` of each block's posterior mean, at its own points."""
    z = data.X @ process.projection
    K = process.covariance(z, z)
    K.diagonal(dim1=1, dim2=2).add_(process.noise * data.spread + JITTER * process.variance)
    return _slopes(process, z, z, torch.linalg.solve(K, data.y)).flatten(0, 1)


def _slopes(process: Process, z: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """Differentiate ``k(z, points) weights`` in ``z``."""
    found = torch.zeros_like(z)
    for v, (shape, part) in zip(process.variances, process.terms, strict=True):
        here, there = z[..., part], points[..., part]
        if shape == "linear":
            found += v * (there.mT @ weights).mT
        else:
            H = 2 * v * kernel(shape, here, there)[1] * weights.mT
            found[..., part] += H.sum(-1, keepdim=True) * here - H @ there
    return found


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
    """

    process: Process
    points: Float[Tensor, "m k"]
    weights: Float[Tensor, " m"]
    explained: Float[Tensor, "m m"]

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
            K.diagonal().add_(process.noise * data.spread + JITTER * process.variance)
            explained = torch.cholesky_inverse(torch.linalg.cholesky(K))
            return cls(process, at, explained @ data.y[:, 0], explained)
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
        return cls(process, at, weights[:, 0], explained)

    def to(self, device: str) -> Posterior:
        """Move to a device."""
        process = self.process._replace(
            projection=self.process.projection.to(device),
            variances=self.process.variances.to(device),
        )
        return Posterior(process, *(values.to(device) for values in self[1:]))

    def left_out(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return each row's residual if it were left out, and the variance of that residual.

        For exact conditioning only.
        """
        precision = self.explained.diagonal()
        return self.weights / precision, 1 / precision

    def __call__(self, X: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return the mean and the variance of the function, noise not included."""
        z = X @ self.process.projection
        k = self.process.covariance(z, self.points)
        prior = self.process.prior(z)
        return k @ self.weights, (prior - ((k @ self.explained) * k).sum(1)).clamp_min(0)

    def gradients(self, X: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """Return the gradients of the mean in ``z``."""
        z = X @ self.process.projection
        return _slopes(self.process, z, self.points, self.weights[:, None])
