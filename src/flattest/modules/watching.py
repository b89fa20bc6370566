"""A measurement under way: its progress, and Ctrl-C, which ends it between two micro-batches.

The first Ctrl-C is noted and asked for at places where all sums are those of whole samples, so that
what was measured until then can be returned. A second one interrupts at once.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from flattest.progress import Bar, progress_bar

_PATIENCE = 2.0  # seconds that a measurement may take without showing its progress


class Stopped(Exception):  # noqa: N818
    """The user pressed Ctrl-C, and all sums are those of whole samples."""


class Watch:
    """What is done of a measurement, and whether the user asked to end it.

    Parameters
    ----------
    bar : Bar
        Shows the progress.
    n_batches : int or None
        The number of batches, if it is known.

    Examples
    --------
    >>> from flattest.modules.watching import Watch
    >>> watch = Watch()
    >>> watch.begin(10)
    >>> watch.tick(10)
    """

    def __init__(self, bar: Bar | None = None, n_batches: int | None = None) -> None:
        self.asked = False
        self._bar = Bar() if bar is None else bar
        self._n_batches, self._batches, self._samples = n_batches, 0, 0
        self._before, self._stage, self._done = 0, 0, 0

    def begin(self, n_samples: int) -> None:
        """Begin a batch: every sample is worked on in two stages.

        Parameters
        ----------
        n_samples : int
            Its samples.
        """
        self._before = 2 * self._samples
        self._samples += n_samples
        self._batches += 1
        self._stage = self._done = 0
        if self._n_batches is not None:
            expected = self._samples * self._n_batches / self._batches
            self._bar.update(total=2 * round(expected))
        self._show(n_samples)

    def stage(self, stage: int) -> None:
        """Begin a stage of the batch.

        Parameters
        ----------
        stage : int
            0 or 1.
        """
        self._stage, self._done = stage, 0

    def tick(self, n_samples: int) -> None:
        """Note that a micro-batch is done.

        Parameters
        ----------
        n_samples : int
            Its samples.

        Raises
        ------
        Stopped
            If the user has asked to end.
        """
        self._done += n_samples
        self._show(n_samples)
        self.check()

    def check(self) -> None:
        """Raise `Stopped` if the user has asked to end."""
        if self.asked:
            raise Stopped

    def _show(self, n_samples: int) -> None:
        size = self._samples - self._before // 2
        done = min(self._done, size)  # drawn columns may take several passes
        completed = self._before + self._stage * size + done
        self._bar.update(completed=completed, samples=self._samples - size + done)


@contextlib.contextmanager
def watching(data: Any, single: bool, *, verbose: bool) -> Iterator[Watch]:
    """Watch a measurement while the context lasts.

    Parameters
    ----------
    data : object
        The data; what has a length tells the number of batches.
    single : bool
        Whether these are one batch.
    verbose : bool
        Whether to show the progress, once it has taken two seconds.

    Yields
    ------
    Watch
        To be told what is done.
    """
    n_batches = 1 if single else _length(data)
    text = "{task.fields[samples]} samples"
    shown = progress_bar("measuring", text, shown=verbose, patience=_PATIENCE, samples=0)
    with shown as bar:
        watch = Watch(bar, n_batches)
        with _deferred_interrupt(watch):
            yield watch


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # a generator, or a loader of an iterable data set
        return None


@contextlib.contextmanager
def _deferred_interrupt(watch: Watch) -> Iterator[None]:
    """Note the first Ctrl-C instead of raising, where nobody else handles it."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: Any) -> None:
        if watch.asked:
            signal.default_int_handler(number, frame)
        watch.asked = True

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
