"""The engine: runs trials on any executor and files each result as soon as it is there."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace

from flattest.sweeps.executors import Workers
from flattest.sweeps.store import Store
from flattest.sweeps.trial import GRACE, Result, Trial, environment, perform

_CHUNK = 256
_RENEWAL = 15.0
_POLL = 0.5
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
    raises, or runs out of time, is filed as such and the rest goes on. When a process dies, the
    trials that it may have been running are begun anew, one at a time, so that the one at fault
    is found; it is filed as failed after three attempts.

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
        driver.run(iter(trials))
    except KeyboardInterrupt:
        driver.say_farewell()
        return replace(driver.summary, interrupted=True)
    finally:
        driver.stop()
    return driver.summary


@dataclass(frozen=True)
class _Flight:
    trial: Trial
    attempts: int
    submitted: float = 0.0

    @property
    def alone(self) -> bool:
        """Whether nothing else runs beside it: it was in flight when a process died."""
        return self.attempts > 1


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
        self.executor: Executor | None = None
        self.pending: dict[Future[Result], _Flight] = {}
        self.suspects: deque[_Flight] = deque()  # were in flight when a process died
        self.elsewhere: deque[Trial] = deque()  # leased by another driver
        self.renewed = time.monotonic()

    def run(self, trials: Iterator[Trial]) -> None:
        """Keep the executor busy until all trials have results."""
        todo = self._own(trials)
        while True:
            self._fill(todo)
            if self.pending:
                self._collect(_RENEWAL)
            elif self.elsewhere:
                time.sleep(_POLL)
                todo = self._own(
                    iter([self.elsewhere.popleft() for _ in range(len(self.elsewhere))])
                )
            elif not self.suspects:
                return
            if time.monotonic() - self.renewed > _RENEWAL:
                self.store.renew()
                self.renewed = time.monotonic()

    def _own(self, trials: Iterator[Trial]) -> Iterator[Trial]:
        """Yield the trials without results that this driver could lease."""
        while chunk := list(itertools.islice(trials, _CHUNK)):
            statuses = self.store.statuses(chunk, any_code=self.any_code)
            fresh = []
            for trial in chunk:
                status = statuses.get(trial.key)
                if status is None or (self.retry_failed and status != "done"):
                    fresh.append(trial)
                else:
                    self._count(status, found=True)
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

    def _fill(self, todo: Iterator[Trial]) -> None:
        """Hand over trials; suspects alone."""
        if any(flight.alone for flight in self.pending.values()):
            return
        if self.suspects:
            if not self.pending:
                self._submit(self.suspects.popleft())
            return
        while len(self.pending) < self.workers.in_flight and not self.suspects:
            trial = next(todo, None)
            if trial is None:
                return
            self._submit(_Flight(trial, 1))

    def _submit(self, flight: _Flight) -> None:
        trial = flight.trial
        if self.executor is None:
            self.executor = self.workers.start()
        call = (trial.function.reference, trial.settings, trial.seed)
        try:
            future = self.executor.submit(perform, *call, self.time_limit, self.workers.expendable)
        except BrokenExecutor:
            # This one never began; those that were running will be found broken.
            self.suspects.append(flight)
            self._replace_executor()
            return
        self.pending[future] = replace(flight, submitted=time.monotonic())
        if future.done():
            self._collect(0.0)

    def _collect(self, timeout: float) -> None:
        """File what has finished."""
        finished, _ = wait(self.pending, timeout=timeout, return_when=FIRST_COMPLETED)
        broken = False
        for future in finished:
            flight = self.pending.pop(future)
            error = future.exception()
            if error is None:
                self._file(flight, future.result())
            elif isinstance(error, BrokenExecutor):
                broken = True
                self._suspect(flight)
            else:
                # The executor gave up on it, as Dask does when workers die under a trial.
                reason = f"{type(error).__name__}: {error}"
                self._file(flight, Result("failed", None, reason, 0.0, environment()))
        if broken:
            self._replace_executor()

    def _suspect(self, flight: _Flight) -> None:
        took = time.monotonic() - flight.submitted
        if flight.alone and self.time_limit is not None and took > self.time_limit + GRACE:
            reason = f"The trial could not be stopped at its limit of {self.time_limit:g} s."
            self._file(flight, Result("timed_out", None, reason, took, environment()))
        elif flight.attempts >= _MOST_ATTEMPTS:
            reason = f"The process that ran this trial died {_MOST_ATTEMPTS} times."
            self._file(flight, Result("failed", None, reason, took, environment()))
        else:
            self.suspects.append(replace(flight, attempts=flight.attempts + 1))

    def _replace_executor(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=False)
        self.executor = None

    def _file(self, flight: _Flight, result: Result) -> None:
        self.store.write(flight.trial, result, flight.attempts)
        self._count(result.status)

    def _count(self, status: str, *, found: bool = False) -> None:
        self.summary = self.summary.with_result(status, found=found)
        self.progress(self.summary)

    def say_farewell(self) -> None:
        """Drop what has not begun, and file what finishes within a few seconds."""
        for future in list(self.pending):
            if future.cancel():
                del self.pending[future]
        with suppress(KeyboardInterrupt):
            end = time.monotonic() + _FAREWELL
            while self.pending and time.monotonic() < end:
                self._collect(end - time.monotonic())

    def stop(self) -> None:
        """Release the executor."""
        for future in self.pending:
            future.cancel()
        if self.executor is not None:
            self.executor.shutdown(wait=not self.pending)
