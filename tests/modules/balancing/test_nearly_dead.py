"""Nearly dead units: told by what scales do not change, and moved only where staying costs."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scaled_layers import chain, moved

from flattest.modules.balancing.equalisation import equalise
from flattest.modules.balancing.nearly_dead import equalise_others, leave_alone
from flattest.modules.balancing.rounding_noise import minimise_noise, noise

WIDTHS = [5, 9, 7, 4]
FAINT = (2, 10)
"""A unit of either hidden layer."""


def with_faint_units(seed, size=1e-12):
    """Make two units nearly dead: gradients on either side go with the weights on the other."""
    layers, channels = chain(seed, WIDTHS)
    for unit in FAINT:
        for layer in layers:
            own = (layer.out == 1 + unit)[:, None] | (layer.into == 1 + unit)
            layer.amounts[own] *= size**2
            layer.logarithms[own] += np.log(size)
    return layers, channels


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_they_stay_and_twins_agree(seed):
    layers, channels = with_faint_units(seed)
    found = minimise_noise(layers, channels)
    assert found.converged
    assert np.flatnonzero(found.left_alone).tolist() == list(FAINT)
    assert not found.log_scales[list(FAINT)].any()
    assert noise(layers, channels, found.log_scales) == found.value
    z = np.random.default_rng(seed).normal(0, 3, channels.shape[1])
    twin = minimise_noise(moved(layers, channels, z), channels)
    assert twin.value == pytest.approx(found.value, rel=1e-6)
    assert np.flatnonzero(twin.left_alone).tolist() == list(FAINT)
    assert not twin.log_scales[list(FAINT)].any()
    again = minimise_noise(moved(layers, channels, found.log_scales), channels)
    assert not again.log_scales.any()
    assert (again.left_alone == found.left_alone).all()


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_ranges_of_all_others_are_equalised(seed):
    layers, channels = with_faint_units(seed)
    z, alone = equalise_others(layers, channels, 1e-9, 1e-8)
    assert np.flatnonzero(alone).tolist() == list(FAINT)
    assert not z[list(FAINT)].any()
    others = np.flatnonzero(~alone)
    np.testing.assert_allclose(z[others], equalise(layers, channels)[others], atol=1e-6)
    again, still = equalise_others(moved(layers, channels, z), channels, 1e-9, 1e-8)
    assert not again.any()
    assert (still == alone).all()


@pytest.mark.parametrize("direction", [-1, 1])
def test_where_staying_costs_they_are_moved(direction):
    layers, channels = with_faint_units(0)
    expected = minimise_noise(layers, channels).value
    z = np.zeros(channels.shape[1])
    z[FAINT[0]] = direction * 40  # now its weights are the largest of their layer
    sharp = moved(layers, channels, z)
    found = minimise_noise(sharp, channels)
    assert found.before > 1e6 * expected
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.log_scales[FAINT[0]] * direction < -5
    assert np.flatnonzero(found.left_alone).tolist() == [FAINT[1]]
    again = minimise_noise(moved(sharp, channels, found.log_scales), channels)
    assert not again.log_scales.any()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(1e-9, 1), st.floats(0, 10), st.floats(1e-10, 1e-2))
def test_it_costs_no_more_than_allowed(seed, size, spread, allowed):
    layers, channels = with_faint_units(seed, size)
    z = np.random.default_rng(seed).normal(0, spread, channels.shape[1])
    stayed, alone = leave_alone(layers, channels, z, allowed)
    before, after = (noise(layers, channels, each) for each in (z, stayed))
    assert after <= before * (1 + allowed)
    for one, other in zip(moved(layers, channels, z), moved(layers, channels, stayed), strict=True):
        assert other.logarithms.max() <= one.logarithms.max() + 1e-9
    assert not stayed[alone].any()
    assert (stayed[~alone] == z[~alone]).all()


def test_units_without_weights_are_idle():
    layers, channels = chain(0, WIDTHS)
    layers[0].logarithms[3] = layers[1].logarithms[:, 3] = -np.inf
    layers[0].amounts[3] = layers[1].amounts[:, 3] = 0
    found = minimise_noise(layers, channels)
    assert np.flatnonzero(found.left_alone).tolist() == [3]
    assert found.log_scales[3] == 0
    _, alone = equalise_others(layers, channels, 1e-9, 1e-8)
    assert np.flatnonzero(alone).tolist() == [3]
