"""The gap: how much flatter the flattest network is than those that do not generalise.

Records of networks that fit one training set become ratios to the flattest one, seed by seed, and a
figure of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from flattest.figures import GREY, colour, marker
from flattest.study.recovery import GAP, RECOVERED
from flattest.wording import floor, listed

BAD = 0.5
"""The population loss above which a network has not generalised."""
_CLOSEST = 3


def by_experiment(records: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return the interpolators of each (n, d, m), the experiment with most networks first."""
    fitting = records[records["interpolates"].astype(bool)]
    groups = [
        (f"n = {n}, d = {d}, m = {m}", rows)
        for (n, d, m), rows in fitting.groupby(["n_samples", "n_features", "zoo_width"])
    ]
    return sorted(groups, key=lambda group: -group[1]["network"].nunique())


def ratio_of_flattest(rows: pd.DataFrame) -> pd.Series:
    """Return the ratio of the flattest network, seed by seed."""
    return rows[rows["network"] == "flattest"].set_index("seed")["ratio"]


def gap_by_seed(rows: pd.DataFrame) -> pd.Series:
    """Return, seed by seed, the least ratio of a bad network over that of the flattest."""
    bad = rows[rows["test_error"] > BAD]
    return bad.groupby("seed")["ratio"].min().div(ratio_of_flattest(rows)).rename("gap")


def closest_networks(rows: pd.DataFrame) -> Iterable[tuple[str, pd.Series]]:
    """Return the bad networks that come closest to the flattest, with their relative ratios."""
    gaps = _gaps(rows)
    names = rows.loc[gaps.index, "network"]
    by_network = sorted(gaps.groupby(names), key=lambda item: item[1].median())
    return [(str(network), values) for network, values in by_network[:_CLOSEST]]


def nearest_in_words(records: pd.DataFrame) -> str:
    """Say how near bad networks come to the flattest, and which ones.

    Parameters
    ----------
    records : DataFrame
        The records of all experiments.

    Returns
    -------
    str
        The closest of all seeds and sizes, and the closest ones in the median seed of the largest
        experiment; empty where there is no bad network beside a flattest one.
    """
    experiments = by_experiment(records)
    gaps = [_gaps(rows).dropna() for _, rows in experiments]
    least, place = min(
        ((float(found.min()), place) for place, found in enumerate(gaps) if len(found)),
        default=(math.nan, 0),
    )
    if math.isnan(least):
        return ""
    sizes, rows = experiments[place]
    row = rows.loc[gaps[place].index].iloc[int(gaps[place].argmin())]
    said = (
        f"No network with a population loss above {BAD:g} has less than {floor(least)} times the "
        f"orbit minimum of the flattest network of the same data: the closest is "
        f"'{row['network']}' at {sizes}, in seed {row['seed']}, with a population loss of "
        f"{row['test_error']:.2g}."
    )
    sizes, rows = experiments[0]
    closest = [(name, values.median()) for name, values in closest_networks(rows)]
    times = [f"'{name}' with {floor(gap)} times" for name, gap in closest if not math.isnan(gap)]
    if len(times) > 1:
        said += f" At {sizes} the closest in the median seed are {listed(times)}."
    return said


def _gaps(rows: pd.DataFrame) -> pd.Series:
    """Return the ratio of every bad network over that of the flattest of its seed."""
    bad = rows[rows["test_error"] > BAD]
    return bad["ratio"] / bad["seed"].map(ratio_of_flattest(rows))


def draw_zoo(axes: Axes, rows: pd.DataFrame, names: Iterable[str]) -> None:
    """Draw a mark per network and seed, and where the claim says that there is none.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    rows : DataFrame
        The records of one experiment.
    names : iterable of str
        The networks in the order of the legend.
    """
    present = set(rows["network"])
    errors = rows["test_error"].clip(lower=RECOVERED)
    for index, network in enumerate(name for name in names if name in present):
        chosen = rows["network"] == network
        # A ring for the flattest: what coincides with it shows inside.
        ring = network == "flattest"
        look: dict[str, Any] = {"mec": "white", "mew": 0.5}
        if ring:
            look = {"mfc": "none", "mec": colour(index), "mew": 1.6}
        axes.plot(
            rows.loc[chosen, "ratio"],
            errors[chosen],
            # Seven of each: shifting the marker after every round keeps all pairs apart.
            marker(index + index // 7),
            color=colour(index),
            alpha=0.75,
            markersize=11 if ring else 6,
            label=network,
            zorder=4 if ring else 3,
            **look,
        )
    top = 10 ** (math.ceil(math.log10(max(float(errors.max()), 1.0))) + 0.7)
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(RECOVERED / 4, top),
        xlabel="orbit minimum / lower bound",
        ylabel="population loss (relative)",
    )
    exponents = range(-6, int(math.log10(top)) + 1, 2)
    labels = [f"$10^{{{exponent}}}$" for exponent in exponents]
    axes.set_yticks([10.0**exponent for exponent in exponents], [r"$\leq 10^{-6}$", *labels[1:]])
    axes.minorticks_off()
    axes.grid(True)
    highest = float(ratio_of_flattest(rows).max())
    if not math.isnan(highest):
        low = axes.get_xlim()[0]
        axes.fill_between([low, GAP * highest], BAD, top, color="#e6e6e6", zorder=0, linewidth=0)
        axes.set_xlim(left=low)
        axes.annotate(
            f"bad, yet within\n{GAP:g} x the flattest",
            (GAP * highest, top),
            (4, -4),
            textcoords="offset points",
            va="top",
            color=GREY,
            fontsize=8,
        )


def draw_gaps(
    axes: Axes, experiments: list[tuple[str, pd.DataFrame]], names: Iterable[str]
) -> None:
    """Draw the gap of every experiment among the networks of all; each seed is a faint mark.

    Parameters
    ----------
    axes : Axes
        Where to draw.
    experiments : list of (str, DataFrame)
        As `by_experiment` returns them.
    names : iterable of str
        All networks that there are.
    """
    common = set(names).intersection(*(rows["network"] for _, rows in experiments))
    gaps = [gap_by_seed(rows[rows["network"].isin(common)]).dropna() for _, rows in experiments]
    for place, values in enumerate(gaps):
        axes.plot(values, np.full(len(values), place), "o", color=colour(0), alpha=0.3, mec="none")
        if len(values):
            axes.plot(values.median(), place, "D", color=colour(4), markersize=7, mec="white")
    axes.axvline(GAP, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    labels = [sizes.replace(", ", "\n", 1) for sizes, _ in experiments]
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set(
        xscale="log",
        xlabel="least ratio of a bad network\n/ ratio of the flattest",
        title="The gap",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
    axes.grid(True, axis="x")
