"""The search for an interpolator that minimises a flatness: descents, recovery, fresh starts."""

from __future__ import annotations

from typing import NamedTuple

import torch

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.penalised import DEFAULT_MAX_ITER, anneal, has_annealed
from flattest.interpolators.recovery import gather, recover
from flattest.interpolators.result import Problem, Status
from flattest.interpolators.run import Finished, Run
from flattest.interpolators.second_order import Schedule, descend, restore
from flattest.two_layer.flatness import TwoLayerFlatness

_RECOVERY_EVERY = 5
_RECOVERY_ERROR = 1e-3
_WINDOW, _SETTLED = 10, 1e-4
"""The descent ends once the orbit minimum stays within this share over this many iterations."""
_NEWTON_BELOW = 1e-4
_WEAK = 3e-4
"""Strength of the penalty below which the network should interpolate."""
_POOR = 0.01
"""Relative error of a stuck network above which it is not worth keeping."""
_SAME_RAY = 0.99
_WARM = Schedule(start=1e-3)
_GENTLE = 1e-3
"""Strength times flatness at which the penalty hardly moves an interpolator off the data."""


class Candidate(NamedTuple):
    """A network, with what its descent says of it."""

    finished: Finished
    settled: bool
    recovered: bool
    gathered: Point
    """The network before the last step towards interpolation, with all its neurons."""

    def status(self, problem: Problem) -> Status:
        """How a search ends that returns this network."""
        if self.flatness.loss > problem.target_error:
            return Status.NOT_INTERPOLATING
        return Status.CONVERGED if self.settled else Status.NOT_FLATTEST

    @property
    def flatness(self) -> TwoLayerFlatness:
        """The flatness on the data."""
        return self.finished.flatness


def explore(run: Run, first: Objective, goal: Objective) -> tuple[list[Candidate], bool]:
    """Collect interpolators; where a few neurons explain the data the first one is recovered.

    Parameters
    ----------
    run : Run
        The problem.
    first, goal : Objective
        What the first descent minimises, and what the result is to minimise.

    Returns
    -------
    candidates : list of Candidate
        At least one network.
    interrupted : bool
        Whether the user ended the search.
    """
    candidates: list[Candidate] = []
    try:
        _explore(run, first, goal, candidates)
    except KeyboardInterrupt:
        if not candidates:
            raise  # there is no network to return yet
        return candidates, True
    return candidates, False


def _explore(run: Run, first: Objective, goal: Objective, candidates: list[Candidate]) -> None:
    width, limit = run.problem.width, run.problem.target_error
    _search(run, candidates, first, run.start(width), Schedule())
    found = candidates[0]
    if found.recovered or (run.trace.p > 1 and found.flatness.loss <= limit):
        if goal is not first:
            _search(run, candidates, goal, found.gathered, _WARM)
        return
    # Without recovery the slow way finds flatter networks: gates freeze late in it.
    point = run.start(width)
    for annealed in anneal(run, goal, point, run.problem.max_iter or DEFAULT_MAX_ITER):
        point = annealed
    settled = has_annealed(run.history)
    point = restore(goal, run.data.target, point)
    candidates.append(Candidate(run.finish(point), settled, False, point))
    if all(candidate.flatness.loss > limit for candidate in candidates):
        start = run.random_features(width)
        gentle = _GENTLE / max(first.value(start), 1e-300)
        for strength in (_WARM.start, gentle):
            _search(run, candidates, first, start, Schedule(start=strength, end=gentle))


def _search(
    run: Run,
    candidates: list[Candidate],
    objective: Objective,
    start: Point,
    schedule: Schedule,
) -> None:
    """Descend, and finish by exact recovery or by a last step towards interpolation.

    An interruption keeps the network reached, and goes on its way.
    """
    target, p, tol = run.data.target, objective.p, run.problem.tol
    stage = objective.stage
    newton = _NEWTON_BELOW if p >= 2 else 0.0
    point, found, settled, sparse = start, None, False, p == 1
    minima: list[float] = []
    errors: list[float] = []
    try:
        steps = descend(objective, target, start, schedule, curvature_below=newton)
        for iteration in range(run.max_iter):
            state = next(steps)
            point = state.point
            run.record(point, state.strength, stage)
            minima.append(objective.orbit_minimum(point))
            errors.append(state.train_error)
            due = p == 1 and iteration % _RECOVERY_EVERY == 0
            if due and state.train_error < _RECOVERY_ERROR:
                found = recover(objective, target, point, run.problem.rounding)
                if found is not None:
                    break
            if sparse and state.strength < _WEAK and _is_stuck(errors, tol):
                sparse, minima = False, []
                point, schedule = _replenish(run, objective, point, state.train_error)
                steps = descend(objective, target, point, schedule)
            settled = state.strength <= schedule.end and _has_settled(minima)
            if settled:
                break
        last = found or restore(objective, target, point)
    except KeyboardInterrupt:
        candidates.append(Candidate(run.finish(point), False, False, point))
        raise
    if run.error(last) > tol >= run.error(start):
        last, settled = start, False  # the descent lost the interpolation that it was given
    recovered = found is not None
    candidates.append(Candidate(run.finish(last), settled or recovered, recovered, point))


def _replenish(
    run: Run, objective: Objective, point: Point, error: float
) -> tuple[Point, Schedule]:
    """Bring back neurons where the penalty has switched off too many to interpolate.

    For p = 1 it switches them off for good. Where the rest explains little, start afresh from
    many neurons and a weak penalty; else keep it and let fresh neurons fit what is missing.
    """
    width = run.problem.width
    if error > _POOR:
        return run.start(width), Schedule(start=2e-3 * error)
    rays, signs = gather(point, _SAME_RAY, objective.activation.parity)
    kept = objective.balance(objective.point(rays, signs))
    unit = error**0.5  # a residual of this size asks for a penalty weaker by this factor
    if len(signs) < width:
        fresh, size = run.start(width - len(signs)), unit**0.5
        kept = objective.point(
            torch.cat([kept.W, size * fresh.W]), torch.cat([kept.a, size * fresh.a])
        )
    return kept, Schedule(start=1e-3 * unit, end=min(1e-5, 1e-4 * unit))


def _is_stuck(errors: list[float], tol: float) -> bool:
    """Whether the training error stays although the penalty that held it is gone."""
    return len(errors) > 5 and errors[-1] > max(tol, 0.8 * errors[-5])


def _has_settled(minima: list[float]) -> bool:
    window = minima[-_WINDOW:]
    return len(window) == _WINDOW and max(window) - min(window) <= _SETTLED * min(window)
