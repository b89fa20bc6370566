"""The flattest interpolator: least flatness among the networks that fit the data exactly."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from flattest.flatness import Flatness
from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.options import NonNegative
from flattest.interpolators.penalised import (
    DEFAULT_MAX_ITER,
    DUAL_SIZE,
    anneal,
    has_annealed,
    penalised,
)
from flattest.interpolators.recovery import gather, recover
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import Finished, Run
from flattest.interpolators.second_order import Schedule, descend, restore

_STEP_FLOPS = 5e10
"""Largest step that the second-order method takes on; its memory grows alike."""
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

    finished: Finished
    settled: bool
    recovered: bool
    gathered: Point
    """The network before the last step towards interpolation, with all its neurons."""

    @property
    def flatness(self) -> Flatness:
        """The flatness on the data."""
        return self.finished.flatness


def flattest(
    problem: Problem,
    *,
    objective: Literal["trace", "reflected"] = "trace",
    trace_tol: NonNegative = 0.01,
) -> Outcome:
    """Find the flattest interpolator, by a second-order method with exact recovery.

    It descends through an ``n x n`` dual system, and for ``p = 1`` solves exactly for the few
    neurons that explain the data, where few do. Where none are recovered it adds a run of
    ``"penalised"`` and returns the flatter result; large data go to that alone. On multi-index
    data it is expected to generalise.

    Parameters
    ----------
    problem : Problem
        The data and the common settings, as :func:`flattest.interpolate` describes them.
    objective : {"trace", "reflected"}
        The trace itself, or its average over ``X`` and ``-X``, which is smooth.
    trace_tol : float
        Of the interpolators of least reflected flatness and of least trace it returns the first,
        unless the second is flatter by more than this share; 0 asks for the least trace found,
        to the last digit.

    Returns
    -------
    Outcome
        The network.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.
    """
    p, (n, d) = problem.activation.degree, problem.X.shape
    if n > DUAL_SIZE or float(n) ** 2 * problem.width * (min(n, d) + 1) > _STEP_FLOPS:
        outcome = penalised(problem, objective=objective)
        return outcome._replace(notes={"fallback": "penalised, as the data are large"})
    run = Run(problem, default_max_iter=100 if p == 1 else 300)
    candidates: list[_Candidate] = []
    interrupted = False
    try:
        _explore(run, objective, candidates)
    except KeyboardInterrupt:
        if not candidates:
            raise  # there is no network to return yet
        interrupted = True
    best, notes = _choose(candidates, objective, trace_tol, problem.target_error)
    if interrupted:
        status = Status.INTERRUPTED
    elif best.flatness.loss > problem.target_error:
        status = Status.NOT_INTERPOLATING
    else:
        status = Status.CONVERGED if best.settled else Status.NOT_FLATTEST
    return run.outcome(best.finished, status, notes)


def _explore(run: Run, objective: str, candidates: list[_Candidate]) -> None:
    """Collect interpolators; where a few neurons explain the data the first one is recovered."""
    width, limit = run.problem.width, run.problem.target_error
    # For even and odd activations the reflected flatness is the flatness.
    same = run.problem.activation.parity != 0
    first = run.trace if same else run.reflected
    _search(run, candidates, first, run.start(width), Schedule())
    found = candidates[0]
    if found.recovered or (run.trace.p > 1 and found.flatness.loss <= limit):
        if objective == "trace" and not same:
            _search(run, candidates, run.trace, found.gathered, _WARM)
        return
    # Without recovery the slow way finds flatter networks: gates freeze late in it.
    goal, point = run.objective(objective), run.start(width)
    for annealed in anneal(run, goal, point, run.problem.max_iter or DEFAULT_MAX_ITER):
        point = annealed
    settled = has_annealed(run.history)
    point = restore(goal, run.data.target, point)
    candidates.append(_Candidate(run.finish(point), settled, False, point))
    if all(candidate.flatness.loss > limit for candidate in candidates):
        start = run.random_features(width)
        gentle = _GENTLE / max(first.value(start), 1e-300)
        for strength in (_WARM.start, gentle):
            _search(run, candidates, first, start, Schedule(start=strength, end=gentle))


def _choose(
    candidates: list[_Candidate], objective: str, trace_tol: float, limit: float
) -> tuple[_Candidate, dict[str, float]]:
    """Choose among the interpolators: the least reflected, unless the least trace is less."""
    fitting = [candidate for candidate in candidates if candidate.flatness.loss <= limit]
    if not fitting:
        return min(candidates, key=lambda candidate: candidate.flatness.loss), {}
    reflected = min(fitting, key=lambda candidate: candidate.flatness.reflected_orbit_minimum)
    trace = min(fitting, key=lambda candidate: candidate.flatness.orbit_minimum)
    least = trace.flatness.orbit_minimum
    notes = {
        "orbit_minimum_of_least_reflected": reflected.flatness.orbit_minimum,
        "orbit_minimum_of_least_trace": least,
    }
    flatter = least < (1 - trace_tol) * reflected.flatness.orbit_minimum
    return (trace if objective == "trace" and flatter else reflected), notes


def _search(
    run: Run,
    candidates: list[_Candidate],
    objective: Objective,
    start: Point,
    schedule: Schedule,
) -> None:
    """Descend, and finish by exact recovery or by a last step towards interpolation.

    An interruption keeps the network reached, and goes on its way.
    """
    target, p, tol = run.data.target, objective.p, run.problem.tol
    stage = "reflected" if objective is run.reflected else "trace"
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
        candidates.append(_Candidate(run.finish(point), False, False, point))
        raise
    if run.error(last) > tol >= run.error(start):
        last, settled = start, False  # the descent lost the interpolation that it was given
    recovered = found is not None
    candidates.append(_Candidate(run.finish(last), settled or recovered, recovered, point))


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
