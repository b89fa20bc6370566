"""The marginal likelihood of a process on rows, its slopes, and what else one factorisation gives.

Large data are cut into blocks, which are taken for independent of one another.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.gaussian_process import Data, Process
from flattest.regression.kernels import kernel
from flattest.regression.tuning import JITTER

IMPOSSIBLE = -1e10
"""The evidence of what cannot be computed."""


def evidence(data: Data, process: Process) -> float:
    """Return the log marginal likelihood, summed over the blocks."""
    factored = factorise(data, process)
    return factored.evidence if factored else IMPOSSIBLE


def left_out_density(data: Data, process: Process) -> Float[Tensor, "b n"]:
    """Return the log density of each target given the others of its block."""
    factored = factorise(data, process)
    if factored is None:
        return torch.full_like(data.spread, IMPOSSIBLE)
    precision = torch.cholesky_inverse(factored.factor).diagonal(dim1=1, dim2=2)
    squares = factored.weights[..., 0].square() / precision
    return (precision.log() - squares - math.log(2 * math.pi)) / 2


def trend_slope(data: Data, process: Process) -> float:
    """Return the derivative of the evidence in the variance of an added linear function, at 0."""
    factored = factorise(data, process)
    if factored is None:
        return 0.0
    z = factored.z
    spread = (z * torch.cholesky_solve(z, factored.factor)).sum()
    return float((z.mT @ factored.weights).square().sum() - spread) / 2


class Factored(NamedTuple):
    """The covariance of a process on data, factorised.

    Parameters
    ----------
    z : Tensor of shape (b, n, k)
        The projections.
    terms : list of (Tensor, Tensor)
        Each term's kernel with its slope.
    factor : Tensor of shape (b, n, n)
        The Cholesky factor.
    weights : Tensor of shape (b, n, 1)
        What solves it for the targets.
    evidence : float
        The log marginal likelihood, summed over the blocks.
    """

    z: Float[Tensor, "b n k"]
    terms: list[tuple[Tensor, Tensor]]
    factor: Float[Tensor, "b n n"]
    weights: Float[Tensor, "b n 1"]
    evidence: float


def factorise(data: Data, process: Process) -> Factored | None:
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
    return Factored(z, terms, factor, weights, float(fit))


def evidence_and_slopes(
    data: Data, process: Process
) -> tuple[float, Tensor, np.ndarray, np.ndarray]:
    """Return the evidence, and its slopes in the projection, log variances and log noise.

    They are ``tr(G dK)`` with ``G = (K^-1 y y^T K^-1 - K^-1) / 2``.
    """
    factored = factorise(data, process)
    if factored is None:
        q = len(process.variances)
        return IMPOSSIBLE, torch.zeros_like(process.projection), np.zeros(q), np.zeros(1)
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
    return slopes_of_mean(process, z, z, torch.linalg.solve(K, data.y)).flatten(0, 1)


def slopes_of_mean(process: Process, z: Tensor, points: Tensor, weights: Tensor) -> Tensor:
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
