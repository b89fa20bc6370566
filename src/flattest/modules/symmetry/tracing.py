"""From a module and example inputs to a graph of elementary operations.

`torch.export` goes first: it refuses control flow that depends on the data instead of following one
branch of it. Where it refuses, the module itself is traced, branch and all, and what is found holds
as far as `checking` finds it on the data. Either way the operations are then recorded by one
functional trace below autograd, so that in-place operations and attention kernels appear as the
elementary operations that they stand for.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from flattest.modules.data import Batch
from flattest.modules.outputs import Output, select

FRONT_ENDS = ("export", "trace")
_RETRIES = 2
_LONGEST = 90
"""How much of another library's message is quoted."""


class Trace(NamedTuple):
    """What a module computes.

    Parameters
    ----------
    graph : torch.fx.GraphModule
        Its operations. The placeholders are the parameters, the buffers and the inputs, in order.
    parameters, buffers : dict of str to Tensor
        Those of the module, each tensor once.
    front_end : str
        ``"export"`` or ``"trace"``.
    functional : bool
        Whether in-place operations were taken out.
    """

    graph: fx.GraphModule
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    front_end: str
    functional: bool


class TracingError(ValueError):
    """The module's operations could not be recorded."""


def trace(module: nn.Module, batch: Batch, output: Output, front_ends: tuple[str, ...]) -> Trace:
    """Record the operations of a module.

    Parameters
    ----------
    module : torch.nn.Module
        The module, in evaluation mode and prepared by `guards.measuring`.
    batch : Batch
        Its arguments.
    output : str, int, callable or None
        Where the logits are in what it returns.
    front_ends : tuple of str
        What is tried, in order.

    Returns
    -------
    Trace
        The operations from parameters, buffers and inputs to the logits.

    Raises
    ------
    TracingError
        If neither can record it.
    """
    parameters: dict[str, Tensor] = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    attempts: list[tuple[str, bool]] = []
    for front_end in front_ends:
        attempts.append((front_end, True))
    attempts.append((front_ends[-1], False))
    failures = []
    for front_end, functional in attempts:
        args, kwargs = batch.inputs()
        try:
            with _quiet():
                function = (_exported if front_end == "export" else _called)(
                    module, args, kwargs, output
                )
                graph = _recorded(function, parameters, buffers, (args, kwargs), functional)
        except Exception as error:  # whatever a model's own code may raise while it is traced
            text = str(error).strip().splitlines()
            first = text[0].rstrip(".") if text else "no message"
            failures.append(f"{type(error).__name__}: {first[:_LONGEST]}")
            continue
        return Trace(graph, parameters, buffers, front_end, functional)
    raise TracingError(
        "The model's operations could not be recorded, so that its symmetries are not known: "
        f"{'; '.join(dict.fromkeys(failures))}."
    )


_Function = Callable[[dict[str, Tensor], dict[str, Tensor], Any], Tensor]


def _called(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Output
) -> _Function:
    def function(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any) -> Tensor:
        state = {**parameters, **buffers}
        return select(torch.func.functional_call(module, state, inputs[0], inputs[1]), output)

    return function


class _Selected(nn.Module):
    """A module that returns the logits only, whatever object the original wraps them in."""

    def __init__(self, module: nn.Module, output: Output) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return select(self.module(*args, **kwargs), self.output)


def _exported(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Output
) -> _Function:
    program = torch.export.export(_Selected(module, output), args, kwargs, strict=False)
    kinds = torch.export.graph_signature.InputKind
    constants = program.constants

    def function(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Any) -> Tensor:
        given = iter(tree_leaves(inputs))
        values: list[Any] = []
        for spec in program.graph_signature.input_specs:
            name = (spec.target or "").removeprefix("module.")
            if spec.kind == kinds.PARAMETER:
                values.append(_named(module, parameters, name))
            elif spec.kind == kinds.BUFFER:
                known = _named(module, buffers, name)
                values.append(constants[spec.target] if known is None else known)
            elif spec.kind == kinds.USER_INPUT:
                values.append(next(given))
            else:
                values.append(constants[spec.target])
        return fx.Interpreter(program.graph_module).run(*values)[0]

    return function


def _named(module: nn.Module, tensors: dict[str, Tensor], name: str) -> Tensor | None:
    """Return a tensor by any of the names of the one that it is tied to."""
    if name in tensors:
        return tensors[name]
    original = dict(
        [
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        ]
    ).get(name)
    for other, tensor in [
        *module.named_parameters(),
        *module.named_buffers(),
    ]:
        if tensor is original:
            return tensors.get(other)
    return None


def _recorded(
    function: _Function,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
    inputs: Any,
    functional: bool,
) -> fx.GraphModule:
    arguments = (parameters, buffers, inputs)
    graph = _recorded_once(function, arguments, functional)
    for _ in range(_RETRIES):
        if not functional or not _mutates(graph):
            break
        # Operations that are made of others show in-place ones only when these are recorded.
        flat = [*parameters.values(), *buffers.values(), *tree_leaves(inputs)]
        graph = _recorded_once(fx.Interpreter(graph).run, tuple(flat), functional)
    return graph


def _recorded_once(
    function: Callable[..., Any], arguments: tuple[Any, ...], functional: bool
) -> fx.GraphModule:
    with torch.no_grad():
        return make_fx(
            torch.func.functionalize(function) if functional else function,
            tracing_mode="real",
            _error_on_data_dependent_ops=False,
        )(*arguments)


def _mutates(graph: fx.GraphModule) -> bool:
    return any(
        getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for node in graph.graph.nodes
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what tracing says: a failure is followed by another attempt."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.fx", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
