"""Cholesky factors of blocks of symmetric matrices, and what is solved with them.

Only lower triangles are read and written; what is above them is not set. On the CPU SciPy's LAPACK
works where the numbers lie: the transpose of a matrix stored by rows is the same matrix stored by
columns, as LAPACK wants it. PyTorch would turn every matrix around and back, which takes as long as
to factorise it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import get_lapack_funcs
from torch import Tensor


def factorise_(K: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"] | None:
    """Factorise matrices in their place; None unless all are positive definite."""
    if K.device.type != "cpu":
        factor, info = torch.linalg.cholesky_ex(K)
        return None if bool(info.any()) else factor
    (potrf,) = get_lapack_funcs(["potrf"], dtype=_dtype(K))
    for block in _by_columns(K):
        found, info = potrf(block, lower=False, clean=False, overwrite_a=True)
        # The last pivot is NaN where any number is.
        if info or not found[-1, -1] > 0:
            return None
        _keep(block, found)
    return K


def solve(factor: Float[Tensor, "b n n"], values: Float[Tensor, "b n q"]) -> Float[Tensor, "b n q"]:
    """Return what the factorised matrices take to the values."""
    if factor.device.type != "cpu":
        return torch.cholesky_solve(values, factor)
    (potrs,) = get_lapack_funcs(["potrs"], dtype=_dtype(factor))
    each = zip(_by_columns(factor), values, strict=True)
    solved = [potrs(block, given.numpy(), lower=False)[0] for block, given in each]
    return torch.stack([torch.from_numpy(block) for block in solved])


def inverse_(factor: Float[Tensor, "b n n"]) -> Float[Tensor, "b n n"]:
    """Return the lower triangles of the inverses of the factorised matrices, in the same place."""
    if factor.device.type != "cpu":
        return torch.cholesky_inverse(factor)
    (potri,) = get_lapack_funcs(["potri"], dtype=_dtype(factor))
    for block in _by_columns(factor):
        _keep(block, potri(block, lower=False, overwrite_c=True)[0])
    return factor


def _by_columns(matrices: Float[Tensor, "b n n"]) -> Iterator[np.ndarray]:
    """Return each matrix's transpose, the upper triangle of which LAPACK reads and writes."""
    return (matrix.numpy().T for matrix in matrices)


def _keep(block: np.ndarray, found: np.ndarray) -> None:
    """Store a result where LAPACK was not given the block itself."""
    if not np.shares_memory(block, found):
        block[...] = found


def _dtype(values: Tensor) -> np.dtype:
    return np.dtype(str(values.dtype).removeprefix("torch."))
