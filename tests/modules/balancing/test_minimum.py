"""The minimum over scales against general minimisers, linear programmes and itself."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import optimize, sparse

from flattest.modules.balancing.minimum import BalanceStatus, minimise
from flattest.modules.balancing.newton import by_diagonal, conjugate_gradients, sweep
from flattest.modules.balancing.surviving import surviving
from flattest.modules.balancing.terms import Grid, Listed, Terms


def unit_channels(n):
    """Channel 0 is fixed, channel 1 + v has scale v."""
    return sparse.csr_array(sparse.vstack([sparse.csr_array((1, n)), sparse.eye_array(n)]))


def chain(rng, widths, spread=1.0):
    """A multilayer perceptron's amounts: weights between layers, biases."""
    hidden = widths[1:-1]
    starts = np.concatenate([[1], 1 + np.cumsum(hidden)])
    channel = [np.zeros(widths[0], int)]
    channel += [start + np.arange(width) for start, width in zip(starts[:-1], hidden, strict=True)]
    channel += [np.zeros(widths[-1], int)]
    parts = []
    for into, out in itertools.pairwise(channel):
        parts.append(Grid(rng.lognormal(0, spread, (len(out), len(into))), out, into))
        parts.append(Listed(rng.lognormal(0, spread, len(out)), out, np.zeros(len(out), int)))
    return Terms(parts, unit_channels(int(sum(hidden))))


def of_rows(amounts, rows):
    """Terms with any exponents: each is a channel of its own."""
    n = rows.shape[1]
    channels = sparse.csr_array(np.vstack([np.zeros((1, n)), rows]))
    t = len(amounts)
    return Terms([Listed(amounts, 1 + np.arange(t), np.zeros(t, int))], channels)


def moved(terms, z):
    """The same function seen from another point: amounts as a rescaled network has them."""
    y = terms.channels @ z
    parts = []
    for part in terms.parts:
        out, into = y[part.out], y[part.into]
        shift = out[:, None] - into if isinstance(part, Grid) else out - into
        parts.append(type(part)(part.amounts * np.exp(-2 * shift), part.out, part.into))
    return Terms(parts, terms.channels)


def by_lbfgs(terms):
    def both(z):
        flows = terms.at(z)
        return np.log(flows.value), 2 * (flows.outward - flows.inward) / flows.value

    start = np.zeros(terms.n_scales)
    options = {"maxiter": 5000, "ftol": 0, "gtol": 1e-10}
    found = optimize.minimize(both, start, jac=True, method="L-BFGS-B", options=options)
    return float(np.exp(found.fun))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 6), min_size=3, max_size=6))
def test_minimum_of_networks_is_that_of_a_general_minimiser(seed, widths):
    terms = chain(np.random.default_rng(seed), widths, 2.0)
    found = minimise(terms, constant=0.5)
    assert found.status is BalanceStatus.CONVERGED
    assert found.attained
    assert found.vanishing == 0
    assert found.gap <= 1e-13 * found.value
    assert found.value == pytest.approx(0.5 + by_lbfgs(terms), rel=1e-9)
    assert found.value <= (0.5 + by_lbfgs(terms)) * (1 + 1e-14)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 30))
def test_minimum_with_any_exponents(seed, n, t):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (t, n)) / rng.choice([1.0, 2.0])
    amounts = rng.lognormal(0, 1, t)
    found = minimise(of_rows(amounts, rows))
    # Nothing lies below the value, and points near the infimum come close to it.
    points = rng.normal(0, 3, (200, n))
    sums = (amounts * np.exp(-2 * points @ rows.T)).sum(axis=1)
    assert (sums >= found.value * (1 - 1e-10) - 1e-10).all()
    if found.attained:
        at = (amounts * np.exp(-2 * rows @ found.log_scales)).sum()
        assert at == pytest.approx(found.value, rel=1e-10)
    else:
        direction = _recession(rows)
        far = found.log_scales + 200 * direction
        assert (amounts * np.exp(-2 * rows @ far)).sum() == pytest.approx(found.value, abs=1e-9)


def _recession(rows):
    """A direction that lowers as many terms as possible and raises none, by a plain programme."""
    t, n = rows.shape
    found = optimize.linprog(
        np.concatenate([np.zeros(n), -np.ones(t)]),
        A_ub=np.hstack([-rows, np.eye(t)]),
        b_ub=np.zeros(t),
        bounds=[(None, None)] * n + [(0, 1)] * t,
    )
    return found.x[:n]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 8), st.booleans())
def test_surviving_terms_are_those_of_a_plain_programme(seed, n, t, signed):
    rng = np.random.default_rng(seed)
    rows = np.zeros((t, n))
    for row in rows:
        for place in rng.choice(n, size=min(n, int(rng.integers(1, 3 + signed))), replace=False):
            row[place] = rng.choice([-1.0, 1.0]) * (rng.choice([1, 0.5, 2]) if signed else 1)
    expected = rows @ _recession(rows) < 0.5
    assert (surviving(of_rows(np.ones(t), rows))[0] == expected).all()


def test_surviving_terms_of_whole_layers_are_those_of_their_entries():
    # Large enough for the node that stands for all edges of a layer; half of it has no flow.
    rng = np.random.default_rng(0)
    amounts = rng.random((40, 50))
    amounts[20:] = 0
    n = 90
    out, into = 1 + np.arange(40), 41 + np.arange(50)
    back = Listed(np.ones(30), into[:30], out[:30])
    grid = Terms([Grid(amounts, out, into), back], unit_channels(n))
    row, column = np.nonzero(amounts)
    listed = Terms([Listed(amounts[row, column], out[row], into[column]), back], unit_channels(n))
    by_grid, by_list = surviving(grid), surviving(listed)
    assert (by_grid[0][row, column] == by_list[0]).all()
    assert (by_grid[1] == by_list[1]).all()
    assert 0 < by_list[0].sum() < len(by_list[0])


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 3.0, 20.0]))
def test_twins_have_one_minimum(seed, spread):
    rng = np.random.default_rng(seed)
    terms = chain(rng, [5, 8, 6, 7, 3])
    z = rng.normal(0, spread, terms.n_scales)
    one, other = minimise(terms), minimise(moved(terms, z))
    assert other.value == pytest.approx(one.value, rel=1e-12)
    assert other.gap <= 1e-13 * other.value
    assert np.abs(other.log_scales + z - one.log_scales).max() < 1e-6


def test_the_second_time_nothing_moves():
    terms = chain(np.random.default_rng(1), [5, 8, 6, 3], 2.0)
    balanced = moved(terms, minimise(terms).log_scales)
    again = minimise(balanced)
    assert again.n_steps == 0
    assert not again.log_scales.any()
    assert balanced.at(np.zeros(balanced.n_scales)).value == pytest.approx(again.value, rel=1e-14)


def test_the_gap_bounds_the_error():
    terms = chain(np.random.default_rng(2), [5, 8, 6, 3])
    exact = minimise(terms).value
    rough = minimise(terms, rtol=0.3)
    assert rough.value - exact <= rough.gap
    assert rough.value > exact * (1 + 1e-9)


def test_sweeps_never_raise_the_sum():
    terms = moved(chain(np.random.default_rng(3), [5, 8, 6, 3]), np.linspace(-9, 9, 14))
    z, before = np.zeros(14), np.inf
    for _ in range(30):
        z, value = sweep(terms, z)
        assert value <= before * (1 + 1e-14)
        before = value


def test_what_does_not_flow_stays():
    # Scale 0 is balanced, scale 1 has inflow only, scale 2 nothing at all.
    rows = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0]])
    found = minimise(of_rows(np.array([4.0, 1, 7]), rows))
    assert found.value == pytest.approx(4)
    assert not found.attained
    assert found.status is BalanceStatus.NOT_ATTAINED
    assert found.vanishing == pytest.approx(7)
    assert found.dead.tolist() == [False, True, True]
    assert found.log_scales[1] == found.log_scales[2] == 0


def test_a_whole_infimum_of_zero():
    found = minimise(of_rows(np.array([3.0]), np.array([[1.0]])))
    assert (found.value, found.attained, found.gap) == (0, False, 0)


def test_without_scales_the_minimum_is_the_value():
    nothing = Terms([Listed(np.array([2.0]), np.array([0]), np.array([0]))], unit_channels(0))
    assert minimise(nothing, constant=1.0).value == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_bad_amounts_are_refused(bad):
    with pytest.raises(ValueError, match="finite and at least 0"):
        minimise(of_rows(np.array([bad]), np.array([[1.0]])))


def test_conjugate_gradients_solve_singular_systems():
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(6, 4))
    matrix = factor @ factor.T
    right = matrix @ rng.normal(size=6)
    solution, residual = conjugate_gradients(
        lambda v: matrix @ v, by_diagonal(matrix.diagonal()), right, 1e-12
    )
    np.testing.assert_allclose(matrix @ solution, right, rtol=1e-9)
    assert np.abs(residual).max() < 1e-9


def test_the_hessian_is_that_of_the_sum():
    rng = np.random.default_rng(4)
    rows = np.array([[1.0, -1, 0], [0.5, 0, 2], [0, 1, -1], [-1, -1, 1]])
    amounts = rng.lognormal(0, 1, 4)
    z, direction = rng.normal(size=3), rng.normal(size=3)
    terms = of_rows(amounts, rows)
    flows = terms.at(z)
    values = amounts * np.exp(-2 * rows @ z)
    expected = 4 * rows.T @ (values * (rows @ direction))
    np.testing.assert_allclose(terms.product(direction, flows.curvature), expected)
    np.testing.assert_allclose(flows.inward - flows.outward, rows.T @ values)
    np.testing.assert_allclose(terms.diagonal(flows.curvature), 4 * rows.T**2 @ values)
