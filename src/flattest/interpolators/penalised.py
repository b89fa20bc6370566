"""The penalised first-order method: Adam on loss + strength * flatness, the strength falling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.second_order import restore

DEFAULT_MAX_ITER = 4000
_REPORTS = 200
_STRENGTHS = (3e-2, 1e-7)
_RATES = (2e-2, 1e-4)
_BETAS = (0.9, 0.99)
_STAGE, _SETTLED = "annealing", 0.01
DUAL_SIZE = 4000
"""Number of samples up to which the final correction, an n x n system, is affordable."""


def penalised(problem: Problem, *, objective: Literal["trace", "reflected"] = "trace") -> Outcome:
    """Find the flattest interpolator by Adam on the loss plus a flatness penalty that vanishes.

    It needs memory for the ``n x m`` activations only. On multi-index data it is expected to
    generalise.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    objective : {"trace", "reflected"}
        The trace itself, or its average over ``X`` and ``-X``, which is smooth.

    Returns
    -------
    Outcome
        The network.
    """
    run = Run(problem, DEFAULT_MAX_ITER)
    goal, interrupted = run.objective(objective), False
    point = run.start(problem.width)
    try:
        for annealed in anneal(run, goal, point, run.max_iter):
            point = annealed
        if len(problem.y) <= DUAL_SIZE:
            point = restore(goal, run.data.target, point)
    except KeyboardInterrupt:
        interrupted = True
    finished = run.finish(point)
    if interrupted:
        status = Status.INTERRUPTED
    elif finished.flatness.loss > problem.target_error:
        status = Status.NOT_INTERPOLATING
    else:
        settled = has_annealed(run.history)
        status = Status.CONVERGED if settled else Status.NOT_FLATTEST
    return run.outcome(finished, status, {})


def anneal(run: Run, goal: Objective, point: Point, max_iter: int) -> Iterator[Point]:
    """Lower the strength of the penalty geometrically from one end to the other.

    Parameters
    ----------
    run : Run
        The problem; its history gets some 200 lines.
    goal : Objective
        The flatness that is penalised.
    point : Point
        Where to start.
    max_iter : int
        Number of steps.

    Yields
    ------
    Point
        The network after each step.
    """
    moments = [torch.zeros_like(value) for value in (point.W, point.W, point.a, point.a)]
    every = max(1, max_iter // _REPORTS)
    for iteration in range(max_iter):
        share = iteration / max(max_iter - 1, 1)
        strength, rate = (_between(ends, share) for ends in (_STRENGTHS, _RATES))
        if iteration % every == 0:
            run.record(point, strength, _STAGE)
        point = adam_step(goal, run.data.target, point, moments, iteration + 1, strength, rate)
        yield point


def has_annealed(history: list[Iterate]) -> bool:
    """Tell whether the orbit minimum kept still over the last tenth of the steps."""
    minima = [entry.orbit_minimum for entry in history if entry.stage == _STAGE]
    last = minima[-max(2, len(minima) // 10) :]
    return len(minima) >= _REPORTS // 2 and max(last) - min(last) <= _SETTLED * min(last)


def _between(ends: tuple[float, float], share: float) -> float:
    """Interpolate geometrically."""
    return ends[0] * (ends[1] / ends[0]) ** share


def adam_step(
    goal: Objective,
    target: torch.Tensor,
    point: Point,
    moments: list[torch.Tensor],
    count: int,
    strength: float,
    rate: float,
) -> Point:
    """Take a step of Adam (Kingma and Ba, 2015) on the penalised loss over two.

    Parameters
    ----------
    goal : Objective
        The flatness, in whitened coordinates.
    target : Tensor of shape (n,)
        The targets.
    point : Point
        Where the step starts.
    moments : list of Tensor
        Running means of the gradient and of its square, for W and for a; updated in place.
    count : int
        Number of the step, from 1.
    strength : float
        Weight of the flatness.
    rate : float
        The learning rate.

    Returns
    -------
    Point
        Where it ends.
    """
    residual = (point.f - target) / len(target)
    grad_W, grad_a = goal.gradient(point)
    grad_W = strength * grad_W + (point.slope * point.a * residual[:, None]).T @ goal.X
    grad_a = strength * grad_a + point.s.T @ residual
    moved = []
    for k, (value, gradient) in enumerate(((point.W, grad_W), (point.a, grad_a))):
        mean, square = moments[2 * k : 2 * k + 2]
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.lerp_(gradient.square(), 1 - _BETAS[1])
        unbiased = mean / (1 - _BETAS[0] ** count)
        scale = (square / (1 - _BETAS[1] ** count)).sqrt() + 1e-12
        moved.append(value - rate * unbiased / scale)
    return goal.point(*moved)
