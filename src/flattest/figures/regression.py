"""Figures of a regression: directions, predictions and the regularisation path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from flattest.figures.style import GREY, OKABE_ITO, colour, marker, new_figure

_MOST_BARS = 12


def directions_composition(
    loadings: Float[np.ndarray, "k d"],
    importances: Float[np.ndarray, " k"],
    feature_names: Sequence[str],
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
    height = 1.5 + 0.27 * len(shown)
    with new_figure(2.2 + 2.3 * max(k, 1), height) as figure:
        panels = np.atleast_1d(figure.subplots(1, max(k, 1), sharey=True, sharex=True))
        for index, axes in enumerate(panels[:k]):
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
        panels[0].set_yticks(np.arange(len(shown)), [_shorten(feature_names[i]) for i in shown])
        panels[0].invert_yaxis()
        more = f" (largest {len(shown)} of {d} features)" if d > len(shown) else ""
        figure.supxlabel(f"weight per standard deviation of the feature{more}", fontsize=10)
    return figure


def links(
    projections: Float[np.ndarray, "n k"],
    target: Float[np.ndarray, " n"],
    curves: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
    importances: Float[np.ndarray, " k"],
) -> Figure:
    """Draw targets against the projection on each direction, and the fitted link along it.

    Parameters
    ----------
    projections : ndarray of shape (n, k)
        The data's projections.
    target : ndarray of shape (n,)
        The targets.
    curves : sequence of (ndarray, ndarray, ndarray or None)
        For each direction positions, predictions there, and their standard deviations.
    importances : ndarray of shape (k,)
        The shares of the directions.

    Returns
    -------
    Figure
        One panel per direction, up to four.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures import links
    >>> x = np.arange(3.0)
    >>> links(x[:, None], x, [(x, x, None)], np.ones(1)).axes[0].get_ylabel()
    'target'
    """
    k = min(len(curves), 4)
    size = float(np.clip(80 / np.sqrt(len(target)), 1.5, 5))
    name = "link" if len(curves) == 1 else "link, others at their means"
    with new_figure(1.2 + 3.4 * k, 3.8) as figure:
        panels = np.atleast_1d(figure.subplots(1, k, sharey=True))
        for index, axes in enumerate(panels):
            at, mean, deviation = curves[index]
            z = projections[:, index]
            axes.plot(z, target, "o", color=GREY, mec="none", ms=size, alpha=0.6, label="data")
            if deviation is not None:
                band = mean - 1.96 * deviation, mean + 1.96 * deviation
                axes.fill_between(at, *band, color=colour(0), alpha=0.2, lw=0, label="95 % band")
            axes.plot(at, mean, color=colour(0), linewidth=2, label=name)
            axes.grid(True)
            axes.set(xlabel=f"direction {index + 1}", title=f"importance {importances[index]:.0%}")
        panels[0].set_ylabel("target")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def predicted_against_true(
    parts: Mapping[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]], target: str
) -> Figure:
    """Draw predictions against true values, one panel per part of the data.

    Parameters
    ----------
    parts : mapping of str to (true, predicted)
        For example the training and the test rows.
    target : str
        The name of what is predicted.

    Returns
    -------
    Figure
        Panels with the same axes, and the line on which predictions are exact.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures import predicted_against_true
    >>> figure = predicted_against_true({"test": (np.arange(3.0), np.ones(3))}, "price")
    >>> figure.axes[0].get_ylabel()
    'predicted price'
    """
    everything = np.concatenate([np.concatenate(pair) for pair in parts.values()])
    low, high = float(everything.min()), float(everything.max())
    margin = 0.04 * ((high - low) or 1.0)
    limits = (low - margin, high + margin)
    size = float(np.clip(80 / np.sqrt(max(len(true) for true, _ in parts.values())), 1.5, 6))
    with new_figure(4.4 * len(parts) + 0.4, 4.6) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(parts), sharex=True, sharey=True))
        for index, (axes, (part, (true, predicted))) in enumerate(
            zip(panels, parts.items(), strict=True)
        ):
            axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(
                true, predicted, "o", color=colour(index), mec="white", mew=0.4, markersize=size
            )
            axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true {_shorten(target)}")
            axes.grid(True)
            axes.set_title(f"{part.capitalize()}: {len(true):,} rows, R² = {_r2(true, predicted)}")
        panels[0].set_ylabel(f"predicted {_shorten(target)}")
    return figure


def regularisation_path(
    path: pd.DataFrame, strength: float, n_directions: int, *, directions_given: bool = False
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
    with new_figure(9.6, 4.0) as figure:
        panels = figure.subplots(1, 2)
        for index, count in enumerate(counts):
            rows = path[path["n_directions"] == count].sort_values("strength")
            hue, mark = colour(index), marker(index)
            here = rows[np.isclose(rows["strength"], strength)] if count == chosen else rows[:0]
            for axes, quantity in zip(panels, quantities, strict=True):
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
                panels[0].fill_between(rows["strength"], *band, color=hue, alpha=0.15, lw=0)
        for axes in panels:
            axes.set(xscale="log", xlabel="strength of the flatness penalty")
            axes.grid(True)
        for axes, quantity in zip(panels, quantities, strict=True):
            low, high = float(path[quantity].min()), float(path[quantity].max())
            if 0 < 20 * low < high:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        title = "Error on held-out rows" + ", directions given" * directions_given
        panels[0].set(ylabel="mean squared error", title=title)
        panels[1].set(ylabel="orbit minimum (reflected)", title="Flatness")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside right center",
            title="directions\n(ring: chosen)",
            alignment="left",
        )
    return figure


def _r2(true: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> str:
    total = float(np.square(true - true.mean()).sum())
    return f"{1 - float(np.square(true - predicted).sum()) / total:.3f}" if total else "undefined"


def _shorten(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
