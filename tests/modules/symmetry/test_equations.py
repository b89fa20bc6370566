"""The exact solver of equations between log scales, against dense linear algebra."""

import itertools

import numpy as np
from hypothesis import given, strategies as st

from flattest.modules.symmetry.equations import Equations

SYSTEMS = st.integers(2, 9).flatmap(
    lambda n: st.tuples(
        st.just(n),
        st.lists(st.tuples(st.integers(0, n), st.integers(0, n)), max_size=4),
        st.lists(st.integers(1, n), max_size=2),
        st.lists(
            st.tuples(
                st.lists(st.integers(0, n), min_size=3, max_size=3),
                st.lists(st.sampled_from([-2.0, -1.0, -0.5, 1.0, 3.0]), min_size=3, max_size=3),
            ),
            max_size=4,
        ),
    )
)


@given(SYSTEMS)
def test_solutions_are_the_null_space(system):
    n, equal, zero, sums = system
    equations = Equations(n + 1)
    rows = [np.eye(n + 1)[0]]
    for a, b in equal:
        equations.equate(np.array([a]), np.array([b]))
        rows.append(np.eye(n + 1)[a] - np.eye(n + 1)[b])
    for a in zero:
        equations.freeze(np.array([a]), "a test")
        rows.append(np.eye(n + 1)[a])
    for ids, weights in sums:
        equations.relate(np.array([ids]), weights)
        row = np.zeros(n + 1)
        np.add.at(row, ids, weights)
        rows.append(row)
    solution = equations.solve()
    basis = solution.basis.toarray()
    matrix = np.stack(rows)
    assert basis.shape[1] == n + 1 - np.linalg.matrix_rank(matrix, tol=1e-9)
    np.testing.assert_allclose(matrix @ basis, 0, atol=1e-9)
    # The free variables are their own coordinates.
    np.testing.assert_array_equal(basis[solution.free], np.eye(basis.shape[1]))


def test_the_nearest_reason_is_given():
    equations = Equations()
    a, b, c, d = equations.fresh(4)
    equations.equate(np.array([a, b]), np.array([b, c]))
    equations.freeze(np.array([c]), "far")
    equations.freeze(np.array([a]), "near")
    reasons = equations.reasons()
    assert reasons.of(int(a)) == "near"
    assert reasons.of(int(c)) == "far"
    assert reasons.of(int(d)) is None


def test_fractions_are_exact():
    # A chain of a third and three, a hundred times: no drift may make a free variable of it.
    equations = Equations()
    chain = equations.fresh(101)
    for first, second in itertools.pairwise(chain):
        equations.relate(np.array([[first, second]]), (3.0, -1.0))
    equations.relate(np.array([[chain[0], chain[-1]]]), (3.0**30, -1.0))
    assert len(equations.solve().free) == 0
