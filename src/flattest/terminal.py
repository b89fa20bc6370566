"""Terminal output: Rich tables of results, and progress with an estimate of the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from flattest.demo import Record, rank_correlations
from flattest.flatness import Flatness
from flattest.tables.fit import TableFit

_MOST_FEATURES = 5
_PRIOR = 4.0  # seconds for which the expected pace counts as seen


def number(value: float) -> str:
    """Format a number to four digits, or as a power of ten where that is shorter.

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> from flattest.terminal import number
    >>> [number(value) for value in (0.0, 28.7, 12345.6, 3e-30, float("nan"))]
    ['0', '28.70', '12,346', '3.0e-30', 'undefined']
    """
    size = abs(value)
    if math.isnan(value):
        return "undefined"
    if value == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if size >= 1e3 else f"{value:#.4g}"


def networks_table(records: Sequence[Record]) -> Table:
    """Tabulate networks that fit one training set.

    Parameters
    ----------
    records : sequence of Record
        The networks.

    Returns
    -------
    Table
        One row for each network as found, and for the sharpened ones.

    Examples
    --------
    >>> from flattest.terminal import networks_table
    >>> networks_table([]).row_count
    0
    """
    caption = (
        "Test error: on fresh samples, relative to the variance of the true function. Orbit "
        "minimum: least trace among all rescalings. Ratio: its quotient by a lower bound on the "
        "trace of every network that fits."
    )
    table = _table("One training set, several networks that fit it", "network", caption=caption)
    headings = ("train\nerror", "test\nerror", "trace", "orbit\nminimum", "ratio", "seconds")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        if not record.found and not record.copy.startswith("sharpened"):
            continue
        best = record.found and record.ratio == min(r.ratio for r in records if r.found)
        flag = "" if record.status == "converged" else f" [yellow]({record.status})[/]"
        table.add_row(
            (record.network if record.found else f"  {record.copy}") + flag,
            number(record.train_error),
            number(record.test_error),
            number(record.trace),
            number(record.orbit_minimum),
            number(record.ratio),
            f"{record.seconds:.1f}" if record.found else "",
            style="bold" if best else ("" if record.found else "dim"),
        )
    return table


def correlations_line(records: Sequence[Record]) -> Text:
    """Say in a line how the test error goes with the trace and with the orbit minimum.

    Parameters
    ----------
    records : sequence of Record
        The networks, copies included.

    Returns
    -------
    Text
        The line.
    """
    found = rank_correlations(records)
    return Text(
        f"Rank correlation with the test error over {len(records)} networks ("
        f"{sum(r.found for r in records)} functions, the rest rescaled copies): "
        f"trace {found['trace']:.2f}, orbit minimum {found['orbit_minimum']:.2f}.\n"
    )


def fit_summary(fit: TableFit) -> RenderableType:
    """Present a fitted table: quality beside ridge, directions by feature name, flatness.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    RenderableType
        To be printed on a console.
    """
    quality = _table(f"Prediction of {fit.model.encoding.target}", "")
    for part, count in fit.n_rows.items():
        quality.add_column(f"{part}\n{count:,} rows: R²", justify="right")
        quality.add_column("\nRMSE", justify="right")
    for name, scores in (("flattest", fit.scores), ("ridge regression", fit.ridge)):
        cells = [number(v) for score in scores.values() for v in (score.r2, score.rmse)]
        quality.add_row(name, *cells)

    names = fit.model.encoding.feature_names
    k, d = len(fit.model.directions), len(names)
    title = f"{k} direction{'' if k == 1 else 's'} of {d} features"
    directions = _table(title, "")
    directions.add_column("importance", justify="right")
    directions.add_column("weights per standard deviation", ratio=1)
    for index, (importance, loading) in enumerate(
        zip(fit.model.importances, fit.model.loadings, strict=True), start=1
    ):
        order = sorted(range(d), key=lambda i: -abs(loading[i]))[:_MOST_FEATURES]
        terms = Text("  ").join(
            Text(f"{loading[i]:+.2f}\u00a0{names[i]}", no_wrap=False) for i in order
        )
        directions.add_row(f"{index}", f"{importance:.0%}", terms)

    parts: list[RenderableType] = [quality, directions if k else _constant(), _certificate(fit)]
    if fit.n_dropped:
        parts.append(Text(f"{fit.n_dropped:,} rows with missing values were left out."))
    if fit.unused:
        parts.append(Text(f"Columns not used: {', '.join(fit.unused)}."))
    parts += [Text(f"Note: {note}", style="yellow") for note in fit.notes]
    return Group(*parts)


def flatness_table(flatness: Flatness, caption: str) -> Table:
    """Tabulate the measurements of one network.

    Parameters
    ----------
    flatness : Flatness
        The measurements.
    caption : str
        What they are of.

    Returns
    -------
    Table
        One row per number.
    """
    exactness = (
        f"standard error {number(flatness.standard_error)}" if flatness.standard_error else "exact"
    )
    table = _table(f"Flatness ({exactness})", "quantity", caption=caption)
    table.add_column("value", justify="right")
    for name, value in (
        ("trace of the Hessian", flatness.trace),
        ("  Gauss-Newton part", flatness.gauss_newton),
        ("  residual part", flatness.residual),
        ("orbit minimum", flatness.orbit_minimum),
        ("lower bound", flatness.lower_bound),
        ("ratio", flatness.ratio),
        ("reflected trace", flatness.reflected),
        ("reflected orbit minimum", flatness.reflected_orbit_minimum),
        ("mean squared error", flatness.loss),
    ):
        table.add_row(name, number(value))
    return table


class _TimeLeft(ProgressColumn):
    """The time left: what remains of the expected seconds, at the pace so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        total, done, elapsed = task.total or 0.0, task.completed, task.elapsed or 0.0
        if task.finished:
            return Text(f"{elapsed:.0f} s")
        since = time.monotonic() - task.fields["stepped"]
        # The first steps, short and with imports in them, say little of the machine's pace.
        pace = (elapsed - since + _PRIOR) / (done + _PRIOR)
        # Between two steps the clock runs on, but no step is ever said to be over.
        left = max(total - done - since / pace, 0.5) * pace
        return Text(f"about {left:.0f} s left")


class Steps:
    """Progress through steps of which each has an expected time.

    Parameters
    ----------
    console : Console
        Where to show it.
    expected : mapping of str to float
        The steps in order, with their expected seconds on a usual machine.
    """

    def __init__(self, console: Console, expected: Mapping[str, float]) -> None:
        self._expected = dict(expected)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _TimeLeft(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            next(iter(expected)), total=sum(expected.values()), stepped=time.monotonic()
        )

    @contextmanager
    def shown(self) -> Iterator[Steps]:
        """Show the progress while the context lasts.

        Yields
        ------
        Steps
            Itself.
        """
        with self._progress:
            yield self

    def finish(self, step: str) -> None:
        """Tick a step off and name the next one.

        Parameters
        ----------
        step : str
            The step finished.
        """
        names = list(self._expected)
        following = names[names.index(step) + 1 :]
        self._progress.update(
            self._task,
            advance=self._expected[step],
            description=following[0] if following else step,
            stepped=time.monotonic(),
        )


def _certificate(fit: TableFit) -> RenderableType:
    flatness = fit.flatness
    table = _table("Flatness of the network on the training rows", "trace", caption=_RATIO)
    table.columns[0].justify = "right"
    for heading in ("orbit minimum", "lower bound", "ratio", "neurons", "penalty", "seconds"):
        table.add_column(heading, justify="right")
    table.add_row(
        number(flatness.trace),
        number(flatness.orbit_minimum),
        number(flatness.lower_bound),
        number(flatness.ratio),
        str(flatness.width),
        number(fit.strength),
        f"{fit.seconds:.1f}",
    )
    return table


_RATIO = (
    "Orbit minimum: least trace among all rescalings of the network. Lower bound: on the trace of "
    "every network of this width with the same outputs. Ratio: their quotient. All on standardised "
    "features."
)


def _constant() -> RenderableType:
    return Padding(Text("No direction was found: the prediction is constant.", style="yellow"), 1)


def _table(title: str, first: str, *, caption: str = "") -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption or None,
        caption_justify="left",
        caption_style="dim",
        box=box.SIMPLE_HEAD,
        min_width=60,
        pad_edge=False,
        header_style="",
    )
    table.add_column(first, overflow="fold")
    return table
