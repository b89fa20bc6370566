"""The demonstration's records: every copy computes one function, whatever its trace."""

import itertools

import numpy as np
import pytest

from flattest.commands.demonstration import (
    INIT_SCALES,
    N_RESCALED,
    SHARPENINGS,
    Record,
    compare_interpolators,
    interpolator_names,
    rank_correlations,
    real_tables,
)

SMALL = {"n_samples": 60, "n_features": 5, "width": 40}


@pytest.fixture(scope="module")
def groups() -> list[list[Record]]:
    return list(itertools.islice(compare_interpolators(**SMALL), 3))


def test_names_come_in_the_order_announced(groups: list[list[Record]]) -> None:
    names = interpolator_names()
    assert len(names) == len(set(names)) == 1 + len(INIT_SCALES)
    assert [group[0].network for group in groups] == names[:3]
    assert all(group[0].found and not any(r.found for r in group[1:]) for group in groups)


def test_copies_share_the_function_and_the_orbit_minimum(groups: list[list[Record]]) -> None:
    for group in groups:
        found = group[0]
        for record in group:
            assert record.orbit_minimum == pytest.approx(found.orbit_minimum, rel=1e-9)
            assert record.test_error == pytest.approx(found.test_error, rel=1e-6, abs=1e-24)
            assert record.train_error < 1e-8
            assert record.trace >= record.orbit_minimum * (1 - 1e-9)
            assert record.lower_bound <= record.orbit_minimum


def test_the_flattest_network_is_flat_and_its_copies_are_sharp(
    groups: list[list[Record]],
) -> None:
    flattest = groups[0]
    assert len(flattest) == 1 + len(SHARPENINGS) + N_RESCALED
    assert flattest[0].trace == pytest.approx(flattest[0].orbit_minimum)
    assert flattest[0].test_error < 1e-20
    for record, factor in zip(flattest[1:], SHARPENINGS, strict=False):
        assert record.trace >= factor * flattest[0].trace
    rescaled = [r.trace for group in groups for r in group if r.copy.startswith("rescaled")]
    assert len(rescaled) == 3 * N_RESCALED
    assert min(rescaled) > 9e3
    assert max(rescaled) < 1.1e8


def test_the_orbit_minimum_orders_the_networks(groups: list[list[Record]]) -> None:
    correlations = rank_correlations([record for group in groups for record in group])
    assert correlations["orbit_minimum"] == pytest.approx(1.0)
    assert abs(correlations["trace"]) < 0.7


def test_the_same_seed_gives_the_same_records(groups: list[list[Record]]) -> None:
    again = next(compare_interpolators(**SMALL))
    assert [r.trace for r in again] == [r.trace for r in groups[0]]


def test_the_real_tables_are_whole() -> None:
    for table, target in real_tables().values():
        assert target in table
        assert np.isfinite(table.to_numpy(dtype=float)).all()
