"""The flattest interpolator: least flatness among the networks that fit the data exactly."""

from __future__ import annotations

from typing import Literal

from flattest.interpolators.options import NonNegative
from flattest.interpolators.penalised import DUAL_SIZE, penalised
from flattest.interpolators.result import Outcome, Problem, Status
from flattest.interpolators.run import Run
from flattest.interpolators.search import Candidate, explore

_STEP_FLOPS = 5e10
"""Largest step that the second-order method takes on; its memory grows alike."""


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
    goal = run.objective(objective)
    # For even and odd activations the reflected flatness is the flatness.
    first = goal if problem.activation.parity else run.reflected
    candidates, interrupted = explore(run, first, goal)
    best, notes = _choose(candidates, objective, trace_tol, problem.target_error)
    status = Status.INTERRUPTED if interrupted else best.status(problem)
    return run.outcome(best.finished, status, notes)


def _choose(
    candidates: list[Candidate], objective: str, trace_tol: float, limit: float
) -> tuple[Candidate, dict[str, float]]:
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
