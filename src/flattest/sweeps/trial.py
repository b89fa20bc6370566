"""Trials and their results: what is run, under which key it is filed, and what came out."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from types import FrameType
from typing import Any, Literal

from flattest._version import __version__
from flattest.sweeps.trial_function import TrialFunction, check_code, load, settings_class

Outcome = Literal["done", "failed", "timed_out"]
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Trial:
    """One call of a trial function.

    Parameters
    ----------
    function : TrialFunction
        What is called.
    settings : dict
        The settings, complete (see `TrialFunction.complete`), in types that JSON can hold.
    seed : int
        The seed.

    Examples
    --------
    >>> from flattest.sweeps import Trial, trial_function
    >>> function = trial_function("flattest.study.claims.symmetry:trial")
    >>> a, b = (Trial(function, function.complete({"factor": f}), seed=0) for f in (1, 1.0))
    >>> a.key == b.key
    True
    """

    function: TrialFunction
    settings: dict[str, Any]
    seed: int

    @property
    def settings_json(self) -> str:
        """The settings as text, the same for equal settings."""
        return json.dumps(self.settings, sort_keys=True, separators=(",", ":"))

    @functools.cached_property
    def key(self) -> str:
        """A digest of function, settings, seed and code version."""
        parts = [self.function.name, self.settings_json, str(self.seed), self.function.code]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Parameters
    ----------
    status : {"done", "failed", "timed_out"}
        How it ended.
    record : dict or None
        What the trial function returned.
    error : str or None
        The traceback, or the reason.
    seconds : float
        Wall-clock time.
    environment : dict
        Versions and machine.
    warnings : str or None
        The warnings that it gave, one a line, each once.

    Examples
    --------
    >>> from flattest.sweeps import Result
    >>> Result("failed", None, "ValueError: no", 0.1, {}).status
    'failed'
    """

    status: Outcome
    record: dict[str, Any] | None
    error: str | None
    seconds: float
    environment: dict[str, Any]
    warnings: str | None = None


class _OutOfTime(BaseException):
    """Not an Exception, so that trials do not swallow it."""


def perform(
    reference: str,
    settings: Mapping[str, Any],
    seed: int,
    time_limit: float | None = None,
    digest: str | None = None,
) -> Result:
    """Run a trial here and now; nothing that it does wrong gets out.

    Parameters
    ----------
    reference : str
        The trial function.
    settings : mapping
        Its complete settings.
    seed : int
        The seed.
    time_limit : float, optional
        Seconds after which the trial is stopped.
    digest : str, optional
        The code that the caller means, by its digest.

    Returns
    -------
    Result
        The record, or what went wrong.

    Raises
    ------
    SweepError
        If this process has loaded other code than the caller means.

    Examples
    --------
    >>> from flattest.sweeps.trial import perform
    >>> perform("flattest.study.claims.symmetry:trial", {"factor": 0.0}, seed=0).status
    'failed'
    """
    check_code(reference, digest)
    started = time.perf_counter()
    record, error = None, None
    caught: list[warnings.WarningMessage] = []
    status: Outcome = "done"
    try:
        function = load(reference)
        cls = settings_class(function)
        given = dict(settings) if cls is None else cls(**_as_tuples(settings))
        with _limited(time_limit), warnings.catch_warnings(record=True) as caught:
            record = _flat(function(given, seed))
    except _OutOfTime:
        status, error = "timed_out", f"The trial ran longer than its limit of {time_limit:g} s."
    except KeyboardInterrupt:
        raise
    except BaseException:
        status, error = "failed", traceback.format_exc()
    seconds = time.perf_counter() - started
    given_warnings = dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught)
    return Result(status, record, error, seconds, environment(), "\n".join(given_warnings) or None)


def _as_tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Undo JSON's turning of tuples into lists: settings classes are hashable."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
    }


def _flat(record: Any) -> dict[str, Any]:
    """Return a record in built-in scalars, or say what is not one."""
    if not isinstance(record, Mapping):
        raise TypeError(f"a trial must return a mapping, not {type(record).__name__}")
    flat = {}
    for name, value in record.items():
        if not isinstance(value, str | int | float | bool | None) and hasattr(value, "item"):
            value = value.item()  # NumPy's and PyTorch's scalars
        if not isinstance(value, str | int | float | bool | None):
            raise TypeError(
                f"a trial must return scalars, but {name!r} is of type {type(value).__name__}"
            )
        flat[str(name)] = value
    return flat


def _limited(seconds: float | None) -> AbstractContextManager[None]:
    """Raise `_OutOfTime` in the block when the time is up."""
    if seconds is None:
        return nullcontext()
    in_main = threading.current_thread() is threading.main_thread()
    return _alarm(seconds) if in_main and hasattr(signal, "setitimer") else _timer(seconds)


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _timer(seconds: float) -> Iterator[None]:
    """Do the same in a thread that gets no signals, such as those of a Dask worker."""
    import ctypes

    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    thread = ctypes.c_ulong(threading.get_ident())
    lock, over = threading.Lock(), False

    def stop() -> None:
        with lock:
            if not over:
                raise_in(thread, ctypes.py_object(_OutOfTime))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            over = True
        timer.cancel()


@functools.cache
def environment() -> dict[str, Any]:
    """Describe this machine and the versions on it.

    Returns
    -------
    dict
        Versions, host and platform; the same for every trial of a process.

    Examples
    --------
    >>> from flattest.sweeps.trial import environment
    >>> "torch" in environment()
    True
    """
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    return {
        "flattest": __version__,
        "python": platform.python_version(),
        **versions,
        "host": socket.gethostname(),
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
