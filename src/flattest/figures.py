"""Figures: matplotlib figures of flatness, directions, predictions and regularisation paths.

Every function returns a :class:`matplotlib.figure.Figure` of its own; the state of
``matplotlib.pyplot`` is neither used nor changed, so no display is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008)."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = "#6b6b6b"
_NEGLIGIBLE_ERROR = 1e-16
_MOST_BARS = 12
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#333333",
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 200.0,
    "figure.dpi": 100.0,
    "svg.fonttype": "none",  # text stays text: small files, searchable, editable
    "svg.hashsalt": "flattest",
}


def save_figure(figure: Figure, stem: str | os.PathLike[str]) -> list[Path]:
    """Save a figure as PNG and as SVG, the same bytes every time.

    Parameters
    ----------
    figure : Figure
        The figure.
    stem : str or path
        Where to, without the ending.

    Returns
    -------
    list of Path
        The two files.

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> from flattest.figures import save_figure
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in save_figure(Figure(), f"{folder}/empty")]
    ['empty.png', 'empty.svg']
    """
    base = Path(stem)
    written = []
    with matplotlib.rc_context(_STYLE):
        for ending, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            path = base.with_name(base.name + ending)
            figure.savefig(path, metadata=metadata)
            written.append(path)
    return written


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
    errors = networks["test_error"].clip(lower=_NEGLIGIBLE_ERROR)
    with _figure(9.6, 4.4) as figure:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, quantity in zip(panels, ("trace", "orbit_minimum"), strict=True):
            axes.set(xscale="log", yscale="log")
            axes.grid(True)
            for index, name in enumerate(names):
                rows = networks["network"] == name
                found = rows & (networks["copy"] == "as found")
                colour, marker = _colour(index), _MARKERS[index % len(_MARKERS)]
                x, y = networks.loc[rows, quantity], errors[rows]
                axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.5, zorder=2)
                axes.plot(x, y, marker, mfc="white", mec=colour, markersize=5, zorder=3)
                axes.plot(
                    networks.loc[found, quantity],
                    errors[found],
                    marker,
                    color=colour,
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
        right.axvline(bound, color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        right.annotate(
            "lower bound for\nevery interpolator",
            (bound, 0.5),
            (-6, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            color=_GREY,
            fontsize=8,
        )
        _mark_negligible(left, errors)
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
    with _figure(2.2 + 2.3 * max(k, 1), height) as figure:
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
    with _figure(4.4 * len(parts) + 0.4, 4.6) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(parts), sharex=True, sharey=True))
        for index, (axes, (part, (true, predicted))) in enumerate(
            zip(panels, parts.items(), strict=True)
        ):
            axes.plot(limits, limits, color=_GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(
                true, predicted, "o", color=_colour(index), mec="white", mew=0.4, markersize=size
            )
            axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true {_shorten(target)}")
            axes.grid(True)
            axes.set_title(f"{part.capitalize()}: {len(true):,} rows, R² = {_r2(true, predicted)}")
        panels[0].set_ylabel(f"predicted {_shorten(target)}")
    return figure


def regularisation_path(path: pd.DataFrame, strength: float, n_directions: int) -> Figure:
    """Draw cross-validation error and flatness along the regularisation path.

    Parameters
    ----------
    path : DataFrame
        `MultiIndexRegressor.path_`: columns `n_directions`, `strength`, `cv_error`,
        `cv_standard_error` and `flatness`.
    strength : float
        The strength chosen.
    n_directions : int
        The number of directions chosen: its line gets a band of one standard error, and the
        network chosen a ring.

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
    ...         "cv_error": [1.0, 2.0],
    ...         "cv_standard_error": [0.1, 0.1],
    ...         "flatness": [9.0, 3.0],
    ...     }
    ... )
    >>> [axes.get_ylabel() for axes in regularisation_path(path, 0.1, 2).axes]
    ['mean squared error', 'orbit minimum (reflected)']
    """
    quantities = ("cv_error", "flatness")
    counts = sorted(path["n_directions"].unique())
    # Directions that the chosen network does not use are not counted among its own.
    chosen = min((count for count in counts if count >= n_directions), default=counts[-1])
    with _figure(9.6, 4.0) as figure:
        panels = figure.subplots(1, 2)
        for index, count in enumerate(counts):
            rows = path[path["n_directions"] == count].sort_values("strength")
            colour, marker = _colour(index), _MARKERS[index % len(_MARKERS)]
            here = rows[np.isclose(rows["strength"], strength)] if count == chosen else rows[:0]
            for axes, quantity in zip(panels, quantities, strict=True):
                axes.plot(
                    rows["strength"],
                    rows[quantity],
                    color=colour,
                    marker=marker,
                    markersize=5,
                    linewidth=2.0 if count == chosen else 1.1,
                    zorder=3 if count == chosen else 2,
                    label=str(count),
                )
                axes.plot(
                    here["strength"], here[quantity], "o", mfc="none", mec="black", ms=14, zorder=4
                )
            if count == chosen:
                error, spread = rows["cv_error"], rows["cv_standard_error"]
                band = (error - spread).clip(lower=0), error + spread
                panels[0].fill_between(rows["strength"], *band, color=colour, alpha=0.15, lw=0)
        for axes in panels:
            axes.set(xscale="log", xlabel="strength of the flatness penalty")
            axes.grid(True)
        for axes, quantity in zip(panels, quantities, strict=True):
            low, high = float(path[quantity].min()), float(path[quantity].max())
            if 0 < 20 * low < high:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
        panels[0].set(ylabel="mean squared error", title="Cross-validation error")
        panels[1].set(ylabel="orbit minimum (reflected)", title="Flatness")
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside right center",
            title="directions\n(ring: chosen)",
            alignment="left",
        )
    return figure


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure in the package's style, and lay it out on leaving."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _colour(index: int) -> str:
    return OKABE_ITO[index % len(OKABE_ITO)]


def _correlation_title(name: str, values: pd.Series, networks: pd.DataFrame) -> str:
    # Copies of one function differ by rounding, which must not order them.
    errors = networks.groupby("network")["test_error"].transform("median")
    ranks = pd.DataFrame({"x": np.log(values).round(9), "y": errors}).rank()
    if ranks["x"].nunique() < 2 or ranks["y"].nunique() < 2:
        return name
    return f"{name}: rank correlation {float(ranks.corr().to_numpy()[0, 1]):.2f}"


def _mark_negligible(axes: Axes, errors: pd.Series) -> None:
    """Say on the vertical axis that its lowest value stands for all below."""
    if errors.min() > _NEGLIGIBLE_ERROR:
        return
    high = float(np.ceil(np.log10(errors.max())))
    ticks = list(range(-16, int(high) + 1, 4))
    axes.set_ylim(_NEGLIGIBLE_ERROR / 30, 10 ** (high + 1.2))
    labels = [f"$10^{{{exponent}}}$" for exponent in ticks]
    labels[0] = r"$\leq 10^{-16}$"
    axes.set_yticks([10.0**exponent for exponent in ticks], labels)


def _r2(true: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> str:
    total = float(np.square(true - true.mean()).sum())
    return f"{1 - float(np.square(true - predicted).sum()) / total:.3f}" if total else "undefined"


def _shorten(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
