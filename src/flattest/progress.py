"""Progress of long computations on the error stream, with an estimate of the time left.

On a terminal and in a notebook it is a bar; elsewhere, as in a log file, a plain line whenever
something new begins, and one from time to time. Both take the time left from one `Pace`.
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flattest.errors import require

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

Clock = Callable[[], float]
"""What says how many seconds have passed since some moment."""


class Bar:
    """A progress bar that nobody sees; what is shown derives from it."""

    def update(self, **changes: Any) -> None:
        """Change what is shown.

        Parameters
        ----------
        **changes
            `description`, `completed`, `total`, and the fields of the bar's text.
        """

    def advance(self, steps: int = 1) -> None:
        """Tick steps off.

        Parameters
        ----------
        steps : int
            How many.
        """


class Pace:
    """How long steps take, seen over the last ten minutes.

    Parameters
    ----------
    completed : float
        Steps that were done before the clock began, and say nothing of the pace.
    clock : callable
        The clock.

    Examples
    --------
    >>> from flattest.progress import Pace
    >>> moments = iter([0.0, 30.0])
    >>> pace = Pace(120, clock=lambda: next(moments))
    >>> pace.see(123)  # three steps in half a minute
    >>> pace.seconds(37)
    370.0
    """

    _PERIOD = 600.0
    _APART = 1.0  # of moments that are kept, so that there are never many

    def __init__(self, completed: float | int = 0, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seen = deque([(clock(), float(completed))])

    def see(self, completed: float | int) -> None:
        """Note how many steps are done by now.

        Parameters
        ----------
        completed : float
            All of them. Fewer than before means that something new begins.
        """
        now, seen = self._clock(), self._seen
        if completed < seen[-1][1]:
            seen.clear()
        elif len(seen) > 1 and now - seen[-2][0] < self._APART:
            seen.pop()
        seen.append((now, float(completed)))
        while len(seen) > 2 and seen[1][0] <= now - self._PERIOD:
            seen.popleft()

    def seconds(self, steps: float | int) -> float | None:
        """Say how long steps take.

        Parameters
        ----------
        steps : float
            How many.

        Returns
        -------
        float or None
            None until one has been seen to end.
        """
        (began, first), (now, done) = self._seen[0], self._seen[-1]
        return steps * (now - began) / (done - first) if done > first else None


@contextmanager
def progress_bar(
    description: str,
    text: str,
    *,
    shown: bool,
    total: int | None = None,
    completed: int = 0,
    patience: float | int = 0.0,
    opening: str = "",
    seconds: float | int = 10.0,
    share: float | int = 0.0,
    clock: Clock = time.monotonic,
    **fields: Any,
) -> Iterator[Bar]:
    """Show a bar while the context lasts; plain lines where there is no terminal.

    Parameters
    ----------
    description : str
        Printed before the bar.
    text : str
        Printed behind it; ``{task.fields[name]}`` stands for a field.
    shown : bool
        Whether to show anything.
    total : int, optional
        The number of steps, if it is known.
    completed : int
        How many of them were done before; the time left is judged from the others alone.
    patience : float
        Seconds that pass before it is shown; what is over sooner shows nothing.
    opening : str
        A line that comes first and stays, on a terminal too.
    seconds, share : float
        Between two plain lines on one thing: the least time, and the least share of the steps that
        there were to do.
    clock : callable
        What tells the time, in seconds.
    **fields
        The fields of the text, at the start.

    Yields
    ------
    Bar
        To be told of the progress.

    Raises
    ------
    MissingPackageError
        If a bar is wanted and Rich is not installed.

    Examples
    --------
    >>> from flattest.progress import progress_bar
    >>> with progress_bar("working", "steps", shown=False, total=2) as bar:
    ...     bar.advance()
    """
    if not shown:
        yield Bar()
        return
    require("rich", extra="cli", purpose="A progress bar")
    from rich.console import Console

    console, pace = Console(stderr=True), Pace(completed, clock=clock)
    if opening:
        print(opening, file=sys.stderr, flush=True)
    progress = _progress(console, text, pace, clock)
    progress.add_task(description, total=total, completed=completed, **fields)
    if progress.disable:
        yield _Lines(progress, pace, clock, text, patience, bool(opening), seconds, share)
        return
    drawn = _Drawn(progress, pace, clock, patience)
    drawn.show()
    try:
        yield drawn
    finally:
        if progress.live.is_started:
            progress.stop()


class _Seen(Bar):
    """Keeps the count and the pace; how they are shown is left to `show`."""

    def __init__(self, progress: Progress, pace: Pace, clock: Clock, patience: float | int) -> None:
        self._progress, self._pace, self._clock = progress, pace, clock
        self._shown_from = clock() + patience

    @property
    def _task(self) -> Task:
        return self._progress.tasks[0]

    def update(self, **changes: Any) -> None:
        self._progress.update(self._task.id, **changes)
        self._pace.see(self._task.completed)
        if self._clock() >= self._shown_from:
            self.show()

    def advance(self, steps: int = 1) -> None:
        self.update(advance=steps)

    def show(self) -> None:
        """Show how things stand."""
        raise NotImplementedError


class _Drawn(_Seen):
    """A bar."""

    def show(self) -> None:
        if not self._progress.live.is_started and self._clock() >= self._shown_from:
            self._progress.start()


class _Lines(_Seen):
    """Lines in place of a bar."""

    def __init__(
        self,
        progress: Progress,
        pace: Pace,
        clock: Clock,
        text: str,
        patience: float | int,
        opened: bool,
        seconds: float | int,
        share: float | int,
    ) -> None:
        super().__init__(progress, pace, clock, patience)
        task = self._task
        self._text, self._seconds = text, seconds
        self._printed = task.description if opened else ""
        self._steps = share * ((task.total or 0) - task.completed)
        self._last = (clock(), task.completed)

    def show(self) -> None:
        now, task = self._clock(), self._task
        since, done = self._last
        soon = now < since + self._seconds or task.completed < done + self._steps
        if task.description == self._printed and soon:
            return
        self._printed, self._last = task.description, (now, task.completed)
        line = task.description
        if task.completed:
            line += f": {self._text.format(task=task)}".rstrip()
            left = _time_left(task, self._pace)
            line += f", {left} left" if left else ""
        print(line, file=sys.stderr, flush=True)


def _progress(console: Console, text: str, pace: Pace, clock: Clock) -> Progress:
    """Make Rich's progress, which is drawn on a terminal and in a notebook."""
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Left(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{_time_left(task, pace) or '-:--:--'} left", style="progress.remaining")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(text),
        Left(),
        console=console,
        transient=True,
        disable=not (console.is_terminal or console.is_jupyter),
        get_time=clock,
    )


def _time_left(task: Task, pace: Pace) -> str:
    """Write the time left as hours, minutes and seconds; nothing where it is not known."""
    seconds = None if task.remaining is None else pace.seconds(task.remaining)
    return "" if seconds is None else str(timedelta(seconds=math.ceil(seconds)))
