"""Formulas: the printed program, run on its own, predicts what the predictor predicts."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

import flattest as ft
from flattest.regression.formula import Formula, formula_of
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.handover import predictor_of
from flattest.regression.mixture import Mixture
from flattest.regression.posterior import Posterior
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.predictor import Predictor
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.prediction.target_scale import TargetScale
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.variation import Variation
from flattest.two_layer.networks import TwoLayerNet

D, N = 4, 40


def make(
    k: int,
    *,
    remembered: bool = True,
    logarithmic: tuple[bool, ...] = (False,),
    network_error: float | None = None,
    only_network: bool = False,
) -> tuple[Predictor, np.ndarray, np.ndarray, np.ndarray]:
    """Make a predictor of given directions, without a search for them.

    The features are far from 0 and of different units. Returns the predictor, its directions, the
    ranges, and training rows.
    """
    rng = np.random.default_rng(k)
    x = rng.standard_normal((N, D))
    X = 1000.0 + x * [0.01, 1.0, 1.0, 1000.0]
    axes = torch.linalg.qr(torch.from_numpy(rng.standard_normal((D, k))))[0]
    y = np.exp(np.abs(x @ axes.numpy()).sum(axis=1) + 0.1 * rng.standard_normal(N))
    standardise = Standardisation.of(X, y, np.ones(N), centred=True)
    inputs = torch.from_numpy(standardise(X))
    weights = torch.from_numpy(rng.standard_normal((6, k))) @ axes.T
    net = TwoLayerNet(
        torch.cat([weights, torch.from_numpy(rng.standard_normal((6, 1)))], dim=1),
        torch.from_numpy(rng.standard_normal(6)) * y.std(),
        "relu",
    )
    process = Process("matern52", axes, torch.ones(1, dtype=torch.float64), 0.05)
    parts = []
    for log in logarithmic:
        units = TargetScale.of(y, np.ones(N), logarithmic=log, centred=True)
        data = Data.of(inputs, torch.from_numpy(units(y)), torch.ones(N, dtype=torch.float64))
        mixture = Mixture.exactly([process], [1.0], data)
        if not remembered:
            mixture = Mixture((Posterior.of(process, data, data.X[:30]),), (1.0,), None)
        part = Part(mixture, units, 1 / len(logarithmic))
        parts.append(part if network_error is None else part._replace(network_error=network_error))
    variation = Variation(torch.arange(k, 0, -1).double(), axes, torch.zeros(k).double())
    link = SmoothLink(
        tuple(parts),
        torch.eye(D, dtype=torch.float64),
        Limits.of(axes.numpy(), variation.values.numpy(), (inputs @ axes).numpy()),
        [],
        variation,
    )
    directions = axes.numpy().T * standardise.inverse_scale
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along = X @ directions.T
    ranges = np.stack([along.min(axis=0), along.max(axis=0)], axis=1)
    predictor = predictor_of(net, standardise, None if only_network else link)
    return predictor, directions, ranges, X


def tabulate(
    predictor: Predictor, directions: Any, ranges: Any, tolerance: float = 1e-3
) -> Formula:
    shares = np.full(len(directions), 1 / len(directions))
    names = ("size in\nm", "it's", "#", "\\d")
    return formula_of(predictor, directions, shares, ranges, names, "price\nin $", tolerance)


def run(program: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(program, names)
    return names


CASES: dict[str, dict[str, Any]] = {
    "process": {},
    "logarithms": {"logarithmic": (True,)},
    "both": {"logarithmic": (True, False)},
    "inducing points, with a network": {"remembered": False, "network_error": 0.1},
    "network": {"only_network": True},
}


@pytest.mark.parametrize(
    ("name", "k"), [*((name, 1) for name in CASES), ("process", 2), ("network", 2)]
)
def test_the_program_predicts_what_the_predictor_predicts(name: str, k: int) -> None:
    predictor, directions, ranges, X = make(k, **CASES[name])
    # A table that is as fine as is allowed rounds the kinks of networks in two directions.
    tolerance = 1e-2 if (name, k) == ("network", 2) else 1e-3
    formula = tabulate(predictor, directions, ranges, tolerance)
    rng = np.random.default_rng(1)
    fresh = X + rng.random((N, 1)) * (X[rng.permutation(N)] - X)
    for rows in (X, fresh):
        predicted, printed = predictor(rows), run(formula.python())["predict"](rows)
        assert np.abs(printed - predicted).max() <= tolerance * np.ptp(predictor(X))
        np.testing.assert_allclose(printed, formula(rows), atol=1e-5 * np.ptp(predicted))
    assert len(formula.directions) == formula.values.ndim == k


def test_the_text_has_the_numbers_of_the_program() -> None:
    predictor, directions, ranges, _ = make(1)
    formula = tabulate(predictor, directions, ranges)
    text = formula.text()
    assert str(formula) == text
    assert text.startswith(f"z = {directions[0, 0]:+.10g} * size in m\n")
    rows = [line.split() for line in text.splitlines()[-len(formula.values) :]]
    assert [float(z) for z, _ in rows] == pytest.approx(formula.knots[0], rel=1e-9, abs=1e-6)
    table = np.array([float(value) for _, value in rows])
    np.testing.assert_allclose(table, formula.values, atol=1e-6 * np.ptp(formula.values))
    program = run(formula.python())
    assert program["FEATURES"] == list(formula.feature_names)
    np.testing.assert_array_equal(program["DIRECTIONS"], directions)


def test_the_text_of_two_directions_is_a_table() -> None:
    u, ends = np.eye(2), np.array([[0.0, 3.0], [0.0, 6.0]])
    values = np.add.outer(np.arange(4.0), 10 * np.arange(4.0))
    text = Formula(u, ends, values, 0.0, ("a", "b"), "y").text()
    head, *rows = [line.split() for line in text.splitlines()[-5:]]
    assert head == ["z1,", "down;", "z2", "0", "2", "4", "6"]
    assert [float(row[0]) for row in rows] == [0, 1, 2, 3]
    assert [[float(v) for v in row[1:]] for row in rows] == values.tolist()


def test_beyond_the_table_it_stays_as_it_is() -> None:
    u, ends = np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]])
    formula = Formula(u, ends, np.arange(4.0) ** 3, 0.0, ("a", "b"), "y")
    X = np.array([[-5.0, 1.0], [0.75, 1.0], [99.0, 1.0]])
    np.testing.assert_allclose(run(formula.python())["predict"](X), [0, 1.5**3, 27], atol=1e-6)


def test_beside_a_network_predictions_depend_on_the_directions_only() -> None:
    predictor, directions, ranges, X = make(1, network_error=0.1)
    formula = tabulate(predictor, directions, ranges)
    assert formula.error < 1e-3
    error = np.abs(formula(X) - predictor(X)).max() / np.ptp(predictor(X))
    assert error < 1e-3


def test_a_function_that_varies_along_others_is_found_out() -> None:
    predictor, directions, ranges, _ = make(2)
    shares = np.array([1.0, 0.0])  # as if the second did not count
    with pytest.raises(ValueError, match="depend a little on other directions"):
        formula_of(predictor, directions, shares, ranges, list("abcd"), "y", 1e-2)


def test_what_has_no_formula_is_refused() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 3))
    options = {"link": "network", "width": 10, "strengths": [0.01], "cv": 2, "random_state": 0}
    model = ft.MultiIndexRegressor(**options, n_directions=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, np.abs(X).sum(axis=1))
    with pytest.raises(ValueError, match=r"for one or two directions, but .* depend on 3"):
        model.export_formula()
    with pytest.raises(ValueError, match="feature_names has 1 names for 3 features"):
        model.export_formula(feature_names=["a"])
    with pytest.raises(ValueError, match="tolerance"):
        model.export_formula(tolerance=0)
    constant = ft.MultiIndexRegressor(random_state=0).fit(X, np.ones(40))
    with pytest.raises(ValueError, match="is constant"):
        constant.export_formula()
