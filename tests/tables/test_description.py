"""What a fit says of itself, for every kind of function that it may be."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import flattest as ft
from flattest.regression.prediction.average import Average
from flattest.regression.prediction.conditioned import Conditioned
from flattest.regression.prediction.link import LinkPart
from flattest.regression.prediction.prior import Prior
from flattest.regression.prediction.target_scale import TargetScale
from flattest.tables.description import Description, describe

WAGE = TargetScale(10.0, 2.0, 0.1, 20.0, False)
LOG_WAGE = TargetScale(2.0, 0.5, 0.1, 20.0, True)


def process(shape: str, d: int = 3, **kind: Any) -> Prior:
    return Prior(shape, np.ones((d, 2)), np.ones(1), 0.25, **kind)


def described(
    *processes: Prior,
    shares: tuple[float, ...] = (1.0,),
    units: tuple[TargetScale, ...] = (WAGE,),
    d: int = 3,
    importances: tuple[float, ...] = (0.9, 0.1),
    network_error: float = 1e8,
) -> Description:
    known, square = np.zeros(0), np.zeros((0, 0))
    average = Average(
        tuple(
            Conditioned(each, np.zeros((0, 2)), known, square, square, square) for each in processes
        ),
        shares,
        None,
    )
    counts = (0.75, 0.25) if len(units) > 1 else (1.0,)
    parts = tuple(
        LinkPart(average, unit, share, network_error)
        for unit, share in zip(units, counts, strict=True)
    )
    regressor = ft.MultiIndexRegressor()
    regressor.n_features_in_ = d
    regressor.direction_importances_ = np.array(importances)
    predictor: Any = SimpleNamespace(link=SimpleNamespace(parts=parts))
    regressor.predictor_ = predictor
    return describe(regressor, "wage")


TREND = process("matern52", trend=True)
SENTENCES = {
    "A smooth function of 2 directions, Matérn 5/2 plus a linear trend, fitted to wage.": (
        described(TREND)
    ),
    "A linear function of all 19 features, fitted to log(wage).": (
        described(process("linear", free="scale"), d=19, units=(LOG_WAGE,))
    ),
    "A linear function of both features, fitted to wage.": (
        described(process("linear", free="scale"), d=2)
    ),
    "A smooth function of 1 direction (and hardly of 1 more), Gaussian, fitted to wage.": (
        described(process("gaussian"), importances=(0.999, 0.001))
    ),
    "A smooth function of all 3 features, Matérn 1/2 with a length for each, fitted to wage.": (
        described(process("matern12", free="lengths"))
    ),
    "A smooth function of the only feature, Gaussian, fitted to wage.": (
        described(process("gaussian", free="scale"), d=1)
    ),
    "A sum of smooth functions of one direction each, 2 directions in all, Gaussian, "
    "fitted to wage.": described(process("gaussian", additive=True)),
    "A smooth function of 2 directions, Matérn 5/2 plus a linear trend (60%), averaged with "
    "Gaussian (30%), a sum over directions, Gaussian (7%) and a function of all 3 features, "
    "Gaussian with one length (3%), fitted to wage.": described(
        TREND,
        *(process("gaussian"), process("gaussian", additive=True)),
        *(process("gaussian", free="scale"), process("matern12")),
        shares=(0.6, 0.3, 0.069, 0.03, 0.001),
    ),
    "A linear function of all 3 features (50%), averaged with a smooth one, Gaussian with one "
    "length (50%), fitted to wage.": described(
        process("linear", free="scale"), process("gaussian", free="scale"), shares=(0.5, 0.5)
    ),
    "A smooth function of 2 directions, Gaussian, fitted to log(wage) (75%) and wage (25%).": (
        described(process("gaussian"), units=(LOG_WAGE, WAGE))
    ),
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_one_sentence(sentence: str) -> None:
    assert SENTENCES[sentence].sentence == sentence


def test_noise_is_in_the_units_of_the_target() -> None:
    plain = described(process("gaussian"))
    assert plain.noise == "Noise: a standard deviation of 1.000 of wage, 25% of its variance."
    assert plain.noises == (
        {"target": "wage", "standard_deviation": 1.0, "share_of_variance": 0.25},
    )
    logs = described(process("gaussian"), units=(LOG_WAGE,))
    assert "0.2500 of log(wage)" in logs.noise


def test_whether_all_features_matter() -> None:
    assert described(process("gaussian", free="scale")).all_matter
    assert described(process("gaussian", free="lengths")).all_matter
    assert not described(process("gaussian")).all_matter
    line, smooth = process("linear", free="scale"), process("gaussian", free="scale")
    assert not described(line).all_matter
    assert not described(line, smooth, shares=(0.6, 0.4)).all_matter
    assert described(line, smooth, shares=(0.3, 0.7)).all_matter


def test_whether_the_network_counts() -> None:
    assert "does not use this network" in described(process("gaussian")).network
    used = described(process("gaussian"), network_error=0.04).network
    assert "uses this network a little" in used
    assert "standard error of 0.4000," in used


def test_a_network_alone() -> None:
    regressor = ft.MultiIndexRegressor()
    regressor.n_features_in_ = 3
    regressor.direction_importances_ = np.array([0.8, 0.2])
    regressor.network_ = ft.TwoLayerNet(np.ones((7, 3)), np.ones(7), "relu")
    predictor: Any = SimpleNamespace(link=None)
    regressor.predictor_ = predictor
    words = describe(regressor, "wage")
    assert words.sentence == "A network of 7 neurons on 2 directions, fitted to wage."
    assert words.network == "The prediction is this network's."
    regressor.direction_importances_ = np.empty(0)
    assert describe(regressor, "wage").sentence == "A constant, fitted to wage."
