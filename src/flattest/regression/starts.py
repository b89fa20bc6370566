"""Where the search for directions starts: what networks and coarse processes vary along.

Both are fitted on all features, then again on the features re-weighted by the average gradient
outer product of the fit before, and so on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.elimination import Learner, sizes
from flattest.regression.evidence import gradients
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.regularisation_path import NetworkSettings
from flattest.regression.training_data import TrainingData
from flattest.regression.tuning import (
    COARSE_NOISES,
    COARSE_SCALES,
    MORE_STARTS,
    REWEIGHTINGS,
    SEARCH_SHAPE,
    START_NOISE,
    STRENGTH_IN_ROUNDS,
    STRENGTH_ONCE,
)


def starts(
    training: TrainingData,
    data: Data,
    k: int,
    network: NetworkSettings,
    rng: np.random.Generator,
    max_rounds: int,
) -> Iterator[Process]:
    """Yield processes of `k` directions to start from.

    Parameters
    ----------
    training : TrainingData
        The rows for the networks.
    data : Data
        The same rows for the processes, in blocks and in coordinates of the basis.
    k : int
        The number of directions.
    network : NetworkSettings
        The settings of the networks.
    rng : numpy.random.Generator
        Seeds the networks.
    max_rounds : int
        The most rounds of re-weighting.

    Yields
    ------
    Process
        Not fitted yet.
    """
    processes = _of_processes(data, k, max_rounds)
    for strength, rounds in [(STRENGTH_ONCE, 0), (STRENGTH_IN_ROUNDS, max_rounds)] * (
        1 + MORE_STARTS
    ):
        # A process and a network in turn: two starts that agree are then not two of a kind.
        yield from (_start(data, projection) for projection in itertools.islice(processes, 1))
        found = _of_network(training, k, network, strength, rounds, int(rng.integers(2**63)))
        yield _start(data, training.basis.T @ found)


def _start(data: Data, projection: Float[Tensor, "d k"]) -> Process:
    """Make a process whose projections have unit size."""
    unit = projection / _size(data.X @ projection)
    return Process(SEARCH_SHAPE, unit, unit.new_ones(1), START_NOISE)


def _of_network(
    training: TrainingData,
    k: int,
    network: NetworkSettings,
    strength: float,
    rounds: int,
    seed: int,
) -> Float[Tensor, "d k"]:
    """Fit a network on ever fewer directions, and weigh the last ones by how much it varies."""
    learner = Learner.on(training, network)
    for size in [*sizes(training.basis.shape[1], k, rounds)[1:], k]:
        fits, _ = learner.path(np.array([strength]), seed)
        values, vectors, _ = learner.variation(fits[0])
        learner = learner.with_basis(vectors[:, :size])
    return vectors[:, :k] * values[:k].sqrt()


def _of_processes(data: Data, k: int, max_rounds: int) -> Iterator[Float[Tensor, "d k"]]:
    """Re-weight all features by the average gradient outer product, and take its top."""
    A = torch.eye(data.X.shape[-1], dtype=data.X.dtype, device=data.X.device)
    due = {min(rounds, max_rounds) for rounds in REWEIGHTINGS}
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
    """Choose scale and noise of a process from a grid, and its variance by the closed form."""
    best, highest = None, -math.inf
    # In units of each row's noise, so that one decomposition serves for all noises.
    half = data.spread.rsqrt()[..., None]
    for scale in COARSE_SCALES:
        z = data.X @ (scale * projection)
        unit = Process(SEARCH_SHAPE, scale * projection, z.new_ones(1), 0.0, free="scale")
        values, vectors = torch.linalg.eigh(half * unit.covariance(z, z) * half.mT)
        squares = (vectors.mT @ (half * data.y)).square()[..., 0]
        for noise in COARSE_NOISES.tolist():
            shrunk = values.clamp_min(0) + noise
            variance = (squares / shrunk).mean()
            found = -float(len(squares.flatten()) * variance.log() + shrunk.log().sum())
            if found > highest:
                highest = found
                best = unit._replace(variances=variance[None], noise=float(noise * variance))
    assert best is not None
    return best
