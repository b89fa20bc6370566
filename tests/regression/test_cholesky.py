"""Factors, solutions and inverses in place, against dense ones in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from flattest.regression.cholesky import factorise_, inverse_, solve

ROUNDING = {torch.float64: 1e-10, torch.float32: 2e-4}


def blocks(b: int, n: int, seed: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return symmetric positive definite matrices, and a copy with nothing above the diagonal."""
    rng = np.random.default_rng(seed)
    roots = torch.from_numpy(rng.standard_normal((b, n, n + 2)))
    K = roots @ roots.mT / n + 0.3 * torch.eye(n, dtype=torch.float64)
    lower = torch.where(torch.ones(n, n).tril().bool(), K, torch.nan)
    return K, lower.to(dtype)


@given(
    b=st.integers(1, 3),
    n=st.integers(1, 40),
    q=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from(list(ROUNDING)),
)
def test_only_lower_triangles_count(b: int, n: int, q: int, seed: int, dtype: torch.dtype) -> None:
    K, lower = blocks(b, n, seed, dtype)
    values = torch.from_numpy(np.random.default_rng(seed).standard_normal((b, n, q)))
    tolerance = {"rtol": 0, "atol": ROUNDING[dtype] * float(torch.linalg.cond(K).max())}
    factor = factorise_(lower)
    assert factor is not None
    torch.testing.assert_close(factor.tril().double(), torch.linalg.cholesky(K), **tolerance)
    solved = solve(factor, values.to(dtype))
    torch.testing.assert_close(solved.double(), torch.linalg.solve(K, values), **tolerance)
    inverse = inverse_(factor).tril().double()
    torch.testing.assert_close(inverse, torch.linalg.inv(K).tril(), **tolerance)


def test_works_in_place() -> None:
    _, lower = blocks(2, 30, 0, torch.float64)
    factor = factorise_(lower)
    assert factor is not None
    assert factor.data_ptr() == lower.data_ptr()
    assert inverse_(factor).data_ptr() == lower.data_ptr()


@pytest.mark.parametrize("bad", [-1.0, 0.0, float("nan")])
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_nothing_without_positive_pivots(bad: float, dtype: torch.dtype) -> None:
    _, lower = blocks(2, 12, 1, dtype)
    lower[1, 7, 7] = bad
    assert factorise_(lower) is None


def test_slices_are_factorised_where_they_are() -> None:
    """Also where a matrix is no block of memory of its own."""
    K, lower = blocks(1, 15, 2, torch.float64)
    wide = torch.full((1, 15, 20), torch.nan, dtype=torch.float64)
    wide[..., :15] = lower
    factor = factorise_(wide[..., :15])
    assert factor is not None
    torch.testing.assert_close(factor.tril(), torch.linalg.cholesky(K))
    torch.testing.assert_close(wide[..., :15].tril(), torch.linalg.cholesky(K))
