"""Exact recovery for degree 1: gather neurons into few rays and solve for those alone.

For p = 1 merging collinear neurons changes neither the function nor the flatness. Where a few rays
explain the data the descent gathers its neurons near them long before it has converged; the
network of those rays has fewer parameters than samples, and Levenberg-Marquardt takes it to
machine precision in a few steps.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point
from flattest.interpolators.second_order import Schedule, descend
from flattest.two_layer.activations import Homogeneous

_COSINES = (0.99, 0.95, 0.9, 0.8)
_SHARES = (0.2, 0.1, 0.03, 0.01, 1e-3)
_EXACT = 1e-25
_FLATTENING = Schedule(start=1e-5, end=1e-5)
_FLATTENING_ITERATIONS = 60


def recover(
    objective: Objective, target: Float[Tensor, " n"], point: Point, rounding: float
) -> Point | None:
    """Look for few rays that interpolate; the fewest found, or None.

    Parameters
    ----------
    objective : Objective
        Of degree 1.
    target : Tensor of shape (n,)
        The targets, of unit size.
    point : Point
        A network that nearly interpolates.
    rounding : float
        The unit of rounding of the data: what is left of the error counts as rounding up to that.

    Returns
    -------
    Point or None
        A network of few neurons whose relative error is that of rounding.
    """
    exact = max(_EXACT, (2 * rounding) ** 2)
    n, r = objective.X.shape
    candidates = []
    for cosine in _COSINES:
        rays, signs = gather(point, cosine, objective.activation.parity)
        size = rays.norm(dim=1)
        for share in _SHARES:
            kept = size > share * size.max()
            if 0 < int(kept.sum()) * r < 0.8 * n:
                candidates.append((int(kept.sum()), -cosine, rays[kept], signs[kept]))
    candidates.sort(key=lambda candidate: candidate[:2])
    tried: set[tuple[int, float]] = set()
    for count, _, rays, signs in candidates:
        key = (count, float(rays.sum()))
        if key in tried:
            continue
        tried.add(key)
        solved, error = _levenberg_marquardt(objective, target, rays, signs)
        if error < exact:
            return _flatten(objective, target, objective.point(solved, signs), exact)
    return None


def _flatten(
    objective: Objective, target: Float[Tensor, " n"], point: Point, exact: float
) -> Point:
    """Descend among the exact interpolators around a recovered one, where there are others.

    Opposite rays leave some freedom: ``relu(u x) + relu(-u x)`` takes any linear function that
    another such pair gives back, as long as no sample changes sides.
    """
    steps = descend(objective, target, point, _FLATTENING, curvature_below=math.inf)
    for state in itertools.islice(steps, _FLATTENING_ITERATIONS):
        if state.decrement < 1e-15:
            break
    signs = torch.where(state.point.a < 0, -1.0, 1.0).to(point.a)
    rays = state.point.W * state.point.a.abs()[:, None]
    solved, error = _levenberg_marquardt(objective, target, rays, signs)
    flattened = objective.balance(objective.point(solved, signs))
    lower = objective.orbit_minimum(flattened) < objective.orbit_minimum(point)
    return flattened if error < exact and lower else objective.balance(point)


def gather(
    point: Point, cosine: float, parity: int
) -> tuple[Float[Tensor, "k r"], Float[Tensor, " k"]]:
    """Sum the neurons around each ray, the heaviest first, as ``|a| w`` with the sign of a."""
    size = point.a.abs() * point.W.norm(dim=1)
    rays = point.W * point.a.abs()[:, None]
    signs = torch.where(point.a < 0, -1.0, 1.0).to(rays)
    units = rays / size.clamp_min(1e-300)[:, None]
    near = units @ units.T
    free = size > 1e-4 * size.max()
    gathered, gathered_signs = [], []
    for j in size.argsort(descending=True).tolist():
        if not free[j]:
            continue
        # An even activation does not tell a ray from its opposite.
        turn = torch.ones_like(size)
        if parity == 1:
            turn[near[j] < 0] = -1.0
        members = free & (near[j] * turn > cosine) & (signs == signs[j])
        free = free & ~members
        gathered.append((rays * turn[:, None])[members].sum(dim=0))
        gathered_signs.append(signs[j])
    return torch.stack(gathered), torch.stack(gathered_signs)


def _levenberg_marquardt(
    objective: Objective,
    target: Float[Tensor, " n"],
    rays: Float[Tensor, "k r"],
    signs: Float[Tensor, " k"],
    max_iter: int = 40,
) -> tuple[Float[Tensor, "k r"], float]:
    """Least squares for ``sum_k signs_k s(v_k . x) = target``; give up once it stops falling."""
    X, act = objective.X, objective.activation
    n, damping = len(X), 1e-3
    residual, z = _residual(act, X, target, rays, signs)
    error = float(residual.square().mean())
    for _ in range(max_iter):
        gates = act.derivative(z) * signs
        jacobian = (gates[:, :, None] * X[:, None, :]).reshape(n, -1)
        hessian, gradient = jacobian.T @ jacobian / n, jacobian.T @ residual / n
        scale = hessian.diagonal() + 1e-12 * float(hessian.diagonal().mean()) + 1e-300
        while damping < 1e3:
            L, info = torch.linalg.cholesky_ex(hessian + torch.diag(damping * scale))
            if not int(info):
                step = torch.cholesky_solve(gradient[:, None], L)[:, 0].reshape(rays.shape)
                trial, trial_z = _residual(act, X, target, rays - step, signs)
                trial_error = float(trial.square().mean())
                if trial_error < error:
                    break
            damping *= 10
        else:
            return rays, error
        slow = trial_error > 0.5 * error
        rays, residual, z, error = rays - step, trial, trial_z, trial_error
        damping = max(damping / 10, 1e-15)
        if error < 1e-30 or (slow and error > 1e-3):
            break
    return rays, error


def _residual(
    act: Homogeneous, X: Tensor, target: Tensor, rays: Tensor, signs: Tensor
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    z = X @ rays.T
    return act(z) @ signs - target, z
