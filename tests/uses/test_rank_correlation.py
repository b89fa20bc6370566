"""Rank correlations beside slow, independent computations, and how often their intervals hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from flattest.study import judge
from flattest.uses.rank_correlation import (
    by_axis,
    conditional_information,
    overall,
    within_axes,
)
from flattest.uses.trajectories import point

FACTORS = {"width": (1, 2), "depth": (1, 3), "rate": (0.1, 0.5)}


def networks(n_trajectories: int, seed: int, strength: float = 1.0) -> pd.DataFrame:
    """Draw networks on trajectories whose gap depends on the levels, the measure, and chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for trajectory in range(n_trajectories):
        common = rng.normal()
        for position in range(len(FACTORS) + 1):
            levels, turned = point(FACTORS, position, 1000 * seed + trajectory)
            measure = levels["width"] + levels["depth"] + rng.normal()
            gap = strength * measure + 0.5 * common + rng.normal()
            row = {**levels, "turned": turned, "measure": round(measure, 1), "gap": round(gap, 1)}
            rows.append({"seed": trajectory, "position": position, **row})
    return pd.DataFrame(rows)


@given(st.integers(2, 6), st.integers(0, 500))
def test_tau_is_that_of_scipy_for_every_resample(n_trajectories: int, seed: int) -> None:
    rows = networks(n_trajectories, seed)
    tau = overall(rows, "measure")
    rng = np.random.default_rng(seed)
    for chosen in (np.arange(n_trajectories), rng.integers(n_trajectories, size=n_trajectories)):
        drawn = pd.concat([rows[rows["seed"] == one] for one in chosen])
        expected = stats.kendalltau(drawn["measure"], drawn["gap"]).statistic
        assert tau(chosen) == pytest.approx(expected, abs=1e-12)


def slow_within(rows: pd.DataFrame, chosen: np.ndarray) -> float:
    products: dict[str, list[float]] = {}
    for one in chosen:
        of_seed = rows[rows["seed"] == one]
        for first, second in itertools.combinations(of_seed.to_dict("records"), 2):
            differing = [name for name in FACTORS if first[name] != second[name]]
            if len(differing) == 1 and abs(first["position"] - second["position"]) == 1:
                signs = (np.sign(second[name] - first[name]) for name in ("measure", "gap"))
                products.setdefault(differing[0], []).append(math.prod(signs))
    return float(np.mean([np.mean(values) for values in products.values()]))


@given(st.integers(1, 5), st.integers(0, 500))
def test_within_axes_is_a_mean_over_axes_of_pairs_that_differ_in_one(
    n_trajectories: int, seed: int
) -> None:
    rows = networks(n_trajectories, seed)
    shuffled = rows.sample(frac=1, random_state=seed)
    psi = within_axes(shuffled, "measure")
    rng = np.random.default_rng(seed)
    for chosen in (np.arange(n_trajectories), rng.integers(n_trajectories, size=n_trajectories)):
        assert psi(chosen) == pytest.approx(slow_within(rows, chosen), abs=1e-12)
    assert by_axis(rows, "measure").mean() == pytest.approx(psi(np.arange(n_trajectories)))


def test_a_missing_network_takes_its_pairs_with_it() -> None:
    rows = networks(3, 0)
    without = rows[~((rows["seed"] == 1) & (rows["position"] == 1))]
    pairs = without[without["seed"] != 1]
    last = rows[(rows["seed"] == 1) & (rows["position"] >= 2)]
    expected = slow_within(pd.concat([pairs, last]), np.arange(3))
    assert within_axes(without, "measure")(np.arange(3)) == pytest.approx(expected)


def slow_information(rows: pd.DataFrame) -> float:
    """Go through all ordered pairs, with the marginal laws estimated as well."""
    records = rows.to_dict("records")
    least = math.inf
    for size in range(3):
        for names in itertools.combinations(FACTORS, size):
            tables: dict[tuple[float, ...], np.ndarray] = {}
            for first, second in itertools.permutations(records, 2):
                if any(first[name] != second[name] for name in names):
                    continue
                x, y = (np.sign(first[name] - second[name]) for name in ("measure", "gap"))
                if x and y:
                    level = tuple(first[name] for name in names)
                    table = tables.setdefault(level, np.zeros((2, 2)))
                    table[int(x > 0), int(y > 0)] += 1
            total = sum(table.sum() for table in tables.values())
            information = entropy = 0.0
            for table in tables.values():
                p = table / table.sum()
                px, py = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
                share = table.sum() / total
                some = p > 0
                information += share * float((p[some] * np.log((p / (px * py))[some])).sum())
                entropy -= share * float((py * np.log(py)).sum())
            if total:
                least = min(least, information / entropy)
    return least


@given(st.integers(2, 5), st.integers(0, 500))
def test_conditional_information_is_that_of_all_ordered_pairs(
    n_trajectories: int, seed: int
) -> None:
    rows = networks(n_trajectories, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flattest.uses.rank_correlation.N_PERMUTATIONS", 3)
        found, _ = conditional_information(rows, "measure", list(FACTORS))
    assert found == pytest.approx(slow_information(rows), abs=1e-12)


def test_information_of_the_gap_itself_is_all_and_of_what_is_unrelated_within_chance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flattest.uses.rank_correlation.N_PERMUTATIONS", 39)
    rows = networks(8, 1).assign(gap=lambda frame: frame["gap"] + 1e-3 * np.arange(len(frame)))
    itself, chance = conditional_information(rows, "gap", list(FACTORS))
    assert itself == pytest.approx(1)
    assert 0 < chance < 0.3
    below = []
    for seed in range(20):
        unrelated = networks(6, seed, strength=0.0)
        unrelated["gap"] = np.random.default_rng(seed).normal(size=len(unrelated))
        found, chance = conditional_information(unrelated, "measure", list(FACTORS))
        below.append(found <= chance)
    assert sum(below) >= 16


def test_an_ordering_that_is_right_or_reversed() -> None:
    rows = networks(4, 2).assign(measure=lambda frame: frame["gap"])
    rows["gap"] += 1e-3 * np.arange(len(rows))
    rows["measure"] = rows["gap"]
    seeds = np.arange(4)
    assert overall(rows, "measure")(seeds) == pytest.approx(1)
    assert within_axes(rows, "measure")(seeds) == pytest.approx(1)
    rows["measure"] = -rows["gap"]
    assert overall(rows, "measure")(seeds) == pytest.approx(-1)
    rows["measure"] = 1.0
    assert math.isnan(overall(rows, "measure")(seeds))
    assert within_axes(rows, "measure")(seeds) == 0


@pytest.mark.slow
def test_how_often_intervals_hold_what_many_trajectories_say() -> None:
    truth = overall(networks(500, 10_000), "measure")(np.arange(500))
    covered = 0
    for seed in range(200):
        rows = networks(8, seed)
        seeds = pd.Series(np.unique(rows["seed"]), dtype=float)
        found = judge("", "", seeds, "at least", 0.0, overall(rows, "measure"))
        covered += found.low <= truth <= found.high
    assert 160 <= covered <= 199  # of 200: intervals of eight draws are a little too narrow
