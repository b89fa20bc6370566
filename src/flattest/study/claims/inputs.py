"""Inputs: whether the link of flatness and generalisation depends on the law of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flattest.datasets import make_multi_index
from flattest.study.claim import Claim, Design
from flattest.study.contrast import (
    contrast,
    contrast_conclusion,
    contrast_figure,
    contrast_verdicts,
)
from flattest.study.verdict import Verdict


@dataclass(frozen=True)
class Settings:
    """A law of the inputs.

    Parameters
    ----------
    law : str
        The name of the law; see `flattest.make_multi_index`.
    correlation : float
        Correlation of neighbouring features; that of features ``i`` and ``j`` is its power
        ``|i - j|``.
    other : str
        The interpolator beside the flattest one.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    law: str = "gaussian"
    correlation: float = 0.0
    other: str = "random_features"
    n_samples: int = 160
    n_features: int = 16
    n_directions: int = 3
    width: int = 200


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit one data set by the flattest network and by another interpolator.

    Parameters
    ----------
    settings : Settings
        The law and the sizes.
    seed : int
        Seed of the data and of both networks.

    Returns
    -------
    dict
        The record of `flattest.study.contrast.contrast`.
    """
    d = settings.n_features
    apart = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    X, y, model = make_multi_index(
        settings.n_samples,
        d,
        ["relu"] * settings.n_directions,
        inputs=settings.law,
        covariance=settings.correlation**apart if settings.correlation else None,
        random_state=seed,
    )
    return contrast(X, y, model, settings.other, width=settings.width, activation="relu", seed=seed)


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge recovery for each law, and the gap to the other interpolators.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        One per law, one on all.
    """
    return contrast_verdicts(records, _names(records), "laws of the inputs")


def conclusion(records: pd.DataFrame) -> str:
    """Say for which laws of the inputs the model is recovered, and how near others come.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    str
        One or two sentences.
    """
    return contrast_conclusion(records, _names(records), "laws of the inputs")


def figure(records: pd.DataFrame) -> Figure:
    """Draw test errors and ratios, one row per law.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Two panels.
    """
    return contrast_figure(records, _names(records))


def _names(records: pd.DataFrame) -> pd.Series:
    columns = records[["law", "correlation"]].itertuples(index=False)
    return pd.Series([_name(*row) for row in columns], index=records.index, dtype=object)


def _name(law: str, correlation: float) -> str:
    name = _LAWS.get(law, law)
    return f"{name}, correlation {correlation:g}" if correlation else name


_LAWS = {
    "gaussian": "Gaussian",
    "uniform": "uniform on a cube",
    "rademacher": "corners of a cube",
    "sphere": "uniform on a sphere",
    "student_t": "Student t, 5 degrees",
}


def _cells(correlated: Mapping[str, tuple[float, ...]], **rest: Any) -> tuple[Settings, ...]:
    cells = [Settings(law, **rest) for law in _LAWS]
    return tuple(
        cells
        + [
            Settings(law, correlation, **rest)
            for law, values in correlated.items()
            for correlation in values
        ]
    )


_FULL_SIZES: dict[str, Any] = {"n_samples": 400, "n_features": 20, "width": 420}
_FULL_CORRELATED = dict.fromkeys(_LAWS, (0.5, 0.9))

CLAIM = Claim(
    name="inputs",
    title="Many laws of the inputs, one picture",
    question=(
        "Theorems about multi-index models often need Gaussian inputs. Does the flattest "
        "interpolator find the model for inputs that are bounded, discrete, heavy-tailed or "
        "correlated, and is a network that fits the same data without generalising much sharper "
        "there too, whatever symmetry is used?"
    ),
    method=(
        "Noiseless sums of three ReLUs of orthonormal directions, inputs of mean 0 and, but for "
        "the correlated ones, of identity covariance; correlated features have correlation "
        "c^|i - j|. Each data set is fitted exactly by the flattest ReLU network and by networks "
        "of the same width that are not expected to generalise: least-norm regression on random "
        "features and, in the full design, gradient descent from a large start. The test error is "
        "measured on 20,000 fresh inputs of the same law and is 1 for the best constant; the "
        "ratio is the smallest trace over all rescalings of the network "
        "over a lower bound for every interpolator."
    ),
    thresholds=(
        "Ours. The factor of 5 is that of the claim `claim1`, a round number for what is not near "
        "the least trace; one factor for all laws, though nothing says that the gap is the same "
        "for them. A test error above 0.1 counts as not having generalised, one of 1e-6 as zero, "
        "and half of the data sets as mostly."
    ),
    limits=(
        "All laws here have mean 0 and are symmetric. Where inputs have a mean, or a constant "
        "feature that acts as a bias, the link can break: see the claim `bias`. Real inputs are "
        "none of these."
    ),
    source=(
        "H. Vardhan, H. Taheri, A. Mazumdar, Flatness and Generalization: Learning Multi-Index "
        "Models with Homogeneous Neural Networks, arXiv 2606.04429, 2026. The choice of laws and "
        "of the other interpolators is ours."
    ),
    trial=trial,
    quick=Design(_cells({"gaussian": (0.5, 0.9)}), 6),
    full=Design(
        _cells(_FULL_CORRELATED, other="random_features", **_FULL_SIZES)
        + _cells(_FULL_CORRELATED, other="gradient_descent", **_FULL_SIZES),
        20,
        1800.0,
    ),
    verdicts=verdicts,
    figure=figure,
    conclusion=conclusion,
    caption=(
        "Population loss (left; dashed: below it the model counts as recovered) and orbit-minimal "
        "ratio (right) of networks that fit the same noiseless data exactly, each seed a mark."
    ),
)
