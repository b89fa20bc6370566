"""The model comes back as it was, whatever happens while it is measured.

`measuring` is a context in which exactly the chosen parameters require gradients, attention and
recurrent layers run in the forms that autograd can take apart, backward hooks rest and half
precision is not chosen behind the model's back. When it is left, by success, exception or Ctrl-C,
attributes, buffers, gradients, hooks, modes, random states and PyTorch's settings are as before.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flattest.modules.embedding_bags import differentiable
from flattest.modules.parameters import Measured

_HOOKS = ("_backward_hooks", "_backward_pre_hooks")


@contextlib.contextmanager
def measuring(model: nn.Module, measured: list[Measured]) -> Iterator[None]:
    """Prepare a module for its measurement, and put everything back afterwards.

    Parameters
    ----------
    model : torch.nn.Module
        The module without wrapper.
    measured : list of Measured
        The parameters that are measured.

    Yields
    ------
    None
        While the module is prepared.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.guards import measuring
    >>> from flattest.modules.parameters import choose
    >>> model = torch.nn.Linear(2, 1)
    >>> with measuring(model, choose(model, ["weight"])):
    ...     model.bias.requires_grad
    False
    >>> model.bias.requires_grad
    True
    """
    with contextlib.ExitStack() as stack:
        stack.callback(_restore_modules, [_remember(module) for module in model.modules()])
        stack.callback(restore_random_states, random_states(model))
        stack.callback(_restore_parameters, _remember_parameters(model))
        chosen = {id(entry.tensor) for entry in measured}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
            parameter._backward_hooks = None
        for module in model.modules():
            for name in _HOOKS:
                module.__dict__[name] = type(module.__dict__[name])()
        _choose_kernels(model, stack)
        stack.enter_context(differentiable(model))
        stack.enter_context(torch.enable_grad())
        yield


def refuse_training_mode(model: nn.Module) -> None:
    """Refuse modules whose outputs are no function of a sample and the parameters alone.

    Parameters
    ----------
    model : torch.nn.Module
        The module without wrapper.

    Raises
    ------
    ValueError
        If batch normalisation or dropout is in training mode; what else makes outputs random or
        couples samples shows in the forward passes.
    """
    for name, module in model.named_modules():
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        dropout = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        if module.training and (batch_norm or dropout):
            what = "whose loss is no sum over samples" if batch_norm else "which draws at random"
            raise ValueError(
                f"{name or 'The model'} is a {type(module).__name__} in training mode, {what}; "
                "call model.eval() first."
            )


def _choose_kernels(model: nn.Module, stack: contextlib.ExitStack) -> None:
    """Take the forms of attention and recurrent layers whose parts autograd can see."""
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    stack.callback(
        torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
    )
    torch.backends.mha.set_fastpath_enabled(False)
    device = next(model.parameters()).device.type
    if torch.is_autocast_enabled(device):
        stack.enter_context(torch.autocast(device, enabled=False))

    def switch_off(settings: Any, name: str) -> None:
        stack.callback(setattr, settings, name, getattr(settings, name))
        setattr(settings, name, False)

    switch_off(torch.backends.cuda.matmul, "allow_tf32")  # else products have ten bits
    switch_off(torch.backends.cudnn, "allow_tf32")
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        switch_off(torch.backends.cudnn, "enabled")
        switch_off(torch.backends.mkldnn, "enabled")


class _Remembered(NamedTuple):
    """A module's attributes, what was in its dictionaries, and its buffers' values."""

    module: nn.Module
    attributes: dict[str, Any]
    tables: list[tuple[dict[Any, Any], dict[Any, Any]]]
    buffers: list[tuple[Tensor, Tensor]]


def _remember(module: nn.Module) -> _Remembered:
    attributes = dict(module.__dict__)
    tables = [(value, value.copy()) for value in attributes.values() if isinstance(value, dict)]
    buffers = [(b, b.detach().clone()) for b in module._buffers.values() if b is not None]
    return _Remembered(module, attributes, tables, buffers)


def _restore_modules(remembered: list[_Remembered]) -> None:
    for module, attributes, tables, buffers in remembered:
        module.__dict__.clear()
        module.__dict__.update(attributes)
        for table, entries in tables:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for buffer, values in buffers:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


def _remember_parameters(model: nn.Module) -> list[tuple[Any, ...]]:
    """Note what hangs on parameters; the values only of those that a forward pass may change."""
    renormed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
    }
    return [
        (
            p,
            p.requires_grad,
            p.grad,
            p._backward_hooks,
            p.detach().clone() if id(p) in renormed else None,
        )
        for p in model.parameters()
    ]


def _restore_parameters(remembered: list[tuple[Any, ...]]) -> None:
    for parameter, requires_grad, gradient, hooks, values in remembered:
        parameter.requires_grad_(requires_grad)
        parameter.grad = gradient
        parameter._backward_hooks = hooks
        if values is not None:
            with torch.no_grad():
                parameter.copy_(values)


def random_states(model: nn.Module) -> tuple[Any, ...]:
    """Return the states of all random number generators that work on a module may draw from.

    Parameters
    ----------
    model : torch.nn.Module
        The module, whose devices count.

    Returns
    -------
    tuple
        For `restore_random_states`.
    """
    cuda = [d for d in {p.device for p in model.parameters()} if d.type == "cuda"]
    devices = {device: torch.cuda.get_rng_state(device) for device in cuda}
    return torch.get_rng_state(), devices, np.random.get_state(), random.getstate()  # noqa: NPY002


def restore_random_states(states: tuple[Any, ...]) -> None:
    """Put the random number generators back.

    Parameters
    ----------
    states : tuple
        What `random_states` returned.
    """
    torch.set_rng_state(states[0])
    for device, state in states[1].items():
        torch.cuda.set_rng_state(state, device)
    np.random.set_state(states[2])  # noqa: NPY002
    random.setstate(states[3])
