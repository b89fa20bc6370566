r"""Second-order descent of the flatness under the constraint of interpolation.

The penalised loss ``(1/n) ||f - t||^2 + strength * Q`` is a sum of squares whose metric is block
diagonal (one block per neuron) plus a term of rank ``n``. Each step solves it through the
``n x n`` dual system ``K + n strength I``, ``K = J M^{-1} J^T``. The strength falls geometrically;
once it has reached its end the target ``t`` takes over, moved by the remaining residual (the
method of multipliers), so that the constraint is met without an ever stiffer problem.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point

_MAX_HALVINGS = 12
_MAX_TRIALS = 8
_CHUNK_ELEMENTS = 4_000_000  # of the blocks' square roots times the Jacobian, 32 MB


class Descent(NamedTuple):
    """The state after one iteration."""

    point: Point
    strength: float
    train_error: float
    decrement: float
    """Relative decrease of the penalised flatness that the step predicted."""


class Schedule(NamedTuple):
    """How the penalty strength falls."""

    start: float = 3e-2
    end: float = 1e-5
    factor: float = 0.5
    patience: float = 0.05
    """The strength falls once the penalised loss decreases by less than this share."""
    multipliers: bool = True
    """Whether the target moves once the strength has reached its end; else the loss stays."""


def descend(
    objective: Objective,
    target: Float[Tensor, " n"],
    point: Point,
    schedule: Schedule,
    *,
    curvature_below: float = 0.0,
) -> Iterator[Descent]:
    """Descend for ever; the caller decides when to stop.

    Parameters
    ----------
    objective : Objective
        The flatness.
    target : Tensor of shape (n,)
        The targets, of unit size.
    point : Point
        Where to start.
    schedule : Schedule
        The strengths.
    curvature_below : float
        Strength below which the metric takes in the curvature of the constraint (Newton steps);
        for ``p = 1`` and ``p >= 2`` only.

    Yields
    ------
    Descent
        After each iteration.
    """
    strength, shifted, damping = schedule.start, target, 0.0
    while True:
        point = objective.balance(point)
        residual = point.f - shifted
        merit = float(residual.square().mean()) + strength * objective.value(point)
        system = _System(objective, point, residual, strength, newton=strength < curvature_below)
        decrease = 0.0
        for _ in range(_MAX_TRIALS):
            move_W, move_a = system.step(damping)
            trial = objective.point(point.W + move_W, point.a + move_a)
            trial_merit = float((trial.f - shifted).square().mean())
            trial_merit += strength * objective.value(trial)
            if trial_merit < merit:
                point, decrease = trial, (merit - trial_merit) / merit
                damping = damping / 5 if damping > 0.1 else 0.0
                break
            damping = max(4 * damping, 0.5)
        error = float((point.f - target).square().mean())
        yield Descent(point, strength, error, system.decrement(move_W, move_a))
        if strength > schedule.end:
            if decrease < schedule.patience:
                strength = max(strength * schedule.factor, schedule.end)
        elif schedule.multipliers and decrease < schedule.patience * strength:
            shifted = shifted + (target - point.f)


class _System:
    """The steps of Gauss-Newton or Newton for the penalised loss, through the dual system."""

    def __init__(
        self,
        objective: Objective,
        point: Point,
        residual: Float[Tensor, " n"],
        strength: float,
        *,
        newton: bool,
    ) -> None:
        self.objective, self.point, self.residual, self.strength = (
            objective,
            point,
            residual,
            strength,
        )
        self.metric = _metric(objective, point, residual / strength if newton else None)
        self.grad_W, self.grad_a = objective.gradient(point)
        self.gates = point.slope * point.a
        self.free_W, self.free_a = self.metric.inverse(-self.grad_W, -self.grad_a)
        self.change = (self.gates * (objective.X @ self.free_W.T)).sum(dim=1)
        self.change += point.s @ self.free_a
        self.K = self.metric.gram()

    def step(self, damping: float) -> tuple[Float[Tensor, "m r"], Float[Tensor, " m"]]:
        """Minimise the model plus ``strength * damping`` times the squared length of the step."""
        shrink = 1 / (1 + damping)
        ridge = len(self.residual) * self.strength / shrink
        dual = solve_regularised(self.K, -(self.residual + shrink * self.change) / shrink, ridge)
        pull_W = (self.gates * dual[:, None]).T @ self.objective.X
        move_W, move_a = self.metric.inverse(pull_W, self.point.s.T @ dual)
        return shrink * (self.free_W + move_W), shrink * (self.free_a + move_a)

    def decrement(self, move_W: Float[Tensor, "m r"], move_a: Float[Tensor, " m"]) -> float:
        """Decrease of the penalised loss along a step to first order, relative to the penalty."""
        weight = 1 / (len(self.residual) * self.strength)
        slope_W = self.grad_W + weight * (self.gates.T * self.residual) @ self.objective.X
        slope_a = self.grad_a + weight * (self.point.s.T @ self.residual)
        gain = float((slope_W * move_W).sum() + (slope_a * move_a).sum())
        return abs(gain) / max(self.objective.value(self.point), 1e-300)


def restore(
    objective: Objective, target: Float[Tensor, " n"], point: Point, max_iter: int = 30
) -> Point:
    """Newton's method for ``f = target``, each step the shortest in the flatness metric."""
    error = float((point.f - target).square().mean())
    for _ in range(max_iter):
        point = objective.balance(point)
        solver = _metric(objective, point, None)
        dual = solve_regularised(solver.gram(), target - point.f, 0.0)
        move_W, move_a = solver.inverse(
            (point.slope * point.a * dual[:, None]).T @ objective.X, point.s.T @ dual
        )
        length, improved = 1.0, False
        for _ in range(_MAX_HALVINGS):
            trial = objective.point(point.W + length * move_W, point.a + length * move_a)
            trial_error = float((trial.f - target).square().mean())
            if trial_error < error:
                point, error, improved = trial, trial_error, True
                break
            length /= 2
        if not improved or error < 1e-31:
            break
    return point


def _metric(
    objective: Objective, point: Point, multipliers: Float[Tensor, " n"] | None
) -> _SharedMetric | _BlockMetric:
    if objective.shares_one_metric and multipliers is None:
        return _SharedMetric(objective, point)
    return _BlockMetric(objective, point, multipliers)


class _SharedMetric:
    """The reflected flatness for p = 1: every neuron's block is the identity up to a factor."""

    def __init__(self, objective: Objective, point: Point) -> None:
        self.objective, self.point = objective, point
        self.factor = objective.penalised.positive**2

    def inverse(self, W: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return W / self.factor, a / self.factor

    def gram(self) -> Float[Tensor, "n n"]:
        """``K = S S^T / V + (X X^T) o (G diag(a^2) G^T) / kappa``: two products."""
        gates = self.point.slope * self.point.a
        K = self.objective.X @ self.objective.X.T
        K *= gates @ gates.T
        K.addmm_(self.point.s, self.point.s.T)
        return K.div_(self.factor)


class _BlockMetric:
    """One positive definite block per neuron, kept as the root of its inverse."""

    def __init__(
        self, objective: Objective, point: Point, multipliers: Float[Tensor, " n"] | None
    ) -> None:
        self.objective, self.point = objective, point
        blocks = objective.blocks(point, multipliers)
        diagonal = blocks.diagonal(dim1=1, dim2=2)
        floor = 1e-14 * float(diagonal.abs().mean()) + 1e-300
        if multipliers is None:
            # A neuron that fires on fewer samples than features has a singular block.
            ridge = 1e-9 * diagonal + floor
            L, info = torch.linalg.cholesky_ex(blocks + torch.diag_embed(ridge))
            while bool(info.any()):
                ridge = _raise(ridge, 100.0)
                L, info = torch.linalg.cholesky_ex(blocks + torch.diag_embed(ridge))
            identity = torch.eye(blocks.shape[1], dtype=blocks.dtype, device=blocks.device)
            self.root = torch.linalg.solve_triangular(L, identity.expand_as(L), upper=False)
        else:
            # Negative and tiny curvature is turned into moderate positive curvature.
            values, vectors = torch.linalg.eigh(blocks)
            least = 0.03 * values.abs().amax(dim=1, keepdim=True) + floor
            self.root = (vectors / values.abs().maximum(least).sqrt()[:, None, :]).mT

    def inverse(self, W: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        stacked = torch.cat([W, a[:, None]], dim=1)[:, :, None]
        solved = (self.root.mT @ (self.root @ stacked))[:, :, 0]
        return solved[:, :-1], solved[:, -1]

    def gram(self) -> Float[Tensor, "n n"]:
        """``K = sum_j J_j M_j^{-1} J_j^T``, a few neurons at a time to bound the memory."""
        X, gates, s = self.objective.X, self.point.slope * self.point.a, self.point.s
        n, m = s.shape
        size = X.shape[1] + 1
        K = X.new_zeros(n, n)
        chunk = max(1, _CHUNK_ELEMENTS // (size * n))
        for first in range(0, m, chunk):
            neurons = slice(first, first + chunk)
            jacobian = torch.cat([X.T * gates.T[neurons, None, :], s.T[neurons, None, :]], dim=1)
            rooted = torch.bmm(self.root[neurons], jacobian).reshape(-1, n)
            K.addmm_(rooted.T, rooted)
        return K


def solve_regularised(
    K: Float[Tensor, "n n"], rhs: Float[Tensor, " n"], ridge: float
) -> Float[Tensor, " n"]:
    """Solve ``(K + ridge I) x = rhs``, raising the ridge as far as rounding demands."""
    least = float(K.diagonal().mean()) * 1e-15 + 1e-300
    ridge = max(ridge, least)
    while True:
        regularised = K.clone()
        regularised.diagonal().add_(ridge)
        L, info = torch.linalg.cholesky_ex(regularised)
        if not int(info):
            return torch.cholesky_solve(rhs[:, None], L)[:, 0]
        ridge = float(_raise(torch.tensor(ridge, dtype=K.dtype), 10.0))


def _raise(ridge: Tensor, factor: float) -> Tensor:
    """Return a larger ridge, as long as there is one: NaN never becomes positive definite."""
    if not bool((ridge < 1e250).all()):
        raise FloatingPointError(
            "An iterate left the range of float64; rescale the data or lower the degree."
        )
    return factor * ridge
