"""Slow and obviously right: the dense Hessian by automatic differentiation, and random problems.

Nothing here uses the closed form, and `definition` does not even use flattest's activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

import flattest as ft

SLOPES = [(1, 0), (0, 1), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0.3), (1, -0.01), (-0.5, 2)]
DEGREES = [1, 1.5, 2, 3]


def definition(shape: ft.Homogeneous) -> Callable[[Tensor], Tensor]:
    """Return s(z) written as its definition says; differentiable twice away from 0."""

    def evaluate(z: Tensor) -> Tensor:
        size = torch.where(z == 0, torch.ones_like(z), z).abs() ** shape.degree
        zero = torch.zeros_like(z)
        return torch.where(z > 0, shape.positive * size, zero) + torch.where(
            z < 0, shape.negative * size, zero
        )

    return evaluate


@dataclass(frozen=True)
class Dense:
    """Traces read off the dense matrices, and the sizes of their two parts."""

    trace: float
    gauss_newton: float

    @property
    def size(self) -> float:
        """What rounding errors are relative to: the parts may cancel in their sum."""
        return max(abs(self.trace), self.gauss_newton)


def dense(net: ft.TwoLayerNet, X: Tensor, y: Tensor, s: Callable | None = None) -> Dense:
    """Differentiate torch.nn.MSELoss twice in all parameters, in float64."""
    s = definition(net.activation) if s is None else s
    m, d = net.weights.shape
    parameters = torch.cat([net.weights.detach().flatten(), net.coefficients.detach()])

    def outputs(theta: Tensor) -> Tensor:
        return s(X @ theta[: m * d].reshape(m, d).T) @ theta[m * d :]

    def loss(theta: Tensor) -> Tensor:
        return torch.nn.MSELoss()(outputs(theta), y)

    hessian = torch.autograd.functional.hessian(loss, parameters)
    jacobian = torch.autograd.functional.jacobian(outputs, parameters)
    return Dense(
        trace=hessian.diagonal().sum().item(),
        gauss_newton=2 / len(X) * jacobian.square().sum().item(),
    )


@dataclass(frozen=True)
class Problem:
    """A network and data."""

    net: ft.TwoLayerNet
    X: Tensor
    y: Tensor


def random_problem(
    rng: np.random.Generator,
    *,
    n: int = 12,
    d: int = 3,
    m: int = 4,
    shape: ft.Homogeneous | str = "relu",
    interpolating: bool = False,
    scale: float = 1.0,
) -> Problem:
    """Draw Gaussian weights, coefficients and data; neurons of very different size."""
    spread = np.exp(rng.normal(size=(m, 1)))
    net = ft.TwoLayerNet(scale * spread * rng.normal(size=(m, d)), rng.normal(size=m), shape)
    X = torch.from_numpy(rng.normal(size=(n, d)))
    y = net(X).detach() if interpolating else torch.from_numpy(rng.normal(size=n))
    return Problem(net, X, y)


@st.composite
def shapes(draw: st.DrawFn) -> ft.Homogeneous:
    """Draw an activation: every sign pattern of the slopes, every degree under test."""
    return ft.Homogeneous(draw(st.sampled_from(DEGREES)), *draw(st.sampled_from(SLOPES)))


@st.composite
def problems(draw: st.DrawFn, shape: st.SearchStrategy | None = None) -> Problem:
    """Draw a small problem, the awkward cases among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d, m = draw(st.integers(1, 9)), draw(st.integers(1, 5)), draw(st.integers(1, 5))
    problem = random_problem(rng, n=n, d=d, m=m, shape=draw(shape or shapes()))
    w = problem.net.weights.detach().clone()
    a = problem.net.coefficients.detach().clone()
    X = problem.X.clone()
    if draw(st.booleans()):
        X[rng.integers(n)] = 0  # a zero row
    if draw(st.booleans()):
        X[rng.integers(n)] = X[rng.integers(n)]  # a sample that occurs twice
    if draw(st.booleans()):
        a[rng.integers(m)] = 0
    if draw(st.booleans()):
        # Negative on all samples where that is possible: dead, for a one-sided activation.
        w[0] = -torch.linalg.pinv(X).sum(dim=1)
    at_zero = problem.net.activation.slope_at_zero + problem.net.activation.curvature_at_zero
    if at_zero == 0 and draw(st.booleans()):
        w[-1] = 0
    net = ft.TwoLayerNet(w, a, problem.net.activation)
    y = net(X).detach() if draw(st.booleans()) else problem.y
    return Problem(net, X, y)


def same(one: float, other: float, tolerance: float) -> bool:
    """Tell whether two numbers agree to a relative tolerance."""
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def term_size(net: ft.TwoLayerNet, X: Tensor) -> float:
    """Return the largest sum of |terms| in an output: what its rounding errors are relative to."""
    with torch.no_grad():
        terms = net.activation(X @ net.weights.T) * net.coefficients
        return terms.abs().sum(dim=1).max().item()


def assert_same_function(
    one: ft.TwoLayerNet, two: ft.TwoLayerNet, X: torch.Tensor, tolerance: float = 1e-12
) -> None:
    """Compare outputs, relative to the size of the terms that each output sums."""
    with torch.no_grad():
        assert (one(X) - two(X)).abs().max() <= tolerance * term_size(one, X)
