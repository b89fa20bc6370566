"""The engine: runs trials on any executor and files each result as soon as it is there."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from types import FrameType

from flattest.sweeps.executors import Workers
from flattest.sweeps.store import Store
from flattest.sweeps.trial import Result, Trial, environment, perform
from flattest.sweeps.trial_function import SweepError

_CHUNK = 256
_RENEWAL = 15.0
_SLICE = 0.25  # seconds after which the driver looks up from waiting
_GRACE = 10.0  # beyond its limit; then a trial that cannot be stopped is ended with its process
_MOST_ATTEMPTS = 3
_FAREWELL = 5.0


@dataclass(frozen=True)
class Summary:
    """How a sweep stands.

    Parameters
    ----------
    done, failed, timed_out : int
        Trials with a result, from this run and from earlier ones.
    found : int
        How many of them an earlier run, or another driver, had left in the store.
    interrupted : bool
        Whether the run was stopped before its end.

    Examples
    --------
    >>> from flattest.sweeps import Summary
    >>> Summary(done=3, failed=1).finished
    4
    """

    done: int = 0
    failed: int = 0
    timed_out: int = 0
    found: int = 0
    interrupted: bool = False

    @property
    def finished(self) -> int:
        """The number of trials that have a result."""
        return self.done + self.failed + self.timed_out

    def with_result(self, status: str, *, found: bool = False) -> Summary:
        """Count one more."""
        counted = {status: getattr(self, status) + 1, "found": self.found + found}
        return replace(self, **counted)


def run(
    trials: Iterable[Trial],
    store: Store,
    workers: Workers,
    *,
    time_limit: float | None = None,
    any_code: bool = False,
    retry_failed: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Summary:
    """Run those trials that have no result in the store yet.

    Only as many trials are held in memory as are handed to the executor at a time. A trial that
    raises, or runs out of time, is filed as such and the rest goes on. One whose process dies is
    begun again, and filed as failed after three attempts.

    Parameters
    ----------
    trials : iterable of Trial
        What to run.
    store : Store
        Where the results go.
    workers : Workers
        Where trials run.
    time_limit : float, optional
        Seconds that each may take.
    any_code : bool
        Accept results that another version of the code has left in the store.
    retry_failed : bool
        Run trials again that failed or ran out of time.
    progress : callable
        Called with the `Summary` after each result.

    Returns
    -------
    Summary
        The count. After Ctrl-C it has `interrupted` set: trials that had not begun were dropped,
        and those under way had a few seconds to finish.

    Raises
    ------
    StoreError
        If a result cannot be written.
    SweepError
        If the workers are gone, or have loaded other code than this process.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.sweeps import Store, Trial, run, trial_function, workers
    >>> function = trial_function("flattest.study.claims.symmetry:trial")
    >>> settings = function.complete({"n_samples": 40, "n_features": 3, "width": 10})
    >>> trials = [Trial(function, settings, seed) for seed in range(2)]
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.sqlite") as store:
    ...     run(trials, store, workers("serial")).done, run(trials, store, workers("serial")).found
    (2, 2)
    """
    driver = _Driver(store, workers, time_limit, any_code, retry_failed, progress)
    try:
        with _interruptible(driver):
            try:
                driver.run(iter(trials))
            except KeyboardInterrupt:
                driver.interrupted = True
            if driver.interrupted:
                driver.say_farewell()
    finally:
        driver.stop()
    return replace(driver.summary, interrupted=driver.interrupted)


def n_found(
    trials: Iterable[Trial], store: Store, *, any_code: bool = False, retry_failed: bool = False
) -> int:
    """Count those trials whose results are in the store, so that `run` would not run them.

    Parameters
    ----------
    trials : iterable of Trial
        What is to be run.
    store : Store
        Where results are.
    any_code, retry_failed : bool
        As for `run`.

    Returns
    -------
    int
        How many there are.

    Raises
    ------
    StoreError
        If the store cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.sweeps import Store, Trial, n_found, run, trial_function, workers
    >>> function = trial_function("flattest.study.claims.symmetry:trial")
    >>> settings = function.complete({"n_samples": 40, "n_features": 3, "width": 10})
    >>> trials = [Trial(function, settings, seed) for seed in range(3)]
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.sqlite") as store:
    ...     run(trials[:2], store, workers("serial")).done, n_found(trials, store)
    (2, 2)
    """
    remaining, found = iter(trials), 0
    while chunk := list(itertools.islice(remaining, _CHUNK)):
        statuses = store.statuses(chunk, any_code=any_code)
        found += sum(_is_settled(statuses.get(trial.key), retry_failed) for trial in chunk)
    return found


def _is_settled(status: str | None, retry_failed: bool) -> bool:
    """Tell whether a trial with this status, None for none, is not to be run."""
    return status is not None and (status == "done" or not retry_failed)


@dataclass(frozen=True)
class _Flight:
    trial: Trial
    attempts: int


class _Driver:
    """The state of one run."""

    def __init__(
        self,
        store: Store,
        workers: Workers,
        time_limit: float | None,
        any_code: bool,
        retry_failed: bool,
        progress: Callable[[Summary], None],
    ) -> None:
        self.store, self.workers, self.time_limit = store, workers, time_limit
        self.any_code, self.retry_failed, self.progress = any_code, retry_failed, progress
        self.summary = Summary()
        self.executor = workers.start(None if time_limit is None else time_limit + _GRACE)
        self.pending: dict[Future[Result], _Flight] = {}
        self.elsewhere: list[Trial] = []  # leased by another driver
        self.interrupted = False
        self.renewed = time.monotonic()

    def run(self, trials: Iterator[Trial]) -> None:
        """Keep the executor busy until all trials have results, or until an interruption."""
        todo = self._own(trials)
        while not self.interrupted:
            while len(self.pending) < self.workers.in_flight and not self.interrupted:
                trial = next(todo, None)
                if trial is None:
                    break
                self._submit(_Flight(trial, 1))
            if self.pending:
                self._collect(_SLICE)
            elif self.elsewhere:
                time.sleep(_SLICE)
                todo = self._own(iter(()))
            else:
                return
            if time.monotonic() - self.renewed > _RENEWAL:
                self.store.renew()
                self.renewed = time.monotonic()

    def _own(self, trials: Iterator[Trial]) -> Iterator[Trial]:
        """Yield the trials without results that this driver could lease."""
        while chunk := self._next_chunk(trials):
            statuses = self.store.statuses(chunk, any_code=self.any_code)
            fresh = []
            for trial in chunk:
                status = statuses.get(trial.key)
                if status is not None and _is_settled(status, self.retry_failed):
                    self._count(status, found=True)
                else:
                    fresh.append(trial)
            # Lease little at a time, so that drivers share what there is to do.
            for start in range(0, len(fresh), self.workers.in_flight):
                part = fresh[start : start + self.workers.in_flight]
                granted = self.store.lease(part)
                # Another driver may have finished one since we looked.
                late = {} if self.retry_failed else self.store.statuses(part)
                for trial in part:
                    if trial.key in late:
                        self._count(late[trial.key], found=True)
                    elif trial.key in granted:
                        yield trial
                    else:
                        self.elsewhere.append(trial)
            if len(chunk) < _CHUNK and self.elsewhere:
                return  # wait before asking for them again

    def _next_chunk(self, trials: Iterator[Trial]) -> list[Trial]:
        """Take new trials, or those of other drivers once there are many or nothing else."""
        chunk = [] if len(self.elsewhere) > 2 * _CHUNK else list(itertools.islice(trials, _CHUNK))
        if not chunk:
            chunk, self.elsewhere = self.elsewhere, []
        return chunk

    def _submit(self, flight: _Flight) -> None:
        function, trial = flight.trial.function, flight.trial
        call = (function.reference, trial.settings, trial.seed, self.time_limit, function.digest)
        try:
            self.pending[self.executor.submit(perform, *call)] = flight
        except (RuntimeError, CancelledError) as error:
            raise self._lost(error) from error

    def _collect(self, timeout: float) -> None:
        """File what has finished."""
        finished, _ = wait(self.pending, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in finished:
            flight = self.pending[future]
            try:
                result: Result | None = future.result()
            except (BrokenExecutor, CancelledError) as error:
                raise self._lost(error) from error
            except SweepError:
                raise
            except Exception as error:
                result = self._verdict(flight, error)
            # A result stays pending until it is filed: an interruption in between loses nothing.
            if result is not None:
                self.store.write(flight.trial, result, flight.attempts)
            del self.pending[future]
            if result is None:
                self._submit(replace(flight, attempts=flight.attempts + 1))
            else:
                self._count(result.status)

    def _verdict(self, flight: _Flight, error: Exception) -> Result | None:
        """Say what became of a trial whose call did not come back; None to begin it again."""
        if isinstance(error, TimeoutError) and self.time_limit is not None:
            reason = f"The trial could not be stopped at its limit of {self.time_limit:g} s."
            return Result("timed_out", None, reason, self.time_limit + _GRACE, environment())
        if not isinstance(error, self.workers.lost):
            # The executor gave up on it, as Dask does when several workers die under a trial.
            reason = f"{type(error).__name__}: {error}"
        elif flight.attempts < _MOST_ATTEMPTS:
            return None
        else:
            reason = f"The process that ran this trial died {_MOST_ATTEMPTS} times."
        return Result("failed", None, reason, 0.0, environment())

    def _lost(self, error: BaseException) -> SweepError:
        return SweepError(
            f"The workers are gone ({type(error).__name__}); finished trials are kept, so start "
            "the workers and run the sweep again."
        )

    def _count(self, status: str, *, found: bool = False) -> None:
        self.summary = self.summary.with_result(status, found=found)
        self.progress(self.summary)

    def interrupt(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop at the next opportunity; when asked again, at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    def say_farewell(self) -> None:
        """Drop what has not begun, and file what finishes within a few seconds."""
        for future in list(self.pending):
            if not future.running() and future.cancel():
                del self.pending[future]
        with suppress(KeyboardInterrupt):
            end = time.monotonic() + _FAREWELL
            while self.pending and time.monotonic() < end:
                self._collect(_SLICE)

    def stop(self) -> None:
        """Release the executor; what is still under way is given up."""
        self.executor.shutdown(wait=not self.pending)
        for future in self.pending:
            future.cancel()


@contextmanager
def _interruptible(driver: _Driver) -> Iterator[None]:
    """Let Ctrl-C stop the driver between two steps, never in the middle of one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, driver.interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
