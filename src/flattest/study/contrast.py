"""The flattest interpolator beside another one of the same data: trial, verdicts and figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from flattest.datasets import MultiIndexModel
from flattest.figures import (
    GREY,
    NEGLIGIBLE_ERROR,
    colour,
    marker,
    new_figure,
)
from flattest.interpolators import interpolate
from flattest.study.recovery import GAP, RECOVERED
from flattest.study.verdict import Verdict, judge, judge_share
from flattest.two_layer.activations import Homogeneous
from flattest.wording import floor

GENERALISES = 0.1
"""The relative test error from which on a network counts as one that does not generalise."""
OTHERS: Mapping[str, dict[str, Any]] = {
    "random_features": {},
    "gradient_descent": {"init_scale": 1.0},
}
"""The other interpolators: random features, and gradient descent from a large start."""


def contrast(
    X: Tensor,
    y: Tensor,
    model: MultiIndexModel,
    other: str,
    *,
    width: int,
    activation: str | Homogeneous,
    seed: int,
) -> dict[str, Any]:
    """Fit the data by the flattest interpolator and by another one, and test both.

    Parameters
    ----------
    X, y : Tensor
        The data, without noise.
    model : MultiIndexModel
        What made them.
    other : str
        A key of `OTHERS`.
    width : int
        Of both networks.
    activation : str or Homogeneous
        Of both networks.
    seed : int
        Seed of both networks and of the test inputs.

    Returns
    -------
    dict
        Test error, ratio and status of both, and `gap`: the orbit minimum of the other over that
        of the flattest.
    """
    record: dict[str, Any] = {}
    minima = []
    for prefix, method, options in (("", "flattest", {}), ("other_", other, OTHERS[other])):
        found = interpolate(
            X, y, method, width=width, activation=activation, random_state=seed, **options
        )
        minima.append(found.flatness.orbit_minimum)
        record[f"{prefix}test_error"] = model.relative_error(found.net, random_state=seed)
        record[f"{prefix}train_error"] = found.train_error
        record[f"{prefix}ratio"] = found.flatness.ratio
        record[f"{prefix}status"] = found.status.name.lower()
    return record | {"gap": minima[1] / minima[0]}


def contrast_verdicts(records: pd.DataFrame, cells: pd.Series, subject: str) -> list[Verdict]:
    """Judge the recovery in each cell, and the gap over all cells.

    Parameters
    ----------
    records : DataFrame
        Records of `contrast`.
    cells : Series
        The name of the cell of each record.
    subject : str
        What the cells are, in the plural.

    Returns
    -------
    list of Verdict
        One per cell, and two on all cells together: on the flatness and on the test error of the
        other networks that interpolate.
    """
    judged = [
        judge_share(
            f"{name}: the flattest network is the model (test error at most {RECOVERED:g}) for at "
            "least half of the data sets.",
            "share recovered",
            rows.groupby("seed")["test_error"].max() <= RECOVERED,
            "at least",
            0.5,
        )
        for name, rows in records.groupby(cells, sort=False)
    ]
    bad = records[_is_bad(records)]
    judged.append(
        judge(
            f"For all {subject}, interpolators with a test error above {GENERALISES:g} have an "
            f"orbit minimum at least {GAP:g} times that of the flattest network of the same data.",
            "smallest quotient of the orbit minima, median over the seeds",
            bad.groupby("seed")["gap"].min(),
            "at least",
            GAP,
        )
    )
    return judged


def contrast_conclusion(records: pd.DataFrame, cells: pd.Series, subject: str) -> str:
    """Say where the model is recovered, and how near the other interpolators come.

    Parameters
    ----------
    records : DataFrame
        Records of `contrast`.
    cells : Series
        The name of the cell of each record.
    subject : str
        What the cells are, in the plural.

    Returns
    -------
    str
        A sentence, and a second one where another interpolator does not generalise.
    """
    recovered = {
        str(name): float((rows.groupby("seed")["test_error"].max() <= RECOVERED).mean())
        for name, rows in records.groupby(cells, sort=False)
    }
    missed = [name for name, share in recovered.items() if share < 0.5]
    said = (
        f"The flattest network is the model for at least half of the data sets for "
        f"{len(recovered) - len(missed)} of {len(recovered)} {subject}"
    )
    said += f", not for: {'; '.join(missed)}." if missed else "."
    bad = records.assign(cell=cells)[_is_bad(records)].dropna(subset=["gap"])
    if len(bad):
        row = bad.iloc[int(bad["gap"].argmin())]
        other = str(row["other"]).replace("_", " ")
        said += (
            f" No other interpolator with a test error above {GENERALISES:g} has less than "
            f"{floor(row['gap'])} times the orbit minimum of the flattest network of the same "
            f"data: the closest is {other} for {row['cell']}, in seed {row['seed']}, with a "
            f"test error of {row['other_test_error']:.2g}."
        )
    return said


def contrast_figure(records: pd.DataFrame, cells: pd.Series) -> Figure:
    """Draw test errors and ratios of both networks, one row per cell.

    Parameters
    ----------
    records : DataFrame
        Records of `contrast`.
    cells : Series
        The name of the cell of each record.

    Returns
    -------
    Figure
        Two panels.
    """
    names = list(dict.fromkeys(cells))
    rows = cells.map({name: index for index, name in enumerate(names)}).astype(float)
    # Seeds one below the other, so that equal values stay apart.
    rows = rows + 0.3 * (records["seed"] / max(records["seed"].max(), 1) - 0.5)
    series = [("", "flattest", records)]
    series += [
        ("other_", str(other).replace("_", " "), chosen)
        for other, chosen in records[_fits(records)].groupby("other", sort=False)
    ]
    with new_figure(9.6, 1.5 + 0.34 * len(names)) as drawn:
        left, right = drawn.subplots(1, 2, sharey=True)
        for axes, quantity in ((left, "test_error"), (right, "ratio")):
            for index, (prefix, name, chosen) in enumerate(series):
                values = chosen[prefix + quantity]
                axes.plot(
                    values.clip(lower=NEGLIGIBLE_ERROR if axes is left else None),
                    rows[chosen.index],
                    marker(index),
                    color=colour(index),
                    alpha=0.75,
                    mec="white",
                    mew=0.5,
                    markersize=6,
                    label=name,
                )
            axes.set(xscale="log")
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
        left.axvline(RECOVERED, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        left.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
        left.set(xlabel="population loss (relative)", title="Does it generalise?")
        right.set(xlabel="orbit minimum / lower bound", title="How flat is it?")
        _label_errors(left)
        drawn.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


def _label_errors(axes: Axes) -> None:
    """Label powers of ten, the lowest as standing for all below."""
    axes.set_xlim(NEGLIGIBLE_ERROR / 10, max(axes.get_xlim()[1], 10.0))
    exponents = [-16, -12, -8, -4, 0]
    labels = [f"$10^{{{exponent}}}$" for exponent in exponents]
    labels[0] = r"$\leq 10^{-16}$"
    axes.set_xticks([10.0**exponent for exponent in exponents], labels)
    axes.minorticks_off()


def _fits(records: pd.DataFrame) -> pd.Series:
    """Tell where the other network interpolates."""
    return records["other_status"] == "converged"


def _is_bad(records: pd.DataFrame) -> pd.Series:
    return _fits(records) & (records["other_test_error"] > GENERALISES)
