"""Steps on minibatches: what SGD, label-noise SGD and SAM share.

Small batches make steps of microseconds. On the CPU the loop therefore runs on NumPy arrays, whose
calls cost half of PyTorch's; the same expressions serve tensors on other devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.descent import REPORTS, descend_to_zero, largest_curvature, record
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.two_layer.activations import Homogeneous

Array = Any  # a NumPy array on the CPU, a tensor elsewhere; both have what is used here

_CHECK_EVERY = 100
_FIRST_POWER_STEPS = 20
_EDGE = 0.8
"""Default step, as a share of the largest one at which SGD is stable."""
_CONSTANT_UNTIL = 0.7
"""Share of the steps after which noise and radius fall to zero, linearly."""
_BLOWN_UP = 100
"""An error of this many times the expected one means that the steps are too long."""
_LEAST_CAUTION, _RECOVERY = 1e-3, 1.02


class Minibatch(NamedTuple):
    """Some of the samples, with their squared norms."""

    X: Array
    y: Array
    norms: Array


class Pull(NamedTuple):
    """What a gradient is made of: residuals, ``s(z_ij)`` and ``a_j s'(z_ij)``."""

    residual: Array
    s: Array
    gates: Array


Evaluate = Callable[[Minibatch, Array, Array, float], Pull]
"""From batch, weights, coefficients and the strength in [0, 1] to where the gradient is taken."""


def pull(act: Homogeneous, batch: Minibatch, W: Array, a: Array) -> Pull:
    """Evaluate the network on a batch.

    Parameters
    ----------
    act : Homogeneous
        The activation.
    batch : Minibatch
        The samples.
    W, a : array
        The parameters.

    Returns
    -------
    Pull
        Of the loss at these parameters.
    """
    s, gates = neurons(act, batch.X @ W.T, a)
    return Pull(s @ a - batch.y, s, gates)


def neurons(act: Homogeneous, z: Array, a: Array) -> tuple[Array, Array]:
    """Return ``s(z)`` and ``a s'(z)``.

    Parameters
    ----------
    act : Homogeneous
        The activation.
    z : array of shape (b, m)
        The pre-activations.
    a : array of shape (m,) or (b, m)
        The coefficients.

    Returns
    -------
    s, gates : array of shape (b, m)
        The two.
    """
    p, on = act.degree, z > 0
    if p == 1 and act.negative == 0:
        return act.positive * (z * on), act.positive * (on * a)
    off = z < 0
    right, left = z * on, -z * off
    if p == 1:
        at_zero = act.slope_at_zero * (a * ~(on | off)) if act.slope_at_zero else 0.0
        slope = act.positive * (on * a) - act.negative * (off * a) + at_zero
        return act.positive * right + act.negative * left, slope
    below = p * a * (act.positive * right ** (p - 1) - act.negative * left ** (p - 1))
    return act.positive * right**p + act.negative * left**p, below


def gradient(batch: Minibatch, pulled: Pull) -> tuple[Array, Array]:
    """Return the gradient of the mean squared error of a batch, in the weights and coefficients.

    Parameters
    ----------
    batch : Minibatch
        The samples.
    pulled : Pull
        Their residuals and derivatives.

    Returns
    -------
    gradient_W, gradient_a : array
        Of shapes (m, d) and (m,).
    """
    r = (2 / len(batch.y)) * pulled.residual
    return (pulled.gates * r[:, None]).T @ batch.X, r @ pulled.s


def train(
    problem: Problem,
    evaluate: Evaluate,
    W: Float[Tensor, "m d"],
    a: Float[Tensor, " m"],
    *,
    batch_size: int | None,
    learning_rate: float | None,
    steps: int,
    expected_error: float = 1.0,
    keeps_drifting: bool = True,
) -> Outcome:
    r"""Take steps on minibatches while the strength falls to zero, then descend to zero loss.

    Without a `learning_rate` the step is 0.8 times the largest stable one of plain SGD,

    .. math:: \eta = 0.8 \, \frac{2}{\lambda_{\max} + \operatorname{tr} / B},

    with ``lambda_max`` and ``tr`` those of the Gauss-Newton matrix and ``B`` the batch size (our
    rule: at ``B = 1`` the squared gradient of a sample takes the place of the largest curvature).
    Should the loss blow up all the same, the step is halved and the last sound network restored.

    Parameters
    ----------
    problem : Problem
        The problem; its `max_iter` takes precedence over `steps`.
    evaluate : callable
        Where each step takes its gradient.
    W, a : Tensor
        The start.
    batch_size : int or None
        None for all samples.
    learning_rate : float or None
        Constant where it is given.
    steps : int
        Number of steps.
    expected_error : float
        The size of the mean squared error that is in order while the strength is 1, in units of
        the mean squared target.
    keeps_drifting : bool
        Whether the method moves on at zero loss: it then takes all its steps, and the default step
        is estimated anew as the network moves. Otherwise it ends there, and the step is constant.

    Returns
    -------
    Outcome
        The network after the final descent.
    """
    limit = problem.max_iter or steps
    every = _CHECK_EVERY * max(1, limit // (_CHECK_EVERY * REPORTS))
    batch_size = min(batch_size or len(problem.y), len(problem.y))
    on_cpu = problem.X.device.type == "cpu"
    W, a = W.clone(), a.clone()
    # NumPy views: what the loop does to them happens to the tensors.
    moving_W, moving_a = (W.numpy(), a.numpy()) if on_cpu else (W, a)
    safe, lowest, caution, rate = (W.clone(), a.clone()), math.inf, 1.0, 0.0
    in_order = expected_error * float(problem.y.square().mean())
    edge, batches = _Edge(problem, batch_size), _batches(problem, batch_size, on_cpu)
    history: list[Iterate] = []
    status, iteration = None, 0
    try:
        for iteration in range(limit):
            if iteration % _CHECK_EVERY == 0:
                error, largest = edge(W, a)
                lowest = min(lowest, error)
                if not error <= _BLOWN_UP * max(lowest, in_order):
                    caution /= 2
                    if learning_rate is not None or caution < _LEAST_CAUTION:
                        status = Status.DIVERGED
                        break
                    W.copy_(safe[0])
                    a.copy_(safe[1])
                    rate /= 2
                    continue
                safe, caution = (W.clone(), a.clone()), min(1.0, _RECOVERY * caution)
                if error <= problem.target_error and not keeps_drifting:
                    break
                if learning_rate is not None:
                    rate = learning_rate
                elif keeps_drifting or iteration == 0:
                    rate = caution * _EDGE * largest
                if iteration % every == 0:
                    record(problem, history, W, a, iteration, limit, "minibatches")
            strength = min(1.0, (1 - iteration / limit) / (1 - _CONSTANT_UNTIL))
            batch = next(batches)
            with np.errstate(all="ignore"):  # an overflow shows in the loss
                step_W, step_a = gradient(batch, evaluate(batch, moving_W, moving_a, strength))
                moving_W -= rate * step_W
                moving_a -= rate * step_a
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    if status is None and not edge(W, a)[0] <= _BLOWN_UP * max(lowest, in_order):
        W, a = safe
    if status is None:
        return descend_to_zero(problem, W, a, history)
    record(problem, history, *safe, iteration, limit, "minibatches")
    return Outcome(*safe, status, history)


class _Edge:
    """The training error, and the largest step at which SGD is stable."""

    def __init__(self, problem: Problem, batch_size: int) -> None:
        self.problem, self.batch_size = problem, batch_size
        self.norms = problem.X.square().sum(dim=1)
        self.probe, self.steps = problem.normal(len(problem.y)), _FIRST_POWER_STEPS

    def __call__(self, W: Float[Tensor, "m d"], a: Float[Tensor, " m"]) -> tuple[float, float]:
        X = self.problem.X
        residual, s, gates = pull(
            self.problem.activation, Minibatch(X, self.problem.y, self.norms), W, a
        )
        probe, curvature = largest_curvature(X, s, gates, self.probe, self.steps)
        if math.isfinite(curvature):
            self.probe, self.steps = probe, 1
        squares = s.square().sum(dim=1) + self.norms * gates.square().sum(dim=1)
        trace = 2 * float(squares.mean())
        return float(residual.square().mean()), 2 / (curvature + trace / self.batch_size)


def _batches(problem: Problem, batch_size: int, on_cpu: bool) -> Iterator[Minibatch]:
    """Yield batches of shuffled samples, epoch after epoch, without end."""
    norms = problem.X.square().sum(dim=1)
    data = Minibatch(problem.X, problem.y, norms)
    if on_cpu:
        data = Minibatch(*(tensor.numpy() for tensor in data))
    n = len(problem.y)
    while True:
        if batch_size == n:
            yield data
            continue
        order = problem.rng.permutation(n)
        shuffled = [values[order] for values in data]
        for first in range(0, n - batch_size + 1, batch_size):
            yield Minibatch(*(values[first : first + batch_size] for values in shuffled))
