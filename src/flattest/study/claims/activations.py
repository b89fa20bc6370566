"""Activations: whether the link of flatness and generalisation depends on the activation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from flattest.two_layer.activations import Homogeneous

_POWERS: dict[float, str] = {2.0: "²", 3.0: "³"}
_EVEN: dict[float, str] = {1.0: "|z|", 2.0: "z²"}


@dataclass(frozen=True)
class Settings:
    """An activation, and data whose links are that activation or another function.

    Parameters
    ----------
    degree, positive, negative : float
        The activation of the networks, ``positive z^p`` for ``z > 0`` and ``negative |z|^p``
        for ``z < 0``.
    link : str
        The name of the links of the data; ``"same"`` for the activation itself.
    other : str
        The interpolator beside the flattest one.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    degree: float = 1.0
    positive: float = 1.0
    negative: float = 0.0
    link: str = "same"
    other: str = "random_features"
    n_samples: int = 150
    n_features: int = 8
    n_directions: int = 2
    width: int = 160


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit one data set by the flattest network and by another interpolator.

    Parameters
    ----------
    settings : Settings
        The activation and the sizes.
    seed : int
        Seed of the data and of both networks.

    Returns
    -------
    dict
        The record of `flattest.study.contrast.contrast`.
    """
    activation = Homogeneous(settings.degree, settings.positive, settings.negative)
    X, y, model = make_multi_index(
        settings.n_samples,
        settings.n_features,
        [activation if settings.link == "same" else settings.link] * settings.n_directions,
        random_state=seed,
    )
    return contrast(
        X, y, model, settings.other, width=settings.width, activation=activation, seed=seed
    )


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge recovery for each activation, and the gap to the other interpolators.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        One per activation, one on all.
    """
    return contrast_verdicts(records, _names(records), "activations")


def conclusion(records: pd.DataFrame) -> str:
    """Say for which activations the model is recovered, and how near others come.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    str
        One or two sentences.
    """
    return contrast_conclusion(records, _names(records), "activations")


def figure(records: pd.DataFrame) -> Figure:
    """Draw test errors and ratios, one row per activation.

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
    columns = records[["degree", "positive", "negative", "link"]].itertuples(index=False)
    return pd.Series([_name(*row) for row in columns], index=records.index, dtype=object)


def _name(degree: float, positive: float, negative: float, link: str) -> str:
    """Name an activation by its formula, with the link where it is another function."""
    power = "" if degree == 1 else _POWERS.get(degree, f"^{degree:g}")
    if negative == 0:
        name = "ReLU" + power
    elif negative == positive:
        name = _EVEN.get(degree, "|z|" + power)
    elif negative == -positive and degree > 1:
        name = "z³" if degree == 3 else f"sign(z) |z|{power}"
    else:
        name = f"leaky ReLU{power}, slope {0 - negative:g}"
    return name if link == "same" else f"{name}, links {_LINK_NAMES.get(link, link)}"


_LINK_NAMES = {"abs": "|z|"}
_SHAPES = (
    Settings(1.0),
    Settings(1.5),
    Settings(2.0),
    Settings(3.0),
    Settings(1.0, negative=-0.1),
    Settings(1.0, negative=-0.5),
    Settings(1.0, negative=1.0),
    Settings(1.0, link="abs"),
    Settings(1.5, negative=1.0),
    Settings(2.0, negative=1.0),
    Settings(3.0, negative=-1.0),
)


def _cells(others: Sequence[str], n: int, d: int, k: int, width: int) -> tuple[Settings, ...]:
    """Lay out the activations; polynomials get fewer samples than they have dimensions."""
    quadratic = d * (d + 1) // 2
    dimensions = {(2.0, 1.0): quadratic, (3.0, -1.0): quadratic * (d + 2) // 3}
    return tuple(
        replace(
            shape,
            other=other,
            n_samples=min(n, round(0.9 * dimensions.get((shape.degree, shape.negative), n / 0.9))),
            n_features=d,
            n_directions=k,
            width=width,
        )
        for shape in _SHAPES
        for other in others
    )


CLAIM = Claim(
    name="activations",
    title="Many activations, one picture",
    question=(
        "Does the flattest interpolator find the model for other positively homogeneous "
        "activations than the ReLU: powers of it, leaky ones, the absolute value, polynomials? And "
        "is a network that fits the same data without generalising much sharper there too, "
        "whatever symmetry is used?"
    ),
    method=(
        "Noiseless sums of functions of orthonormal directions, Gaussian inputs. The links of the "
        "data are the activation of the network, but in one row, where a ReLU network fits sums "
        "of |z|. Each data set is fitted exactly by the flattest network and by networks of the "
        "same width that are not expected to generalise: least-norm regression on random features "
        "and, in the full design, gradient descent from a large start. The test error is measured "
        "on 20,000 fresh inputs and is 1 for the best constant; the ratio is the smallest trace "
        "over all rescalings of the network over a lower bound for every interpolator. There "
        "are fewer samples than the quadratic (cubic) functions of d features have dimensions, so "
        "that those activations do not determine the function by themselves."
    ),
    thresholds=(
        "Ours. The factor of 5 is that of the claim `claim1`, a round number for what is not near "
        "the least trace; one factor for all activations, though nothing says that the gap is the "
        "same for them. A test error above 0.1 counts as not having generalised, one of 1e-6 as "
        "zero, and half of the data sets as mostly."
    ),
    limits=(
        "The lower bound uses the smaller slope, so it is loose for leaky activations: their "
        "ratios are large even at the flattest network, and only the quotient of the two orbit "
        "minima compares. For degrees above 1 the orbit minimum depends on the width, which is the "
        "same for both networks. Higher degrees make the optimisation harder: what is measured is "
        "the network that our solver finds."
    ),
    source=(
        "H. Vardhan, H. Taheri, A. Mazumdar, Flatness and Generalization: Learning Multi-Index "
        "Models with Homogeneous Neural Networks, arXiv 2606.04429, 2026. The choice of "
        "activations and of the other interpolators is ours."
    ),
    trial=trial,
    quick=Design(_cells(["random_features"], 150, 8, 2, 160), 6),
    full=Design(
        _cells(["random_features", "gradient_descent"], 400, 20, 3, 420),
        10,
        3600.0,
    ),
    verdicts=verdicts,
    figure=figure,
    conclusion=conclusion,
    caption=(
        "Population loss (left; dashed: below it the model counts as recovered) and orbit-minimal "
        "ratio (right) of networks that fit the same noiseless data exactly, each seed a mark."
    ),
)
