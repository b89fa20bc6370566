"""The minimum over all scales: what vanishes, where the rest is smallest, and how sure that is."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from flattest.modules.balancing.newton import newton_step, sweep
from flattest.modules.balancing.surviving import surviving
from flattest.modules.balancing.terms import Terms, Vector

_SWEEPS = (5, 100)  # at least, at most
_STEPS = 200
_NEAR = 1e-3
"""The gap, relative to the value, from which on no sweeps are made."""
_FAINT = 1e-6
"""Flows below this part of the median flow are those of nearly dead units."""
_NOTHING = 1e-13
"""What leaving these alone may cost, relative to the value."""


class BalanceStatus(enum.Enum):
    """How a minimum over scales was found; the value of each member says what to do about it.

    Examples
    --------
    >>> from flattest.modules.balancing.minimum import BalanceStatus
    >>> BalanceStatus.CONVERGED.value
    'The minimum is attained, and found to rounding.'
    """

    CONVERGED = "The minimum is attained, and found to rounding."
    NOT_ATTAINED = (
        "The value is an infimum that no finite scales attain: some terms vanish in the limit. "
        "The scales are those that minimise the rest; use the value as a lower bound."
    )
    STALLED = (
        "The iteration stopped above its tolerance; the value is right up to the gap. "
        "Measure in float64 to get a smaller one."
    )


@dataclass(frozen=True)
class ScaleMinimum:
    """The smallest value of a sum of exponentials over all log scales.

    Parameters
    ----------
    value : float
        The infimum.
    log_scales : array of shape (n,)
        Where it is attained, up to what vanishes; 0 for scales without influence.
    gap : float
        A bound of ``value`` less the true infimum, by a dual point that is feasible up to rounding.
    attained : bool
        Whether finite scales attain it.
    vanishing : float
        What the vanishing terms add to the value at `log_scales`.
    dead : array of bool, of shape (n,)
        Scales that only vanishing terms have, or none at all; they are left at 1.
    left_alone : array of bool, of shape (n,)
        These, and scales through which too little flows to matter in double precision at 1.
    status : BalanceStatus
        How it was found.
    n_steps : int
        Newton's steps taken.
    """

    value: float
    log_scales: Vector
    gap: float
    attained: bool
    vanishing: float
    dead: Bool[np.ndarray, " n"]
    left_alone: Bool[np.ndarray, " n"]
    status: BalanceStatus
    n_steps: int


def minimise(
    terms: Terms, constant: float = 0.0, rtol: float = 1e-13, start: Vector | None = None
) -> ScaleMinimum:
    r"""Minimise a sum of exponentials over all log scales.

    Parameters
    ----------
    terms : Terms
        The sum.
    constant : float
        What is added that no scale changes.
    rtol : float
        The gap to stop at, relative to the value. Where it holds at the start, that is the answer.
    start : array of shape (n,), optional
        Where to start; 0 by default.

    Returns
    -------
    ScaleMinimum
        The minimum.

    Raises
    ------
    ValueError
        If an amount is negative or not finite.

    Examples
    --------
    A hidden unit with a flow of 8 in and of 1/2 out:

    >>> import numpy as np
    >>> from scipy import sparse
    >>> from flattest.modules.balancing.minimum import minimise
    >>> from flattest.modules.balancing.terms import Listed, Terms
    >>> channels = sparse.csr_array(np.array([[0.0], [1.0]]))
    >>> flows = Listed(np.array([8.0, 0.5]), np.array([1, 0]), np.array([0, 1]))
    >>> found = minimise(Terms([flows], channels))
    >>> round(found.value, 12), bool(found.gap < 1e-12), np.exp(found.log_scales).round(12)
    (4.0, True, array([2.]))
    """
    for part in terms.parts:
        if not (np.isfinite(part.amounts).all() and (part.amounts >= 0).all()):
            raise ValueError("The terms must be finite and at least 0.")
    lasting = surviving(terms)
    attained = all(which.all() for which in lasting)
    fading = None
    if not attained:
        pairs = list(zip(terms.parts, lasting, strict=True))
        fading = Terms([part.some(~which) for part, which in pairs], terms.channels)
        terms = Terms([part.some(which) for part, which in pairs], terms.channels)
    origin = np.zeros(terms.n_scales) if start is None else start
    z, gap, steps = _descend(terms, constant, rtol, origin)
    z, left_alone = _leave_alone(terms, z, constant)
    flows = terms.at(z)
    value = constant + flows.value
    if gap > max(rtol, 1e-10) * value:
        status = BalanceStatus.STALLED
    else:
        status = BalanceStatus.CONVERGED if attained else BalanceStatus.NOT_ATTAINED
    return ScaleMinimum(
        value=value,
        log_scales=z,
        gap=gap,
        attained=attained,
        vanishing=0.0 if fading is None else fading.at(z).value,
        dead=(flows.inward == 0) & (flows.outward == 0),
        left_alone=left_alone,
        status=status,
        n_steps=steps,
    )


def _leave_alone(terms: Terms, z: Vector, constant: float) -> tuple[Vector, Bool[np.ndarray, " n"]]:
    """Set scales to 1 where that costs nothing: what little flows there would place them by noise.

    How much a scale's own terms would grow is known where its exponents are 1; the sum of all is
    evaluated.
    """
    flows = terms.at(z)
    through = flows.inward + flows.outward
    idle = through == 0
    median = float(np.median(through[~idle])) if not idle.all() else 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        cost = flows.inward * np.expm1(2 * z) + flows.outward * np.expm1(-2 * z)
        limit = _NOTHING * (constant + flows.value)
        few = ~idle & (through < _FAINT * median) & (cost < limit / len(z) if len(z) else idle)
    moved = np.where(few, 0.0, z)
    if few.any() and terms.at(moved).value - flows.value <= limit:
        return moved, idle | few
    return z, idle


def _descend(terms: Terms, constant: float, rtol: float, z: Vector) -> tuple[Vector, float, int]:
    """Return the point, the bound on its error, and the number of steps."""
    step = newton_step(terms, z)
    if step.gap <= rtol * (constant + step.value):
        return z, step.gap, 0
    # Near the minimum, where Newton's method converges at once, sweeps are not needed.
    if not step.gap < _NEAR * (constant + step.value):
        before = math.inf
        for number in range(_SWEEPS[1]):
            further, value = sweep(terms, z)
            if number >= _SWEEPS[0] and value > 0.9 * before:
                break
            z, before = further, value
    best = math.inf
    waited = 0
    for number in range(1, _STEPS):
        step = newton_step(terms, z)
        total = constant + step.value
        z = step.next
        # The last step has been taken: from where the bound holds, it can only have descended.
        if step.gap <= rtol * total:
            return z, step.gap, number
        # Rounding ends the descent of the gap, not the number of steps.
        waited = 0 if step.gap < 0.5 * best or math.isinf(step.gap) else waited + 1
        best = min(best, step.gap)
        if waited > 5:
            break
    return z, best, number
