"""The penalised first-order method: Adam on loss + strength * flatness, the strength falling."""

from __future__ import annotations

import torch

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.second_order import restore

_DEFAULT_MAX_ITER = 4000
_REPORTS = 200
_STRENGTHS = (3e-2, 1e-7)
_RATES = (2e-2, 1e-4)
_BETAS = (0.9, 0.99)
_DUAL_SIZE = 3000
"""Number of samples up to which the final correction, an n x n system, is affordable."""


def penalised(problem: Problem, *, objective: str = "trace") -> Outcome:
    """See :func:`flattest.interpolate`; needs memory for the n x m activations only."""
    run = Run(problem, _DEFAULT_MAX_ITER)
    goal, target = run.objective(objective), run.data.target
    point, interrupted = run.start(problem.width), False
    moments = [torch.zeros_like(value) for value in (point.W, point.W, point.a, point.a)]
    every = max(1, run.max_iter // _REPORTS)
    try:
        for iteration in range(run.max_iter):
            share = iteration / max(run.max_iter - 1, 1)
            strength, rate = (_between(ends, share) for ends in (_STRENGTHS, _RATES))
            if iteration % every == 0:
                run.record(point, strength, "descent")
            point = adam_step(goal, target, point, moments, iteration + 1, strength, rate)
        if len(target) <= _DUAL_SIZE:
            point = restore(goal, target, point)
    except KeyboardInterrupt:
        interrupted = True
    run.record(point, 0.0, "restored")
    status = Status.CONVERGED if run.error(point) <= problem.tol else Status.NOT_INTERPOLATING
    return run.outcome(point, Status.INTERRUPTED if interrupted else status, {})


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
