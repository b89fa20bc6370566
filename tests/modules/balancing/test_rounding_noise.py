"""The least noise of rounding against a smoothed general minimiser, equalisation and itself."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scaled_layers import chain, moved
from scipy import optimize, sparse

from flattest.modules.balancing import rounding_noise, strong_couplings
from flattest.modules.balancing.coupled_layers import Limits, with_maxima
from flattest.modules.balancing.equalisation import equalise
from flattest.modules.balancing.rounding_noise import minimise_noise, noise
from flattest.modules.balancing.strong_couplings import approximate_inverse
from flattest.modules.balancing.terms import Terms


def by_smoothing(layers, channels, start):
    """Minimise with p-norms in place of maxima, p growing: from above, and not exactly."""
    n = channels.shape[1]

    def objective(z, p):
        y, total, gradient = channels @ z, 0.0, np.zeros(channels.shape[0])
        for layer in layers:
            v = layer.differences(y)
            sizes = layer.logarithms + v
            top = sizes.max()
            powers = np.exp(p * (sizes - top))
            amounts = layer.amounts * np.exp(2 * (top - v))
            norm = powers.sum() ** (2 / p)
            total += norm * amounts.sum()
            pull = 2 * norm * (amounts.sum() * powers / powers.sum() - amounts)
            np.add.at(gradient, layer.out, pull.sum(1) if pull.ndim == 2 else pull)
            np.add.at(gradient, layer.into, -(pull.sum(0) if pull.ndim == 2 else pull))
        return np.log(total), channels.T @ gradient / total

    z = start
    for p in (10, 100, 1000, 10000):
        found = optimize.minimize(
            objective, z, (p,), jac=True, method="L-BFGS-B", options={"maxiter": 2000}
        )
        z = found.x
    assert len(z) == n
    return noise(layers, channels, z)


@settings(max_examples=8)
@given(st.integers(0, 10**6), st.lists(st.integers(2, 6), min_size=3, max_size=5), st.booleans())
def test_the_minimum_is_that_of_a_general_minimiser(seed, widths, depthwise):
    layers, channels = chain(seed, widths, depthwise)
    found = minimise_noise(layers, channels)
    assert found.converged
    assert found.gap <= 1e-6 * found.value
    assert noise(layers, channels, found.log_scales) == pytest.approx(found.value, rel=1e-12)
    assert found.value <= min(found.before, found.equalised)
    smoothed = by_smoothing(layers, channels, np.zeros(channels.shape[1]))
    assert found.value <= smoothed * (1 + 1e-7)
    assert found.value >= smoothed * (1 - 0.01)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.1, 5))
def test_twins_have_one_minimum(seed, spread):
    layers, channels = chain(seed, [5, 8, 6, 4])
    z = np.random.default_rng(seed).normal(0, spread, channels.shape[1])
    one, other = (minimise_noise(each, channels) for each in (layers, moved(layers, channels, z)))
    assert other.value == pytest.approx(one.value, rel=1e-6)


@settings(max_examples=8)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 6), min_size=3, max_size=5),
    st.sampled_from(["as it is", "sharp", "without traces", "without weights"]),
)
def test_no_step_ends_before_the_minimum(seed, widths, kind):
    """A bound that says too much far from the minimum would end the way there."""
    layers, channels = chain(seed, widths)
    rng = np.random.default_rng(seed)
    for layer in layers:
        some = rng.random(layer.amounts.shape) < 0.4
        if kind == "without traces":
            layer.amounts[some] = 0
        if kind == "without weights":
            layer.logarithms[some] = -np.inf
    if kind == "sharp":
        layers = moved(layers, channels, rng.normal(0, 6, channels.shape[1]))
    near = minimise_noise(layers, channels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounding_noise, "_ROUNDS", 1)  # start where ranges are not equal
        far = minimise_noise(layers, channels)
    for found in (near, far):
        assert found.converged
        assert found.value - found.gap <= min(near.value, far.value)
    assert far.value == pytest.approx(near.value, rel=1e-6)


def test_nothing_lies_below_the_bound():
    layers, channels = chain(3, [6, 9, 5])
    found = minimise_noise(layers, channels)
    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 1e-1, 1.0):
        for _ in range(50):
            z = found.log_scales + size * rng.normal(size=channels.shape[1])
            assert noise(layers, channels, z) >= found.value - found.gap


def test_the_second_time_nothing_moves():
    layers, channels = chain(4, [6, 9, 5, 3])
    found = minimise_noise(layers, channels)
    again = minimise_noise(moved(layers, channels, found.log_scales), channels)
    assert not again.log_scales.any()
    assert again.value == pytest.approx(found.value, rel=1e-6)


def test_many_scales_are_solved_with_a_preconditioner(monkeypatch):
    layers, channels = chain(5, [8, 30, 25, 4])
    direct = minimise_noise(layers, channels)
    monkeypatch.setattr(strong_couplings, "_DENSE", 0)
    iterated = minimise_noise(layers, channels)
    assert iterated.converged
    assert iterated.value == pytest.approx(direct.value, rel=1e-6)


@pytest.mark.parametrize("dense", [True, False])
def test_singular_systems_are_solved_by_their_diagonals(monkeypatch, dense):
    def singular(*arguments, **options):
        raise RuntimeError("Factor is exactly singular")

    layers, channels = chain(5, [8, 12, 10, 4])
    expected = minimise_noise(layers, channels)
    module, name = (
        (strong_couplings.scipy.linalg, "cho_factor")
        if dense
        else (strong_couplings.linalg, "splu")
    )
    monkeypatch.setattr(strong_couplings, "_DENSE", 1000 if dense else 0)
    monkeypatch.setattr(module, name, singular)
    found = minimise_noise(layers, channels)
    assert found.value == pytest.approx(expected.value, rel=1e-4)
    assert found.value - found.gap <= expected.value * (1 + 1e-6)


def test_zero_weights_and_dead_units():
    layers, channels = chain(6, [5, 6, 5, 3])
    layers[0].logarithms[2] = -np.inf  # pruned: the unit has no inputs
    layers[1].logarithms[:, 4] = -np.inf  # nothing comes out
    layers[1].amounts[3] = 0  # and here the loss does not care
    found = minimise_noise(layers, channels)
    assert found.converged
    assert abs(found.log_scales).max() < 50
    assert np.isfinite(found.log_scales).all()
    assert found.value <= min(found.before, found.equalised)


def listed(layers, channels):
    """Return amounts, logarithms and exponents of all entries, with the maxima as variables."""
    rows, n = channels.toarray(), channels.shape[1]
    amounts, logarithms, exponents = [], [], []
    for number, layer in enumerate(layers):
        for place in np.ndindex(layer.amounts.shape):
            v = np.zeros(n + len(layers))
            v[:n] = rows[layer.out[place[0]]] - rows[layer.into[place[-1]]]
            v[n + number] = -1
            amounts.append(layer.amounts[place])
            logarithms.append(layer.logarithms[place])
            exponents.append(v)
    return np.array(amounts), np.array(logarithms), np.array(exponents)


def test_layers_with_maxima_are_sums_of_exponentials_under_inequalities():
    layers, channels = chain(7, [3, 4, 3, 2], depthwise=True)
    layers[0].logarithms[1, 2] = -np.inf
    own, ends = with_maxima(layers, channels)
    x = np.random.default_rng(0).normal(size=ends.shape[1])
    amounts, logarithms, exponents = listed(layers, channels)
    terms = Terms([layer.part() for layer in own], ends)
    expected = amounts * np.exp(-2 * exponents @ x)
    assert terms.at(x).value == pytest.approx(expected.sum(), rel=1e-12)
    limits = Limits(own, ends)
    slack = -(logarithms + exponents @ x)
    for within in (-1.0, 0.5, 3.0):
        near = limits.near(x, within)
        np.testing.assert_array_equal(near, np.flatnonzero(slack < within))
        a, b, J = limits.of(near)
        np.testing.assert_array_equal(a, amounts[near])
        np.testing.assert_allclose(-(b + J @ x), slack[near], atol=1e-12)
    np.testing.assert_array_equal(limits.growing(x, 0.5), np.flatnonzero(exponents @ x > 0.5))
    first = limits.first(x)
    assert np.isfinite(slack[first]).all()
    start = 0
    for layer in layers:
        numbers = start + np.arange(layer.amounts.size).reshape(layer.amounts.shape)
        for line in (*numbers, *numbers.T) if numbers.ndim == 2 else numbers:
            line = np.atleast_1d(line)
            assert line[np.argmin(slack[line])] in first
        start += layer.amounts.size


@pytest.mark.parametrize("dense", [True, False])
def test_approximate_inverses_are_positive_and_no_larger_than_the_inverse(monkeypatch, dense):
    monkeypatch.setattr(strong_couplings, "_DENSE", 1000 if dense else 0)
    layers, channels = chain(7, [3, 12, 9, 2], depthwise=True)
    own, ends = with_maxima(layers, channels)
    terms = Terms([layer.part() for layer in own], ends)
    x = np.random.default_rng(0).normal(size=ends.shape[1])
    flows = terms.at(x)
    others = sparse.csr_array(np.diag(np.random.default_rng(1).random(len(x))))
    amounts, _, exponents = listed(layers, channels)
    hessian = 4 * (exponents.T * (amounts * np.exp(-2 * exponents @ x))) @ exponents
    hessian += others.toarray()
    solve = approximate_inverse(terms, flows.curvature, others)
    inverse = np.stack([solve(unit) for unit in np.eye(len(x))])
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-9 * abs(inverse).max())
    values = np.linalg.eigvals(inverse @ hessian).real
    assert values.min() > 0
    assert values.max() < 1 + 1e-6
    if dense:
        np.testing.assert_allclose(inverse @ hessian, np.eye(len(x)), atol=1e-6)


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 8), min_size=3, max_size=6))
def test_what_the_loss_does_not_see_hides_nothing_of_the_rest(seed, widths):
    """Half of the traces are 0: some terms vanish in the infimum, others are not there."""
    layers, channels = chain(seed, widths)
    rng = np.random.default_rng(seed)
    for layer in layers:
        layer.amounts[rng.random(layer.amounts.shape) < 0.5] = 0
    found = minimise_noise(layers, channels)
    assert found.converged
    assert noise(layers, channels, found.log_scales) == pytest.approx(found.value, rel=1e-12)
    assert abs(found.log_scales).max(initial=0) < 50


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_equalised_units_have_equal_ranges(seed):
    layers, channels = chain(seed, [4, 5, 6, 3])
    z = equalise(layers, channels)
    after = moved(layers, channels, z)
    for one, other in itertools.pairwise(after):
        np.testing.assert_allclose(one.logarithms.max(1), other.logarithms.max(0), atol=1e-6)
