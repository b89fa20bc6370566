"""Population loss against flatness, for several networks that fit one training set."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from flattest.figures.style import (
    GREY,
    NEGLIGIBLE_ERROR,
    colour,
    mark_negligible,
    marker,
    new_figure,
)


def loss_against_flatness(networks: pd.DataFrame) -> Figure:
    """Draw population loss against trace beside population loss against orbit minimum.

    Parameters
    ----------
    networks : DataFrame
        One row per network that fits the training set, with columns `network` (the same for all
        that compute one function), `copy` (``"as found"`` for one of them), `test_error`,
        `trace`, `orbit_minimum` and `lower_bound`.

    Returns
    -------
    Figure
        Two panels with a common vertical axis; errors below 1e-16 are drawn there.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.figures import loss_against_flatness
    >>> row = {"network": "a", "copy": "as found", "test_error": 1.0, "trace": 9.0}
    >>> figure = loss_against_flatness(pd.DataFrame([row | {"orbit_minimum": 4, "lower_bound": 3}]))
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['trace of the Hessian', 'orbit minimum of the trace']
    """
    names = list(dict.fromkeys(networks["network"]))
    errors = networks["test_error"].clip(lower=NEGLIGIBLE_ERROR)
    with new_figure(9.6, 4.4) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, quantity in zip(panels, ("trace", "orbit_minimum"), strict=True):
            axes.set(xscale="log", yscale="log")
            axes.grid(True)
            for index, name in enumerate(names):
                rows = networks["network"] == name
                found = rows & (networks["copy"] == "as found")
                hue, mark = colour(index), marker(index)
                x, y = networks.loc[rows, quantity], errors[rows]
                axes.plot(x, y, color=hue, linewidth=0.8, alpha=0.5, zorder=2)
                axes.plot(x, y, mark, mfc="white", mec=hue, markersize=5, zorder=3)
                axes.plot(
                    networks.loc[found, quantity],
                    errors[found],
                    mark,
                    color=hue,
                    mec="white",
                    mew=0.8,
                    markersize=9,
                    label=name,
                    zorder=4,
                )
        left, right = panels
        left.set(xlabel="trace of the Hessian", ylabel="population loss (relative)")
        left.set_title(_correlation_title("Trace", networks["trace"], networks))
        right.set(xlabel="orbit minimum of the trace")
        right.set_title(_correlation_title("Orbit minimum", networks["orbit_minimum"], networks))
        bound = float(networks["lower_bound"].min())
        low = min(bound, float(networks["orbit_minimum"].min())) / 2
        right.set_xlim(low, float(networks["orbit_minimum"].max()) * 3)
        right.axvspan(low, bound, color="#eeeeee", zorder=0)
        right.axvline(bound, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        right.annotate(
            "lower bound for\nevery interpolator",
            (bound, 0.5),
            (-6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            color=GREY,
            fontsize=8,
        )
        if errors.min() <= NEGLIGIBLE_ERROR:
            mark_negligible(left, float(errors.max()))
        left.minorticks_off()
        right.minorticks_off()
        figure.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=min(3, len(names)),
            title="filled: as found   ·   open: rescaled copies of the same function",
            title_fontsize=9,
            fontsize=9,
        )
    return figure


def _correlation_title(name: str, values: pd.Series, networks: pd.DataFrame) -> str:
    # Copies of one function differ by rounding, which must not order them.
    errors = networks.groupby("network")["test_error"].transform("median")
    ranks = pd.DataFrame({"x": np.log(values).round(9), "y": errors}).rank()
    if ranks["x"].nunique() < 2 or ranks["y"].nunique() < 2:
        return name
    return f"{name}: rank correlation {float(ranks.corr().to_numpy()[0, 1]):.2f}"
