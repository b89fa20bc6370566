r"""Approximate inverses of Hessians in which few couplings are strong.

The Hessian of a sum of exponentials is :math:`4 \sum t (o - i)^2` over its terms t between channels
o and i, and that of inequalities is a sparse matrix. Where :math:`t (o - i)^2` is replaced by
:math:`2 t (o^2 + i^2)` the coupling of o and i is gone, and the sum is no smaller. What is left
when all but the strong terms are treated so is sparse enough to be factorised.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.linalg
from scipy import sparse
from scipy.sparse import linalg

from flattest.modules.balancing.newton import by_diagonal
from flattest.modules.balancing.terms import Listed, PerChannel, Terms, Vector

_DENSE = 1000
"""Variables up to which all couplings are kept and factorised as one dense matrix."""
_STRONG = 0.1
"""Terms above this part of all at one of their channels are kept as they are."""
_RIDGES = (1e-12, 1e-9, 1e-6)
"""What is added to diagonals, relative to them: scaling whole layers changes nothing."""


def approximate_inverse(
    terms: Terms, curvature: PerChannel, others: sparse.csr_array
) -> Callable[[Vector], Vector]:
    """Return an approximate inverse of the Hessian of terms and a sparse matrix.

    Parameters
    ----------
    terms : Terms
        The terms, at a point.
    curvature : array of shape (m,)
        As in `Flows`, of that point.
    others : sparse array of shape (n, n)
        What is added to the terms' Hessian, positive semi-definite.

    Returns
    -------
    callable
        From a vector to the inverse times it: symmetric, positive definite. Where rounding leaves
        nothing to factorise, the inverse of the diagonal.
    """
    small = terms.n_scales <= _DENSE
    matrix = others + _hessian(terms, curvature, 0.0 if small else _STRONG)
    diagonal = matrix.diagonal()
    for ridge in _RIDGES:
        added = ridge * (diagonal + ridge * diagonal.mean())
        added[added <= 0] = 1.0
        found = _factorised(matrix + sparse.diags_array(added), small)
        if found is not None:
            return found
    return by_diagonal(diagonal)


def _hessian(terms: Terms, curvature: PerChannel, least: float) -> sparse.csr_array:
    """Return the Hessian of the terms with weak couplings moved to the diagonal."""
    m = len(curvature)
    out, into, values = [], [], []
    for part in terms.parts:
        term = part.values()
        if isinstance(part, Listed):
            out.append(part.out)
            into.append(part.into)
            values.append(term)
            continue
        limits = np.minimum(curvature[part.out][:, None], curvature[part.into])
        row, column = np.nonzero(term > least * limits)
        out.append(part.out[row])
        into.append(part.into[column])
        values.append(term[row, column])
    o, i, t = (np.concatenate(each) for each in (out, into, values))
    kept = np.bincount(o, t, m) + np.bincount(i, t, m)
    coupled = sparse.csr_array((-t, (o, i)), (m, m))
    whole = coupled + coupled.T + sparse.diags_array(2 * np.maximum(curvature - kept, 0) + kept)
    return sparse.csr_array(4 * (terms.channels.T @ whole @ terms.channels))


def _factorised(matrix: sparse.csr_array, dense: bool) -> Callable[[Vector], Vector] | None:
    """Return a function that solves; None if rounding has made the matrix singular."""
    if not np.isfinite(matrix.data).all():
        return None
    try:
        if dense:
            factor = scipy.linalg.cho_factor(matrix.toarray(), check_finite=False)
            return lambda right: scipy.linalg.cho_solve(factor, right, check_finite=False)
        return linalg.splu(
            sparse.csc_array(matrix),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        ).solve
    except (scipy.linalg.LinAlgError, RuntimeError):  # "Factor is exactly singular"
        return None
