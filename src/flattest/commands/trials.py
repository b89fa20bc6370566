"""How trials stand: what there is to do, then a bar, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flattest.progress import Bar, progress_bar
from flattest.wording import count

if TYPE_CHECKING:
    from flattest.sweeps import Summary

_SECONDS, _SHARE = 60.0, 0.1  # between two lines in a log: a minute, and a tenth of what is to do


@contextmanager
def trials_progress(
    title: str, total: int, found: int, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[TrialCounter]:
    """Show the progress of many trials, with an estimate of the time left.

    Parameters
    ----------
    title : str
        What is run.
    total : int
        The number of trials.
    found : int
        How many of them have a result already; the time left is judged from the others.
    clock : callable
        What tells the time, in seconds.

    Yields
    ------
    TrialCounter
        To be called with each `Summary`.

    Examples
    --------
    >>> from flattest.commands.trials import trials_progress
    >>> from flattest.sweeps import Summary
    >>> with trials_progress("a sweep", 160, 121) as progress:
    ...     progress(Summary(done=122, found=121))
    """
    opening = f"{count(total, 'trial')}, {found:,} of them found, {total - found:,} to do."
    text = "{task.completed:,}/{task.total:,} {task.fields[problems]}"
    with progress_bar(
        title,
        text,
        shown=True,
        total=total,
        completed=found,
        opening=opening,
        seconds=_SECONDS,
        share=_SHARE,
        clock=clock,
        problems="",
    ) as bar:
        yield TrialCounter(bar, found)


class TrialCounter:
    """Passes summaries of trials on to a progress bar.

    Parameters
    ----------
    bar : Bar
        The bar.
    found : int
        The number of trials that had a result before.
    """

    def __init__(self, bar: Bar, found: int) -> None:
        self._bar, self._found = bar, found

    def __call__(self, summary: Summary) -> None:
        """Show a summary.

        Parameters
        ----------
        summary : Summary
            The count of trials so far, to which those found are added one by one.
        """
        counts = {"failed": summary.failed, "timed out": summary.timed_out}
        problems = ", ".join(f"{number} {name}" for name, number in counts.items() if number)
        new = summary.finished - summary.found
        # All that were found are counted from the start; more is found only if another run helps.
        self._bar.update(completed=max(self._found, summary.found) + new, problems=problems)
