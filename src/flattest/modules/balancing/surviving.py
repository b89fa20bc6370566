r"""Which terms of a sum of exponentials do not vanish in its infimum.

A term vanishes if some direction lowers it and raises no other, so that one can walk along it for
ever. By Stiemke's lemma the others are those with a positive weight in some
:math:`\sum_t w_t c_t = 0`, :math:`w \geq 0`, of the terms' exponents. Where every channel is one
scale, or the inverse of one, such weights are flows in a graph: every scale is a pair of nodes, one
for it and one for its inverse, a term leads from the channel that it comes from to the one that it
goes to, and it survives if it lies on a circle, inside a strongly connected component. The rest is
a linear programme in what these components leave free.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy import optimize, sparse
from scipy.sparse import csgraph

from flattest.modules.balancing.terms import Grid, Terms

_MANY = 1000
"""Terms of a layer beyond which it is worth looking for nodes that stand for many edges."""


def surviving(terms: Terms) -> list[np.ndarray]:
    """Find the terms that do not vanish in the infimum.

    Parameters
    ----------
    terms : Terms
        The sum.

    Returns
    -------
    list of array of bool
        For each part which terms survive; those with amount 0 count as surviving.

    Examples
    --------
    One scale flows through, of the other nothing comes out:

    >>> import numpy as np
    >>> from scipy import sparse
    >>> from flattest.modules.balancing.surviving import surviving
    >>> from flattest.modules.balancing.terms import Listed, Terms
    >>> channels = sparse.csr_array(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> parts = [Listed(np.ones(3), np.array([1, 0, 0]), np.array([0, 1, 2]))]
    >>> surviving(Terms(parts, channels))
    [array([ True,  True, False])]
    """
    nodes = _nodes(terms.channels)
    component = _components(terms, nodes)
    results = []
    for part in terms.parts:
        out, into = nodes.plain[part.out], nodes.plain[part.into]
        if isinstance(part, Grid):
            out, into = out[:, None], into[None, :]
        simple = (out >= 0) & (into >= 0)
        results.append((component[out] == component[into]) & simple | (part.amounts == 0))
    if np.any(nodes.plain < 0):
        _by_programme(terms, nodes, component, results)
    return results


class _Nodes(NamedTuple):
    """The nodes of each channel and of its inverse; -1 for channels of several scales."""

    plain: Int[np.ndarray, " m"]
    inverse: Int[np.ndarray, " m"]
    n_scales: int


def _nodes(channels: sparse.csr_array) -> _Nodes:
    """Give the ground, the scales and their inverses numbers."""
    m, n = channels.shape
    widths = np.diff(channels.indptr)
    starts = channels.indptr[:-1][widths == 1]
    scale, exponent = channels.indices[starts], channels.data[starts]
    plain, inverse = np.full(m, -1), np.full(m, -1)
    plain[widths == 0] = inverse[widths == 0] = 0
    one = np.abs(exponent) == 1
    up = exponent > 0
    which = np.flatnonzero(widths == 1)[one]
    plain[which] = np.where(up, 1 + scale, 1 + n + scale)[one]
    inverse[which] = np.where(up, 1 + n + scale, 1 + scale)[one]
    return _Nodes(plain, inverse, n)


def _components(terms: Terms, nodes: _Nodes) -> np.ndarray:
    """Return the strongly connected component of each node."""
    edges: list[tuple[np.ndarray, np.ndarray]] = []
    n_nodes = 1 + 2 * nodes.n_scales
    for part in terms.parts:
        present = part.amounts > 0
        for of, flip in ((nodes.plain, False), (nodes.inverse, True)):
            out, into = of[part.out], of[part.into]
            if isinstance(part, Grid):
                rows, columns = np.flatnonzero(out >= 0), np.flatnonzero(into >= 0)
                found, hubs = _edges_of_grid(present, rows, columns, n_nodes)
                n_nodes += hubs
                pairs = [
                    (into[s] if s_in else s, out[t] if t_out else t) for s, s_in, t, t_out in found
                ]
            else:
                kept = present & (out >= 0) & (into >= 0)
                pairs = [(into[kept], out[kept])]
            edges += [(t, s) if flip else (s, t) for s, t in pairs]
    sources = np.concatenate([s for s, _ in edges]) if edges else np.zeros(0, int)
    targets = np.concatenate([t for _, t in edges]) if edges else np.zeros(0, int)
    graph = sparse.csr_array(
        (np.ones(len(sources), np.int8), (sources, targets)), (n_nodes, n_nodes)
    )
    return csgraph.connected_components(graph, directed=True, connection="strong")[1]


def _edges_of_grid(
    present: np.ndarray, rows: np.ndarray, columns: np.ndarray, next_node: int
) -> tuple[list[tuple[np.ndarray, bool, np.ndarray, bool]], int]:
    """Return edges from columns to rows, with one node in between where all of them occur.

    Sources and targets are positions of columns and rows where the flags say so, else nodes.
    """
    present = present[np.ix_(rows, columns)]
    if present.size > _MANY:
        full_rows, full_columns = present.any(axis=1), present.any(axis=0)
        if present[np.ix_(full_rows, full_columns)].all():
            hub_in = np.full(int(full_columns.sum()), next_node)
            hub_out = np.full(int(full_rows.sum()), next_node)
            return [
                (columns[full_columns], True, hub_in, False),
                (hub_out, False, rows[full_rows], True),
            ], 1
    row, column = np.nonzero(present)
    return [(columns[column], True, rows[row], True)], 0


def _by_programme(
    terms: Terms, nodes: _Nodes, component: np.ndarray, results: list[np.ndarray]
) -> None:
    """Solve a linear programme over what the components leave free, and correct the results."""
    n = nodes.n_scales
    # A direction that changes no surviving term has one value per component, the opposite one for
    # that of the inverses; components that hold both, or the ground, stay at 0.
    plain, inverse = component[1 : 1 + n], component[1 + n : 1 + 2 * n]
    half, scales = np.full(n, 0.5), np.arange(n)
    tied = sparse.csr_array(
        (
            np.concatenate([half, -half]),
            (np.tile(scales, 2), np.concatenate([plain, inverse])),
        ),
        (n, int(component.max()) + 1),
    )
    tied.sum_duplicates()
    grounded = np.ones(tied.shape[1])
    grounded[component[0]] = 0
    free = sparse.csr_array(terms.channels @ (tied * grounded[None, :]))
    rows, places = [], []
    for number, part in enumerate(terms.parts):
        unknown = np.nonzero(~results[number])
        out = part.out[unknown[0]]
        into = part.into[unknown[-1]]
        rows.append(free[out] - free[into])
        places.append((number, unknown))
    stacked = sparse.csr_array(sparse.vstack(rows, format="csr"))
    stacked.eliminate_zeros()
    lasting = _programme(stacked)
    start = 0
    for number, unknown in places:
        stop = start + len(unknown[0])
        results[number][unknown] = lasting[start:stop]
        start = stop


def _programme(rows: sparse.csr_array) -> np.ndarray:
    """Tell which rows are 0 for every direction that makes none of them negative."""
    keys: dict[bytes, int] = {}
    rows.sort_indices()
    kinds = np.array(
        [
            keys.setdefault(rows.indices[a:b].tobytes() + rows.data[a:b].tobytes(), len(keys))
            for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
        ],
        dtype=int,
    )
    m, k = len(keys), rows.shape[1]
    if m == 0:
        return np.zeros(0, dtype=bool)
    representative = np.zeros(m, dtype=int)
    representative[kinds] = np.arange(len(kinds))
    # max sum(s), s_t <= c_t . d, 0 <= s <= 1: directions add up, so that every term that can
    # vanish has s = 1 in the optimum.
    found = optimize.linprog(
        np.concatenate([np.zeros(k), -np.ones(m)]),
        A_ub=sparse.hstack([-rows[representative], sparse.eye_array(m)], format="csr"),
        b_ub=np.zeros(m),
        bounds=[(None, None)] * k + [(0, 1)] * m,
        method="highs",
    )
    if found.x is None:
        raise RuntimeError(f"HiGHS found no solution of a feasible programme: {found.message}")
    return (found.x[k:] < 0.5)[kinds]
