"""The least trace over invertible matrices against direct optimisation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import optimize

from flattest.modules.groups.pairs import minimise_pair, triangular


def factors(seed, size, rows=20, condition=10.0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -np.log10(condition), size, dtype=torch.float64)

    def one():
        return torch.randn(rows, size, generator=generator, dtype=torch.float64) * scales

    return one(), one()


def invertible(seed, size, condition):
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
        for _ in range(2)
    )
    return a @ torch.diag(torch.logspace(0, np.log10(condition), size, dtype=torch.float64)) @ b


def value(first, second, matrix):
    """The trace with gradients M^-T g and M h."""
    moved = torch.linalg.solve(matrix.T, first.T)
    return float(moved.square().sum() + (matrix @ second.T).square().sum())


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_the_closed_form_is_what_direct_optimisation_finds(seed, size):
    first, second = factors(seed, size)
    found = minimise_pair(first, second)
    assert found.attained
    assert value(first, second, found.matrix) == pytest.approx(found.value, rel=1e-12)
    assert found.at_matrix == pytest.approx(found.value, rel=1e-12)
    assert found.imbalance < 1e-12

    def objective(flat):
        M = torch.tensor(flat, requires_grad=True)
        N = M.reshape(size, size)
        loss = torch.linalg.solve(N.T, first.T).square().sum() + (N @ second.T).square().sum()
        loss.backward()
        return loss.item(), M.grad.numpy()

    # Near the identity, M can be the positive root of P.
    start = np.eye(size).flatten()
    options = {"maxiter": 3000, "ftol": 0, "gtol": 1e-9}
    direct = optimize.minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    direct = optimize.minimize(objective, direct.x, jac=True, method="L-BFGS-B", options=options)
    assert found.value <= direct.fun * (1 + 1e-13)
    assert found.value == pytest.approx(direct.fun, rel=1e-10)


@given(st.integers(0, 10**6), st.integers(1, 8))
def test_the_matrix_and_its_inverse_belong_together(seed, size):
    found = minimise_pair(*factors(seed, size, condition=1e4))
    product = found.matrix @ found.inverse_transposed.T
    torch.testing.assert_close(product, torch.eye(size).double(), rtol=0, atol=1e-10)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 1e4, 1e6]))
def test_the_minimum_is_the_same_wherever_one_starts(seed, condition):
    first, second = factors(seed, 8)
    M = invertible(seed + 1, 8, condition)
    there = torch.linalg.solve(M.T, first.T).T, second @ M.T
    one = minimise_pair(first, second).value
    other = minimise_pair(*there).value
    assert other == pytest.approx(one, rel=1e-10 if condition < 1e6 else 1e-9)


def test_rows_in_parts_have_the_factor_of_all():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    whole, parts = triangular(rows), triangular(rows[20:], triangular(rows[:20]))
    torch.testing.assert_close(whole.T @ whole, rows.T @ rows)
    torch.testing.assert_close(parts.T @ parts, rows.T @ rows)


def test_singular_factors_have_an_infimum():
    first, second = factors(3, 3)
    second[:, 0] = 0
    found = minimise_pair(first, second)
    assert not found.attained
    assert (
        found.value
        < found.at_matrix
        < found.value + 0.01 * value(first, second, torch.eye(3).double())
    )
    # Invertible matrices come as near as one likes, and none is below.
    smaller = min(
        value(first, second, torch.diag(torch.tensor([s, 1.0, 1.0])).double()) for s in (1e3, 1e5)
    )
    assert smaller > found.value


def test_nothing_to_gain_where_one_side_is_zero():
    first, second = factors(3, 2)
    found = minimise_pair(first, torch.zeros_like(second))
    assert (found.value, found.attained) == (0.0, False)
    assert found.matrix.equal(torch.eye(2).double())
    nothing = minimise_pair(torch.zeros_like(first), torch.zeros_like(second))
    assert (nothing.value, nothing.attained) == (0.0, True)
