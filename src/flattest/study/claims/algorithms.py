"""Algorithms: which ways of training move towards the flattest interpolator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from flattest.datasets import make_multi_index
from flattest.figures import GREY, colour, marker, new_figure
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.verdict import Verdict, judge
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet

_N_POINTS = 25
_N_FRESH = 5_000
_NEGLIGIBLE = 1e-6
_LARGE = 1.0
_LABELS = {
    "sgd": "SGD, large step",
    "label_noise_sgd": "SGD with label noise",
    "sam": "SAM, sample by sample",
}
_STARTS = {"large": "a large random start", "interpolator": "an interpolator that is not flat"}


@dataclass(frozen=True)
class Settings:
    """One way of training, and where it starts.

    Parameters
    ----------
    method : {"flattest", "sgd", "label_noise_sgd", "sam"}
        The interpolator.
    start : {"large", "interpolator", "none"}
        A random network of standard deviation 1; what gradient descent makes of it; or, for the
        flattest, a start of its own.
    steps : int
        Number of steps on minibatches.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    method: str = "sam"
    start: str = "large"
    steps: int = 40_000
    n_samples: int = 400
    n_features: int = 20
    n_directions: int = 3
    width: int = 200


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a network, and measure it along the way.

    Parameters
    ----------
    settings : Settings
        The method and the sizes.
    seed : int
        Seed of the data and of the method.

    Returns
    -------
    dict
        Flatness and errors at the end, and the trajectory: ``ratio_00``, ``test_error_00`` and so
        on, at equal distances in the history. A ratio is to the bound for the network's own
        outputs, so that it is at least 1 also where the network does not interpolate.
    """
    links, width = ["relu"] * settings.n_directions, settings.width
    X, y, model = make_multi_index(
        settings.n_samples, settings.n_features, links, random_state=seed
    )
    options: dict[str, Any] = {}
    if settings.method != "flattest":
        options = {"max_iter": settings.steps, "init_scale": _LARGE}
    if settings.start == "interpolator":
        lazy = interpolate(
            X, y, "gradient_descent", width=width, init_scale=_LARGE, random_state=seed
        )
        options["start"] = lazy.net
    nets: list[TwoLayerNet] = []
    result = interpolate(
        X,
        y,
        settings.method,
        width=width,
        random_state=seed,
        callback=lambda entry, net: nets.append(net),
        **options,
    )
    nets.append(result.net)
    record: dict[str, Any] = {
        "ratio": result.flatness.ratio,
        "train_error": result.train_error,
        "status": result.status.name.lower(),
    }
    for index, point in enumerate(np.linspace(0, len(nets) - 1, _N_POINTS).round().astype(int)):
        error = model.relative_error(nets[point], n_samples=_N_FRESH, random_state=seed + 1)
        record[f"ratio_{index:02}"] = measure(nets[point], X, y).ratio
        record[f"test_error_{index:02}"] = record["test_error"] = error
    return record


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge how near the flattest network each way of training ends.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        Two per method and start.
    """
    flattest = records[records["method"] == "flattest"].set_index("seed")["ratio"]
    judged = []
    cells = dict.fromkeys(zip(records["method"], records["start"], strict=True))
    for method, start in cells:
        if method == "flattest":
            continue
        rows = records[(records["method"] == method) & (records["start"] == start)]
        where = f"{_LABELS[method]}, from {_STARTS[start]},"
        rows = rows.set_index("seed")
        excess = rows["ratio"] / flattest.reindex(rows.index)
        if method == "sgd":
            judged += [
                judge(
                    f"{where} does not move to the flattest network: it ends at least 3 times as "
                    "sharp.",
                    "median orbit minimum / that of the flattest",
                    excess,
                    "at least",
                    3.0,
                ),
                judge(
                    f"{where} does not generalise: test error at least 0.5.",
                    "median test error",
                    rows["test_error"],
                    "at least",
                    0.5,
                ),
            ]
            continue
        judged += [
            judge(
                f"{where} moves to the flattest network: it ends within 1.1 times its orbit "
                "minimum.",
                "median orbit minimum / that of the flattest",
                excess,
                "at most",
                1.1,
            ),
            judge(
                f"{where} generalises: test error at most 0.01.",
                "median test error",
                rows["test_error"],
                "at most",
                0.01,
            ),
        ]
    return judged


def figure(records: pd.DataFrame) -> Figure:
    """Draw the way of each network in the plane of flatness and test error.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        One panel per start.
    """
    starts = [start for start in _STARTS if start in set(records["start"])]
    flattest = records.loc[records["method"] == "flattest", "ratio"].median()
    with new_figure(4.0 * max(len(starts), 1), 4.0) as drawn:
        panels = drawn.subplots(1, len(starts), sharex=True, sharey=True, squeeze=False)[0]
        for axes, start in zip(panels, starts, strict=True):
            axes.axvline(flattest, color=GREY, linestyle="--", linewidth=1, label="flattest found")
            for index, (method, label) in enumerate(_LABELS.items()):
                rows = records[(records["method"] == method) & (records["start"] == start)]
                ratios, errors = _paths(rows, "ratio"), _paths(rows, "test_error")
                look = {"color": colour(index), "mec": "white", "mew": 0.6}
                for ratio, error in zip(ratios, errors, strict=True):
                    axes.plot(ratio, error, color=colour(index), alpha=0.15, linewidth=0.8)
                    axes.plot(ratio[:1], error[:1], "o", color=GREY, markersize=3)
                    axes.plot(ratio[-1:], error[-1:], marker(index), markersize=6, **look)
                if len(rows):
                    middle = np.median(ratios, axis=0), np.median(errors, axis=0)
                    axes.plot(*middle, color=colour(index), linewidth=1.8)
                axes.plot([], [], f"{marker(index)}-", markersize=6, label=label, **look)
            axes.set(
                xscale="log",
                yscale="log",
                xlabel="orbit minimum / lower bound",
                title=f"from {_STARTS[start]}",
            )
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.grid(True)
        panels[0].set_ylabel("test error")
        panels[-1].legend(loc="lower right")
    return drawn


def _paths(rows: pd.DataFrame, quantity: str) -> np.ndarray:
    """Return the trajectories, one per row."""
    columns = [f"{quantity}_{index:02}" for index in range(_N_POINTS)]
    return rows[columns].to_numpy(dtype=float).clip(min=_NEGLIGIBLE)


def _cells(steps: dict[str, int], **sizes: int) -> tuple[Settings, ...]:
    trained = tuple(
        Settings(method=method, start=start, steps=steps[method], **sizes)
        for start in _STARTS
        for method in _LABELS
        if (method, start) != ("sgd", "interpolator")  # it has no reason to move at all
    )
    return (*trained, Settings(method="flattest", start="none", steps=0, **sizes))


CLAIM = Claim(
    name="algorithms",
    title="What training finds by itself",
    question=(
        "A method built to find the flattest interpolator finds it. Nobody trains that way: do "
        "stochastic gradient descent with large steps, with noise on the labels, and "
        "sharpness-aware minimisation move towards the flattest interpolator of themselves, and "
        "does their population loss fall as they do?"
    ),
    method=(
        "Networks start where training is lazy: at a random point so large that gradient descent "
        "can fit the data with hardly a change of its directions; or at the very interpolator that "
        "gradient descent finds from there. Noise and radius go to zero at the "
        "end, and a plain descent finishes at zero training loss. The orbit minimum and the test "
        "error, relative to the variance of the labels, are measured on the way. SGD has the "
        "constant step that is 0.8 times the largest stable one at its start; the other two adapt "
        "the step to the curvature as it falls. At an interpolator the gradient of every sample is "
        "zero, so plain SGD is not started there."
    ),
    thresholds=(
        "Ours. To end within 1.1 times the least orbit minimum found counts as having moved there, "
        "3 times as not having done so; a test error up to 0.01 counts as generalising and from "
        "0.5 on, half of that of the best constant, as not. Between these numbers nothing is "
        "claimed."
    ),
    limits=(
        "Noise, radius, batch size and step are ours: large noise and steps near the edge of "
        "stability, so that a drift is fast enough to be seen; by theory its speed falls with the "
        "square of the step and of the noise. The data themselves are free of noise."
    ),
    source=(
        "G. Blanc et al., COLT 2020; A. Damian, T. Ma, J. D. Lee, NeurIPS 2021; Z. Li, T. Wang, "
        "S. Arora, ICLR 2022 (label noise); P. Foret et al., ICLR 2021; K. Wen, T. Ma, Z. Li, ICLR "
        "2023 (SAM). The start and the comparison with the flattest interpolator are ours."
    ),
    trial=trial,
    quick=Design(
        _cells(
            {"sgd": 10_000, "label_noise_sgd": 40_000, "sam": 15_000},
            n_samples=200,
            n_features=10,
            width=80,
        ),
        n_seeds=5,
    ),
    full=Design(
        _cells({"sgd": 40_000, "label_noise_sgd": 150_000, "sam": 60_000}),
        n_seeds=20,
        time_limit=1800.0,
    ),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "The way of every network from a grey dot to a mark, one for each seed; the thick lines "
        "are medians. The dashed line is the flattest interpolator found by the method made for it "
        "(median). On their way noisy networks do not fit the data."
    ),
)
