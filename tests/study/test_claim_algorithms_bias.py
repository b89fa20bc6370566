"""The claims on training algorithms and on networks with a bias, at tiny sizes."""

import dataclasses
import functools
import io
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import ConvergenceWarning

from flattest.interpolators import interpolate
from flattest.study.claims import algorithms, bias

TINY = {
    algorithms: {"n_samples": 15, "n_features": 4, "n_directions": 1, "width": 20, "steps": 100},
    bias: {"n_samples": 8, "n_features": 6, "width": 12, "steps": 100},
}
# One cell for each method: the last one, with the harder start or with a bias.
CELLS = [
    (module, settings)
    for module in TINY
    for settings in {cell.method: cell for cell in module.CLAIM.quick.settings}.values()
]


@pytest.fixture(scope="module", autouse=True)
def short_searches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bias, "interpolate", functools.partial(interpolate, max_iter=300))
        yield


def run(module, settings, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return module.trial(dataclasses.replace(settings, **TINY[module]), seed)


@pytest.mark.parametrize(("module", "settings"), CELLS)
def test_a_trial_depends_on_settings_and_seed_alone(module, settings):
    first, again, other = (run(module, settings, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert all(isinstance(value, str | int | float | bool) for value in first.values())
    assert not set(first) & {"seed", *(field.name for field in dataclasses.fields(settings))}
    assert first["ratio"] >= 1 - 1e-9


def test_the_trajectory_ends_at_the_result():
    record = run(algorithms, algorithms.Settings("sam"), 0)
    last = algorithms._N_POINTS - 1
    assert record[f"ratio_{last:02}"] == record["ratio"]
    assert record[f"test_error_{last:02}"] == record["test_error"]
    assert record["ratio_00"] != record["ratio"]


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_labels_are_the_product_of_two_signs(with_bias):
    settings = bias.Settings(with_bias=with_bias, n_features=6)
    X, y = bias._sample(settings, 50, np.random.default_rng(0))
    assert X.shape == (50, 6 + with_bias)
    assert set(X.unique().tolist()) == {-1.0, 1.0}
    assert (y == X[:, 0] * X[:, 1]).all()
    assert bool((X[:, -1] == 1).all()) == with_bias


def records_of(module, results, n_seeds=8):
    """Records of the quick design with made-up results, a little different for each seed."""
    rows = []
    for settings in module.CLAIM.quick.settings:
        for seed in range(n_seeds):
            numbers = {name: value * (1 + 1e-3 * seed) for name, value in results(settings).items()}
            for index in range(algorithms._N_POINTS):
                numbers[f"ratio_{index:02}"] = 50 / (1 + index)
                numbers[f"test_error_{index:02}"] = 10.0**-index
            rows.append(dataclasses.asdict(settings) | {"seed": seed} | numbers)
    return pd.DataFrame(rows)


def algorithms_as_claimed(settings):
    if settings.method == "sgd":
        return {"ratio": 40.0, "test_error": 2.0}
    return {"ratio": 1.2, "test_error": 1e-5}


def bias_as_claimed(settings):
    if settings.method == "memorizer":
        return {"ratio": 1.0, "test_error": 0.9}
    return {"ratio": 1.1, "test_error": 0.3 if settings.with_bias else 1e-3}


CLAIMED = {algorithms: algorithms_as_claimed, bias: bias_as_claimed}


def claimed_records(module):
    records = records_of(module, CLAIMED[module])
    exact = records["ratio"].between(1.0, 1.01)
    return records.assign(ratio=records["ratio"].where(~exact, 1.0))


@pytest.mark.parametrize("module", TINY)
def test_verdicts_hold_where_all_is_as_claimed(module):
    verdicts = module.verdicts(claimed_records(module))
    assert len(verdicts) >= 6
    assert [verdict.outcome for verdict in verdicts] == ["holds"] * len(verdicts)
    assert len({verdict.statement for verdict in verdicts}) == len(verdicts)
    assert all(verdict.n_seeds == 8 for verdict in verdicts)


@pytest.mark.parametrize("column", ["ratio", "test_error"])
@pytest.mark.parametrize("module", TINY)
def test_every_verdict_on_bad_records_fails(module, column):
    """Turn one quantity of every cell bad: each verdict about it must flip, no other."""
    records = claimed_records(module)
    before = module.verdicts(records)
    # What was small becomes large and the reverse; the flattest network stays the reference.
    trained = records["method"] != ("flattest" if module is algorithms else "")
    middle = {"ratio": 3.0, "test_error": 0.08}[column]
    bad = np.where(records[column] < middle, 100.0, middle / 100)
    records[column] = np.where(trained, bad, records[column])
    about = "orbit minimum" if column == "ratio" else "test error"
    flipped = [verdict.outcome for verdict in module.verdicts(records) if about in verdict.quantity]
    assert flipped
    assert flipped == ["fails"] * len(flipped)
    kept = [
        verdict.outcome for verdict in module.verdicts(records) if about not in verdict.quantity
    ]
    assert kept == ["holds"] * (len(before) - len(flipped))


@pytest.mark.parametrize("module", TINY)
def test_the_figure_draws(module):
    drawn = io.BytesIO()
    figure = module.figure(claimed_records(module))
    figure.savefig(drawn, format="svg")
    assert len(figure.axes) == 2
    legend = figure.axes[1].get_legend().get_texts()
    assert {text.get_text() for text in legend} >= set(module._LABELS.values())
    assert all(axes.get_xlabel() == "orbit minimum / lower bound" for axes in figure.axes)
    assert figure.axes[0].get_ylabel() == "test error"


@pytest.mark.parametrize("module", TINY)
def test_the_designs_have_seeds_enough(module):
    claim = module.CLAIM
    assert min(claim.quick.n_seeds, claim.full.n_seeds) >= 5
    assert len(set(claim.quick.settings)) == len(claim.quick.settings)
