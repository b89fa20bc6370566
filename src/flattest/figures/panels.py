"""The panels of a figure: new ones in the package's style, or axes that a caller has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from flattest.figures.style import new_figure

Place = Axes | Sequence[Axes] | np.ndarray | None
"""Where to draw: axes of a figure that exists, or None for a new figure."""


@contextmanager
def panels(
    n: int, width: float | int, height: float | int, place: Place = None, **shared: Any
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Make panels side by side, in a new figure or where a caller wants them.

    Parameters
    ----------
    n : int
        How many.
    width, height : float
        The size of a new figure in inches.
    place : Axes or sequence of Axes, optional
        As many axes as panels; or one, whose place several panels share.
    **shared
        Which axes are shared, as for :meth:`matplotlib.figure.Figure.subplots`.

    Yields
    ------
    figure : Figure
        The figure.
    panels : list of Axes
        The panels.

    Raises
    ------
    ValueError
        If the number of axes is wrong.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> from flattest.figures.panels import panels
    >>> place = Figure().subplots()
    >>> with panels(2, 8.0, 4.0, place) as (figure, two):
    ...     len(two), figure is place.figure
    (2, True)
    """
    if place is None:
        with new_figure(width, height) as figure:
            yield figure, list(np.atleast_1d(figure.subplots(1, n, **shared)))
        return
    given = [place] if isinstance(place, Axes) else list(np.ravel(np.asarray(place, dtype=object)))
    if len(given) == 1 and n > 1 and (spec := given[0].get_subplotspec()) is not None:
        given[0].set_axis_off()
        figure = _figure(given[0])
        made: Any = spec.subgridspec(1, n).subplots(**shared)
        yield figure, list(made)
        return
    if len(given) != n or not all(isinstance(axes, Axes) for axes in given):
        raise ValueError(
            f"ax has {len(given)} axes, but {n} panels are drawn; give a list of {n} axes, or one "
            "made by subplots, whose place they share."
        )
    yield _figure(given[0]), given


def _figure(axes: Axes) -> Figure:
    """Return the whole figure in which axes are, if perhaps in a part of it."""
    part: Any = axes.figure
    return part if isinstance(part, Figure) else part.figure


def legend(figure: Figure, axes: Sequence[Axes], place: Place, columns: int) -> None:
    """Explain the marks of all panels: below a new figure, inside the first of given axes.

    Parameters
    ----------
    figure : Figure
        The figure.
    axes : sequence of Axes
        The panels, which all have the same marks or fewer than the first.
    place : Axes or sequence of Axes, optional
        As for :func:`panels`.
    columns : int
        The number of columns below a figure.

    Examples
    --------
    >>> from flattest.figures.panels import legend, panels
    >>> with panels(1, 4.0, 3.0) as (figure, axes):
    ...     _ = axes[0].plot([0, 1], label="line")
    ...     legend(figure, axes, None, 1)
    >>> len(figure.legends)
    1
    """
    if place is None:
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=columns)
    else:
        axes[0].legend()


def few_ticks(axes: Axes, *which: str) -> None:
    """Let a numeric axis have so few ticks, and numbers so short, that they cannot overlap.

    Parameters
    ----------
    axes : Axes
        The panel.
    *which : str
        ``"x"`` and ``"y"``.

    Examples
    --------
    >>> from flattest.figures.panels import few_ticks, panels
    >>> with panels(1, 2.0, 2.0) as (figure, (axes,)):
    ...     _ = axes.plot([100_000, 900_000], [0, 1])
    ...     few_ticks(axes, "x")
    >>> [text.get_text() for text in axes.get_xticklabels()][-2:]
    ['800k', '1M']
    """
    for name in which:
        axis = getattr(axes, f"{name}axis")
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 4, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short_number(value)))


def _short_number(value: float) -> str:
    """Write a number with its thousands as a letter."""
    size = abs(value)
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= unit:
            scale = 1e3 if letter == "k" else unit
            return f"{value / scale:.4g}{letter}".replace("-", "−")
    return f"{value:.5g}".replace("-", "−")
