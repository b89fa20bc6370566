"""The look of the terminal: tables, and progress through steps of which each has its time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

_PRIOR = 4.0  # seconds for which the expected pace counts as seen


def standard_error() -> Console:
    """Return a console on the standard error stream.

    Returns
    -------
    Console
        The console.
    """
    return Console(stderr=True)


def new_table(title: str, first: str, *, caption: str = "") -> Table:
    """Make a table in the style of all of them.

    Parameters
    ----------
    title : str
        The title.
    first : str
        The heading of the first column.
    caption : str
        What stands below.

    Returns
    -------
    Table
        With one column and no rows.
    """
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
