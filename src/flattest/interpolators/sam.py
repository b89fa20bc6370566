"""Sharpness-aware minimisation, for batches and for single samples."""

from __future__ import annotations

from flattest.interpolators.descent import starting_point
from flattest.interpolators.minibatch import (
    Array,
    Minibatch,
    Pull,
    gradient,
    neurons,
    pull,
    train,
)
from flattest.interpolators.options import NonNegative
from flattest.interpolators.result import Outcome, Problem
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.networks import TwoLayerNet

_STEPS = 40_000
_TINY = 1e-300


def sam(
    problem: Problem,
    *,
    radius: NonNegative = 0.1,
    per_sample: bool = True,
    learning_rate: float | None = None,
    batch_size: int | None = 16,
    init_scale: float = 0.1,
    start: TwoLayerNet | None = None,
) -> Outcome:
    r"""Fit by sharpness-aware minimisation: gradients are taken a step uphill.

    .. math:: \theta \leftarrow \theta - \eta \nabla L_B\Bigl(\theta
        + \rho \frac{\nabla L_B(\theta)}{\|\nabla L_B(\theta)\|}\Bigr)

    With `per_sample` every sample has a step uphill of its own, and the gradients at the places
    where they end are averaged: one-sample SAM where the batch size is 1, and its average over the
    batch otherwise. Its drift lowers the trace; with one common step uphill for a full batch the
    drift lowers the largest eigenvalue instead. One-sample SAM is expected to generalise on
    multi-index data without a bias coordinate, given steps enough. The radius goes to zero over the
    last third of the steps.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them; `max_iter`
        bounds the steps, 40,000 by default, and the iterations of the final descent.
    radius : float
        The length ``rho`` of the step uphill, in the space of all parameters.
    per_sample : bool
        Whether each sample has a step uphill of its own.
    learning_rate : float, optional
        By default 0.8 times the largest stable step of plain SGD, estimated anew as the network
        moves.
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
    P. Foret, A. Kleiner, H. Mobahi, B. Neyshabur, "Sharpness-Aware Minimization for Efficiently
    Improving Generalization", ICLR 2021.

    K. Wen, T. Ma, Z. Li, "How Does Sharpness-Aware Minimization Minimize Sharpness?", ICLR 2023.

    K. Wen, Z. Li, T. Ma, "Sharpness Minimization Algorithms Do Not Only Minimize Sharpness To
    Achieve Better Generalization", NeurIPS 2023.
    """
    uphill = uphill_per_sample if per_sample else uphill_together

    def evaluate(batch: Minibatch, W: Array, a: Array, strength: float) -> Pull:
        return uphill(problem.activation, batch, W, a, strength * radius)

    return train(
        problem,
        evaluate,
        *starting_point(problem, init_scale, start),
        batch_size=batch_size,
        learning_rate=learning_rate,
        steps=_STEPS,
    )


def uphill_together(act: Homogeneous, batch: Minibatch, W: Array, a: Array, radius: float) -> Pull:
    """Evaluate the network where the batch's loss is higher.

    Parameters
    ----------
    act : Homogeneous
        The activation.
    batch : Minibatch
        The samples.
    W, a : array
        The parameters.
    radius : float
        The length of the step.

    Returns
    -------
    Pull
        Of the loss there.
    """
    up_W, up_a = gradient(batch, pull(act, batch, W, a))
    length = ((up_W * up_W).sum() + (up_a * up_a).sum()) ** 0.5
    c = radius / (length + _TINY)
    return pull(act, batch, W + c * up_W, a + c * up_a)


def uphill_per_sample(
    act: Homogeneous, batch: Minibatch, W: Array, a: Array, radius: float
) -> Pull:
    r"""Evaluate the network for each sample where that sample's loss is higher.

    The gradient of ``f(x_i)`` in ``w_j`` is ``a_j s'(z_ij) x_i``, so a step along it moves the
    pre-activation ``z_ij`` by a multiple of ``a_j s'(z_ij) ||x_i||^2``: no parameters need be
    formed, and one matrix product serves the whole batch.

    Parameters
    ----------
    act : Homogeneous
        The activation.
    batch : Minibatch
        The samples.
    W, a : array
        The parameters.
    radius : float
        The length of each step.

    Returns
    -------
    Pull
        Of each sample's loss there.
    """
    z = batch.X @ W.T
    s, gates = neurons(act, z, a)
    r = s @ a - batch.y
    length = ((s * s).sum(1) + batch.norms * (gates * gates).sum(1)) ** 0.5
    c = radius * (r / (abs(r) + _TINY)) / (length + _TINY)
    there = a + c[:, None] * s
    s, gates = neurons(act, z + (c * batch.norms)[:, None] * gates, there)
    return Pull((s * there).sum(1) - batch.y, s, gates)
