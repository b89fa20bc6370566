"""The flatness of a network while it is trained: every so many steps, on one probe batch.

The training goes on as if nobody had looked: modes, gradients, buffers and random states are put
back, and what the looking took is measured and said.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from flattest.flatness import Flatness
from flattest.integrations.logs import as_log
from flattest.measuring import measure
from flattest.modules.guards import random_states, restore_random_states
from flattest.validation import check_positive_int
from flattest.wording import count

if TYPE_CHECKING:
    import pandas as pd

_FIGURES = (
    *("trace", "gauss_newton", "residual", "orbit_minimum", "adaptive", "fisher_rao"),
    *("largest_eigenvalue", "loss"),
)
_OPTIONS = tuple(inspect.signature(measure).parameters)[3:]  # behind the model, X and y


class Reading(NamedTuple):
    """One measurement during training.

    Parameters
    ----------
    step : int
        The number of training steps before it.
    figures : dict of str to float
        What was measured, by name, each estimate with its standard error as
        ``"<name>_standard_error"``; the ``"seconds"`` it took, and the ``"share_of_time"`` of all
        measurements so far in the time since the first call of the monitor.

    Examples
    --------
    >>> from flattest.integrations import Reading
    >>> Reading(step=100, figures={"trace": 3.5}).figures["trace"]
    3.5
    """

    step: int
    figures: dict[str, float]


class FlatnessMonitor:
    """Measure the flatness of a network every so many training steps, on one probe batch.

    The training is what it would be without: the network comes back with its modes, gradients,
    buffers and parameters, and all random number generators with their states, also after an error
    or Ctrl-C. It is measured in evaluation mode: batch normalisation with its running statistics.

    Parameters
    ----------
    probe_X : Tensor, array_like, dict, tuple, or iterable of batches
        The data, as for :func:`flattest.measure`: the same samples at all times, or the curve shows
        their differences. They are moved to the network's device for each measurement.
    probe_y : Tensor or array_like, optional
        The targets; left out where batches or a loss of (model, batch) bring theirs.
    every : int
        The number of training steps from one measurement to the next.
    loggers : iterable
        Where the figures go besides `readings`: names of ``.csv`` files, objects with
        ``add_scalar`` (TensorBoard's ``SummaryWriter``) or ``log_metrics`` (the loggers of
        Lightning), and functions of (figures, step).
    **options
        Those of :func:`flattest.measure`: ``loss``, ``symmetry``, ``parameters``, ``mode``,
        ``rtol``, ``memory`` and others. With an integer as ``random_state`` all measurements draw
        the same columns, so that errors of drawing move curves, but do not roughen them.

    Attributes
    ----------
    readings : list of Reading
        All measurements.
    last : Flatness or None
        The whole result of the last one, with its table per layer.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value. Those of :func:`flattest.measure` come with the
        first measurement.

    See Also
    --------
    flattest.measure : What is done each time.

    Notes
    -----
    An exact measurement costs about one backward pass of the probe batch for each column of the
    loss's Hessian (the number of classes less one for cross-entropy), and as many forward passes as
    micro-batches fit into the memory. ``every`` and the size of the probe batch set the share of
    the training time, which every reading states.

    Examples
    --------
    >>> import torch
    >>> from flattest.integrations import FlatnessMonitor
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> X = torch.randn(64, 4)
    >>> y = X[:, :1].abs()
    >>> monitor = FlatnessMonitor(X[:16], y[:16], every=20, symmetry="scales")
    >>> optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    >>> for _ in range(60):
    ...     optimiser.zero_grad()
    ...     torch.nn.functional.mse_loss(net(X), y).backward()
    ...     optimiser.step()
    ...     flatness = monitor.step(net)
    >>> [reading.step for reading in monitor.readings]
    [20, 40, 60]
    >>> all(r.figures["orbit_minimum"] <= r.figures["trace"] for r in monitor.readings)
    True
    """

    def __init__(
        self,
        probe_X: Any,
        probe_y: Any = None,
        *,
        every: int = 100,
        loggers: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        if isinstance(probe_X, Iterator):
            raise TypeError(
                "probe_X must be data that can be read at each measurement, not an iterator; give "
                "a batch or a list of batches."
            )
        unknown = sorted(set(options) - set(_OPTIONS))
        if unknown:
            raise TypeError(
                f"{unknown[0]!r} is no option of flattest.measure, whose options are "
                f"{', '.join(_OPTIONS)}."
            )
        self.every = check_positive_int(every, "every")
        self.readings: list[Reading] = []
        self.last: Flatness | None = None
        self._probe = (probe_X, probe_y)
        self._options = options
        self._logs = [as_log(logger) for logger in _listed(loggers)]
        self._steps = 0
        self._began: float | None = None
        self._measuring = 0.0

    def step(self, model: nn.Module, step: int | None = None) -> Flatness | None:
        """Note that a training step is done, and measure if it is time to.

        Parameters
        ----------
        model : torch.nn.Module
            The network.
        step : int, optional
            The number of training steps so far; by default that of the calls of this method. The
            same number given twice in a row, as by loops that accumulate gradients, counts once.

        Returns
        -------
        Flatness or None
            The measurement, if one was made.
        """
        self._start()
        self._steps = self._steps + 1 if step is None else step
        seen = self.readings and self.readings[-1].step == self._steps
        if self._steps % self.every or seen:
            return None
        return self.measure(model)

    def measure(self, model: nn.Module, step: int | None = None) -> Flatness:
        """Measure now, whatever the step: before the first one, say, to meet errors at once.

        Parameters
        ----------
        model : torch.nn.Module
            The network.
        step : int, optional
            The number of training steps so far; by default the last one that `step` was told.

        Returns
        -------
        Flatness
            The measurement.
        """
        self._start()
        self._steps = self._steps if step is None else step
        _wait_for_device(model)  # else the clock would count training that is still under way
        began = time.perf_counter()
        with _untouched(model), _interrupted_at_once():
            found = measure(model, *self._probe, **self._options)
        seconds = time.perf_counter() - began
        self._measuring += seconds
        figures = _figures(found) | {"seconds": seconds, "share_of_time": self.share_of_time}
        self.last = found
        self.readings.append(Reading(self._steps, figures))
        for log in self._logs:
            log(figures, self._steps)
        return found

    @property
    def share_of_time(self) -> float:
        """The share of measurements in the time from the first call to now; 0 before."""
        if self._began is None:
            return 0.0
        return self._measuring / max(time.perf_counter() - self._began, self._measuring, 1e-9)

    def table(self) -> pd.DataFrame:
        """Return all readings as a table.

        Returns
        -------
        pandas.DataFrame
            One row for each, indexed by the step, with a column for each figure.
        """
        import pandas as pd

        steps = pd.Index([reading.step for reading in self.readings], name="step")
        return pd.DataFrame([reading.figures for reading in self.readings], index=steps)

    def summary(self) -> str:
        """Say in a line what the measurements took.

        Returns
        -------
        str
            Their number, the seconds, and the share of the time since the first call.
        """
        samples = "" if self.last is None else f" of {count(self.last.n_samples, 'sample')}"
        elapsed = 0.0 if self._began is None else time.perf_counter() - self._began
        return (
            f"Flatness: {count(len(self.readings), 'measurement')}{samples} took "
            f"{self._measuring:.3g} s, {self.share_of_time:.1%} of {elapsed:.3g} s."
        )

    def _start(self) -> None:
        if self._began is None:
            self._began = time.perf_counter()


def _listed(loggers: Any) -> list[Any]:
    """Return a list; one logger that is not in a list is a common slip, with a clear meaning."""
    if isinstance(loggers, (list, tuple, set)):
        return list(loggers)
    return [loggers]


def _figures(found: Flatness) -> dict[str, float]:
    """Return what was measured, with standard errors."""
    figures: dict[str, float] = {}
    for name in _FIGURES:
        value = getattr(found, name)
        if not math.isnan(value):
            figures[name] = value
            if name in found.standard_error:
                figures[f"{name}_standard_error"] = found.standard_error[name]
    return figures


def _wait_for_device(model: nn.Module) -> None:
    for device in {p.device for p in model.parameters() if p.is_cuda}:
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and put modes and random states back.

    The modes are set one by one: `eval` and `train` may be overridden to do more, such as to merge
    adapters. A data loader draws a number when it is read, which `measure` leaves to its caller.
    """
    states = random_states(model)
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
        restore_random_states(states)


@contextlib.contextmanager
def _interrupted_at_once() -> Iterator[None]:
    """Let Ctrl-C end the training; left alone, `measure` would return what it has so far."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
