"""One interpolation in whitened coordinates: its start, its history and its end."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point, Whitened
from flattest.interpolators.output_layer import least_norm
from flattest.interpolators.result import Iterate, Outcome, Problem, Status
from flattest.two_layer.flatness import TwoLayerFlatness
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet
from flattest.two_layer.symmetry import balance

_START_SIZE = 0.1
"""Root mean square of the first network's outputs: small, so that the data choose directions."""


class Finished(NamedTuple):
    """A network in the coordinates of the data, with its flatness."""

    net: TwoLayerNet
    flatness: TwoLayerFlatness


class Run:
    """What the solvers that work in whitened coordinates share.

    Parameters
    ----------
    problem : Problem
        The data and the settings.
    default_max_iter : int
        The number of iterations where the problem does not set one.
    isotropic : bool
        Whether to whiten the inputs.
    """

    def __init__(self, problem: Problem, default_max_iter: int, *, isotropic: bool = True) -> None:
        self.problem = problem
        self.data = Whitened(problem.X, problem.y, isotropic=isotropic)
        self.trace = Objective(self.data, problem.activation, reflected=False)
        self.reflected = Objective(self.data, problem.activation, reflected=True)
        self.max_iter = problem.max_iter or default_max_iter
        self.history: list[Iterate] = []

    def objective(self, name: str) -> Objective:
        """Return the objective of that name."""
        return {"trace": self.trace, "reflected": self.reflected}[name]

    def start(self, width: int) -> Point:
        """Draw random directions and signs, small enough for the data to choose among them."""
        W = self.problem.normal(width, self.data.rank)
        W = self._awake(W / W.norm(dim=1, keepdim=True))
        a = torch.where(self.problem.normal(width) < 0, -1.0, 1.0).to(W)
        point = self.trace.balance(self.trace.point(W, a))
        # f is homogeneous of degree p + 1 in all parameters together.
        size = float(point.f.square().mean().sqrt())
        c = (_START_SIZE / max(size, 1e-3)) ** (1 / (self.trace.p + 1))
        return self.trace.point(point.W * c, point.a * c)

    def random_features(self, width: int) -> Point:
        """Interpolate by the output layer alone, over directions that tell the samples apart.

        Every other direction is nearly orthogonal to a sample, so that its kink lies beside it:
        in few dimensions random kinks leave neighbours indistinguishable.
        """
        W = self.problem.normal(width, self.data.rank)
        units = self.data.features / self.data.features.norm(dim=1, keepdim=True).clamp_min(1e-300)
        beside = units[torch.arange(width // 2, device=W.device) % len(units)]
        along = (W[: width // 2] * beside).sum(dim=1, keepdim=True)
        offset = self.problem.normal(width // 2, 1) / len(units)
        W[: width // 2] += (offset - along) * beside
        W = self._awake(W)
        a = least_norm(self.trace.activation(self.data.features @ W.T), self.data.target)
        return self.trace.balance(self.trace.point(W, a))

    def _awake(self, W: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
        """Turn neurons that fire on no sample round: where the data are few, many do not."""
        asleep = (self.trace.activation(self.data.features @ W.T) == 0).all(dim=0)
        return torch.where(asleep[:, None], -W, W)

    def error(self, point: Point) -> float:
        """Return the mean squared error over the mean square of the targets."""
        return float((point.f - self.data.target).square().mean())

    def record(self, point: Point, strength: float, stage: str) -> None:
        """Add a line to the history, in the units of the data."""
        point = self.trace.point(point.W, point.a)
        unit = self.data.trace_unit(self.trace.p)
        entry = Iterate(
            iteration=len(self.history),
            train_error=self.error(point) * self.data.scale**2,
            trace=2 * self.trace.value(point) * unit,
            orbit_minimum=self.trace.orbit_minimum(point) * unit,
            strength=strength,
            stage=stage,
        )
        self.history.append(entry)
        self.problem.report(entry, self.max_iter)
        if self.problem.watch is not None:
            parameters = self.data.restore(point.W, point.a, self.trace.p)
            self.problem.watch(entry, TwoLayerNet(*parameters, self.problem.activation))

    def finish(self, point: Point) -> Finished:
        """Return the network in the coordinates of the data, balanced and measured there."""
        return finish(self.problem, *self.data.restore(point.W, point.a, self.trace.p))

    def outcome(self, finished: Finished, status: Status, notes: dict[str, Any]) -> Outcome:
        """Hand a network back, as the last line of the history."""
        return hand_back(finished, status, self.history, notes)


def finish(problem: Problem, weights: Float[Tensor, "m d"], a: Float[Tensor, " m"]) -> Finished:
    """Balance a network and measure it on the training data."""
    net = balance(TwoLayerNet(weights, a, problem.activation), problem.X)
    return Finished(net, measure(net, problem.X, problem.y))


def hand_back(
    finished: Finished, status: Status, history: list[Iterate], notes: dict[str, Any]
) -> Outcome:
    """Return a network, as the last line of the history."""
    flatness, net = finished.flatness, finished.net
    entry = Iterate(
        iteration=len(history),
        train_error=flatness.loss,
        trace=flatness.gauss_newton,
        orbit_minimum=flatness.orbit_minimum,
        strength=0.0,
        stage="returned",
    )
    parameters = net.weights.detach(), net.coefficients.detach()
    return Outcome(*parameters, status, [*history, entry], notes)


def construct(
    problem: Problem, weights: Float[Tensor, "m d"], a: Float[Tensor, " m"], notes: dict[str, Any]
) -> Outcome:
    """Return a network that was made in one go; it converged if it interpolates."""
    finished = finish(problem, weights, a)
    fits = finished.flatness.loss <= problem.target_error
    status = Status.CONVERGED if fits else Status.NOT_INTERPOLATING
    return hand_back(finished, status, [], notes)
