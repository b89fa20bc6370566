"""Bias: with a bias, some flattest networks generalise no more (Wen, Li and Ma, 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from flattest.figures import colour, marker, new_figure
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.verdict import Bound, Verdict, judge
from flattest.two_layer.networks import append_bias_coordinate

_N_FRESH = 10_000
_NEGLIGIBLE = 1e-12
_LABELS = {
    "flattest": "flattest found",
    "sam": "one-sample SAM",
    "memorizer": "memoriser",
}


@dataclass(frozen=True)
class Settings:
    """One way to interpolate the exclusive or of two signs, with or without a bias.

    Parameters
    ----------
    method : {"flattest", "sam", "memorizer"}
        The interpolator; the memoriser has one neuron per sample, and exists with a bias only.
    with_bias : bool
        Whether the inputs have a constant coordinate.
    n_samples, n_features, width : int
        ``n``, ``d`` without the constant coordinate, and ``m``.
    steps : int
        Number of steps of SAM.
    """

    method: str = "flattest"
    with_bias: bool = False
    n_samples: int = 100
    n_features: int = 30
    width: int = 100
    steps: int = 40_000


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Interpolate the product of two signs, and compare with it on fresh inputs.

    Parameters
    ----------
    settings : Settings
        The method and the sizes.
    seed : int
        Seed of the data and of the method.

    Returns
    -------
    dict
        Errors relative to the variance of the labels, which is 1, the share of right signs, and
        the flatness.
    """
    rng = np.random.default_rng([seed, 0])
    X, y = _sample(settings, settings.n_samples, rng)
    options: dict[str, Any] = {}
    if settings.method == "sam":
        options = {"batch_size": 1, "learning_rate": 0.01, "max_iter": settings.steps}
    elif settings.method == "memorizer":
        options = {"construction": "spikes"}
    result = interpolate(X, y, settings.method, width=settings.width, random_state=seed, **options)
    fresh, truth = _sample(settings, _N_FRESH, rng)
    with torch.no_grad():
        outputs = result.net(fresh)
    return {
        "train_error": result.train_error,
        "test_error": float((outputs - truth).square().mean()),
        "sign_accuracy": float((outputs.sign() == truth).double().mean()),
        "ratio": result.flatness.ratio,
        "orbit_minimum": result.flatness.orbit_minimum,
        "status": result.status.name.lower(),
    }


def _sample(
    settings: Settings, n: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], (n, settings.n_features)))
    X = append_bias_coordinate(signs) if settings.with_bias else signs
    return X, signs[:, 0] * signs[:, 1]


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge who generalises without a bias, and with one who is flattest and who generalises.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        Six.
    """

    def judged(
        statement: str, method: str, with_bias: bool, quantity: str, bound: Bound, threshold: float
    ) -> Verdict:
        rows = records[(records["method"] == method) & (records["with_bias"] == with_bias)]
        names = {"test_error": "median test error", "ratio": "median orbit minimum / lower bound"}
        return judge(statement, names[quantity], rows[quantity], bound, threshold)

    return [
        judged(
            "Without a bias the flattest network found generalises: test error at most 0.05.",
            "flattest", False, "test_error", "at most", 0.05,
        ),
        judged(
            "Without a bias one-sample SAM generalises: test error at most 0.05.",
            "sam", False, "test_error", "at most", 0.05,
        ),
        judged(
            "With a bias the memoriser attains the lower bound: no network is flatter.",
            "memorizer", True, "ratio", "at most", 1 + 1e-6,
        ),
        judged(
            "With a bias that memoriser does not generalise: test error at least 0.5.",
            "memorizer", True, "test_error", "at least", 0.5,
        ),
        judged(
            "With a bias the flattest network found does not generalise: test error at least 0.1.",
            "flattest", True, "test_error", "at least", 0.1,
        ),
        judged(
            "With a bias one-sample SAM does not generalise: test error at least 0.1.",
            "sam", True, "test_error", "at least", 0.1,
        ),
    ]  # fmt: skip


def figure(records: pd.DataFrame) -> Figure:
    """Draw test error against flatness, without and with a bias.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Two panels with common axes.
    """
    with new_figure(7.6, 3.8) as drawn:
        panels = drawn.subplots(1, 2, sharex=True, sharey=True)
        for axes, with_bias in zip(panels, (False, True), strict=True):
            for index, (method, label) in enumerate(_LABELS.items()):
                rows = records[(records["method"] == method) & (records["with_bias"] == with_bias)]
                axes.plot(
                    rows["ratio"],
                    rows["test_error"].clip(lower=_NEGLIGIBLE),
                    marker(index),
                    color=colour(index),
                    alpha=0.75,
                    mec="white",
                    mew=0.5,
                    markersize=7,
                    label=label,
                    clip_on=False,
                )
            axes.set(
                yscale="log",
                xlabel="orbit minimum / lower bound",
                title="with a bias" if with_bias else "without a bias",
            )
            axes.grid(True)
        panels[0].set_ylabel("test error")
        panels[0].set_xlim(left=0.98)
        panels[1].legend(loc="lower right")
    return drawn


def _cells(width: int, steps: int) -> tuple[Settings, ...]:
    cells = (("flattest", False), ("sam", False), ("memorizer", True), ("flattest", True))
    return tuple(
        Settings(method=method, with_bias=with_bias, width=width, steps=steps)
        for method, with_bias in (*cells, ("sam", True))
    )


CLAIM = Claim(
    name="bias",
    title="A limit: networks with a bias",
    question=(
        "Is the flattest interpolator always one that generalises? Wen, Li and Ma proved that it "
        "depends on the architecture: with a bias in the first layer a network can spend one "
        "neuron on each sample, be as flat as any interpolator can be, and know nothing of the "
        "rest of the space. Methods that seek flatness may then end anywhere."
    ),
    method=(
        "Inputs are random vectors of 30 signs, and the label is the product of the first two. "
        "100 samples are interpolated by a two-layer ReLU network with and without a constant "
        "input coordinate: by the flattest network found, by sharpness-aware minimisation with "
        "single samples (constant step 0.01, radius 0.1, then descent to zero loss), and, with the "
        "constant coordinate, by one neuron per sample that is zero on all other samples. The test "
        "error is the mean squared error on 10,000 fresh inputs over the variance of the labels."
    ),
    thresholds=(
        "That the memoriser attains the lower bound is the source's own statement; 1e-6 is left "
        "for rounding. The test errors are ours: up to 0.05 counts as generalising, from 0.1 on as "
        "not, and from 0.5 on as knowing next to nothing; 1 is that of always saying 0."
    ),
    limits=(
        "Not to generalise means here a mean squared error far from zero; the signs of the outputs "
        "may be right all the same. What SAM finds with a bias depends on the start, the step and "
        "the number of steps. The sizes of the inputs and of the training set are those of the "
        "source; width, step, radius and number of steps are ours."
    ),
    source=(
        "K. Wen, Z. Li, T. Ma, Sharpness Minimization Algorithms Do Not Only Minimize Sharpness "
        "To Achieve Better Generalization, NeurIPS 2023."
    ),
    trial=trial,
    quick=Design(_cells(100, 30_000), n_seeds=8),
    full=Design(_cells(300, 200_000), n_seeds=20, time_limit=1800.0),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Each mark is a network that fits the 100 samples exactly, each seed one; at 1 on the "
        "horizontal axis no interpolator can be flatter. A network that always says 0 has a test "
        "error of 1."
    ),
)
