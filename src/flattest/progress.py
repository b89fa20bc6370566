"""Progress of long computations on the error stream, with an estimate of the time left.

On a terminal and in a notebook it is a bar; elsewhere, as in a log file, a plain line whenever
something new begins, and one from time to time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from flattest.errors import require


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


class _Lines(Bar):
    """Prints lines in place of a bar."""

    _SECONDS = 10.0  # between two lines on one thing

    def __init__(
        self,
        description: str,
        text: str,
        total: int | None,
        patience: float | int,
        fields: dict[str, Any],
    ) -> None:
        self._text, self._printed, self._since = text, "", time.monotonic()
        self._quiet_until = self._since + patience
        self._task = SimpleNamespace(
            description=description, completed=0, total=total, fields=dict(fields)
        )

    def update(self, **changes: Any) -> None:
        own = {name: changes.pop(name) for name in vars(self._task) if name in changes}
        vars(self._task).update(own)
        self._task.fields.update(changes)
        now, task = time.monotonic(), self._task
        if now < self._quiet_until:
            return
        if task.description == self._printed and now < self._since + self._SECONDS:
            return
        self._printed, self._since = task.description, now
        done = f"{task.description}: {self._text}" if task.completed else task.description
        print(done.format(task=task), file=sys.stderr, flush=True)

    def advance(self, steps: int = 1) -> None:
        self.update(completed=self._task.completed + steps)


@contextmanager
def progress_bar(
    description: str,
    text: str,
    *,
    shown: bool,
    total: int | None = None,
    patience: float | int = 0.0,
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
    patience : float
        Seconds that pass before it is shown; what is over sooner shows nothing.
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
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield _Lines(description, text, total, patience, fields)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn(text),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(description, total=total, **fields)
    began = time.monotonic()

    def show() -> None:
        if not progress.live.is_started and time.monotonic() - began >= patience:
            progress.start()

    class Shown(Bar):
        def update(self, **changes: Any) -> None:
            progress.update(task, **changes)
            show()

        def advance(self, steps: int = 1) -> None:
            progress.advance(task, steps)
            show()

    show()
    try:
        yield Shown()
    finally:
        if progress.live.is_started:
            progress.stop()
