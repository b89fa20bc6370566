"""The search for the directions: marginal likelihood of Gaussian processes on ever fewer of them.

It starts from the average gradient outer product of processes of all features, re-weighted by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.gaussian_process import (
    SHAPES,
    Blocks,
    Effort,
    Posterior,
    Process,
    evidence,
    fit_process,
    gradients,
)

_FIRST = "matern52"
_MOST = 5
"""Directions at the start, where their number is not given."""
_ROUNDS, _STARTS = 5, (1, 4)
"""Rounds of re-weighting, and those after which a search starts."""
_SCALES, _NOISES = (0.5, 1.0, 2.0), np.geomspace(1e-4, 10, 11)
_NOISE = 0.1  # the least at the start: the landscape is smoother
_SEARCH_ROWS, _SEARCH_BLOCK = 2000, 500
_FINAL_ROWS, _FINAL_BLOCK, _EXACT = 10_000, 500, 1000
_INDUCING = 1000
_ROUGH = Effort(max_iter=25, tol=5e-4)
_FINE = Effort(max_iter=60, tol=1e-4)
_LAST = Effort(max_iter=200, tol=1e-4)
_ROTATIONS, _ROTATION_ROWS = 16, 250


def search(
    X: Float[Tensor, "n d"], y: Float[Tensor, " n"], k: int | None, rng: np.random.Generator
) -> tuple[Process, list[Process]]:
    """Find the directions on which the targets depend.

    From a few directions more than are needed, the one along which the function varies least is
    dropped, and the rest fitted anew, one after the other. The number that scores best goes on:
    with another kernel, as a sum of functions of one direction each, and, where it is not given,
    against a linear function and a function of all features alike.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        Inputs of about unit variance.
    y : Tensor of shape (n,)
        Targets of mean 0 and variance 1.
    k : int, optional
        The number of directions.
    rng : numpy.random.Generator
        Draws rows where there are many, and rotations.

    Returns
    -------
    process : Process
        The one of the best score, fitted to more of the rows.
    candidates : list of Process
        Those compared.
    """
    n = len(y)
    order = torch.from_numpy(rng.permutation(n))
    rows = order[:_SEARCH_ROWS]
    data = Blocks.of(X[rows], y[rows], _SEARCH_BLOCK)
    candidates = _eliminate(data, k)
    best = max((c for c in candidates if k in (None, c.n_directions)), key=_score)
    # More directions take longer to converge: one more has a second chance.
    likely = [c for c in candidates if 0 <= c.n_directions - best.n_directions <= (k is None)]
    best = max((fit_process(data, process, _FINE) for process in likely), key=_score)
    while best.n_directions > (k or 1):
        fewer = fit_process(data, _without_weakest(data, best), _FINE)
        candidates.append(fewer)
        if fewer.score <= best.score:
            break
        best = fewer
    compared = [best]
    compared += [
        fit_process(data, best._replace(shape=shape), _FINE)
        for shape in SHAPES
        if shape != best.shape
    ]
    best = max(compared, key=_score)
    if best.n_directions > 1:
        compared.append(fit_process(data, _as_sum(data, best, rng), _FINE))
    if k is None:
        compared += [fit_process(data, process, _FINE) for process in _without_directions(X)]
    best = max(compared, key=_score)
    rows = order[:_FINAL_ROWS]
    whole = Blocks.of(X[rows], y[rows], _EXACT if n <= _EXACT else _FINAL_BLOCK)
    best = fit_process(whole, best, _LAST)
    return best, candidates + compared


def _score(process: Process) -> float:
    return process.score


def _eliminate(data: Blocks, k: int | None) -> list[Process]:
    """Fit ever fewer directions, to `k` or until the score has fallen twice."""
    d = data.X.shape[-1]
    most = min(d, max(_MOST, k or 1))
    starts = [fit_process(data, start, _ROUGH) for start in _starts(data, most)]
    rounds = [max(starts, key=lambda start: start.evidence)]
    while rounds[-1].n_directions > (k or 1):
        rounds.append(fit_process(data, _without_weakest(data, rounds[-1]), _ROUGH))
        scores = [_score(process) for process in rounds[-3:]]
        if k is None and len(scores) == 3 and scores[0] > scores[1] > scores[2]:
            break
    return rounds


def _without_weakest(data: Blocks, process: Process) -> Process:
    """Drop the direction along which the function varies least."""
    slopes = gradients(data, process)
    axes = torch.linalg.eigh(slopes.T @ slopes)[1][:, 1:].flip(1)
    return process._replace(projection=process.projection @ axes)


def _starts(data: Blocks, k: int) -> Iterator[Process]:
    """Re-weight all features by the average gradient outer product, and take its top."""
    A = torch.eye(data.X.shape[-1], dtype=data.X.dtype)
    for r in range(_ROUNDS):
        process = _coarse(data, A / _size(data.X @ A))
        slopes = gradients(data, process)
        values, vectors = torch.linalg.eigh(slopes.T @ slopes)
        # A orthogonal factor on the right of the projection changes nothing, so the square root of
        # the outer product need not be the symmetric one.
        left, S, _ = torch.linalg.svd(process.projection @ vectors * values.clamp_min(0).sqrt())
        A = left[:, : len(S)] * S
        if r in _STARTS:
            top = A[:, :k] / _size(data.X @ A[:, :k])
            noise = max(process.noise, _NOISE)
            yield Process(_FIRST, top, torch.ones(1, dtype=top.dtype), noise)


def _size(z: Tensor) -> float:
    return float(z.square().sum(-1).mean().sqrt()) or 1.0


def _coarse(data: Blocks, projection: Float[Tensor, "d k"]) -> Process:
    """Choose the scale and the noise from a grid, and the variance by its closed form."""
    best, highest = None, -math.inf
    for scale in _SCALES:
        z = data.X @ (scale * projection)
        unit = Process(_FIRST, scale * projection, z.new_ones(1), 0.0, fixed=True)
        values, vectors = torch.linalg.eigh(unit.covariance(z, z))
        squares = (vectors.mT @ data.y).square()[..., 0]
        for noise in _NOISES.tolist():
            shrunk = values.clamp_min(0) + noise
            variance = (squares / shrunk).mean()
            found = -float(len(squares.flatten()) * variance.log() + shrunk.log().sum())
            if found > highest:
                highest = found
                best = unit._replace(variances=variance[None], noise=float(noise * variance))
    assert best is not None
    return best


def _as_sum(data: Blocks, process: Process, rng: np.random.Generator) -> Process:
    """Turn the directions, within their span, to where a sum of functions of each fits best."""
    rows = Blocks(data.X[:1, :_ROTATION_ROWS], data.y[:1, :_ROTATION_ROWS])
    k = process.n_directions
    turned = []
    for _ in range(_ROTATIONS):
        turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((k, k)))[0])
        start = process._replace(
            projection=process.projection @ turn,
            variances=(process.variances / k).expand(k),
            additive=True,
        )
        turned.append((evidence(rows, start), start))
    return max(turned, key=lambda pair: pair[0])[1]


def _without_directions(X: Float[Tensor, "n d"]) -> Iterator[Process]:
    """Linear functions, and functions of all features alike."""
    plain = torch.eye(X.shape[1], dtype=X.dtype) / X.shape[1] ** 0.5
    for shape in ("linear", *SHAPES):
        yield Process(shape, plain, X.new_ones(1), 0.5, fixed=True)


def condition(
    process: Process, X: Float[Tensor, "n d"], y: Float[Tensor, " n"], rng: np.random.Generator
) -> Posterior:
    """Condition the process on all rows, through some of them where they are many."""
    if len(y) <= 2 * _INDUCING:
        return Posterior.of(process, X, y)
    some = torch.from_numpy(rng.choice(len(y), _INDUCING, replace=False))
    return Posterior.of(process, X, y, X[some])
