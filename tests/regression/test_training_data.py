"""Distinct rows of a data set, and parts of it."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from flattest.regression.training_data import Rows


def _given(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows of which many are equal, and some do not count."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 20))
    X, y = rng.integers(0, 3, (n, 2)).astype(float), rng.integers(0, 2, n).astype(float)
    weight = rng.integers(0, 4, n).astype(float)
    weight[0] = 1.0
    return X, y, weight


@given(seed=st.integers(0, 10_000))
def test_a_part_is_what_its_rows_alone_would_be(seed: int) -> None:
    X, y, weight = _given(seed)
    rows = Rows.of(X, y, weight)
    index = np.flatnonzero(np.random.default_rng(seed + 1).random(len(y)) < 0.6)
    part = rows.part(index)
    if not weight[index].any():
        assert part is None
        return
    expected = Rows.of(X[index], y[index], weight[index])
    for found, wanted in zip(part[:-1], expected[:-1], strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(part.X, rows.X[part.place])


@given(seed=st.integers(0, 10_000))
def test_a_part_leaves_out_what_the_whole_leaves_out(seed: int) -> None:
    X, y, weight = _given(seed)
    rows = Rows.of(X, y, weight)
    left_out = np.random.default_rng(seed + 2).random(len(rows.y)) < 0.3
    if left_out.all():
        left_out[0] = False
    without = weight * ~left_out[rows.position]
    found = rows.without(left_out).part(np.arange(len(y)))
    expected = Rows.of(X, y, np.where(rows.position < 0, 0.0, without))
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-12)
    np.testing.assert_array_equal(found.position, expected.position)


def test_weights_have_mean_one() -> None:
    rows = Rows.of(
        np.array([[0.0], [1.0], [0.0]]), np.array([5.0, 6.0, 5.0]), np.array([1, 4, 2.0])
    )
    assert rows.weight.tolist() == pytest.approx([6 / 7, 8 / 7])
    assert rows.position.tolist() == [0, 1, 0]
