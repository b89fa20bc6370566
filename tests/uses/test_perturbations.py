"""Noise, rounding and bits by layer: tiny trials, verdicts on records whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from flattest.uses import mixed_precision, noise, rounding
from flattest.uses.divergence import change
from flattest.uses.networks import KINDS, Kind, cnn, mlp
from flattest.uses.versions import VERSIONS, flatness, version


@pytest.fixture(scope="module", autouse=True)
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(KINDS, "mlp", Kind("MLP", lambda: mlp(8, 2), 1e-2, 4))
        patch.setitem(KINDS, "cnn", Kind("CNN", lambda: cnn(2), 1e-2, 1))
        patch.setattr("flattest.uses.versions.N_MEASURED", 64)
        yield
    version.cache_clear()
    flatness.cache_clear()


def test_versions_have_one_function_and_the_traces_they_are_made_for() -> None:
    nets = {name: version("cnn", name, 0) for name in VERSIONS}
    X = nets["trained"].data.X_test[:50]
    expected = nets["trained"].net(X)
    trained = nets["trained"].net
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in trained.modules())
    assert all(parameter.requires_grad for parameter in trained.parameters())
    for found in nets.values():
        torch.testing.assert_close(found.net(X), expected, rtol=1e-7, atol=1e-7)
    traces = {name: flatness("cnn", name, 0).gauss_newton for name in VERSIONS}
    assert min(traces, key=lambda name: traces[name]) == "balanced"
    assert traces["sharpened"] > 5 * traces["trained"]
    with pytest.raises(ValueError, match="name must be one of trained"):
        version("cnn", "polished", 0)


def test_the_second_order_along_all_axes_adds_up_to_the_trace() -> None:
    found = version("mlp", "trained", 0)
    X, _ = found.samples
    sizes = {name: p for name, p in found.net.named_parameters() if name.startswith("5")}
    total = 0.0
    for name, parameter in sizes.items():
        for index in range(parameter.numel()):
            step = {n: torch.zeros_like(p) for n, p in found.net.named_parameters()}
            step[name].view(-1)[index] = 1.0
            total += noise.second_order(found.net, X, step)
    layers = {layer.name: layer for layer in flatness("mlp", "trained", 0).layers}
    assert sizes
    assert total == pytest.approx(0.5 * sum(layers[name].gauss_newton for name in sizes))


def test_small_noise_moves_the_predictions_as_the_trace_foretells() -> None:
    settings = noise.Settings("mlp", "sharpened", sigma=1e-5, n_pairs=4)
    record = noise.trial(settings, 0)
    assert record == noise.trial(settings, 0)
    assert record["divergence"] == pytest.approx(record["predicted"], rel=0.02)
    assert record["divergence_error"] < 0.02 * record["predicted"]
    assert noise.trial(settings, 1) != record
    large = noise.trial(dataclasses.replace(settings, state="trained", sigma=1.0), 0)
    assert large["lost_accuracy"] > 0.2


def test_a_known_second_order_changes_the_mean_by_nothing_and_the_spread_by_much() -> None:
    """Compare with plain means over many draws, on the same network and sigma."""
    settings = noise.Settings("mlp", "trained", sigma=0.02, n_pairs=6)
    record = noise.trial(settings, 0)
    found = version("mlp", "trained", 0)
    X, y = found.samples
    generator = torch.Generator().manual_seed(5)
    values = []
    with torch.no_grad():
        before = found.net(X)
        for _ in range(300):
            step = noise._draw(found.net, settings.sigma, generator)
            after = noise._moved(found.net, step, 1)(X)
            values.append(change(before, after, y).divergence)
    error = float(np.std(values) / np.sqrt(len(values)))
    spread = math.hypot(error, record["divergence_error"])
    assert abs(np.mean(values) - record["divergence"]) < 4 * spread
    assert record["divergence_error"] * math.sqrt(6) < 0.5 * np.std(values)


def noise_records(divergence: float, rise: float, gain: float) -> pd.DataFrame:
    rows = []
    for network in ("mlp", "cnn"):
        for state, factor, tolerated in (
            ("trained", 1.0, 0.01),
            ("sharpened", 20.0, 0.002),
            ("balanced", 0.5, 0.01 * gain),
        ):
            for sigma in noise.SIGMAS:
                for seed in range(6):
                    predicted = 0.5 * sigma**2 * 100 * factor
                    far = 5.0 if predicted > noise.SMALL else 1.0  # no verdict is about these
                    rows.append(
                        {
                            **dataclasses.asdict(noise.Settings(network, state, sigma)),
                            "seed": seed,
                            "trace": 100 * factor,
                            "predicted": predicted,
                            "divergence": far * divergence * predicted,
                            "rise": far * rise * predicted,
                            "lost_accuracy": noise.LOST * (sigma / tolerated) ** 2,
                        }
                    )
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("divergence", "rise", "gain", "outcomes"),
    [
        (1.1, 0.9, 1.5, "holds holds holds holds holds holds"),
        (1.3, 1.0, 1.5, "fails fails fails holds holds holds"),
        (0.9, 1.6, 1.0, "holds holds holds fails fails fails"),
    ],
)
def test_noise_is_judged_by_its_records(
    divergence: float, rise: float, gain: float, outcomes: str
) -> None:
    records = noise_records(divergence, rise, gain)
    found = noise.verdicts(records)
    assert [verdict.outcome for verdict in found] == outcomes.split()
    tolerated = noise.tolerance(records).set_index(["network", "state"])["tolerated"]
    np.testing.assert_allclose(tolerated.loc[("mlp", "trained")], 0.01, rtol=0.03)
    assert len(noise.table(records)) == 6
    reached = noise.reach(records).set_index(["network", "state"])["predicted"]
    if divergence == 1.1:  # beyond what is small, the records are five times as far off
        assert 0.3 * noise.SMALL < reached.loc[("cnn", "trained")].min()
        assert reached.max() <= noise.SMALL


def test_noise_that_never_costs_enough_has_no_tolerance() -> None:
    records = noise_records(1.0, 1.0, 1.5)
    assert noise.tolerance(records.assign(lost_accuracy=0.0))["tolerated"].isna().all()
    assert noise.tolerance(records.assign(lost_accuracy=1.0))["tolerated"].isna().all()


def test_rounding_to_many_bits_changes_little_and_depends_on_its_settings() -> None:
    many = rounding.trial(rounding.Settings("cnn", "equalised", bits=8, per_channel=True), 0)
    few = rounding.trial(rounding.Settings("cnn", "equalised", bits=3), 0)
    assert many["divergence"] < 0.1 * few["divergence"]
    assert many["agreement"] > 0.9
    corrected = rounding.trial(rounding.Settings("cnn", "equalised", bits=3, corrected=True), 0)
    assert corrected["divergence"] != few["divergence"]
    assert corrected["accuracy_before"] == few["accuracy_before"]


def rounding_records(**ratios: float) -> pd.DataFrame:
    """Make records whose divergences are products of the ratios of each choice."""
    rng = np.random.default_rng(0)
    rows = []
    for cell in rounding.CLAIM.quick.settings:
        for seed in range(6):
            scale = ratios.get(cell.state.replace("-", "_"), 1.0)
            if cell.per_channel:
                scale = 1 - ratios.get("moot", 1.0) * (1 - scale)
                scale *= ratios.get("channel", 1.0)
            scale *= ratios.get("corrected", 1.0) if cell.corrected else 1.0
            base = 10.0 ** (1 - cell.bits) * (1 + seed)
            value = base * scale * np.exp(0.01 * rng.normal())
            rows.append({**dataclasses.asdict(cell), "seed": seed, "divergence": value})
    return pd.DataFrame(rows).assign(accuracy=0.9, accuracy_before=0.95)


def test_rounding_is_judged_by_its_records() -> None:
    good = {"rounding_balanced": 0.5, "equalised": 0.7, "balanced": 0.8, "moot": 0.1}
    records = rounding_records(**good, channel=0.5, corrected=0.5)
    found = rounding.verdicts(records)
    assert [verdict.outcome for verdict in found] == ["holds"] * 8
    bad = {"rounding_balanced": 1.2, "equalised": 0.7, "balanced": 1.5}
    found = rounding.verdicts(rounding_records(**bad))
    outcomes = [verdict.outcome for verdict in found]
    assert outcomes == ["fails"] * 5 + ["holds", "fails", "fails"]
    assert found[0].estimate == pytest.approx(1.2, rel=0.02)
    assert {verdict.n_seeds for verdict in found} == {6}
    assert len(rounding.table(records)) == 3 * 4 * 2 * 2


def test_probes_are_unbiased_and_exact_traces_have_no_error() -> None:
    found = version("mlp", "trained", 0)
    traces = {layer.name: layer.gauss_newton for layer in flatness("mlp", "trained", 0).layers}
    drawn = pd.DataFrame([mixed_precision.probed(found, 10, seed) for seed in range(30)])
    assert set(drawn) == {name for name in traces if name.endswith("weight")}
    errors = (drawn.mean() - pd.Series(traces)[drawn.columns]) / (drawn.std() / math.sqrt(30))
    assert errors.abs().max() < 4
    exact = mixed_precision.trial(mixed_precision.Settings("mlp", "exact", 4), 0)
    noisy = mixed_precision.trial(mixed_precision.Settings("mlp", "1 probe", 4), 0)
    assert exact["trace_error"] == 0 < noisy["trace_error"]


@pytest.mark.parametrize("source", mixed_precision.SOURCES)
def test_bits_keep_to_the_budget(source: str) -> None:
    record = mixed_precision.trial(mixed_precision.Settings("cnn", source, 4), 0)
    weights = [p for p in version("cnn", "trained", 0).net.parameters() if p.ndim >= 2]
    bits = [int(number) for number in record["bits"].split()]
    if source != "uniform":
        spent = sum(n * weight.numel() for n, weight in zip(bits, weights, strict=True))
        assert spent <= 4 * sum(weight.numel() for weight in weights)
    assert all(2 <= number <= 8 for number in bits)


def bits_records(**ratios: float) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in mixed_precision.CLAIM.quick.settings:
        for seed in range(6):
            value = ratios.get(cell.source, 1.0) * 2.0 ** (seed - cell.budget)
            rows.append({**dataclasses.asdict(cell), "seed": seed, "divergence": value})
    return pd.DataFrame(rows).assign(trace_error=0.1)


def test_bits_are_judged_by_their_records() -> None:
    good = bits_records(**{"exact": 0.5, "1 probe": 0.8, "10 probes": 0.6, "rounding error": 0.9})
    assert [verdict.outcome for verdict in mixed_precision.verdicts(good)] == ["holds"] * 6
    bad = bits_records(**{"exact": 0.95, "1 probe": 0.95, "10 probes": 0.9, "rounding error": 0.9})
    assert [verdict.outcome for verdict in mixed_precision.verdicts(bad)] == ["fails"] * 6
    assert len(mixed_precision.table(good)) == 3 * len(mixed_precision.SOURCES)


@pytest.mark.parametrize(
    ("part", "records"),
    [
        (noise, noise_records(1.0, 1.5, 1.2)),
        (rounding, rounding_records(balanced=1.2)),
        (mixed_precision, bits_records(exact=0.7)),
    ],
    ids=["noise", "rounding", "bits"],
)
def test_figures_of_whole_and_of_partial_records(part: Any, records: pd.DataFrame) -> None:
    for rows in (records, records[records["network"] == "cnn"], records[records["seed"] == 0]):
        part.figure(rows).draw_without_rendering()
        assert all(isinstance(verdict.outcome, str) for verdict in part.verdicts(rows))


@pytest.mark.parametrize("part", [noise, rounding, mixed_precision])
def test_designs_have_seeds_enough(part: Any) -> None:
    for design in (part.CLAIM.quick, part.CLAIM.full):
        assert design.n_seeds >= 5
        assert len(set(design.settings)) == len(design.settings)
