"""Stochastic gradient descent with a large constant step."""

from __future__ import annotations

from flattest.interpolators.descent import starting_point
from flattest.interpolators.minibatch import Array, Minibatch, Pull, pull, train
from flattest.interpolators.result import Outcome, Problem
from flattest.two_layer.networks import TwoLayerNet

_STEPS = 20_000


def sgd(
    problem: Problem,
    *,
    learning_rate: float | None = None,
    batch_size: int | None = 16,
    init_scale: float = 0.1,
    start: TwoLayerNet | None = None,
) -> Outcome:
    """Fit by plain SGD with a large constant step.

    Its noise vanishes with the training loss, and with it the drift towards flatter networks:
    what it can do for flatness happens before it interpolates. On multi-index data it is not
    expected to generalise from a large start.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them; `max_iter`
        bounds the steps, 20,000 by default, and the iterations of the final descent.
    learning_rate : float, optional
        By default 0.8 times the largest step at which SGD is stable where it starts.
    batch_size : int, optional
        Samples per step; None for all of them.
    init_scale : float
        Standard deviation of all initial parameters.
    start : TwoLayerNet, optional
        Where to start instead, with at most `width` neurons.

    Returns
    -------
    Outcome
        The network, after a full-batch descent to zero loss.

    References
    ----------
    L. Wu, C. Ma, W. E, "How SGD Selects the Global Minima in Over-parameterized Learning: A
    Dynamical Stability Perspective", NeurIPS 2018.
    """

    def evaluate(batch: Minibatch, W: Array, a: Array, strength: float) -> Pull:
        return pull(problem.activation, batch, W, a)

    return train(
        problem,
        evaluate,
        *starting_point(problem, init_scale, start),
        batch_size=batch_size,
        learning_rate=learning_rate,
        steps=_STEPS,
        keeps_drifting=False,
    )
