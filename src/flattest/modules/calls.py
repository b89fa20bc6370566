"""One call of the module for one batch: its logits for some samples, and the loss of all.

Logits are brought into the form ``(samples, ...)``. Where a module returns several rows per sample,
as language models do that flatten tokens into rows, the rows of a sample get a dimension of their
own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flattest.modules.data import Batch, count_samples
from flattest.modules.losses import Loss, checked_scalar, in_float64
from flattest.modules.outputs import Output, replace, select
from flattest.modules.trees import map_leaves
from flattest.validation import Argument

_FIXED_SHAPE = ("Guard failed", "Expected input at")
"""How PyTorch says, by version, that an exported program takes one number of samples only."""
_USUAL = (
    *(RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError, AssertionError),
)
"""What a forward pass raises on data that do not fit."""


def _described(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Say what a module was called with: how many samples, and the shape of each."""
    shapes: list[torch.Size] = []

    def look(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim:
            shapes.append(leaf.shape)
        return leaf

    map_leaves(look, (args, kwargs))
    if len(shapes) != 1:
        return "X"
    n, *shape = shapes[0]
    return f"{n} samples of X, each of shape {tuple(shape)},"


class Call:
    """A module and a batch.

    Parameters
    ----------
    model : torch.nn.Module
        The module.
    batch : Batch
        Its inputs and the targets.
    output : str, int, callable or None
        Where the logits are in what it returns.
    """

    def __init__(self, model: nn.Module, batch: Batch, output: Output) -> None:
        self._model, self.batch, self._output = model, batch, output

    @property
    def n_samples(self) -> int:
        """The number of samples."""
        return self.batch.n_samples

    def returned(self) -> Any:
        """Return what the module returns for the whole batch, without a graph."""
        with torch.no_grad():
            return self._run(*self.batch.inputs())

    def logits(self, step: int) -> Tensor:
        """Return the logits of the whole batch as the module has them, without a graph.

        Parameters
        ----------
        step : int
            How many samples to take at a time.

        Returns
        -------
        Tensor
            The logits.
        """
        parts = [
            self.outputs_without_graph(slice(start, start + step))
            for start in range(0, self.n_samples, step)
        ]
        if len({part.shape[1:] for part in parts}) > 1:
            raise ValueError(
                "The model's outputs differ in shape between parts of one batch; "
                "set batch_size to the length of the batches."
            )
        return torch.cat(parts)

    def outputs(self, samples: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of some samples with their graph, and its leaves that are data.

        Parameters
        ----------
        samples : slice or list of int
            Which samples.

        Returns
        -------
        logits : Tensor of shape (n, ...)
            One row per sample.
        leaves : list of Tensor
            The floating-point inputs, marked so that the graph shows where data enter it.
        """
        args, kwargs = self.batch.inputs(samples)
        leaves: list[Tensor] = []

        def mark(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                leaves.append(leaf.requires_grad_())
                return leaf.clone()  # which the module may overwrite
            return leaf

        logits = self._select(self._run(*map_leaves(mark, (args, kwargs))))
        if not logits.requires_grad:
            raise ValueError(
                "The model's outputs do not depend on any measured parameter by autograd; does its "
                "forward pass use torch.no_grad or detach?"
            )
        length = len(range(*samples.indices(self.n_samples))) if isinstance(samples, slice) else 1
        return by_sample(logits, length), leaves

    def outputs_without_graph(self, samples: slice) -> Tensor:
        """Return the logits of some samples as the module has them.

        Parameters
        ----------
        samples : slice
            Which samples.

        Returns
        -------
        Tensor
            The logits.
        """
        with torch.no_grad():
            return self._select(self._run(*self.batch.inputs(samples)))

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self._model(*args, **kwargs)
        except _USUAL as error:
            text = (str(error).strip().splitlines() or ["no message"])[0]
            if text.startswith(_FIXED_SHAPE):
                text += "; export it with dynamic shapes, so that it takes any number of samples"
            raise ValueError(
                f"The model's forward pass failed on {_described(args, kwargs)} with "
                f"{type(error).__name__}: "
                f"{text.removesuffix('.')}."
            ) from error

    def _select(self, returned: Any) -> Tensor:
        logits = select(returned, self._output)
        if logits.ndim == 0:
            raise ValueError("The model's outputs are a single number, not one per sample.")
        return logits


def by_sample(logits: Tensor, n_samples: int) -> Tensor:
    """Give the rows of each sample a dimension of their own, where there are several.

    Parameters
    ----------
    logits : Tensor of shape (n t, ...)
        The logits.
    n_samples : int
        The number of samples.

    Returns
    -------
    Tensor of shape (n, ...) or (n, t, ...)
        The same.

    Raises
    ------
    ValueError
        If their number is no multiple of the number of samples.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.calls import by_sample
    >>> by_sample(torch.zeros(6, 5), 3).shape
    torch.Size([3, 2, 5])
    """
    if len(logits) == n_samples:
        return logits
    if len(logits) % n_samples:
        raise ValueError(
            f"The model returns {len(logits)} rows for {n_samples} samples; samples must lie along "
            "the first dimension of inputs and outputs."
        )
    return logits.reshape(n_samples, len(logits) // n_samples, *logits.shape[1:])


class _Recorder:
    """Stands for the module while a loss of (model, batch) runs; notes the one call it makes."""

    def __init__(self, model: nn.Module, answer: Callable[..., Any]) -> None:
        self._model, self._answer = model, answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def recorded(model: nn.Module, loss: Loss, whole: Any, output: Output) -> Call:
    """Run a loss of (model, batch) once, to see how it calls the module.

    Parameters
    ----------
    model : torch.nn.Module
        The module.
    loss : Loss
        One that takes the model.
    whole : object
        The batch.
    output : str, int, callable or None
        Where the logits are.

    Returns
    -------
    Call
        The call that it made; the batch is its targets.

    Raises
    ------
    ValueError
        If it did not call the module exactly once.
    """
    calls: list[tuple[Any, Any]] = []

    def answer(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return model(*args, **kwargs)

    with torch.no_grad():
        loss.evaluate(_Recorder(model, answer), whole)
    if len(calls) != 1:
        raise ValueError(
            f"The loss {loss.name} called the model {len(calls)} times; it must call it once."
        )
    args, kwargs = calls[0]
    n_samples = count_samples((args, kwargs), Argument("X"))
    return Call(model, Batch(args, kwargs, whole, n_samples), output)


def loss_of(
    call: Call, loss: Loss, model: nn.Module, output: Output
) -> Callable[[Tensor, Any], Tensor]:
    """Return the loss as a function of logits and of the batch's targets, whatever form it has.

    Parameters
    ----------
    call : Call
        The call.
    loss : Loss
        The loss.
    model : torch.nn.Module
        The module.
    output : str, int, callable or None
        Where the logits are.

    Returns
    -------
    callable
        Of logits, in the module's own shape and in float64, and targets.
    """
    if not loss.takes_model:
        return lambda z, y: checked_scalar(loss.evaluate(z, in_float64(y)), loss.name)
    returned = call.returned()

    def evaluate(z: Tensor, whole: Any) -> Tensor:
        stand_in = _Recorder(model, lambda *args, **kwargs: replace(returned, output, z))
        return checked_scalar(loss.evaluate(stand_in, in_float64(whole)), loss.name)

    return evaluate
