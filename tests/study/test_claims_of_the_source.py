"""The claims of the source: pure trials, verdicts that can fail, figures of partial records."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats

from flattest.figures import save_figure
from flattest.interpolators import interpolate
from flattest.study import CLAIMS
from flattest.study.claims import claim1, claim2, robustness

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

TINY: dict[ModuleType, list[Any]] = {
    claim1: [
        claim1.Settings(name, width, n_samples=40, n_features=4, zoo_width=40)
        for name, width in (("flattest", 40), (claim1.BLIND, 40), ("random features", 80))
    ],
    claim2: [
        claim2.Settings(method, n_samples=n, n_features=4, width=2 * n)
        for method in ("flattest", "random_features")
        for n in (12, 40)
    ],
    robustness: [
        robustness.Settings(noise, error, n_samples=16, n_features=3, width=24)
        for noise, error in ((0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.1, 0.1), (0.3, 0.0))
    ],
}


@pytest.fixture(scope="module", autouse=True)
def short_searches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in TINY:
            patch.setattr(module, "interpolate", functools.partial(interpolate, max_iter=30))
        yield


@pytest.fixture(scope="module")
def records() -> dict[ModuleType, pd.DataFrame]:
    return {
        module: pd.DataFrame(
            [
                {**dataclasses.asdict(settings), "seed": seed, **module.trial(settings, seed)}
                for settings in cells
                for seed in (0, 1)
            ]
        )
        for module, cells in TINY.items()
    }


@pytest.mark.parametrize("module", TINY, ids=lambda module: module.__name__)
def test_a_trial_depends_on_its_settings_and_seed_alone(
    module: ModuleType, records: dict[ModuleType, pd.DataFrame]
) -> None:
    settings = TINY[module][-1]
    again = module.trial(settings, 1)
    earlier = records[module].iloc[-1]
    assert all(earlier[name] == value for name, value in again.items())
    assert all(isinstance(value, str | int | float | bool) for value in again.values())
    assert module.trial(settings, 0) != again


@pytest.mark.parametrize("module", TINY, ids=lambda module: module.__name__)
def test_verdicts_and_figures_of_real_and_of_partial_records(
    module: ModuleType, records: dict[ModuleType, pd.DataFrame], tmp_path: Any
) -> None:
    whole = records[module]
    for rows in (whole, whole.iloc[:2], whole.iloc[3:], whole.iloc[:0]):
        verdicts = module.verdicts(rows)
        assert len(rows) < len(whole) or verdicts
        module.figure(rows).draw_without_rendering()
        assert isinstance(module.CLAIM.conclusion(rows), str)
    save_figure(module.figure(whole), tmp_path / "figure")


def test_designs_are_registered_and_large_enough() -> None:
    for module in TINY:
        claim = module.CLAIM
        assert CLAIMS[claim.name] is claim
        for design in (claim.quick, claim.full):
            assert design.n_seeds >= (10 if module is claim1 else 5)
            assert len(set(design.settings)) == len(design.settings)


def _zoo(bad_ratio: float, test_error: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            **dataclasses.asdict(claim1.Settings(network)),
            "seed": seed,
            "test_error": error,
            "ratio": ratio * (1 + 0.01 * rng.random()),
            "interpolates": interpolates,
        }
        for seed in range(10)
        for network, error, ratio, interpolates in (
            ("flattest", test_error, 1.0, True),
            ("random features", 0.1, 1.1, True),  # close, but it generalises
            ("slabs", 3.0, 50.0, True),
            (claim1.BLIND, 0.7, bad_ratio, True),
            ("sam", 5.0, 1.0, False),  # flat and bad, but it does not fit
        )
    ]
    return pd.DataFrame(rows)


def test_claim1_fails_where_a_bad_network_is_flat() -> None:
    outcomes = [verdict.outcome for verdict in claim1.verdicts(_zoo(8.0))]
    assert outcomes == ["holds"] * 5
    worst, median, generalises, closest, next_one = claim1.verdicts(_zoo(3.0, test_error=1e-3))
    assert {worst.outcome, median.outcome, generalises.outcome, closest.outcome} == {"fails"}
    assert worst.estimate == pytest.approx(3.0, rel=0.02)
    assert claim1.BLIND in closest.statement
    assert next_one.outcome == "holds"


def test_claim1_says_in_a_sentence_which_bad_network_comes_nearest() -> None:
    zoo = _zoo(3.0)
    here = (zoo["network"] == claim1.BLIND) & (zoo["seed"] == 4)
    zoo.loc[here, ["ratio", "test_error"]] = 2.0, 0.625
    flattest = float(zoo.loc[(zoo["network"] == "flattest") & (zoo["seed"] == 4), "ratio"].iloc[0])
    said = claim1.CLAIM.conclusion(zoo)
    first, second = said.split(". ")
    assert first.startswith("No network with a population loss above 0.5 has less than 1.9")
    assert float(first.split("less than ")[1].split()[0]) <= 2.0 / flattest
    assert f"the closest is '{claim1.BLIND}' at n = 400, d = 20, m = 200, in seed 4" in first
    assert first.endswith("with a population loss of 0.62")
    assert second.startswith("At n = 400, d = 20, m = 200 the closest in the median seed are")
    assert second.index(claim1.BLIND) < second.index("slabs")
    assert claim1.CLAIM.conclusion(zoo[zoo["test_error"] < 0.5]) == ""
    alone = zoo[zoo["network"] != "flattest"]
    assert claim1.CLAIM.conclusion(alone) == ""


def test_what_coincides_with_the_flattest_shows_inside_its_ring() -> None:
    zoo = _zoo(3.0)
    same = zoo[zoo["network"] == "flattest"].assign(network="least norm")
    axes = claim1.figure(pd.concat([zoo, same], ignore_index=True)).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    ring, inside = lines["flattest"], lines["least norm"]
    assert ring.get_markerfacecolor() == "none"
    assert inside.get_markerfacecolor() != "none"
    assert ring.get_markersize() > inside.get_markersize() + 2 * ring.get_markeredgewidth()


def test_the_blind_network_does_not_see_its_direction_and_fits_all_the_same() -> None:
    directions = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64)).Q.T
    seen = claim1._complement(directions)
    assert seen.shape == (5, 3)
    torch.testing.assert_close(seen.T @ seen, torch.eye(3, dtype=torch.float64))
    assert (directions @ seen).abs().max() < 1e-14
    record = claim1.trial(TINY[claim1][1], 0)
    assert record["interpolates"]
    assert record["test_error"] > 0.3  # a third of the variance lies along that direction


def _recovery(needed: dict[int, list[float]], method: str = "flattest") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **dataclasses.asdict(claim2.Settings(method, ratio * d, d)),
                "seed": seed,
                "test_error": 1e-20 if ratio >= threshold else 0.1,
            }
            for d, thresholds in needed.items()
            for seed, threshold in enumerate(thresholds)
            for ratio in (4, 6, 8, 10, 12)
        ]
    )


def test_claim2_reads_off_the_samples_that_recovery_takes() -> None:
    good = claim2.verdicts(_recovery({10: [6, 6, 6, 8, 6], 20: [6, 6, 8, 6, 6]}))
    assert [verdict.outcome for verdict in good] == ["holds", "holds", "holds"]
    assert (good[0].estimate, good[0].low, good[0].high) == (6, 6, 8)
    late = claim2.verdicts(_recovery({10: [6] * 5, 20: [math.inf] * 5, 40: [12] * 5}))
    assert [verdict.outcome for verdict in late] == ["holds", "fails", "fails", "fails"]
    assert late[1].estimate == math.inf


def test_claim2_says_from_how_many_samples_on() -> None:
    found = _recovery({10: [6, 6, 6, 8, 6], 20: [8, 8, 8, 6, 6], 40: [math.inf] * 5})
    assert claim2.CLAIM.conclusion(found) == (
        "In the median seed the flattest network is the model from n/d = 6 on for d = 10, from "
        "n/d = 8 on for d = 20 and at no n tried for d = 40."
    )
    assert claim2.CLAIM.conclusion(found.assign(method="min_norm")) == ""


def test_claim2_recovery_must_last_and_is_compared_at_shared_sizes() -> None:
    flattest = _recovery({20: [6] * 5})
    relapsed = (flattest["n_samples"] == 160) & (flattest["seed"] < 3)
    flattest.loc[relapsed, "test_error"] = 0.1
    assert claim2.verdicts(flattest)[0].estimate == 10
    other = _recovery({20: [4] * 5}, "min_norm")
    at_two = other[other["n_samples"].isin([80, 200])]
    for compared in (other, at_two):
        *_, verdict = claim2.verdicts(pd.concat([_recovery({20: [6] * 5}), compared]))
        assert verdict.outcome == "fails"
    slow = _recovery({20: [math.inf] * 5}, "random_features")
    *_, verdict = claim2.verdicts(pd.concat([_recovery({20: [6] * 5}), slow]))
    assert (verdict.outcome, verdict.estimate) == ("holds", 0)


def _disturbed(factor: float, exponent: float) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                **dataclasses.asdict(settings),
                "seed": seed,
                "population_loss": factor * (1 + 0.1 * seed) * size**exponent,
                "test_error": factor * size**exponent,
            }
            for settings in robustness._cells((0.01, 0.1, 1.0), "sin")
            for seed in range(5)
            for size in [math.hypot(settings.noise, settings.approximation_error)]
        ]
    )


def test_robustness_fails_where_the_loss_falls_slowly_or_is_large() -> None:
    assert [v.outcome for v in robustness.verdicts(_disturbed(2.0, 2.0))] == ["holds"] * 5
    slow = [v.outcome for v in robustness.verdicts(_disturbed(2.0, 1.0))]
    assert slow == ["holds", "fails", "fails", "fails", "fails"]
    large = [v.outcome for v in robustness.verdicts(_disturbed(20.0, 2.0))]
    assert large == ["holds"] * 4 + ["fails"]


def test_robustness_says_how_large_the_loss_is_and_where() -> None:
    rows = _disturbed(2.0, 2.0)
    worst = rows[(rows["noise"] == 0.1) & (rows["approximation_error"] == 0)].index[3]
    rows.loc[worst, "population_loss"] = 0.07
    said = robustness.CLAIM.conclusion(rows)
    assert "is 2.4 in the median trial, and 7 in the worst: noise 0.1, approximation" in said
    assert said.endswith("approximation error 0, seed 3.")
    assert robustness.CLAIM.conclusion(rows[rows["noise"] > 1e9]) == ""


@pytest.mark.parametrize("name", ["sin", "tanh", "hermite2", "quadratic", "step"])
def test_the_remainder_has_size_1_and_no_homogeneous_part(name: str) -> None:
    rest = robustness.remainder(name)

    def mean(weight: Any) -> float:
        z = np.linspace(0, 12, 200_001)
        values = [
            rest(torch.from_numpy(side * z)).numpy() * weight(side * z) * stats.norm.pdf(z)
            for side in (1, -1)
        ]
        return float(sum(integrate.simpson(value, x=z) for value in values))

    def square(z: np.ndarray) -> np.ndarray:
        return rest(torch.from_numpy(z)).numpy()

    assert mean(square) == pytest.approx(1, abs=1e-3 if name == "step" else 1e-9)
    assert abs(mean(lambda z: np.maximum(z, 0))) < 1e-9
    assert abs(mean(lambda z: np.maximum(-z, 0))) < 1e-9


def test_what_is_left_of_an_odd_link_is_orthogonal_to_relus_of_every_direction() -> None:
    rest = robustness.remainder("sin")
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((400_000, 2)))
    for angle in (0.3, 1.0, 2.5):
        products = rest(z[:, 0]) * torch.relu(z @ z.new_tensor([math.cos(angle), math.sin(angle)]))
        assert abs(products.mean()) < 4 * products.std() / len(z) ** 0.5


def test_a_homogeneous_link_leaves_nothing() -> None:
    with pytest.raises(ValueError, match="component 'abs' is homogeneous"):
        robustness.remainder("abs")
