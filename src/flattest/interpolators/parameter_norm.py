"""The squared norm of the parameters, which weight decay penalises, in the place of flatness."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.interpolators.objective import Objective, Point, Whitened
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.closed_form import orbit_minimum, orbit_scales


class ParameterNorm(Objective):
    """``sum_j (||w_j||**2 + a_j**2)``; under rescaling its parts go as ``c**2`` and ``c**-2p``."""

    def __init__(self, data: Whitened, activation: Homogeneous) -> None:
        super().__init__(data, activation, reflected=False)
        self.penalised = Homogeneous(self.p, 1.0, 1.0)
        self.stage = "norm"

    @property
    def shares_one_metric(self) -> bool:
        """The identity is every neuron's metric."""
        return True

    def point(self, W: Float[Tensor, "m r"], a: Float[Tensor, " m"]) -> Point:
        """Evaluate the network and its norm."""
        z = self.X @ W.T
        s, slope = self.activation(z), self.activation.derivative(z)
        return Point(W, a, z, s, slope, s @ a, W.square().sum(dim=1), torch.ones_like(a))

    def orbit_minimum(self, point: Point) -> float:
        """Least norm over the rescalings of the network, times 2."""
        return 2 * squared_norm(point.W, point.a, self.p)

    def balance(self, point: Point) -> Point:
        """Move to the point of the rescaling orbit where the norm is smallest."""
        c = 1 / orbit_scales(point.a.square(), point.outer, self.p)
        return self.point(point.W * c[:, None], point.a * c**-self.p)

    def gradient(self, point: Point) -> tuple[Float[Tensor, "m r"], Float[Tensor, " m"]]:
        """Gradient of half the norm."""
        return point.W, point.a

    def blocks(
        self, point: Point, multipliers: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "m r1 r1"]:
        """Return the identity, or the Hessian of the Lagrangian, one block per neuron."""
        identity = torch.eye(point.W.shape[1] + 1).to(point.W).expand(len(point.a), -1, -1)
        if multipliers is None:
            return identity
        bend = self.activation.second_derivative(point.z) * point.a
        pull = multipliers[:, None]
        return identity + self._assemble(pull * bend, pull * point.slope, 0 * point.inner)


def squared_norm(weights: Tensor, a: Tensor, degree: float) -> float:
    """Return the sum of the squared parameters, least over the rescalings of each neuron."""
    return float(orbit_minimum(a.square(), weights.square().sum(dim=1), degree).sum())
