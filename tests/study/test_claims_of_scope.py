"""The claims on activations, inputs, phases and shattering: pure trials, verdicts that can fail."""

import builtins
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flattest.study.claims import activations, inputs, phase, shattering

TINY: dict[Any, list[Any]] = {
    activations: [
        activations.Settings(2.0, 1.0, 1.0, n_samples=12, n_features=4, n_directions=1, width=16),
        activations.Settings(link="abs", n_samples=30, n_features=4, n_directions=1, width=32),
    ],
    inputs: [
        inputs.Settings("sphere", n_samples=30, n_features=4, n_directions=1, width=32),
        inputs.Settings("gaussian", 0.9, n_samples=30, n_features=4, n_directions=1, width=32),
    ],
    phase: [
        phase.Settings("relu", "flattest", 40, 5, 1, 12),
        phase.Settings("quadratic", "flattest", 12, 4, 1, 8),
        phase.Settings("quadratic", "flattest", 14, 4, 1, 8),
    ],
    shattering: [
        shattering.Settings(method, n, d, width=8, n_steps=20, strengths=(0.01, 0.1))
        for method in ("large_steps", "weight_decay")
        for d in (1, 2)
        for n in (10, 20)
    ],
}
CLAIMS = pytest.mark.parametrize("module", TINY, ids=lambda module: module.__name__.split(".")[-1])


@pytest.fixture(scope="module")
def records() -> dict[Any, pd.DataFrame]:
    return {
        module: pd.DataFrame(
            {**asdict(settings), "seed": seed, **module.trial(settings, seed)}
            for settings in cells
            for seed in range(2)
        )
        for module, cells in TINY.items()
    }


@CLAIMS
def test_a_trial_depends_on_settings_and_seed_alone(
    module: Any, records: dict[Any, pd.DataFrame]
) -> None:
    settings = TINY[module][0]
    again = module.trial(settings, 0)
    assert again == records[module].iloc[0][list(again)].to_dict()
    assert module.trial(settings, 1)["test_error"] != again["test_error"]


@CLAIMS
def test_figures_of_whole_and_of_partial_records(
    module: Any, records: dict[Any, pd.DataFrame]
) -> None:
    whole = records[module]
    for rows in (whole, whole[whole["seed"] == 0], whole.iloc[:1], whole.iloc[-1:]):
        figure = module.figure(rows)
        figure.draw_without_rendering()
        assert all(axes.get_xlabel() for axes in figure.axes if axes.get_label() != "<colorbar>")


@CLAIMS
def test_verdicts_of_whole_and_of_partial_records(
    module: Any, records: dict[Any, pd.DataFrame]
) -> None:
    whole = records[module]
    assert module.verdicts(whole)
    for rows in (whole.iloc[:0], whole.iloc[:1], whole.iloc[1:]):
        assert all(v.outcome in ("holds", "fails", "undecided") for v in module.verdicts(rows))


@CLAIMS
def test_designs_are_affordable_and_repeated(module: Any) -> None:
    for design in (module.CLAIM.quick, module.CLAIM.full):
        assert design.n_seeds >= 5
        assert len(set(design.settings)) == len(design.settings)
    assert len(module.CLAIM.quick.settings) < len(module.CLAIM.full.settings)


def _contrast_records(test_error: float, gap: float) -> pd.DataFrame:
    rows = {
        "test_error": test_error,
        "ratio": 1.2,
        "other_test_error": 1.0,
        "other_ratio": 1.2 * gap,
        "other_status": "converged",
        "gap": gap,
    }
    return pd.DataFrame(
        {**asdict(inputs.Settings(law)), "seed": seed, **rows}
        for law in ("gaussian", "sphere")
        for seed in range(6)
    )


@pytest.mark.parametrize(
    ("test_error", "gap", "outcomes"),
    [
        (1e-9, 9.0, ["holds", "holds", "holds"]),
        (1e-3, 9.0, ["fails", "fails", "holds"]),
        (1e-9, 2.0, ["holds", "holds", "fails"]),
    ],
)
def test_contrasts_are_judged_by_their_records(
    test_error: float, gap: float, outcomes: list[str]
) -> None:
    found = [v.outcome for v in inputs.verdicts(_contrast_records(test_error, gap))]
    assert found == outcomes


def test_a_sentence_says_where_the_model_is_recovered_and_who_comes_nearest() -> None:
    rows = _contrast_records(1e-9, 9.0)
    assert inputs.conclusion(rows).startswith(
        "The flattest network is the model for at least half of the data sets for 2 of 2 laws of "
        "the inputs. No other interpolator with a test error above 0.1 has less than 9 times"
    )
    sphere = rows["law"] == "sphere"
    rows.loc[sphere, "test_error"] = 1e-3
    rows.loc[sphere & (rows["seed"] == 2), "gap"] = 1.499
    said = inputs.conclusion(rows)
    assert "for 1 of 2 laws of the inputs, not for: uniform on a sphere." in said
    assert "less than 1.49 times" in said
    assert "random features for uniform on a sphere, in seed 2, with a test error of 1." in said
    assert inputs.conclusion(rows.assign(other_test_error=0.0)).endswith("sphere.")


def test_a_network_that_generalises_or_does_not_fit_is_no_counterexample() -> None:
    rows = _contrast_records(1e-9, 9.0)
    rows.loc[rows["seed"] == 0, ["gap", "other_test_error"]] = 1.5, 1e-9
    rows.loc[rows["seed"] == 1, ["gap", "other_status"]] = 1.5, "not_interpolating"
    assert [v.outcome for v in inputs.verdicts(rows)] == ["holds"] * 3


def test_every_activation_and_law_has_a_name_of_its_own() -> None:
    for module in (activations, inputs):
        cells = pd.DataFrame(asdict(settings) for settings in module.CLAIM.quick.settings)
        assert module._names(cells).is_unique


def _phase_records(flattest: int, nuclear: int) -> pd.DataFrame:
    sizes = {("relu", "flattest"): 20, ("quadratic", "flattest"): flattest}
    sizes["quadratic", "nuclear_norm"] = nuclear
    return pd.DataFrame(
        {
            **asdict(phase.Settings(link, method, n, n_features=10)),
            "seed": seed,
            "test_error": 1e-12 if n >= needed else 0.5,
        }
        for (link, method), needed in sizes.items()
        for n in (20, 30, 40, 80)
        for seed in range(6)
    )


@pytest.mark.parametrize(
    ("flattest", "nuclear", "outcome"),
    [(30, 40, "holds"), (30, 30, "holds"), (40, 30, "fails"), (99, 30, "fails")],
)
def test_samples_are_compared_with_those_of_the_nuclear_norm(
    flattest: int, nuclear: int, outcome: str
) -> None:
    relu, squares = phase.verdicts(_phase_records(flattest, nuclear))
    assert (relu.outcome, squares.outcome) == ("holds", outcome)


def test_relus_that_are_not_recovered_fail() -> None:
    rows = _phase_records(30, 30)
    rows.loc[rows["link"] == "relu", "test_error"] = 1e-3
    assert phase.verdicts(rows)[0].outcome == "fails"


def test_the_least_nuclear_norm_is_that_of_its_dual() -> None:
    pytest.importorskip("cvxpy")
    # Samples e_i and e_1 + e_2 fix the diagonal and one entry; the rest is free, and 0 at the
    # minimum since what is fixed is positive semi-definite.
    X = np.vstack([np.eye(3), [1.0, 1.0, 0.0]])
    M, _ = phase._least_nuclear_norm(X, np.array([2.0, 1.0, 1.0, 5.0]))
    expected = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(np.einsum("ni,ij,nj->n", X, M, X), [2, 1, 1, 5], atol=1e-6)
    np.testing.assert_allclose(np.abs(np.linalg.eigvalsh(M)).sum(), np.trace(expected), atol=1e-6)


def test_the_nuclear_norm_recovers_a_matrix() -> None:
    pytest.importorskip("cvxpy")
    settings = phase.Settings("quadratic", "nuclear_norm", n_samples=18, n_features=6)
    record = phase.trial(replace(settings, n_directions=1), 0)
    assert record["test_error"] < 1e-6
    assert record["train_error"] < 1e-8


def test_without_cvxpy_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> Any:
        if name == "cvxpy":
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'flattest\[benchmarks\]'"):
        phase.trial(phase.Settings("quadratic", "nuclear_norm", n_samples=6, n_features=3), 0)


def _shattering_records(flat: float, decay: float, rare: float) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    exponents = {("large_steps", 1): 1.0, ("large_steps", 5): flat}
    exponents |= {("weight_decay", 1): 1.0, ("weight_decay", 5): decay}
    return pd.DataFrame(
        {
            "method": method,
            "n_samples": n,
            "n_features": d,
            "seed": seed,
            "test_error": n**-exponent * (1 + 0.01 * rng.random()),
            "rare_size": rare,
            "rare_neurons": rare,
        }
        for (method, d), exponent in exponents.items()
        for n in (64, 128, 256)
        for seed in range(5)
    )


def test_shattering_is_judged_by_the_exponents_and_the_neurons() -> None:
    as_claimed = shattering.verdicts(_shattering_records(0.1, 0.9, 0.8))
    assert {v.outcome for v in as_claimed} == {"holds"}
    # The exponent is recovered from the records, minus the slope.
    assert as_claimed[0].estimate == pytest.approx(0.1, abs=0.01)
    otherwise = shattering.verdicts(_shattering_records(1.5, 0.2, 0.3))
    assert {v.outcome for v in otherwise} == {"fails"}


def test_descent_is_that_of_autograd() -> None:
    import torch

    rng = np.random.default_rng(0)
    X, y = torch.from_numpy(rng.standard_normal((7, 3))), torch.from_numpy(rng.standard_normal(7))
    start = shattering._start(5, 3, rng)
    W, a = (value.clone().requires_grad_() for value in start)
    for _ in range(3):
        loss = torch.nn.functional.mse_loss((X @ W.T).relu() @ a, y)
        penalty = 0.5 * 0.2 * (W.square().sum() + a.square().sum())
        steps = torch.autograd.grad(loss + penalty, (W, a))
        with torch.no_grad():
            W, a = (
                (value - 0.1 * step).requires_grad_()
                for value, step in zip((W, a), steps, strict=True)
            )
    net = shattering._descend(X, y, start, 0.1, 3, 0.2)
    torch.testing.assert_close(net.weights.detach(), W.detach())
    torch.testing.assert_close(net.coefficients.detach(), a.detach())


def test_a_step_that_is_too_large_is_reported() -> None:
    settings = shattering.Settings(n_samples=10, n_features=2, width=8, step_size=1e8, n_steps=50)
    with pytest.raises(FloatingPointError, match="take step_size below"):
        shattering.trial(settings, 0)
