"""Figures of what a regression predicts: along its directions, and beside true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from flattest.figures.names import LONGEST_BESIDE, shortened
from flattest.figures.panels import Place, few_ticks, legend, panels
from flattest.figures.style import GREY, OKABE_ITO, colour

_MANY = 2000  # points; more are stored as pixels, since as vectors they would make large files


class Curve(NamedTuple):
    """Predictions along a direction, averaged over rows that keep their other coordinates.

    Parameters
    ----------
    at : ndarray of shape (m,)
        The positions.
    mean : ndarray of shape (m,)
        The average predictions.
    band : tuple of ndarray, or None
        The average ends of 90 % intervals, where there are any.
    """

    at: Float[np.ndarray, " m"]
    mean: Float[np.ndarray, " m"]
    band: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]] | None


def links(
    projections: Float[np.ndarray, "n k"],
    residuals: Float[np.ndarray, " n"],
    curves: Sequence[Curve],
    importances: Float[np.ndarray, " k"],
    *,
    target: str = "target",
    labels: Sequence[str] = (),
    place: Place = None,
) -> Figure:
    """Draw the average prediction along each direction, and each row's residual from it.

    Parameters
    ----------
    projections : ndarray of shape (n, k)
        The data's projections.
    residuals : ndarray of shape (n,)
        True less predicted targets.
    curves : sequence of Curve
        One per direction.
    importances : ndarray of shape (k,)
        The shares of the directions.
    target : str
        The name of what is predicted.
    labels : sequence of str
        What each direction is made of, to stand below its axis.
    place : Axes or sequence of Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Figure
        One panel per direction.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures.predictions import Curve, links
    >>> x = np.arange(3.0)
    >>> figure = links(x[:, None], 0 * x, [Curve(x, x, None)], np.ones(1), target="price")
    >>> figure.axes[0].get_ylabel()
    'price'
    """
    k, n = len(curves), len(residuals)
    (name,) = shortened([target], LONGEST_BESIDE)
    with panels(k, max(1.4 + 3.4 * k, 6.4), 4.2, place, sharey=True) as (figure, all_axes):
        for index, (axes, curve) in enumerate(zip(all_axes, curves, strict=True)):
            z = projections[:, index]
            moved = np.interp(z, curve.at, curve.mean) + residuals
            dots = _dots(n) | {"mec": "none", "alpha": 0.6}
            axes.plot(z, moved, "o", color=GREY, label="prediction plus residual", **dots)
            if curve.band is not None:
                hue = colour(0)
                axes.fill_between(
                    curve.at, *curve.band, color=hue, alpha=0.2, lw=0, label="90 % interval"
                )
            axes.plot(
                curve.at, curve.mean, color=colour(0), linewidth=2, label="average prediction"
            )
            axes.grid(True)
            few_ticks(axes, "x", "y")
            below = f"\n{labels[index]}" if index < len(labels) else ""
            axes.set(xlabel=f"direction {index + 1}{below}")
            axes.set_title(f"Importance {importances[index]:.0%}")
        all_axes[0].set_ylabel(name)
        legend(figure, all_axes, place, 3)
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
    most = max(len(true) for true, _ in parts.values())
    (name,) = shortened([target], LONGEST_BESIDE)
    with panels(len(parts), 4.4 * len(parts) + 0.4, 4.6, sharex=True, sharey=True) as drawn:
        figure, all_axes = drawn
        for index, (axes, (part, (true, predicted))) in enumerate(
            zip(all_axes, parts.items(), strict=True)
        ):
            axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            axes.plot(true, predicted, "o", color=colour(index), **_dots(most))
            few_ticks(axes, "x", "y")
            axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=f"true {name}")
            axes.grid(True)
            axes.set_title(f"{part.capitalize()}: {len(true):,} rows, R² = {_r2(true, predicted)}")
        all_axes[0].set_ylabel(f"predicted {name}")
    return figure


def residuals(
    true: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    interval: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None,
    target: str,
    rows: str,
) -> Figure:
    """Draw residuals against predictions, and tell those outside their intervals.

    Parameters
    ----------
    true, predicted : ndarray of shape (n,)
        The targets.
    interval : tuple of ndarray of shape (n,), or None
        The ends of 90 % intervals.
    target : str
        The name of what is predicted.
    rows : str
        Which rows they are, such as ``"test rows"``.

    Returns
    -------
    Figure
        One panel.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures.predictions import residuals
    >>> y = np.arange(4.0)
    >>> figure = residuals(y, y + 1, (y - 1, y + 0.5), "price", "test rows")
    >>> figure.axes[0].get_title(loc="left")
    'Residuals of 4 test rows, 100% in their 90 % intervals'
    """
    n = len(true)
    (name,) = shortened([target], LONGEST_BESIDE)
    low, high = (np.full(n, -np.inf), np.full(n, np.inf)) if interval is None else interval
    inside = (low <= true) & (true <= high)
    with panels(1, 6.4, 4.2) as (figure, (axes,)):
        axes.axhline(0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        said = f"Residuals of {n:,} {rows}"
        if interval is None:
            axes.plot(predicted, true - predicted, "o", color=colour(0), **_dots(n))
        else:
            groups = (
                (inside, OKABE_ITO[0], "in its 90 % interval"),
                (~inside, OKABE_ITO[4], "outside"),
            )
            for chosen, hue, text in groups:
                axes.plot(
                    predicted[chosen],
                    (true - predicted)[chosen],
                    "o" if text != "outside" else "D",
                    color=hue,
                    label=text,
                    **_dots(n),
                )
            said += f", {inside.mean():.0%} in their 90 % intervals"
            legend(figure, [axes], None, 2)
        few_ticks(axes, "x", "y")
        axes.grid(True)
        axes.set(xlabel=f"predicted {name}", ylabel="true less predicted")
        axes.set_title(said)
    return figure


def _dots(n: int) -> dict[str, Any]:
    """Return the look of points, smaller where there are more."""
    size = float(np.clip(80 / np.sqrt(n), 1.5, 6))
    return {"mec": "white", "mew": 0.4, "ms": size, "rasterized": n > _MANY}


def _r2(true: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> str:
    total = float(np.square(true - true.mean()).sum())
    return f"{1 - float(np.square(true - predicted).sum()) / total:.3f}" if total else "undefined"
