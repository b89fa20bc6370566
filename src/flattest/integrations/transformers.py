"""The monitor as a callback of the Trainer of Hugging Face's transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from flattest.errors import require
from flattest.integrations.logs import prefixed
from flattest.integrations.monitor import FlatnessMonitor

require("transformers", extra="integrations", purpose="flattest.integrations.transformers")

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

_LOGGER = logging.get_logger(__name__)


class FlatnessCallback(TrainerCallback):
    """Measure flatness every so many optimiser steps of a ``Trainer``.

    The first measurement is made before the first step, so that what is wrong with the probe batch
    shows at once; the end of the training says what all of them took. With several processes that
    have the same parameters, the first one measures; models that are spread over processes are not
    supported.

    Parameters
    ----------
    monitor : FlatnessMonitor
        The probe batch, the options, and how often. Its data are what the model is called with,
        such as a dictionary with ``input_ids`` and ``attention_mask`` as ``probe_X``, and the
        targets as ``probe_y``.
    log : callable, optional
        The trainer's own ``log``, a function of a dictionary, which reports to wherever the trainer
        does, as ``flatness/trace`` and so on. A trainer does not hand it to its callbacks, so add
        the callback afterwards.

    Raises
    ------
    TypeError
        If an argument has a wrong type.

    See Also
    --------
    flattest.integrations.FlatnessMonitor : What is measured, and when.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from transformers import Trainer, TrainingArguments
    >>> from flattest.integrations import FlatnessMonitor
    >>> from flattest.integrations.transformers import FlatnessCallback
    >>> config = BertConfig(
    ...     vocab_size=40,
    ...     hidden_size=8,
    ...     num_hidden_layers=1,
    ...     num_attention_heads=2,
    ...     intermediate_size=16,
    ... )
    >>> tokens = torch.randint(3, 40, (32, 6))
    >>> labels = tokens[:, 0] % 2
    >>> monitor = FlatnessMonitor(
    ...     {"input_ids": tokens[:8]}, labels[:8], loss="cross_entropy", every=2, residual="none"
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(
    ...         BertForSequenceClassification(config),
    ...         TrainingArguments(folder, max_steps=4, report_to=[], disable_tqdm=True),
    ...         train_dataset=[{"input_ids": x, "labels": y} for x, y in zip(tokens, labels)],
    ...     )
    ...     trainer.add_callback(FlatnessCallback(monitor, log=trainer.log))
    ...     _ = trainer.train()  # doctest: +ELLIPSIS
    {'flatness/gauss_newton': ...
    >>> [reading.step for reading in monitor.readings]
    [0, 2, 4]
    """

    def __init__(self, monitor: Any, *, log: Any = None) -> None:
        if not isinstance(monitor, FlatnessMonitor):
            raise TypeError(f"monitor must be a FlatnessMonitor, not {type(monitor).__name__}.")
        if log is not None and not callable(log):
            raise TypeError(f"log must be a function such as trainer.log, not {log!r}.")
        self.monitor: FlatnessMonitor = monitor
        self.log: Callable[[dict[str, float]], Any] | None = log

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure before the first step.

        Parameters
        ----------
        args, state, control : object
            Those of the trainer.
        model : torch.nn.Module
            The network.
        **kwargs
            Not used.
        """
        if state.is_world_process_zero:
            assert model is not None  # the trainer always gives it
            self.monitor.measure(model, state.global_step)
            self._report()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure if it is time to.

        Parameters
        ----------
        args, state, control : object
            Those of the trainer.
        model : torch.nn.Module
            The network.
        **kwargs
            Not used.
        """
        if not state.is_world_process_zero:
            return
        assert model is not None
        if self.monitor.step(model, state.global_step) is not None:
            self._report()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say what the measurements took.

        Parameters
        ----------
        args, state, control : object
            Those of the trainer.
        **kwargs
            Not used.
        """
        if state.is_world_process_zero:
            _LOGGER.info(self.monitor.summary())

    def _report(self) -> None:
        if self.log is not None:
            self.log(prefixed(self.monitor.readings[-1].figures))
