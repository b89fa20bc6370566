"""Ranking: which measure orders networks by how well they generalise, judged and drawn.

What the parts on fully connected networks and on transformers share: from one record per network to
rank correlations with intervals, verdicts, a table and a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from flattest.figures import colour, marker, new_figure
from flattest.study import Verdict, judge
from flattest.uses.measures import MEASURES
from flattest.uses.rank_correlation import conditional_information, overall, within_axes

Coefficient = Callable[[np.ndarray], float]
FITTED = 0.01
"""The training error up to which a network counts as fitted."""
_USEFUL = 0.2
_PLAIN = ("weight_norm", "small_margin", "train_loss")


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge the orbit minimum: overall, within axes, against the trace and against plain measures.

    Parameters
    ----------
    records : DataFrame
        One row per network.

    Returns
    -------
    list of Verdict
        With intervals from trajectories drawn again.
    """
    seeds = pd.Series(np.unique(records["seed"]), dtype=float)
    groups = not np.allclose(records["minimum_over_scales"], records["minimum_over_groups"])
    best = "minimum_over_groups" if groups else "minimum_over_scales"
    name = MEASURES[best]
    tau, psi = (
        {measure: coefficient(records, measure) for measure in MEASURES}
        for coefficient in (overall, within_axes)
    )
    judged = [
        judge(
            f"Networks with a larger {name} have larger gaps: Kendall's tau is at least "
            f"{_USEFUL:g}.",
            "tau over all pairs of networks",
            seeds,
            "at least",
            _USEFUL,
            tau[best],
        ),
        judge(
            "The same holds where one hyper-parameter changes and all others stay: the mean over "
            f"hyper-parameters is at least {_USEFUL:g}.",
            "granulated coefficient",
            seeds,
            "at least",
            _USEFUL,
            psi[best],
        ),
        judge(
            f"The {name} ranks better than the trace.",
            "difference of tau",
            seeds,
            "at least",
            0.0,
            _better(tau[best], tau["trace"]),
        ),
    ]
    judged += [
        judge(
            f"The {name} ranks better than the {MEASURES[plain]}.",
            "difference of tau",
            seeds,
            "at least",
            0.0,
            _better(tau[best], tau[plain]),
        )
        for plain in _PLAIN
    ]
    if groups:
        judged.append(
            judge(
                "The minimum over all groups ranks better than that over scales.",
                "difference of tau",
                seeds,
                "at least",
                0.0,
                _better(tau[best], tau["minimum_over_scales"]),
            )
        )
    return judged


def _better(first: Coefficient, second: Coefficient) -> Coefficient:
    return lambda chosen: first(chosen) - second(chosen)


def table(records: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """Tabulate all measures with all coefficients.

    Parameters
    ----------
    records : DataFrame
        One row per network.
    factors : sequence of str
        The hyper-parameters.

    Returns
    -------
    DataFrame
        One row per measure: tau with its 95 % interval, the same among fitted networks, that with
        the test error in place of the gap, the granulated coefficient with its interval, and the
        conditional information with what chance reaches.
    """
    seeds = pd.Series(np.unique(records["seed"]), dtype=float)
    fitted = records[records["train_error"] <= FITTED]
    rows = []
    for measure, title in MEASURES.items():
        spread = {
            name: judge("", "", seeds, "at least", 0.0, coefficient(records, measure))
            for name, coefficient in (("tau", overall), ("within", within_axes))
        }
        information, chance = conditional_information(records, measure, factors)
        rows.append(
            {
                "measure": title,
                "tau": spread["tau"].estimate,
                "tau, low": spread["tau"].low,
                "tau, high": spread["tau"].high,
                f"tau, {len(fitted)} fitted": overall(fitted, measure)(np.unique(fitted["seed"])),
                "tau, test error": overall(records, measure, "test_error")(np.unique(seeds)),
                "within axes": spread["within"].estimate,
                "within, low": spread["within"].low,
                "within, high": spread["within"].high,
                "conditional information": information,
                "by chance": chance,
            }
        )
    return pd.DataFrame(rows)


def figure(records: pd.DataFrame) -> Figure:
    """Draw the coefficients of all measures, and the gap against three of them.

    Parameters
    ----------
    records : DataFrame
        One row per network.

    Returns
    -------
    Figure
        Intervals on the left, clouds on the right.
    """
    seeds = pd.Series(np.unique(records["seed"]), dtype=float)
    with new_figure(11.4, 4.4) as drawn:
        left, *clouds = drawn.subplots(1, 4, width_ratios=[1.7, 1, 1, 1])
        for index, (coefficient, label) in enumerate(
            ((overall, "all pairs (tau)"), (within_axes, "one hyper-parameter apart"))
        ):
            for place, measure in enumerate(MEASURES):
                found = judge("", "", seeds, "at least", 0.0, coefficient(records, measure))
                height = -place + 0.16 - 0.32 * index
                left.plot([found.low, found.high], [height] * 2, color=colour(index), linewidth=1.6)
                left.plot(
                    found.estimate,
                    height,
                    marker(index),
                    color=colour(index),
                    label=label if place == 0 else None,
                )
        left.axvline(0, color="#333333", linewidth=0.8)
        left.set_yticks([-place for place in range(len(MEASURES))], list(MEASURES.values()))
        left.set(title="Rank correlation with the gap", xlim=(-1, 1), xlabel="coefficient")
        left.set_ylim(-len(MEASURES) + 0.3, 2.0)
        left.grid(True, axis="x")
        left.legend(loc="upper left", fontsize=9)
        chosen = ("trace", "minimum_over_groups", "train_loss")
        for axes, measure in zip(clouds, chosen, strict=True):
            _cloud(axes, records, measure)
        clouds[0].set_ylabel("generalisation gap")
        for axes in clouds[1:]:
            axes.sharey(clouds[0])
            axes.tick_params(labelleft=False)
        clouds[-1].legend(loc="best", fontsize=8, title="wrong labels", title_fontsize=8)
    return drawn


def _cloud(axes: Any, records: pd.DataFrame, measure: str) -> None:
    for index, (level, rows) in enumerate(records.groupby("label_noise")):
        axes.plot(
            rows[measure],
            rows["gap"],
            marker(index),
            color=colour(index),
            alpha=0.7,
            markersize=4.5,
            mec="none",
            label=f"{level:.0%}",
        )
    axes.set(xscale="log", xlabel=MEASURES[measure])
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params("x", labelsize=8)
    axes.grid(True)
