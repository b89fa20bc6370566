"""The penalised first-order method: Adam on loss + strength * flatness, the strength falling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.second_order import restore

DEFAULT_MAX_ITER = 4000
_REPORTS = 200
_STRENGTHS = (3e-2, 1e-7)
_RATES = (2e-2, 1e-4)
_BETAS, _TINY = (0.9, 0.99), 1e-12
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
    adam = Adam(point)
    every = max(1, max_iter // _REPORTS)
    for iteration in range(max_iter):
        share = iteration / max(max_iter - 1, 1)
        strength, rate = (_between(ends, share) for ends in (_STRENGTHS, _RATES))
        if iteration % every == 0:
            run.record(point, strength, _STAGE)
        point = adam.step(goal, run.data.target, point, strength, rate)
        yield point


def has_annealed(history: list[Iterate]) -> bool:
    """Tell whether the orbit minimum kept still over the last tenth of the steps."""
    minima = [entry.orbit_minimum for entry in history if entry.stage == _STAGE]
    last = minima[-max(2, len(minima) // 10) :]
    return len(minima) >= _REPORTS // 2 and max(last) - min(last) <= _SETTLED * min(last)


def _between(ends: tuple[float, float], share: float) -> float:
    """Interpolate geometrically."""
    return ends[0] * (ends[1] / ends[0]) ** share


class Adam:
    """Steps of Adam (Kingma and Ba, 2015) on the penalised loss over two.

    Parameters
    ----------
    point : Point
        Where the steps start.
    """

    def __init__(self, point: Point) -> None:
        # Weights and coefficients in one: small networks cost as much as the calls they take.
        size = point.W.numel() + point.a.numel()
        self._mean, self._square = point.a.new_zeros(size), point.a.new_zeros(size)
        self._gradient = torch.empty_like(self._mean)
        self._count = 0

    def step(
        self,
        goal: Objective,
        target: Float[Tensor, " n"],
        point: Point,
        strength: float,
        rate: float,
    ) -> Point:
        """Take a step.

        Parameters
        ----------
        goal : Objective
            The flatness, in whitened coordinates.
        target : Tensor of shape (n,)
            The targets.
        point : Point
            Where the step starts.
        strength : float
            Weight of the flatness.
        rate : float
            The learning rate.

        Returns
        -------
        Point
            Where it ends.
        """
        return goal.point(*self.move(goal, target, point, strength, rate))

    def move(
        self,
        goal: Objective,
        target: Float[Tensor, " n"],
        point: Point,
        strength: float,
        rate: float,
    ) -> tuple[Float[Tensor, "m r"], Float[Tensor, " m"]]:
        """Do the same, and return weights and coefficients only: what comes next may be elsewhere.

        Parameters
        ----------
        goal, target, point, strength, rate : object
            As for :meth:`step`.

        Returns
        -------
        W, a : Tensor of shape (m, r) and (m,)
            Where the step ends.
        """
        self._count += 1
        residual = (point.f - target).div_(len(target))
        grad_W, grad_a = goal.gradient(point)
        # A product with few rows is much quicker than one with few columns.
        pull = (goal.X.T @ (point.slope * residual[:, None])).T
        W, a = self._gradient.split([point.W.numel(), point.a.numel()])
        torch.addcmul(strength * grad_W, pull, point.a[:, None], out=W.view_as(point.W))
        torch.addmv(strength * grad_a, point.s.T, residual, out=a)
        self._mean.lerp_(self._gradient, 1 - _BETAS[0])
        self._square.mul_(_BETAS[1]).addcmul_(self._gradient, self._gradient, value=1 - _BETAS[1])
        scale = self._square.sqrt().mul_((1 - _BETAS[1] ** self._count) ** -0.5).add_(_TINY)
        moved = torch.cat([point.W.flatten(), point.a])
        moved.addcdiv_(self._mean, scale, value=-rate / (1 - _BETAS[0] ** self._count))
        W, a = moved.split([point.W.numel(), point.a.numel()])
        return W.view_as(point.W), a
