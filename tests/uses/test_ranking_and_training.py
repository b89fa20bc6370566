"""Ranking and training: tiny trials, verdicts on records whose answer is known, figures."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flattest.uses import ranking, ranking_mlps, ranking_transformers, training
from flattest.uses.digits import split
from flattest.uses.measures import MEASURES, measures, noisy_error
from flattest.uses.networks import initialised, mlp
from flattest.uses.trajectories import point


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw less often than the study does: outcomes here are far from their thresholds."""
    monkeypatch.setattr("flattest.study.verdict._RESAMPLES", 200)
    monkeypatch.setattr("flattest.uses.rank_correlation.N_PERMUTATIONS", 9)


PARTS = {"ranking": ranking_mlps, "transformers": ranking_transformers}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_trial_depends_on_settings_and_seed_alone(
    part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flattest.uses.measures.N_MEASURED", 12)
    factors = {**part.FACTORS, "n_samples": (30, 40), "width": (4, 6), "depth": (1, 1)}
    monkeypatch.setattr(part, "FACTORS", factors)
    settings = part.Settings(position=2, epochs=1)
    record = part.trial(settings, 3)
    assert record == part.trial(settings, 3)
    assert set(MEASURES) | set(factors) <= set(record)
    assert all(np.isfinite(record[name]) for name in MEASURES)
    assert record["turned"] == point(factors, 2, 3)[1]
    assert record["minimum_over_groups"] <= record["minimum_over_scales"] * (1 + 1e-9)
    assert record["minimum_over_scales"] < record["trace"]


def test_measures_are_those_of_their_definitions() -> None:
    data = split(30, 0, label_noise=0.2)
    net = initialised(lambda: mlp(6, 1), 0).double().eval()
    found = measures(net, data, label_noise=0.2, groups=False, random_state=0)
    parameters = list(net.parameters())
    gradients = []
    with torch.no_grad():
        logits = net(data.X)
    for index in range(len(data.X)):  # the Fisher matrix, from its definition
        z = net(data.X[index : index + 1])[0]
        p = z.softmax(0).detach()
        for c in range(10):
            g = torch.autograd.grad(-z.log_softmax(0)[c], parameters, retain_graph=True)
            gradients.append(
                (p[c] / len(data.X)).sqrt() * torch.cat([part.flatten() for part in g])
            )
    G = torch.stack(gradients)
    assert found["trace"] == pytest.approx(float(G.square().sum()))
    largest = float(torch.linalg.matrix_norm(G, 2)) ** 2
    assert found["largest_eigenvalue"] == pytest.approx(largest, rel=1e-3)
    theta = torch.cat([p.detach().flatten() for p in parameters])
    assert found["weight_norm"] == pytest.approx(float(theta @ theta))
    assert found["fisher_rao"] == pytest.approx(float((G @ theta).square().sum()))
    assert found["adaptive"] == pytest.approx(float((G * theta).square().sum()))
    margins = [
        float(z[y] - z[[c for c in range(10) if c != y]].max())
        for z, y in zip(logits, data.y, strict=True)
    ]
    assert found["small_margin"] == pytest.approx(-float(np.quantile(margins, 0.1)))
    wrong = float((logits.argmax(1) != data.y).double().mean())
    assert found["train_error"] == pytest.approx(wrong)
    assert found["gap"] == pytest.approx(noisy_error(found["test_error"], 0.2) - wrong)


def test_the_error_on_noisy_labels_is_what_drawing_them_gives() -> None:
    rng = np.random.default_rng(0)
    n, noise, error = 400_000, 0.3, 0.25
    labels = rng.integers(10, size=n)
    predicted = np.where(rng.random(n) < error, (labels + rng.integers(1, 10, n)) % 10, labels)
    noisy = np.where(rng.random(n) < noise, (labels + rng.integers(1, 10, n)) % 10, labels)
    assert float((predicted != noisy).mean()) == pytest.approx(noisy_error(error, noise), abs=4e-3)


def ranked(weights: dict[str, float], n_trajectories: int = 10) -> pd.DataFrame:
    """Draw networks whose measures follow the gap, or run against it, as told."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_trajectories):
        for position in range(len(ranking_mlps.FACTORS) + 1):
            levels, turned = point(ranking_mlps.FACTORS, position, seed)
            gap = float(np.exp(rng.normal()))
            row: dict[str, Any] = {
                name: float(np.exp(weights.get(name, 0.0) * np.log(gap) + rng.normal()))
                for name in MEASURES
            }
            rows.append(
                {"seed": seed, "position": position, **levels, "turned": turned, **row, "gap": gap}
            )
    frame = pd.DataFrame(rows)
    return frame.assign(train_error=0.02 * (frame["position"] % 2), test_error=-frame["gap"])


def test_rankings_are_judged_by_their_records() -> None:
    good = ranked({"minimum_over_groups": 4.0, "minimum_over_scales": 1.0, "trace": 0.5})
    found = ranking.verdicts(good)
    assert [verdict.outcome for verdict in found] == ["holds"] * 7
    bad = ranked(dict.fromkeys(MEASURES, 3.0) | {"minimum_over_groups": -1.0})
    found = ranking.verdicts(bad)
    assert [verdict.outcome for verdict in found] == ["fails"] * 7
    alike = good.assign(minimum_over_groups=good["minimum_over_scales"])
    assert len(ranking.verdicts(alike)) == 6  # without groups there is nothing to compare
    assert all("scales" in verdict.statement for verdict in ranking.verdicts(alike)[2:])


def test_the_table_has_every_measure_with_its_intervals() -> None:
    records = ranked({"minimum_over_groups": 4.0, "train_loss": -2.0}, n_trajectories=6)
    table = ranking_mlps.CLAIM.table(records).set_index("measure")
    assert list(table.index) == list(MEASURES.values())
    row = table.loc["orbit minimum, all groups"]
    assert row["tau, low"] <= row["tau"] <= row["tau, high"]
    assert row["within, low"] > 0.3
    assert row["conditional information"] > row["by chance"]
    assert table.loc["training loss", "tau"] < -0.5
    assert row["tau, test error"] == pytest.approx(-row["tau"])
    fitted = records[records["train_error"] == 0]
    assert f"tau, {len(fitted)} fitted" in table.columns


def test_figures_of_whole_and_of_partial_records() -> None:
    records = ranked({"trace": 1.0})
    for rows in (records, records[records["seed"] == 0]):
        ranking.figure(rows).draw_without_rendering()


TINY = {"steps": 6, "n_samples": 40, "width": 6, "depth": 2, "batch_size": 8}


@functools.cache
def plain_training() -> dict[str, Any]:
    return training.trial(training.Settings("sgd", **TINY), 0)


@pytest.mark.parametrize("method", training.METHODS)
def test_training_starts_alike_and_goes_its_own_way(method: str) -> None:
    record = training.trial(training.Settings(method, **TINY), 0)
    plain = plain_training()
    assert record["trace_0"] == plain["trace_0"]
    assert record["orbit_minimum"] < record["trace"]
    assert record["trace"] == record["trace_6"]
    assert (record == plain) == (method == "sgd")


def test_another_seed_is_another_training() -> None:
    assert training.trial(training.Settings("sgd", **TINY), 1) != plain_training()


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method must be one of sgd, label_noise"):
        training.trial(training.Settings("adam", **TINY), 0)


@pytest.mark.parametrize("method", training.METHODS)
def test_a_step_is_that_of_its_definition(method: str) -> None:
    settings = training.Settings(method, noise=0.0, radius=0.2, decay=0.3, learning_rate=0.5)
    net, reference = (initialised(lambda: mlp(5, 1), 0).double() for _ in range(2))
    X, targets = split(7, 0).X, torch.eye(10, dtype=torch.float64)[:7]
    training._step(net, X, targets, settings, torch.Generator().manual_seed(0))

    def loss() -> torch.Tensor:
        return ((reference(X) - targets) ** 2).sum() / 14

    parameters = list(reference.parameters())
    start = [p.detach().clone() for p in parameters]
    gradients = torch.autograd.grad(loss(), parameters)
    if method == "sam":
        norm = sum(float((g**2).sum()) for g in gradients) ** 0.5
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p += 0.2 * g / norm
        gradients = torch.autograd.grad(loss(), parameters)
    decay = 0.3 if method == "weight_decay" else 0.0
    for p, before, g in zip(net.parameters(), start, gradients, strict=True):
        torch.testing.assert_close(p.detach(), before - 0.5 * (g + decay * before))


def trained_records(trace: float, minimum: float, error: float) -> pd.DataFrame:
    rows = []
    for cell in training.CLAIM.quick.settings:
        for seed in range(6):
            factors = (1.0, 1.0, 0.0) if cell.method == "sgd" else (trace, minimum, error)
            values = {
                "trace": 10.0 * factors[0] * (1 + 0.01 * seed),
                "orbit_minimum": 8.0 * factors[1],
                "train_loss": 0.1,
                "test_error": 0.05 + factors[2],
            }
            row = {
                f"{name}_{step}": value
                for name, value in values.items()
                for step in training.checkpoints(cell.steps)
            }
            rows.append({**dataclasses.asdict(cell), "seed": seed, **row, **values})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("trace", "minimum", "error", "outcomes"),
    [
        (0.5, 0.5, -0.01, ["holds", "holds", "holds"]),
        (0.5, 0.95, 0.01, ["holds", "fails", "fails"]),
        (1.0, 0.7, 0.01, ["fails", "holds", "fails"]),
    ],
)
def test_training_is_judged_by_its_records(
    trace: float, minimum: float, error: float, outcomes: list[str]
) -> None:
    records = trained_records(trace, minimum, error)
    assert [verdict.outcome for verdict in training.verdicts(records)] == outcomes * 3
    assert list(training.table(records)["method"]) == list(training.METHODS.values())
    for rows in (records, records[records["method"] == "sam"], records.iloc[:1]):
        training.figure(rows).draw_without_rendering()
        assert all(isinstance(verdict.outcome, str) for verdict in training.verdicts(rows))


def test_designs_have_networks_enough() -> None:
    mlps, transformers = (part.CLAIM for part in PARTS.values())
    assert len(mlps.full.settings) * mlps.full.n_seeds >= 60
    assert len(transformers.full.settings) * transformers.full.n_seeds >= 40
    assert min(claim.quick.n_seeds for claim in (mlps, transformers, training.CLAIM)) >= 5
