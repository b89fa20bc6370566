"""The marginal likelihood of a process on rows, its slopes, and what else one factorisation gives.

Large data are cut into blocks, which are taken for independent of one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.cholesky import factorise_, inverse_, solve
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.kernels import kernel
from flattest.regression.tuning import JITTER

_TILE = 128
"""Rows whose pairs with all others are worked on together."""

IMPOSSIBLE = -1e10
"""The evidence of what cannot be computed."""


def evidence(data: Data, process: Process) -> float:
    """Return the log marginal likelihood, summed over the blocks."""
    factored = factorise(data, process)
    return factored.evidence if factored else IMPOSSIBLE


def left_out_density(data: Data, factored: Factored) -> Float[Tensor, "b n"]:
    """Return the log density of each target given the others of its block."""
    precision = inverse_(factored.factor.clone()).diagonal(dim1=1, dim2=2)
    squares = factored.weights[..., 0].square() / precision
    return (precision.log() - squares - math.log(2 * math.pi)) / 2


def trend_slope(data: Data, process: Process) -> float:
    """Return the derivative of the evidence in the variance of an added linear function, at 0."""
    factored = factorise(data, process)
    if factored is None:
        return 0.0
    z = factored.z
    spread = (z * solve(factored.factor, z)).sum()
    return float((z.mT @ factored.weights).square().sum() - spread) / 2


class Factored(NamedTuple):
    """The covariance of a process on data, factorised.

    Parameters
    ----------
    z : Tensor of shape (b, n, k)
        The projections.
    factor : Tensor of shape (b, n, n)
        The Cholesky factor, in the lower triangle.
    weights : Tensor of shape (b, n, 1)
        What solves it for the targets.
    evidence : float
        The log marginal likelihood, summed over the blocks.
    """

    z: Float[Tensor, "b n k"]
    factor: Float[Tensor, "b n n"]
    weights: Float[Tensor, "b n 1"]
    evidence: float


def factorise(data: Data, process: Process) -> Factored | None:
    """Factorise the covariance of the targets; None where it is not positive definite."""
    z = data.X @ process.projection
    factor = _factor(data, process, _pairs(process, z).covariance)
    if factor is None:
        return None
    weights = solve(factor, data.y)
    return Factored(z, factor, weights, _evidence(data, factor, weights))


def _factor(
    data: Data, process: Process, K: Float[Tensor, "b n n"]
) -> Float[Tensor, "b n n"] | None:
    """Add the noise to a covariance, whose lower triangle counts, and factorise it there."""
    K.diagonal(dim1=1, dim2=2).add_(process.noise * data.spread + JITTER * process.variance)
    return factorise_(K)


def _evidence(data: Data, factor: Tensor, weights: Tensor) -> float:
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum()
    constant = data.y.numel() * math.log(2 * math.pi) / 2
    return float(-(data.y * weights).sum() / 2 - log_det) - constant


class Pairs(NamedTuple):
    """The kernel at all pairs of rows, of which each tile of rows has those up to its own.

    All matrices are symmetric, and half of the work is enough; the rest of them is not set.

    Parameters
    ----------
    covariance : Tensor of shape (b, n, n)
        The covariance of the function.
    values : list of Tensor
        Each term's kernel, without its variance; none where there is only one term.
    slopes : list of Tensor
        Its slope in the squared distance, where asked for.
    """

    covariance: Float[Tensor, "b n n"]
    values: list[Tensor]
    slopes: list[Tensor]


def _tiles(n: int) -> Iterator[slice]:
    """Cut rows into tiles whose pairs stay in the fast memory while they are worked on."""
    return (slice(i, min(i + _TILE, n)) for i in range(0, n, _TILE))


def _pairs(process: Process, z: Float[Tensor, "b n k"], *, slopes: bool = False) -> Pairs:
    """Evaluate the kernel of a process at all pairs of rows."""
    shape, q = (z.shape[0], z.shape[1], z.shape[1]), len(process.terms)
    stores = [[z.new_empty(shape) for _ in range(q)] for kept in (q > 1, slopes) if kept]
    found = Pairs(z.new_empty(shape), stores[0] if q > 1 else [], stores[-1] if slopes else [])
    for rows in _tiles(z.shape[1]):
        tile = (slice(None), rows, slice(rows.stop))
        total = found.covariance[tile].zero_()
        for i, (v, (kind, part)) in enumerate(zip(process.variances, process.terms, strict=True)):
            zp = z[..., part]
            value, slope = kernel(kind, zp[:, rows], zp[:, : rows.stop], same_from=rows.start)
            total.addcmul_(value, v)
            if q > 1:
                found.values[i][tile] = value
            if slopes:
                found.slopes[i][tile] = slope
    return found


def evidence_and_slopes(
    data: Data, process: Process
) -> tuple[float, Tensor, np.ndarray, np.ndarray]:
    """Return the evidence, and its slopes in the projection, log variances and log noise.

    They are ``tr(G dK)`` with ``G = (K^-1 y y^T K^-1 - K^-1) / 2``.
    """
    z, variances = data.X @ process.projection, process.variances
    pairs = _pairs(process, z, slopes=True)
    factor = _factor(data, process, pairs.covariance)
    if factor is None:
        q = len(variances)
        return IMPOSSIBLE, torch.zeros_like(process.projection), np.zeros(q), np.zeros(1)
    weights = solve(factor, data.y)
    found = _evidence(data, factor, weights)
    # G, from which all slopes follow; as all else, in tiles.
    G = inverse_(factor).baddbmm_(weights, weights.mT, beta=-0.5, alpha=0.5)
    for rows in _tiles(G.shape[1]):
        lower = G[:, rows, rows].tril()
        G[:, rows, rows] = lower + lower.tril(-1).mT
    diagonal = G.diagonal(dim1=1, dim2=2)
    trace, in_noise = float(diagonal.sum()), float((diagonal * data.spread).sum())
    # tr(G K), of which a single term has all but the noise.
    whole = float((data.y * weights).sum() - data.y.numel()) / 2 - process.noise * in_noise
    in_projection = torch.zeros_like(process.projection)
    in_variances = [whole] if len(variances) == 1 else []
    for i, (v, (shape, part)) in enumerate(zip(variances, process.terms, strict=True)):
        zp = z[..., part]
        if pairs.values:
            product = _sum_of_products(G, pairs.values[i])
            in_variances.append(float(v) * (product + JITTER * trace))
        if shape == "linear":
            pulled = _product(G, zp) / 2
        else:
            pulled = _pull(_times_(pairs.slopes[i], G), zp)
        in_projection[:, part] += 4 * v * (data.X.mT @ pulled).sum(0)
    return found, in_projection, np.array(in_variances), np.array([process.noise * in_noise])


def _sum_of_products(G: Float[Tensor, "b n n"], values: Float[Tensor, "b n n"]) -> float:
    """Return the sum of the products of two symmetric matrices, the second one given in tiles."""
    total = 0.0
    for rows in _tiles(G.shape[1]):
        products = G[:, rows, : rows.stop] * values[:, rows, : rows.stop]
        # Pairs of rows of one tile are in it both ways.
        total += float(2 * products.sum() - products[..., rows].sum())
    return total


def _times_(values: Float[Tensor, "b n n"], G: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """Multiply two symmetric matrices in tiles entry by entry, in the place of the first one."""
    for rows in _tiles(G.shape[1]):
        values[:, rows, : rows.stop].mul_(G[:, rows, : rows.stop])
    return values


def _product(H: Float[Tensor, "b n n"], z: Float[Tensor, "b n k"]) -> Float[Tensor, "b n k"]:
    """Return ``H z`` for a symmetric matrix in tiles."""
    sums = torch.zeros_like(z)
    for rows in _tiles(z.shape[1]):
        sums[:, rows] += H[:, rows, : rows.stop] @ z[:, : rows.stop]
        sums[:, : rows.start] += H[:, rows, : rows.start].mT @ z[:, rows]
    return sums


def _pull(H: Float[Tensor, "b n n"], z: Float[Tensor, "b n k"]) -> Float[Tensor, "b n k"]:
    """Return ``diag(H 1) z - H z`` for a symmetric matrix in tiles."""
    sums = _product(H, torch.cat([z, torch.ones_like(z[..., :1])], dim=-1))
    return sums[..., -1:] * z - sums[..., :-1]


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
