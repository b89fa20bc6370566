"""The loss over batches, each weighed by the loss's own normaliser."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flattest.modules.calls import Call, by_sample, loss_of
from flattest.modules.losses import (
    Loss,
    Normalisers,
    in_float64,
    refuse_broadcast,
    warn_of_probabilities,
)
from flattest.modules.outputs import Output


class BatchLoss(NamedTuple):
    """The loss on a batch.

    Parameters
    ----------
    evaluate : callable
        The loss of logits and targets.
    logits : Tensor
        The logits, in the module's own shape and in float64.
    samples : Tensor of shape (n, ...)
        The same with a dimension for the samples.
    targets : object
        The targets, likewise.
    weight : float
        The normaliser; 0 if no sample counts.
    value : float
        The loss; 0 if no sample counts.
    """

    evaluate: Callable[[Tensor, Any], Tensor]
    logits: Tensor
    samples: Tensor
    targets: Any
    weight: float
    value: float


class LossSum:
    """The loss over all batches so far.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    loss : Loss
        The loss.
    output : str, int, callable or None
        Where the logits are.

    Attributes
    ----------
    n_samples : int
        The samples counted.
    summed : bool
        Whether the loss is a sum over samples, and not a mean.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.calls import Call
    >>> from flattest.modules.data import read_batches
    >>> from flattest.modules.loss_sum import LossSum
    >>> from flattest.modules.losses import resolve
    >>> from flattest.modules.parameters import kind_of
    >>> module = torch.nn.Linear(1, 1)
    >>> _ = torch.nn.init.constant_(module.weight, 2), torch.nn.init.zeros_(module.bias)
    >>> total = LossSum(module, resolve("mse"), None)
    >>> for n in (1, 3):
    ...     X = torch.ones(n, 1)
    ...     for batch in read_batches(X, n * X, kind_of(module)):
    ...         call = Call(module, batch, None)
    ...         total.count(total.on(call, step=2), call.n_samples)
    >>> total.mean, total.n_samples
    (1.0, 4)
    """

    def __init__(self, module: nn.Module, loss: Loss, output: Output) -> None:
        self._module, self._loss, self._output = module, loss, output
        self._normalisers = Normalisers(loss.name)
        self._weight, self._value = 0.0, 0.0
        self.n_samples, self.summed = 0, False

    def on(self, call: Call, step: int) -> BatchLoss:
        """Evaluate the loss on a batch, without counting it.

        Parameters
        ----------
        call : Call
            The batch.
        step : int
            How many samples to take at a time.

        Returns
        -------
        BatchLoss
            The loss.

        Raises
        ------
        ValueError
            If outputs or the loss are not finite, or the loss has no fitting shape.
        """
        logits = call.logits(step).detach()
        if not torch.isfinite(logits).all():
            raise ValueError("The model's outputs contain NaN or infinity.")
        evaluate = loss_of(call, self._loss, self._module, self._output)
        z, targets = logits.double(), in_float64(call.batch.targets)
        samples = by_sample(z, call.n_samples)
        if self._loss.normaliser is None and not self._loss.takes_model:
            refuse_broadcast(evaluate, z, targets, self._loss.name)
        if self.n_samples == 0:
            warn_of_probabilities(z, self._loss)
        weight = self._weigh(evaluate, z, targets)
        value = float(evaluate(z, targets)) if weight else 0.0
        if not math.isfinite(value):
            raise ValueError(f"The loss {self._loss.name} is {value} on a batch.")
        return BatchLoss(evaluate, z, samples, targets, weight, value)

    def count(self, on_batch: BatchLoss, n_samples: int) -> None:
        """Add a batch.

        Parameters
        ----------
        on_batch : BatchLoss
            The loss on it.
        n_samples : int
            Its samples.
        """
        self._weight += on_batch.weight
        self._value += on_batch.weight * on_batch.value
        self.n_samples += n_samples

    @property
    def norm(self) -> float:
        """What sums over batches are divided by; 1 for losses that are sums.

        Raises
        ------
        ValueError
            If no sample counts.
        """
        if self._weight == 0:
            raise ValueError(
                f"The loss {self._loss.name} counts no sample: every target is ignored, or has "
                "weight 0."
            )
        return 1.0 if self.summed else self._weight

    @property
    def mean(self) -> float:
        """The loss over all batches."""
        return self._value / self.norm

    @property
    def normaliser_is_known(self) -> bool:
        """Whether the norm is the loss's own, and not relative to the first batch."""
        return self._loss.normaliser is not None or self.summed

    def _weigh(
        self, evaluate: Callable[[Tensor, Any], Tensor], logits: Tensor, targets: Any
    ) -> float:
        """Return the normaliser of a batch; losses that are sums count once each."""
        if self._loss.normaliser is not None:
            weight = self._loss.normaliser(logits, targets)
        else:
            weight = self._normalisers.weight(evaluate, logits, targets)
        if math.isnan(weight):
            self.summed = True
            return 1.0
        return weight
