r"""Newton's method for sums of exponentials, with a bound on the error.

Along a step ``u`` no term's exponent changes by more than :math:`r = \max_t |2 c_t \cdot u|`, so
the function stays below the parabola of Newton's method bent by :math:`e^{sr}`; the smallest value
of that bound is at the fraction :math:`\ln(1 + r) / r` of the step. It always descends, needs no
search, and tends to the whole step.

The error is bounded by the dual of the geometric programme. For every :math:`w \geq 0` with
:math:`\sum_t w_t c_t = 0`, the tangents of the exponentials give
:math:`\min F \geq \sum_t w_t (1 + \ln(a_t / w_t))`. The terms themselves, corrected to first order
along the step, :math:`w_t = a_t e^{-2 c_t z} (1 + \epsilon_t)` with
:math:`\epsilon_t = -2 c_t \cdot u`, are such weights where ``u`` solves Newton's equation. They lie
:math:`\sum_t a_t e^{-2 c_t z} ((1 + \epsilon_t) \ln(1 + \epsilon_t) - \epsilon_t)` below the
value, at most :math:`(1 + r) \, u^T \nabla^2 F u / 2` for ``r`` up to 1: nothing cancels in that,
and it costs nothing.

References
----------
T. Sun, Q. Tran-Dinh, "Generalized self-concordant functions: a recipe for Newton-type methods",
Mathematical Programming 178, 2019 (the damped step).

S. Boyd, S.-J. Kim, L. Vandenberghe, A. Hassibi, "A tutorial on geometric programming",
Optimization and Engineering 8, 2007 (the dual).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flattest.modules.balancing.terms import Terms, Vector

_TIGHT, _LOOSE = 1e-4, 0.3
"""Residuals of the linear systems, relative to their right sides: near the minimum, far from it."""


@dataclass(frozen=True)
class Step:
    """Newton's step at a point.

    Parameters
    ----------
    next : array of shape (n,)
        The next point, never above this one.
    value : float
        The function at the point.
    gap : float
        A bound of the value less the minimum; infinite where the step is too long to give one.
    """

    next: Vector
    value: float
    gap: float


def sweep(terms: Terms, z: Vector) -> tuple[Vector, float]:
    r"""Improve all scales at once, each as if the others were to stay, and damped.

    With inflow ``P`` and outflow ``N`` of a scale this is
    :math:`z \leftarrow z + \ln(P / N) / (4 \max_t |c_t|_1)`. It never raises the function, by
    Jensen's inequality, and copes with any range of magnitudes.

    Parameters
    ----------
    terms : Terms
        The function.
    z : array of shape (n,)
        The point.

    Returns
    -------
    z : array of shape (n,)
        The next point.
    value : float
        The function at the point before.
    """
    flows = terms.at(z)
    both = (flows.inward > 0) & (flows.outward > 0)
    change = np.zeros_like(z)
    change[both] = np.log(flows.inward[both]) - np.log(flows.outward[both])
    return z + change / (4 * max(terms.widest(), 1.0)), flows.value


def newton_step(terms: Terms, z: Vector) -> Step:
    """Take Newton's step from a point, with a bound on the error there.

    Parameters
    ----------
    terms : Terms
        The function.
    z : array of shape (n,)
        The point.

    Returns
    -------
    Step
        The step.
    """
    flows = terms.at(z)
    value, curvature = flows.value, flows.curvature
    descent = 2 * (flows.inward - flows.outward)
    diagonal = terms.diagonal(curvature)
    # Far from the minimum a rough solution will do; the decrement says how far that is.
    ratio = np.divide(descent, diagonal, out=np.zeros_like(descent), where=diagonal > 0)
    far = math.sqrt(max(0.0, float(descent @ (ratio / value)))) if value else 0.0
    rtol = max(_TIGHT, min(_LOOSE, far))
    direction, residual = conjugate_gradients(
        lambda vector: terms.product(vector, curvature), by_diagonal(diagonal), descent, rtol
    )
    decrement = float(descent @ direction)
    largest = terms.largest_change(direction)
    gap = math.inf
    if largest <= 1:
        gap = 0.5 * (1 + largest) * max(decrement, 0.0)
        gap = float(gap + np.abs(residual) @ np.abs(direction))
    whole = z + direction
    if largest > 1 and terms.at(whole).value < value - 0.1 * decrement:
        return Step(whole, value, gap)
    fraction = math.log1p(largest) / largest if largest > 0 else 1.0
    return Step(z + fraction * direction, value, gap)


def by_diagonal(diagonal: Vector) -> Callable[[Vector], Vector]:
    """Return the preconditioner that divides by a diagonal, and leaves out where that is 0.

    Parameters
    ----------
    diagonal : array of shape (n,)
        At least 0.

    Returns
    -------
    callable
        From a vector to the quotient.
    """
    scale = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal > 0)
    return lambda vector: scale * vector


def conjugate_gradients(
    product: Callable[[Vector], Vector],
    precondition: Callable[[Vector], Vector],
    right: Vector,
    rtol: float,
) -> tuple[Vector, Vector]:
    """Solve a positive semi-definite system that has a solution.

    Parameters
    ----------
    product : callable
        The matrix, as a function of a vector.
    precondition : callable
        An approximate inverse, as a function of a vector.
    right : array of shape (n,)
        The right side.
    rtol : float
        The residual to stop at, relative to the right side, in the norm of the preconditioner.

    Returns
    -------
    solution, residual : array of shape (n,)
        The solution, and the right side less the matrix times it.
    """
    solution, residual = np.zeros_like(right), right.copy()
    preconditioned = precondition(residual)
    direction = preconditioned.copy()
    size = float(residual @ preconditioned)
    target = rtol**2 * size
    for _ in range(10 * len(right) + 10):
        if size <= target or size == 0:
            break
        image = product(direction)
        curvature = float(direction @ image)
        if curvature <= 0:  # only rounding is left
            break
        length = size / curvature
        solution += length * direction
        residual -= length * image
        preconditioned = precondition(residual)
        before, size = size, float(residual @ preconditioned)
        direction *= size / before
        direction += preconditioned
    return solution, residual
