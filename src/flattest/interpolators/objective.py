"""Flatness as a function of the parameters, with the metric of its Gauss-Newton steps.

Everything here lives in whitened coordinates, in which the inputs have the identity as their
second-moment matrix: conditioning then does not depend on the units or the rank of the data.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.closed_form import orbit_minimum, orbit_scales

_CHUNK_ELEMENTS = 4_000_000  # of the products of features, 32 MB


class Whitened:
    """The training data in coordinates where they are isotropic and of unit size.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        The inputs, float64.
    y : Tensor of shape (n,)
        The targets, not all zero.
    isotropic : bool
        False for a mere rotation and change of units: lengths then stay proportional.

    Attributes
    ----------
    features : Tensor of shape (n, r)
        ``U sqrt(n)`` from the singular value decomposition of `X`, ``r`` its rank: directions
        along which the inputs do not vary carry no weight in any flattest network. Without
        `isotropic`, ``U S`` in units of its root mean square.
    norms : Tensor of shape (n,)
        Squared Euclidean norms of the original inputs over their mean.
    target : Tensor of shape (n,)
        The targets over their root mean square.
    """

    def __init__(
        self, X: Float[Tensor, "n d"], y: Float[Tensor, " n"], *, isotropic: bool = True
    ) -> None:
        n = len(X)
        # The Gram matrix of the shorter side would square the condition number; SVD does not.
        U, S, Vh = torch.linalg.svd(X, full_matrices=False)
        rank = int((S > S[0] * max(X.shape) * torch.finfo(X.dtype).eps).sum())
        spread = S[:rank] / math.sqrt(n)
        unit = spread if isotropic else spread.square().mean().sqrt().expand(rank)
        self.features = U[:, :rank] * (S[:rank] / unit)
        self._back = Vh[:rank].T / unit
        norms = X.square().sum(dim=1)
        self.norms = norms / norms.mean()
        self.scale = float(y.square().mean().sqrt())
        self.target = y / self.scale
        self._size = self.scale * math.sqrt(float(norms.mean()))

    @property
    def rank(self) -> int:
        """The number of whitened features."""
        return self.features.shape[1]

    def restore(
        self, W: Float[Tensor, "m r"], a: Float[Tensor, " m"], degree: float
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
        """Return the network on the original inputs and targets, balanced where this one is."""
        # Units and target scale multiply B alone; this rescaling shares the factor with A.
        c = self._size ** (1 / (degree + 1))
        return c * W @ self._back.T, c**-degree * self.scale * a

    def trace_unit(self, degree: float) -> float:
        """Return the trace of what `restore` gives over the trace in these coordinates."""
        return self._size ** (2 * degree / (degree + 1))


class Point(NamedTuple):
    """A network on the training data: what the objective and its derivatives need."""

    W: Float[Tensor, "m r"]
    a: Float[Tensor, " m"]
    z: Float[Tensor, "n m"]
    s: Float[Tensor, "n m"]
    slope: Float[Tensor, "n m"]
    f: Float[Tensor, " n"]
    outer: Float[Tensor, " m"]
    inner: Float[Tensor, " m"]


class Objective:
    r"""The flatness ``Q = sum_j (A_j + B_j)``: half the Gauss-Newton trace.

    With ``reflected`` the average of ``Q`` over the data and their negatives, which is ``Q`` for
    the symmetric activation ``sqrt((alpha^2 + beta^2) / 2) |z|^p``.
    """

    def __init__(self, data: Whitened, activation: Homogeneous, *, reflected: bool) -> None:
        self.X, self.q = data.features, data.norms
        self.activation = activation
        kappa = math.sqrt((activation.positive**2 + activation.negative**2) / 2)
        self.reflected = reflected
        self.stage = "reflected" if reflected else "trace"
        self.penalised = Homogeneous(activation.degree, kappa, kappa) if reflected else activation
        self.p = activation.degree

    def on_rows(self, index: Int[Tensor, " b"]) -> Objective:
        """Return the objective of some of the rows."""
        part = copy.copy(self)
        part.X, part.q = self.X[index], self.q[index]
        return part

    def to(self, dtype: torch.dtype) -> Objective:
        """Return the objective in another precision."""
        part = copy.copy(self)
        part.X, part.q = self.X.to(dtype), self.q.to(dtype)
        return part

    @property
    def shares_one_metric(self) -> bool:
        """Whether all neurons have the same metric, the identity up to a factor."""
        return self.reflected and self.p == 1

    def point(self, W: Float[Tensor, "m r"], a: Float[Tensor, " m"]) -> Point:
        """Evaluate the network and its flatness."""
        z = self.X @ W.T
        s, slope = self.activation(z), self.activation.derivative(z)
        n = len(z)
        if self.shares_one_metric:
            kappa2 = self.penalised.positive**2
            outer = kappa2 * W.square().sum(dim=1)  # whitened: mean z^2 = ||w||^2
            inner = torch.full_like(a, kappa2)  # the norms have mean 1
        elif self.reflected:
            outer = self.penalised(z).square().mean(dim=0)
            inner = self.q @ self.penalised.derivative(z).square() / n
        else:
            outer, inner = s.square().mean(dim=0), self.q @ slope.square() / n
        return Point(W, a, z, s, slope, s @ a, outer, inner)

    def value(self, point: Point) -> float:
        """Evaluate ``Q``."""
        return float(point.outer.sum() + (point.a.square() * point.inner).sum())

    def orbit_minimum(self, point: Point) -> float:
        """Minimum of ``2 Q`` over the rescalings of the network."""
        B = point.a.square() * point.inner
        return float(2 * orbit_minimum(point.outer, B, self.p).sum())

    def balance(self, point: Point) -> Point:
        """Move to the point of the rescaling orbit where ``Q`` is smallest."""
        p = self.p
        c = orbit_scales(point.outer, point.a.square() * point.inner, p)
        return Point(
            point.W * c[:, None],
            point.a * c**-p,
            point.z * c,
            point.s * c**p,
            point.slope * c ** (p - 1),
            point.f,
            point.outer * c ** (2 * p),
            point.inner * c ** (2 * p - 2),
        )

    def gradient(self, point: Point) -> tuple[Float[Tensor, "m r"], Float[Tensor, " m"]]:
        """Gradient of ``Q / 2`` in the weights and in the coefficients."""
        if self.shares_one_metric:
            return self.penalised.positive**2 * point.W, point.a * point.inner
        s, slope, second = self._derivatives(point)
        pull = s * slope
        if self.p > 1:  # else the second derivative is 0
            pull = pull + self.q[:, None] * point.a.square() * slope * second
        return pull.T @ self.X / len(self.X), point.a * point.inner

    def blocks(
        self, point: Point, multipliers: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "m r1 r1"]:
        """Metric of ``Q / 2``, one block per neuron in ``(w_j, a_j)``.

        Gauss-Newton without `multipliers`; with them the exact Hessian of the Lagrangian
        ``Q / 2 + sum_i multipliers_i f(x_i) / n`` (for ``p >= 2``), which may be indefinite.
        """
        s, slope, second = self._derivatives(point)
        a, q = point.a, self.q[:, None]
        weight = slope.square() + q * a.square() * second.square()
        cross = q * a * slope * second
        if multipliers is not None:
            third = slope * self._third_derivative(point)
            bend = self.activation.second_derivative(point.z) * a
            weight = weight + s * second + q * a.square() * third + multipliers[:, None] * bend
            cross = 2 * cross + multipliers[:, None] * point.slope
        return self._assemble(weight, cross, point.inner)

    def _assemble(
        self, weight: Float[Tensor, "n m"], cross: Float[Tensor, "n m"], inner: Float[Tensor, " m"]
    ) -> Float[Tensor, "m r1 r1"]:
        """``mean_i (weight_ij x_i x_i^T, cross_ij x_i; cross_ij x_i^T, inner_j)`` per neuron."""
        (n, r), m = self.X.shape, len(inner)
        blocks = inner.new_empty(m, r + 1, r + 1)
        second_moments = inner.new_zeros(m, r * r)
        chunk = max(1, _CHUNK_ELEMENTS // (r * r))
        for rows, row_weights in zip(self.X.split(chunk), weight.split(chunk), strict=True):
            products = (rows[:, :, None] * rows[:, None, :]).reshape(-1, r * r)
            second_moments.addmm_(row_weights.T, products)
        blocks[:, :r, :r] = (second_moments / n).reshape(-1, r, r)
        blocks[:, :r, r] = blocks[:, r, :r] = cross.T @ self.X / n
        blocks[:, r, r] = inner
        return blocks

    def _derivatives(self, point: Point) -> tuple[Tensor, Tensor, Tensor]:
        """Value, first and second derivative of the activation whose flatness is meant."""
        act, z = self.penalised, point.z
        s, slope = (act(z), act.derivative(z)) if self.reflected else (point.s, point.slope)
        if 1 < self.p < 2:
            # s'' is infinite at 0: a floor on |z| keeps the metric finite, as in reweighting.
            floor = 1e-3 * z.abs().mean(dim=0).clamp_min(1e-300)
            z = torch.where(z < 0, -1.0, 1.0) * z.abs().maximum(floor)
        return s, slope, act.second_derivative(z)

    def _third_derivative(self, point: Point) -> Float[Tensor, "n m"]:
        p, act, z = self.p, self.penalised, point.z
        if p == 2:
            return torch.zeros_like(z)
        power = p * (p - 1) * (p - 2) * z.abs().pow(p - 3)
        sided = torch.where(z > 0, act.positive * power, -act.negative * power)
        return torch.where(z == 0, 0.0, sided)
