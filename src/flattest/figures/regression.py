"""Figures of how a regression works: directions, importances and the regularisation path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from flattest.figures.names import shortened
from flattest.figures.panels import Place, few_ticks, panels
from flattest.figures.style import OKABE_ITO, colour, marker

_MOST_BARS, _MOST_IMPORTANCES = 12, 20
_LETTER = 0.08  # inches that a letter of a label takes


def directions_composition(
    loadings: Float[np.ndarray, "k d"],
    importances: Float[np.ndarray, " k"],
    feature_names: Sequence[str],
    *,
    place: Place = None,
) -> Figure:
    """Draw what each direction is made of, by feature name.

    Parameters
    ----------
    loadings : ndarray of shape (k, d)
        One direction per row, per standard deviation of each feature.
    importances : ndarray of shape (k,)
        The shares of the directions, the largest first.
    feature_names : sequence of str
        The names of the ``d`` features.
    place : Axes or sequence of Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Figure
        One panel per direction, up to four; the features with the largest loadings, in one order.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures import directions_composition
    >>> figure = directions_composition(np.array([[0.6, -0.8]]), np.array([1.0]), ["age", "bmi"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['bmi', 'age']
    """
    k, d = min(len(loadings), 4), loadings.shape[1]
    weight = np.abs(loadings[:k] * np.sqrt(importances[:k, None])).max(axis=0, initial=0.0)
    shown = np.argsort(-weight, kind="stable")[:_MOST_BARS]
    names = shortened([feature_names[i] for i in shown])
    width = 0.7 + _LETTER * max(map(len, names)) + 2.3 * k
    size = max(width, 4.6), 1.7 + 0.27 * len(shown)
    with panels(k, *size, place, sharey=True, sharex=True) as (figure, all_axes):
        for index, axes in enumerate(all_axes):
            values = loadings[index, shown]
            colours = [OKABE_ITO[0] if value >= 0 else OKABE_ITO[4] for value in values]
            axes.barh(np.arange(len(shown)), values, color=colours, height=0.7)
            axes.axvline(0, color="#333333", linewidth=0.8)
            axes.grid(True, axis="x")
            axes.tick_params(axis="y", length=0)
            axes.set_xlim(-1.05, 1.05)
            axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "", "0", "", "1"])
            axes.set_title(f"Direction {index + 1}\nimportance {importances[index]:.0%}")
            axes.spines["left"].set_visible(False)
        all_axes[0].set_yticks(np.arange(len(shown)), names)
        all_axes[0].invert_yaxis()
        more = f"\n(largest {len(shown)} of {d} features)" if d > len(shown) else ""
        text = f"weight per standard deviation of the feature{more}"
        if place is None:
            figure.supxlabel(text, fontsize=10)
        else:
            all_axes[0].set_xlabel(text)
    return figure


def feature_importances(
    importances: Float[np.ndarray, " d"], feature_names: Sequence[str]
) -> Figure:
    """Draw how much predictions vary along each feature.

    Parameters
    ----------
    importances : ndarray of shape (d,)
        The shares of the features.
    feature_names : sequence of str
        Their names.

    Returns
    -------
    Figure
        Bars for the features of the largest shares, longest first.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures.regression import feature_importances
    >>> figure = feature_importances(np.array([0.2, 0.8]), ["age", "bmi"])
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['bmi', 'age']
    """
    d = len(importances)
    shown = np.argsort(-importances, kind="stable")[:_MOST_IMPORTANCES]
    names, values = shortened([feature_names[i] for i in shown]), importances[shown]
    width = 4.0 + _LETTER * max(len(name) for name in names)
    with panels(1, width, 1.4 + 0.25 * len(shown)) as (figure, (axes,)):
        axes.barh(np.arange(len(shown)), values, color=OKABE_ITO[0], height=0.7)
        for row, value in enumerate(values):
            axes.annotate(
                f"{value:.0%}" if value >= 0.005 else "<1%",
                (value, row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set(xlim=(0, 1.15 * (values[0] or 1.0)), xticks=[])
        axes.set_yticks(np.arange(len(shown)), names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.spines["bottom"].set_visible(False)
        more = f", largest {len(shown)} of {d}" if d > len(shown) else ""
        axes.set_title(f"Importance of the features{more}")
    return figure


def regularisation_path(
    path: pd.DataFrame,
    strength: float,
    n_directions: int,
    *,
    directions_given: bool = False,
    place: Place = None,
) -> Figure:
    """Draw the error on held-out rows and flatness along the regularisation path.

    Parameters
    ----------
    path : DataFrame
        `MultiIndexRegressor.path_`: columns `n_directions`, `strength`, `held_out_error`,
        `held_out_standard_error` and `flatness`.
    strength : float
        The strength chosen.
    n_directions : int
        The number of directions chosen: its line gets a band of one standard error, and the
        network chosen a ring.
    directions_given : bool
        Whether the directions were found with the held-out rows as well, by a Gaussian process, so
        that only what was learnt on them was held out.
    place : Axes or sequence of Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Figure
        Error on the left, flatness on the right, one line per number of directions.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.figures import regularisation_path
    >>> path = pd.DataFrame(
    ...     {
    ...         "n_directions": [2, 2],
    ...         "strength": [0.1, 1.0],
    ...         "held_out_error": [1.0, 2.0],
    ...         "held_out_standard_error": [0.1, 0.1],
    ...         "flatness": [9.0, 3.0],
    ...     }
    ... )
    >>> [axes.get_ylabel() for axes in regularisation_path(path, 0.1, 2).axes]
    ['mean squared error', 'orbit minimum (reflected)']
    """
    quantities = ("held_out_error", "flatness")
    counts = sorted(path["n_directions"].unique())
    # Directions that the chosen network does not use are not counted among its own.
    chosen = min((count for count in counts if count >= n_directions), default=counts[-1])
    with panels(2, 9.6, 4.0, place) as (figure, all_axes):
        for index, count in enumerate(counts):
            rows = path[path["n_directions"] == count].sort_values("strength")
            hue, mark = colour(index), marker(index)
            here = rows[np.isclose(rows["strength"], strength)] if count == chosen else rows[:0]
            for axes, quantity in zip(all_axes, quantities, strict=True):
                axes.plot(
                    rows["strength"],
                    rows[quantity],
                    color=hue,
                    marker=mark,
                    markersize=5,
                    linewidth=2.0 if count == chosen else 1.1,
                    zorder=3 if count == chosen else 2,
                    label=str(count),
                )
                axes.plot(
                    here["strength"], here[quantity], "o", mfc="none", mec="black", ms=14, zorder=4
                )
            if count == chosen:
                error, spread = rows["held_out_error"], rows["held_out_standard_error"]
                band = (error - spread).clip(lower=0), error + spread
                all_axes[0].fill_between(rows["strength"], *band, color=hue, alpha=0.15, lw=0)
        for axes in all_axes:
            axes.set(xscale="log", xlabel="strength of the flatness penalty")
            axes.grid(True)
        for axes, quantity in zip(all_axes, quantities, strict=True):
            low, high = float(path[quantity].min()), float(path[quantity].max())
            if 0 < 20 * low < high:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
                few_ticks(axes, "y")
        title = "Error on held-out rows" + ", directions given" * directions_given
        all_axes[0].set(ylabel="mean squared error", title=title)
        all_axes[1].set(ylabel="orbit minimum (reflected)", title="Flatness")
        entries: Any = {"title": "directions\n(ring: chosen)", "alignment": "left"}
        if place is None:
            entries["loc"] = "outside right center"
            figure.legend(*all_axes[0].get_legend_handles_labels(), **entries)
        else:
            all_axes[0].legend(**entries)
    return figure
