"""The look of all figures: colours, markers, and how a figure is made and saved.

Figures are :class:`matplotlib.figure.Figure` objects of their own; the state of
``matplotlib.pyplot`` is neither used nor changed, so no display is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
"""Colours that the colour-blind tell apart (Okabe and Ito, 2008)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6b6b6b"
NEGLIGIBLE_ERROR = 1e-16
"""Errors below this are drawn there: they are rounding."""
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


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Make a figure in the package's style, and lay it out on leaving.

    Parameters
    ----------
    width, height : float
        The size in inches.

    Yields
    ------
    Figure
        The empty figure.

    Examples
    --------
    >>> from flattest.figures import new_figure
    >>> with new_figure(4.0, 3.0) as figure:
    ...     axes = figure.subplots()
    >>> axes.spines["top"].get_visible()
    False
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


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


def colour(index: int) -> str:
    """Return the colour of the series of that index; they repeat after seven.

    Parameters
    ----------
    index : int
        Counted from 0.

    Returns
    -------
    str
        A hexadecimal colour.

    Examples
    --------
    >>> from flattest.figures import colour
    >>> colour(0), colour(7) == colour(0)
    ('#0072B2', True)
    """
    return OKABE_ITO[index % len(OKABE_ITO)]


def marker(index: int) -> str:
    """Return the marker of the series of that index; they repeat after seven.

    Parameters
    ----------
    index : int
        Counted from 0.

    Returns
    -------
    str
        A matplotlib marker.

    Examples
    --------
    >>> from flattest.figures import marker
    >>> marker(0), marker(1)
    ('o', 's')
    """
    return MARKERS[index % len(MARKERS)]


def mark_negligible(axes: Axes, largest: float) -> None:
    """Say on a logarithmic vertical axis that its lowest value stands for all below.

    Parameters
    ----------
    axes : Axes
        Where errors clipped at `NEGLIGIBLE_ERROR` are drawn.
    largest : float
        The largest error drawn.

    Examples
    --------
    >>> from flattest.figures import mark_negligible, new_figure
    >>> with new_figure(4.0, 3.0) as figure:
    ...     axes = figure.subplots()
    ...     mark_negligible(axes, 1.0)
    >>> "leq" in axes.get_yticklabels()[0].get_text()
    True
    """
    high = float(np.ceil(np.log10(max(largest, NEGLIGIBLE_ERROR))))
    ticks = list(range(-16, int(high) + 1, 4))
    axes.set_ylim(NEGLIGIBLE_ERROR / 30, 10 ** (high + 1.2))
    labels = [f"$10^{{{exponent}}}$" for exponent in ticks]
    labels[0] = r"$\leq 10^{-16}$"
    axes.set_yticks([10.0**exponent for exponent in ticks], labels)
