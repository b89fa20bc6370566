"""The monitor as a callback of Lightning."""

from __future__ import annotations

from typing import Any

from torch import nn

from flattest.errors import require
from flattest.flatness import Flatness
from flattest.integrations.logs import prefixed
from flattest.integrations.monitor import FlatnessMonitor

require("lightning", extra="integrations", purpose="flattest.integrations.lightning")

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info


class FlatnessCallback(Callback):
    """Measure flatness every so many optimiser steps of a Lightning trainer.

    The figures go to all loggers of the trainer, as ``flatness/trace`` and so on, and to those of
    the monitor. The first measurement is made before the first step, so that what is wrong with the
    probe batch shows at once; after the last one it says what all of them took. With several
    processes that have the same parameters, the first one measures; models that are spread over
    processes are not supported.

    Parameters
    ----------
    monitor : FlatnessMonitor
        The probe batch, the options, and how often.
    network : str
        The part of the module that is measured, by its attribute, such as ``"net"``. By default the
        module itself, whose ``forward`` has to return the logits.

    Raises
    ------
    TypeError
        If `monitor` is no `FlatnessMonitor`.

    See Also
    --------
    flattest.integrations.FlatnessMonitor : What is measured, and when.

    Examples
    --------
    >>> import torch
    >>> from lightning.pytorch import LightningModule, Trainer
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from flattest.integrations import FlatnessMonitor
    >>> from flattest.integrations.lightning import FlatnessCallback
    >>> class Classifier(LightningModule):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = torch.nn.Linear(4, 3)
    ...
    ...     def training_step(self, batch, batch_idx):
    ...         return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    ...
    ...     def configure_optimizers(self):
    ...         return torch.optim.SGD(self.parameters(), lr=0.1)
    >>> X, y = torch.randn(40, 4), torch.randint(0, 3, (40,))
    >>> monitor = FlatnessMonitor(X, y, loss="cross_entropy", every=4)
    >>> trainer = Trainer(
    ...     max_epochs=1,
    ...     callbacks=[FlatnessCallback(monitor, network="net")],
    ...     accelerator="cpu",
    ...     logger=False,
    ...     enable_checkpointing=False,
    ...     enable_progress_bar=False,
    ...     enable_model_summary=False,
    ... )
    >>> trainer.fit(Classifier(), DataLoader(TensorDataset(X, y), batch_size=5))
    >>> [reading.step for reading in monitor.readings]
    [0, 4, 8]
    """

    def __init__(self, monitor: Any, network: str = "") -> None:
        super().__init__()
        if not isinstance(monitor, FlatnessMonitor):
            raise TypeError(f"monitor must be a FlatnessMonitor, not {type(monitor).__name__}.")
        self.monitor: FlatnessMonitor = monitor
        self.network = network

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure before the first step.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        pl_module : LightningModule
            The module.
        """
        if trainer.is_global_zero:
            self.monitor.measure(self._part(pl_module), trainer.global_step)
            self._log(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure if it is time to.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        pl_module : LightningModule
            The module.
        outputs, batch, batch_idx : object
            Of the training step; not used.
        """
        if not trainer.is_global_zero:
            return
        found: Flatness | None = self.monitor.step(self._part(pl_module), trainer.global_step)
        if found is not None:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the measurements took.

        Parameters
        ----------
        trainer : Trainer
            The trainer.
        pl_module : LightningModule
            The module.
        """
        rank_zero_info(self.monitor.summary())

    def _part(self, pl_module: LightningModule) -> nn.Module:
        try:
            return pl_module.get_submodule(self.network)
        except AttributeError as error:
            raise ValueError(
                f"network names {self.network!r}, which is no part of the "
                f"{type(pl_module).__name__}: {error}."
            ) from error

    def _log(self, trainer: Trainer) -> None:
        reading = self.monitor.readings[-1]
        for logger in trainer.loggers:
            logger.log_metrics(prefixed(reading.figures), step=reading.step)
