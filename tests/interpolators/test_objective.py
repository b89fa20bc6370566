"""The objective against autograd, and the second-order descent against dense linear algebra."""

import itertools

import numpy as np
import pytest
import torch

import flattest as ft
from flattest.interpolators.objective import Objective, Whitened
from flattest.interpolators.second_order import Schedule, descend, restore

ACTIVATIONS = ["relu", "leaky_relu", "abs", "linear", "relu2", "quadratic", "relu3", "cubic"]


def data(n=40, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = torch.from_numpy(rng.standard_normal((n, d)))
    return X, torch.from_numpy(rng.standard_normal(n))


def random_point(objective, width=5, seed=0):
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.standard_normal((width, objective.X.shape[1])))
    return objective.point(W, torch.from_numpy(rng.standard_normal(width)))


# --- the objective against autograd ------------------------------------------------------------


def flatness_of(objective, W, a):
    """Q / 2 by its definition, differentiable."""
    z = objective.X @ W.T
    p = objective.p
    kinds = [objective.activation]
    if objective.reflected:
        positive, negative = objective.activation.positive, objective.activation.negative
        kinds.append(ft.Homogeneous(p, negative, positive))
    total = 0.0
    for kind in kinds:
        slopes = torch.where(z > 0, kind.positive * torch.ones_like(z), kind.negative)
        value = slopes * z.abs() ** p
        derivative = p * slopes * z.abs() ** (p - 1)
        total = total + (value**2).mean(0).sum()
        total = total + (a**2 * (objective.q[:, None] * derivative**2).mean(0)).sum()
    return total / len(kinds) / 2


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("act", [*ACTIVATIONS, ft.Homogeneous(1.5, 1, -0.3), "sharp"])
def test_value_and_gradient_agree_with_autograd(act, reflected):
    act = ft.Homogeneous(2.5, 2, 0.5) if act == "sharp" else ft.activation(act)
    objective = Objective(Whitened(*data()), act, reflected=reflected)
    point = random_point(objective)
    W, a = point.W.clone().requires_grad_(), point.a.clone().requires_grad_()
    half = flatness_of(objective, W, a)
    gradient_W, gradient_a = torch.autograd.grad(half, (W, a))
    assert objective.value(point) == pytest.approx(2 * half.item(), rel=1e-12)
    found_W, found_a = objective.gradient(point)
    if act.degree == 1.5:
        return  # the metric caps s'' near 0, and the gradient with it
    torch.testing.assert_close(found_W, gradient_W, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found_a, gradient_a, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reflected", [False, True])
@pytest.mark.parametrize("act", ["relu", "abs", "relu2", "quadratic", "relu3", "cubic"])
def test_newton_blocks_are_the_hessian_of_the_lagrangian(act, reflected):
    objective = Objective(Whitened(*data()), ft.activation(act), reflected=reflected)
    point = random_point(objective)
    multipliers = torch.from_numpy(np.random.default_rng(1).standard_normal(40))
    blocks = objective.blocks(point, multipliers)
    for j in range(len(point.a)):

        def lagrangian(theta, j=j):
            w, a = theta[None, :-1], theta[-1:]
            f = objective.activation(objective.X @ w.T) @ a
            return flatness_of(objective, w, a) + (multipliers * f).mean()

        theta = torch.cat([point.W[j], point.a[j : j + 1]])
        hessian = torch.autograd.functional.hessian(lagrangian, theta)
        torch.testing.assert_close(blocks[j], hessian, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("act", ["relu", "relu2", "cubic"])
def test_whitened_coordinates_compute_the_same_function_and_trace(act):
    X, y = data(30, 4)
    X = torch.cat([X * torch.tensor([1e3, 1.0, 1e-3, 1.0]), X[:, :1], 0 * X[:, :1]], dim=1)
    whitened = Whitened(X, y)
    assert whitened.rank == 4
    identity = torch.eye(4, dtype=torch.float64)
    torch.testing.assert_close(whitened.features.T @ whitened.features / 30, identity)
    objective = Objective(whitened, ft.activation(act), reflected=False)
    point = random_point(objective)
    net = ft.TwoLayerNet(*whitened.restore(point.W, point.a, objective.p), act)
    torch.testing.assert_close(net(X).detach(), point.f * whitened.scale)
    unit, found = whitened.trace_unit(objective.p), ft.measure(net, X, y)
    assert found.orbit_minimum == pytest.approx(objective.orbit_minimum(point) * unit, rel=1e-10)
    assert found.gauss_newton == pytest.approx(2 * objective.value(point) * unit, rel=1e-10)


# --- the second-order descent ------------------------------------------------------------------


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "relu2", "cubic"])
def test_a_gauss_newton_step_solves_the_dense_normal_equations(act):
    """The dual n x n system against the same least-squares problem in all parameters at once."""
    whitened = Whitened(*data(12, 3))
    objective = Objective(whitened, ft.activation(act), reflected=False)
    point = objective.balance(random_point(objective, width=4))
    strength = 0.1
    from flattest.interpolators.second_order import _System

    residual = point.f - whitened.target
    move_W, move_a = _System(objective, point, residual, strength, newton=False).step(0.0)
    m, _r = point.W.shape
    J = torch.cat(
        [
            torch.cat([(point.slope * point.a)[:, j, None] * objective.X, point.s[:, j, None]], 1)
            for j in range(m)
        ],
        dim=1,
    )
    M = torch.block_diag(*objective.blocks(point))
    grad_W, grad_a = objective.gradient(point)
    gradient = torch.cat([grad_W, grad_a[:, None]], dim=1).reshape(-1)
    n = len(residual)
    expected = -torch.linalg.solve(
        J.T @ J / n + strength * M, J.T @ residual / n + strength * gradient
    )
    found = torch.cat([move_W, move_a[:, None]], dim=1).reshape(-1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_restore_reaches_rounding_error_with_enough_neurons():
    whitened = Whitened(*data(20, 4))
    objective = Objective(whitened, ft.activation("relu2"), reflected=False)
    point = restore(objective, whitened.target, random_point(objective, width=30))
    assert float((point.f - whitened.target).square().mean()) < 1e-28


def test_the_penalised_loss_never_rises_at_one_strength():
    whitened = Whitened(*data(60, 5))
    objective = Objective(whitened, ft.activation("relu"), reflected=False)
    schedule = Schedule(start=0.1, end=0.01, patience=0.0)  # the strength stays
    merits = []
    steps = descend(objective, whitened.target, random_point(objective), schedule)
    for state in itertools.islice(steps, 15):
        merits.append(state.train_error + state.strength * objective.value(state.point))
    assert all(b <= a * (1 + 1e-12) for a, b in itertools.pairwise(merits))
    assert merits[-1] < merits[0]
