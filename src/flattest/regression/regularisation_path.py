"""The regularisation path of a two-layer network: loss + strength * reflected flatness.

The path is followed from the weakest strength to the strongest, each network the start of the next
one: a stronger penalty switches neurons off, and none has to be brought back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point, Whitened
from flattest.interpolators.parameter_norm import ParameterNorm
from flattest.interpolators.penalised import Adam
from flattest.interpolators.second_order import Schedule, descend
from flattest.regression.tuning import (
    BATCH_ROWS,
    DEAD_NEURON,
    FIRST_ITERATIONS,
    FIRST_RATE,
    LAST_RATE_SHARE,
    NETWORK_STARTS,
    SECOND_ORDER_FLOPS,
    SECOND_ORDER_SAMPLES,
    SETTLED_FIRST_ORDER,
    SETTLED_SECOND_ORDER,
    START_SIZE,
    WARM_RATE,
)
from flattest.two_layer.activations import Homogeneous

Penalty = Literal["reflected_flatness", "flatness", "weight_decay"]
PENALTIES: tuple[str, ...] = get_args(Penalty)


class NetworkSettings(NamedTuple):
    """The settings of every network of a regression.

    Parameters
    ----------
    activation : Homogeneous
        The activation.
    width : int
        Neurons at the start; those that the penalty switches off are dropped.
    max_iter : int
        Iterations per strength.
    penalty : {"reflected_flatness", "flatness", "weight_decay"}
        What is penalised.
    bias : bool
        Whether the inputs get a bias coordinate.
    """

    activation: Homogeneous
    width: int
    max_iter: int
    penalty: Penalty
    bias: bool


class Fit(NamedTuple):
    """The network at one strength, for the inputs and targets as they were given.

    Parameters
    ----------
    strength : float
        The strength.
    weights, coefficients : Tensor of shape (m, d) and (m,)
        The network.
    iterations : int
        How many it took; 0 where there was nothing to fit.
    settled : bool
        Whether the penalised loss no longer fell by a notable share.
    """

    strength: float
    weights: Float[Tensor, "m d"]
    coefficients: Float[Tensor, " m"]
    iterations: int
    settled: bool


def regularisation_path(
    X: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    strengths: Sequence[float],
    settings: NetworkSettings,
    rng: np.random.Generator,
) -> list[Fit]:
    r"""Fit one network per strength, each started from the one before.

    .. math::
        \min_{a, W} \frac1n \sum_i (f(x_i) - y_i)^2 / s^2 + \lambda Q(a, W),
        \qquad s^2 = \frac1n \sum_i y_i^2,

    for inputs and targets of unit size. ``2 Q`` is the Gauss-Newton trace averaged over ``X`` and
    ``-X``, or the Gauss-Newton trace, or ``Q`` is ``sum_j (||w_j||**2 + a_j**2)``.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        The inputs, a bias coordinate included where one is wanted; float64.
    y : Tensor of shape (n,)
        The targets.
    strengths : sequence of float
        Positive and increasing.
    settings : NetworkSettings
        Activation, width, iterations and what ``Q`` is.
    rng : numpy.random.Generator
        Draws the first network, and the batches of large data.

    Returns
    -------
    list of Fit
        One per strength.
    """
    if not bool(y.any()) or not bool(X.any()):
        zero = X.new_zeros(1, X.shape[1]), X.new_zeros(1)
        return [Fit(strength, *zero, iterations=0, settled=True) for strength in strengths]
    activation, reflected = settings.activation, settings.penalty == "reflected_flatness"
    # A rotation and one change of units only, where lengths matter.
    data = Whitened(X, y, isotropic=settings.penalty != "weight_decay")
    if settings.penalty == "weight_decay":
        objective: Objective = ParameterNorm(data, activation)
    else:
        objective = Objective(data, activation, reflected=reflected)
    points = _follow(data.target, objective, strengths, settings.width, settings.max_iter, rng)
    return [
        Fit(strength, *data.restore(point.W, point.a, activation.degree), steps, settled)
        for strength, (point, steps, settled) in zip(strengths, points, strict=True)
    ]


def _follow(
    target: Float[Tensor, " n"],
    objective: Objective,
    strengths: Sequence[float],
    width: int,
    max_iter: int,
    rng: np.random.Generator,
) -> Iterator[tuple[Point, int, bool]]:
    """Yield, per strength, the network, the iterations, and whether it has settled."""
    second_order = _suits_second_order(objective, width)
    view = _rows(objective, target, rng)[0]
    if second_order:
        point = _best_start(objective, target, strengths[0], width, max_iter, rng)
    else:
        point = _start(view, width, rng)
    for k, strength in enumerate(strengths):
        if second_order:
            point, steps, settled = _second_order(objective, target, point, strength, max_iter)
        else:
            steps = max_iter if k else FIRST_ITERATIONS * max_iter
            rate = WARM_RATE if k else FIRST_RATE
            point, settled = _first_order(objective, target, point, strength, steps, rate, rng)
        alive = _alive(point)
        point = view.point(point.W[alive], point.a[alive])
        yield point, steps, settled


def _best_start(
    objective: Objective,
    target: Float[Tensor, " n"],
    strength: float,
    width: int,
    max_iter: int,
    rng: np.random.Generator,
) -> Point:
    """Descend from several starts and keep the best: single ones may end in bad local minima."""
    ends = [
        _second_order(objective, target, _start(objective, width, rng), strength, max_iter)[0]
        for _ in range(NETWORK_STARTS)
    ]
    return min(ends, key=lambda end: _penalised_loss(objective, target, end, strength))


def _suits_second_order(objective: Objective, width: int) -> bool:
    n, r = objective.X.shape
    per_neuron = 1 if objective.shares_one_metric else min(n, r) + 1
    return n <= SECOND_ORDER_SAMPLES and n * n * width * per_neuron <= SECOND_ORDER_FLOPS


def _start(objective: Objective, width: int, rng: np.random.Generator) -> Point:
    """Draw random directions and signs, all neurons of the same small size."""
    W = torch.from_numpy(rng.standard_normal((width, objective.X.shape[1]))).to(objective.X)
    a = torch.from_numpy(rng.choice([-1.0, 1.0], width)).to(objective.X)
    c = (START_SIZE / width**0.5) ** (1 / (objective.p + 1))
    return objective.point(c * W / W.norm(dim=1, keepdim=True), c * a)


def _alive(point: Point) -> Bool[Tensor, " m"]:
    """Tell the neurons that count; all of them where none does."""
    size = point.outer * point.a.square() * point.inner
    alive = size > DEAD_NEURON * size.max()
    return alive if bool(alive.any()) else torch.ones_like(alive)


def _second_order(
    objective: Objective, target: Float[Tensor, " n"], point: Point, strength: float, max_iter: int
) -> tuple[Point, int, bool]:
    """Gauss-Newton steps until they no longer lower the penalised loss by a notable share."""
    schedule = Schedule(start=strength, end=strength, multipliers=False)
    before = _penalised_loss(objective, target, point, strength)
    states = descend(objective, target, point, schedule)
    for steps, state in zip(range(1, max_iter + 1), states, strict=False):
        point = state.point
        after = _penalised_loss(objective, target, point, strength)
        if before - after <= SETTLED_SECOND_ORDER * before:
            return point, steps, True
        before = after
    return point, max_iter, False


def _first_order(
    objective: Objective,
    target: Float[Tensor, " n"],
    point: Point,
    strength: float,
    steps: int,
    rate: float,
    rng: np.random.Generator,
) -> tuple[Point, bool]:
    """Adam with a falling rate, in single precision, on batches where the data are large."""
    rough, rough_target = objective.to(torch.float32), target.to(torch.float32)
    state = point.W.to(torch.float32), point.a.to(torch.float32)
    adam, late = Adam(point._replace(W=state[0], a=state[1])), state
    fixed, fixed_target = _rows(rough, rough_target, rng)
    for step in range(steps):
        if step == (4 * steps) // 5:
            late = state
        batch, batch_target = _rows(rough, rough_target, rng)
        falling = rate * (1 - (1 - LAST_RATE_SHARE) * step / steps)
        state = adam.move(batch, batch_target, batch.point(*state), strength, falling)
    before, after = (
        _penalised_loss(fixed, fixed_target, fixed.point(*each), strength) for each in (late, state)
    )
    settled = before - after <= SETTLED_FIRST_ORDER * before
    view = _rows(objective, target, rng)[0]
    return view.point(*(values.to(target) for values in state)), settled


def _rows(
    objective: Objective, target: Float[Tensor, " n"], rng: np.random.Generator
) -> tuple[Objective, Float[Tensor, " b"]]:
    """Restrict the objective to a random batch; small data are one batch."""
    n = len(target)
    if n <= BATCH_ROWS:
        return objective, target
    index = torch.from_numpy(rng.integers(n, size=BATCH_ROWS)).to(target.device)
    return objective.on_rows(index), target[index]


def _penalised_loss(
    objective: Objective, target: Float[Tensor, " n"], point: Point, strength: float
) -> float:
    return float((point.f - target).square().mean()) + strength * objective.value(point)
