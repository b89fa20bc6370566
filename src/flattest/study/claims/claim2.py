"""Claim 2: from how many samples on the flattest interpolator is the multi-index model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flattest.datasets import make_multi_index
from flattest.figures import (
    GREY,
    NEGLIGIBLE_ERROR,
    colour,
    mark_negligible,
    marker,
    new_figure,
)
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.recovery import RECOVERED, size_needed
from flattest.study.verdict import Verdict, judge
from flattest.wording import listed

OPTIONS: dict[str, dict[str, Any]] = {"gradient_descent": {"init_scale": 0.01}}
_NAMES = {
    "flattest": "flattest",
    "min_norm": "least norm",
    "gradient_descent": "gradient descent, small start",
    "random_features": "random features",
}
_ENOUGH, _COLLAPSE = 10.0, 1.5


@dataclass(frozen=True)
class Settings:
    """One interpolator on one sample.

    Parameters
    ----------
    method : str
        The interpolator; gradient descent starts small.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    method: str = "flattest"
    n_samples: int = 200
    n_features: int = 20
    n_directions: int = 3
    width: int = 100


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit noiseless samples of a sum of ReLUs exactly, and test the network on fresh inputs.

    Parameters
    ----------
    settings : Settings
        The interpolator and the sizes.
    seed : int
        Seed of the data, whose directions do not depend on ``n``, and of the network.

    Returns
    -------
    dict
        Train MSE, relative test error, orbit-minimal ratio, neurons left and status.
    """
    X, y, model = make_multi_index(
        settings.n_samples,
        settings.n_features,
        ["relu"] * settings.n_directions,
        random_state=seed,
    )
    found = interpolate(
        X,
        y,
        settings.method,
        width=settings.width,
        random_state=seed,
        **OPTIONS.get(settings.method, {}),
    )
    return {
        "train_error": found.train_error,
        "test_error": model.relative_error(found.net, random_state=seed),
        "ratio": found.flatness.ratio,
        "neurons": found.net.width,
        "status": found.status.name.lower(),
    }


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge the samples per feature that recovery takes, for each ``d`` and against other methods.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        One per ``d``, one on all ``d`` together, one per other method.
    """
    needed = {
        (str(method), d): _needed(rows)
        for (method, d), rows in records.groupby(["method", "n_features"])
    }
    of_flattest = {d: counts for (method, d), counts in needed.items() if method == "flattest"}
    judged = [
        judge(
            f"With d = {d} features the flattest network is the model (test error at most "
            f"{RECOVERED:g}) from n = {_ENOUGH:g} d samples on, or fewer.",
            "smallest n/d from which on it is recovered, median over the seeds",
            counts,
            "at most",
            _ENOUGH,
        )
        for d, counts in of_flattest.items()
    ]
    if len(of_flattest) > 1:
        together = pd.DataFrame(of_flattest)
        judged.append(
            judge(
                f"The samples per feature that it takes agree for d = "
                f"{', '.join(map(str, of_flattest))} to a factor of {_COLLAPSE:g}.",
                "largest over smallest n/d, median over the seeds",
                together.max(axis=1, skipna=False) / together.min(axis=1, skipna=False),
                "at most",
                _COLLAPSE,
            )
        )
    for method, d in needed:
        if method != "flattest" and d in of_flattest:
            # On the sizes that both were run at.
            shared = _shared(records[records["n_features"] == d], method)
            judged.append(
                judge(
                    f"With d = {d} features the flattest network needs no more samples than "
                    f"{_NAMES.get(method, method)}.",
                    "n of the flattest over n of the other, median over the seeds",
                    _needed(shared[shared["method"] == "flattest"])
                    / _needed(shared[shared["method"] == method]),
                    "at most",
                    1.0,
                )
            )
    return judged


def conclusion(records: pd.DataFrame) -> str:
    """Say from how many samples per feature on the flattest network is the model.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    str
        A sentence; empty where the flattest was not run.
    """
    flattest = records[records["method"] == "flattest"]
    said = []
    for d, rows in flattest.groupby("n_features"):
        ratio = float(_needed(rows).median())
        if not math.isnan(ratio):
            start = f"from n/d = {ratio:g} on" if math.isfinite(ratio) else "at no n tried"
            said.append(f"{start} for d = {d}")
    if not said:
        return ""
    return f"In the median seed the flattest network is the model {listed(said)}."


def figure(records: pd.DataFrame) -> Figure:
    """Draw population loss against samples per feature, for each ``d`` and for each method.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Two panels.
    """
    flattest = records[records["method"] == "flattest"]
    others = records[records["method"] != "flattest"]
    with new_figure(9.6, 4.8) as drawn:
        left, right = drawn.subplots(1, 2, sharey=True)
        for index, (d, rows) in enumerate(flattest.groupby("n_features")):
            _curve(left, rows, index, f"d = {d}")
        left.set(ylabel="population loss (relative)", title="Flattest network, by dimension")
        # Lines through different sizes would mislead.
        chosen = flattest.merge(others[["n_samples", "n_features"]].drop_duplicates())
        sizes = ", ".join(str(d) for d in sorted(set(others["n_features"])))
        compared = pd.concat([chosen, others])
        for index, (method, name) in enumerate(_NAMES.items()):
            rows = compared[compared["method"] == method]
            if len(rows):
                _curve(right, rows, index, name)
        right.set_title(f"By method, d = {sizes}" if sizes else "By method")
        for axes in (left, right):
            axes.set(xlabel="samples per feature  n / d", yscale="log")
            axes.grid(True)
            if axes.lines:  # alone, the level would be all there is to scale the axis by
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)
                axes.axhline(RECOVERED, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        if len(records) and records["test_error"].min() <= NEGLIGIBLE_ERROR:
            mark_negligible(left, float(records["test_error"].max()))
        left.minorticks_off()
    return drawn


def _needed(records: pd.DataFrame) -> pd.Series:
    """Return, per seed, the smallest n/d from which on the model is recovered."""
    ratio = records["n_samples"] / records["n_features"]
    return size_needed(records.assign(ratio=ratio), ["ratio"])


def _shared(records: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the rows of the flattest and of a method at the sample sizes that both have."""
    pair = records[records["method"].isin(["flattest", method])]
    return pair[pair.groupby("n_samples")["method"].transform("nunique") == 2]


def _curve(axes: Axes, rows: pd.DataFrame, index: int, label: str) -> None:
    """Draw each seed as a faint mark and the medians as a line."""
    ratios = rows["n_samples"] / rows["n_features"]
    errors = rows["test_error"].clip(lower=NEGLIGIBLE_ERROR)
    hue, mark = colour(index), marker(index)
    axes.plot(ratios, errors, mark, color=hue, alpha=0.3, markersize=4, mec="none", zorder=2)
    medians = errors.groupby(ratios).median()
    axes.plot(
        medians.index,
        medians,
        f"{mark}-",
        color=hue,
        linewidth=1.6,
        markersize=7,
        mec="white",
        mew=0.7,
        label=label,
        zorder=3,
    )


def _cells(
    ratios: dict[int, Sequence[float]], compared_at: int, compared: Sequence[float]
) -> tuple[Settings, ...]:
    """Lay out the flattest over n/d for each d, and the other methods at one d."""
    cells = [
        Settings(n_samples=round(ratio * d), n_features=d) for d in ratios for ratio in ratios[d]
    ]
    for method in list(_NAMES)[1:]:
        for ratio in compared:
            n = round(ratio * compared_at)
            # Random features interpolate only where there are at least as many as samples.
            width = 2 * n if method == "random_features" else Settings.width
            cells.append(Settings(method, n_samples=n, n_features=compared_at, width=width))
    return tuple(cells)


_QUICK = (4.0, 6.0, 7.0, 8.0, 10.0)
_FULL = (2.0, 3.0, 4.0, 5.0, 5.5, 6.0, 6.5, 7.0, 7.5, 8.0, 9.0, 10.0, 12.0, 16.0)

CLAIM = Claim(
    name="claim2",
    title="The flattest network finds the model",
    question=(
        "A multi-index model is a sum of functions of a few unknown directions of the input. If "
        "labels come from such a model, does the network of least Hessian trace among all that "
        "fit the samples exactly have a small population loss, and from how many samples on?"
    ),
    method=(
        "Sums of three ReLUs of orthonormal directions, Gaussian inputs with d features, no noise. "
        "A two-layer ReLU network of 100 neurons is fitted to n samples with zero training loss "
        "and least trace, and tested on 20,000 fresh inputs; a loss of 1 is that of the best "
        "constant. The model counts as recovered at a loss of at most 1e-6. For each seed we take "
        "the smallest n/d of the grid from which on it is. At d = 20 the same is done for the "
        "network of least parameter norm, for gradient descent from a small start (standard "
        "deviation 0.01), and for least-norm regression on 2 n random ReLU features."
    ),
    thresholds=(
        "Ours, since the constants of the source's theorem are not used. 10 samples per feature "
        "stand for a number of samples that grows no faster than the dimension and is not large. "
        "Numbers of samples that agree to a factor of 1.5 agree as well as they can be told apart: "
        "so far apart are neighbours on the coarsest part of the grid. 1e-6 stands for a loss of "
        "zero up to rounding and to what a solver leaves. The comparison with other methods has "
        "no threshold but equality."
    ),
    limits=(
        "Finding the flattest network is not a convex problem: what is measured is the network "
        "that our solver finds, and near the threshold it may miss a flatter one. The number of "
        "samples per feature is read off a grid, for three directions only; the claim `phase` "
        "varies their number. Gradient descent stops at a finite train loss and keeps a trace of "
        "its start, so it can be close to the model and yet not count as having recovered it. For "
        "noise and other inputs see `robustness` and `inputs`."
    ),
    source=(
        "H. Vardhan, H. Taheri, A. Mazumdar, Flatness and Generalization: Learning Multi-Index "
        "Models with Homogeneous Neural Networks, arXiv 2606.04429, 2026. The constants of its "
        "theorem are not used here."
    ),
    trial=trial,
    quick=Design(
        _cells({10: _QUICK, 20: _QUICK, 40: _QUICK, 80: _QUICK[1:]}, 20, (4.0, 7.0, 10.0)), 5
    ),
    full=Design(_cells(dict.fromkeys((10, 20, 40, 80), _FULL), 20, _FULL), 20, 1800.0),
    verdicts=verdicts,
    figure=figure,
    conclusion=conclusion,
    caption=(
        "Population loss of exactly fitting networks against the number of samples per feature: "
        "medians over the seeds joined by lines, single seeds faint. Dashed: the loss below which "
        "the model counts as recovered."
    ),
)
