"""The flattest interpolator: least flatness among the networks that fit the data exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.penalised import penalised
from flattest.interpolators.recovery import gather, recover
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.second_order import Schedule, descend, restore

_STEP_FLOPS = 2e11
_MOST_SAMPLES = 4000
"""Largest step, and largest dual system, that the second-order method takes on."""
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


class _Candidate(NamedTuple):
    """A network, with what its descent says of it."""

    point: Point
    orbit_minimum: float
    interpolates: bool
    settled: bool
    interrupted: bool
    gathered: Point
    """The network before the last step towards interpolation, with all its neurons."""


def flattest(problem: Problem, *, objective: str = "trace", trace_tol: float = 0.01) -> Outcome:
    """See :func:`flattest.interpolate`; this is the second-order solver behind it."""
    p, (n, d) = problem.activation.degree, problem.X.shape
    if n > _MOST_SAMPLES or float(n) ** 2 * problem.width * (min(n, d) + 1) > _STEP_FLOPS:
        outcome = penalised(problem, objective=objective)
        return outcome._replace(notes={"fallback": "penalised, as the data are large"})
    run = Run(problem, default_max_iter=100 if p == 1 else 300)
    # For even and odd activations the reflected flatness is the flatness.
    same = problem.activation.parity != 0
    first = run.trace if same else run.reflected
    best = _search(run, first, run.start(problem.width), Schedule())
    interrupted = best.interrupted
    if not (best.interpolates or interrupted):
        start = run.random_features(problem.width)
        gentle = _GENTLE / first.value(start)
        other = _search(run, first, start, Schedule(start=gentle, end=gentle))
        interrupted = other.interrupted
        best = other if other.interpolates else best
    notes = {"orbit_minimum_of_least_reflected": best.orbit_minimum}
    if objective == "trace" and not same and not interrupted:
        strict = _search(run, run.trace, best.gathered, _WARM)
        notes["orbit_minimum_of_least_trace"] = strict.orbit_minimum
        flatter = strict.orbit_minimum < (1 - trace_tol) * best.orbit_minimum
        if strict.interpolates and (flatter or not best.interpolates):
            best = strict
        interrupted = strict.interrupted
    if interrupted:
        status = Status.INTERRUPTED
    elif not best.interpolates:
        status = Status.NOT_INTERPOLATING
    else:
        status = Status.CONVERGED if best.settled else Status.NOT_FLATTEST
    return run.outcome(best.point, status, notes)


def _search(run: Run, objective: Objective, start: Point, schedule: Schedule) -> _Candidate:
    """Descend, and finish by exact recovery or by a last step towards interpolation."""
    target, p, tol = run.data.target, objective.p, run.problem.tol
    stage = "reflected" if objective is run.reflected else "trace"
    newton = _NEWTON_BELOW if p >= 2 else 0.0
    point, found, settled, sparse, interrupted = start, None, False, p == 1, False
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
                found = recover(objective, target, point)
                if found is not None:
                    break
            if sparse and state.strength < _WEAK and _is_stuck(errors, tol):
                sparse, minima = False, []
                point, schedule = _replenish(run, objective, point, state.train_error)
                steps = descend(objective, target, point, schedule)
            settled = state.strength <= schedule.end and _has_settled(minima)
            if settled:
                break
        gathered, settled = point, settled or found is not None
        point = found or restore(objective, target, point)
    except KeyboardInterrupt:
        gathered, interrupted = point, True
    if run.error(point) > tol >= run.error(start):
        point, settled = start, False  # the descent lost the interpolation that it was given
    point = run.trace.balance(run.trace.point(point.W, point.a))
    run.record(point, 0.0, f"{stage}, finished")
    interpolates = run.error(point) <= tol
    return _Candidate(point, run.orbit_minimum(point), interpolates, settled, interrupted, gathered)


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
