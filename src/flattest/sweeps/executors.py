"""Where trials run: processes of this machine, this process, or a Dask cluster.

All are used through the standard interface of :class:`concurrent.futures.Executor`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process, resource_tracker
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool
from threadpoolctl import threadpool_limits

from flattest.errors import require
from flattest.sweeps.trial_function import SweepError

T = TypeVar("T")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_AHEAD = 4
_DASK = ("tcp://", "tls://", "ucx://", "ws://", "wss://")


@dataclass(frozen=True)
class Workers:
    """How to get an executor, and what may be expected of it.

    Parameters
    ----------
    start : callable
        From the seconds after which a call has to be over (or None) to an executor.
    in_flight : int
        How many trials to hand over at a time.
    lost : tuple of exception types
        Those by which a future says that its process died; the trial is then begun again.

    Examples
    --------
    >>> from flattest.sweeps import workers
    >>> workers("serial").in_flight
    1
    """

    start: Callable[[float | None], Executor]
    in_flight: int
    lost: tuple[type[BaseException], ...] = ()


def workers(executor: str = "processes", n_workers: int | None = None) -> Workers:
    """Choose where trials run.

    Parameters
    ----------
    executor : str
        ``"processes"``, ``"serial"`` (this process, for debugging), or the address of a Dask
        scheduler such as ``"tcp://host:8786"``.
    n_workers : int, optional
        The number of processes; by default one per core. A cluster has its own.

    Returns
    -------
    Workers
        To be handed to `run`.

    Raises
    ------
    SweepError
        If the name is unknown, or Dask is missing or does not answer.

    Examples
    --------
    >>> from flattest.sweeps import workers
    >>> workers("processes", 2).in_flight
    8
    """
    if executor == "serial":
        return Workers(lambda limit: SerialExecutor(), in_flight=1)
    if executor == "processes":
        count = n_workers or _cores()
        return Workers(
            lambda limit: ProcessesExecutor(count, limit), _AHEAD * count, lost=(ProcessExpired,)
        )
    if executor.startswith(_DASK):
        return _dask(executor)
    raise SweepError(
        f"executor {executor!r} is unknown; choose processes, serial, or the address of a Dask "
        "scheduler such as tcp://127.0.0.1:8786."
    )


class SerialExecutor(Executor):
    """Runs each call when it is submitted, in the caller's thread.

    Examples
    --------
    >>> from flattest.sweeps.executors import SerialExecutor
    >>> SerialExecutor().submit(max, 1, 2).result()
    2
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call the function and return its result as a finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessesExecutor(Executor):
    """Runs calls in processes of this machine; one that dies takes only its own call with it.

    Parameters
    ----------
    count : int
        The number of processes.
    limit : float, optional
        Seconds after which a call is ended together with its process.

    Examples
    --------
    >>> from flattest.sweeps.executors import ProcessesExecutor
    >>> with ProcessesExecutor(1) as executor:
    ...     executor.submit(max, 1, 2).result()
    2
    """

    def __init__(self, count: int, limit: float | None = None) -> None:
        # Not forked: threads of BLAS and of the caller do not survive a fork.
        self._pool = ProcessPool(count, initializer=_settle, context=get_context("spawn"))
        self._limit = limit
        with _no_interrupts():
            self._pool.schedule(_nothing)  # starts the pool

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call the function in the next process that is free."""
        future: Future[T] = self._pool.schedule(fn, args=args, kwargs=kwargs, timeout=self._limit)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what is under way, or end it together with its processes."""
        if wait and not cancel_futures:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """Block Ctrl-C for the threads and processes that are started meanwhile, for good."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # whose start would unblock it again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    pass


def _settle() -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C, and gone when the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    threadpool_limits(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dask(address: str) -> Workers:
    require("distributed", extra="distributed", purpose="A Dask cluster")
    from distributed import Client

    try:
        client = Client(address, timeout=10, set_as_default=False)
    except OSError as error:
        raise SweepError(f"No Dask scheduler answers at {address}; start it first.") from error
    cores = sum(client.nthreads().values())
    client.close()

    def start(limit: float | None) -> Executor:
        # Impure: a trial that is run again is to be run, not looked up.
        executor: Executor = Client(address, timeout=10, set_as_default=False).get_executor(
            pure=False, retries=2
        )
        return executor

    return Workers(start, in_flight=max(_AHEAD * cores, 64))
