"""Where the search for the directions starts: what networks and coarse processes vary along.

Both are fitted on all features, then on what their average gradient outer product says, and again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.elimination import Learner, Network, sizes
from flattest.regression.gaussian_process import Data, Process, gradients
from flattest.regression.training_data import TrainingData

SHAPE = "matern52"
"""The kernel that is searched with: less smooth than most links, so that it fits all."""
_NOISE = 0.1  # at the start; the landscape is smoother with much
_ONCE, _IN_ROUNDS = 0.03, 0.1
"""Strengths of the penalty of a network fitted once, and of one fitted in rounds."""
STARTS = 4
"""Starts that are usually enough; the ones after them are networks of other seeds."""
_MORE = 3
_ROUNDS = (2, 5)
"""Rounds of re-weighting after which the coarse processes serve."""
_SCALES, _NOISES = (0.5, 1.0, 2.0), np.geomspace(1e-4, 10, 11)


def starts(
    training: TrainingData,
    data: Data,
    k: int,
    network: Network,
    rng: np.random.Generator,
    max_rounds: int,
) -> Iterator[Process]:
    """Yield processes of `k` directions to start from.

    Parameters
    ----------
    training : TrainingData
        The rows for the networks.
    data : Data
        Blocks of rows for the processes, in coordinates of the basis.
    k : int
        The number of directions.
    network : Network
        What every network starts from.
    rng : numpy.random.Generator
        Seeds the networks.
    max_rounds : int
        The most rounds in which a fit is repeated on what the one before found.

    Yields
    ------
    Process
        Not fitted yet.
    """
    processes = _of_processes(data, k, max_rounds)
    for strength, rounds in [(_ONCE, 0), (_IN_ROUNDS, max_rounds)] * (1 + _MORE):
        # One of each kind in turn: two that agree are then not two of a kind.
        yield from (_start(data, projection) for projection in itertools.islice(processes, 1))
        found = _of_network(training, k, network, strength, rounds, int(rng.integers(2**63)))
        yield _start(data, training.basis.T @ found)


def _start(data: Data, projection: Float[Tensor, "d k"]) -> Process:
    unit = projection / _size(data.X @ projection)
    return Process(SHAPE, unit, unit.new_ones(1), _NOISE)


def _of_network(
    training: TrainingData, k: int, network: Network, strength: float, rounds: int, seed: int
) -> Float[Tensor, "d k"]:
    """Fit a network on ever fewer directions, and weigh the last ones by how it varies."""
    learner = Learner(training, network)
    for size in [*sizes(training.basis.shape[1], k, rounds)[1:], k]:
        fits, _ = learner.path(np.array([strength]), seed)
        values, vectors = learner.gradients(fits[0])
        learner.basis = vectors[:, :size]
    return vectors[:, :k] * values[:k].sqrt()


def _of_processes(data: Data, k: int, max_rounds: int) -> Iterator[Float[Tensor, "d k"]]:
    """Re-weight all features by the average gradient outer product, and take its top."""
    A = torch.eye(data.X.shape[-1], dtype=data.X.dtype, device=data.X.device)
    due = {min(rounds, max_rounds) for rounds in _ROUNDS}
    for done in range(1, max(due) + 1):
        process = _coarse(data, A / _size(data.X @ A))
        slopes = gradients(data, process)
        values, vectors = torch.linalg.eigh(slopes.T @ slopes)
        # An orthogonal factor on the right of the projection changes nothing, so the square root
        # of the outer product need not be the symmetric one.
        left, S, _ = torch.linalg.svd(process.projection @ vectors * values.clamp_min(0).sqrt())
        A = left[:, : len(S)] * S
        if done in due:
            yield A[:, :k]


def _size(z: Tensor) -> float:
    return float(z.square().sum(-1).mean().sqrt()) or 1.0


def _coarse(data: Data, projection: Float[Tensor, "d k"]) -> Process:
    """Choose the scale and the noise from a grid, and the variance by its closed form."""
    best, highest = None, -math.inf
    # In units of each row's noise, so that one decomposition serves for all noises.
    half = data.spread.rsqrt()[..., None]
    for scale in _SCALES:
        z = data.X @ (scale * projection)
        unit = Process(SHAPE, scale * projection, z.new_ones(1), 0.0, free="scale")
        values, vectors = torch.linalg.eigh(half * unit.covariance(z, z) * half.mT)
        squares = (vectors.mT @ (half * data.y)).square()[..., 0]
        for noise in _NOISES.tolist():
            shrunk = values.clamp_min(0) + noise
            variance = (squares / shrunk).mean()
            found = -float(len(squares.flatten()) * variance.log() + shrunk.log().sum())
            if found > highest:
                highest = found
                best = unit._replace(variances=variance[None], noise=float(noise * variance))
    assert best is not None
    return best
