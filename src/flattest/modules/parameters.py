"""Which parameters are measured, and of which module: without wrappers, of which dtype."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from flattest.modules.data import Kind

_ROWS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_HALVES = (torch.float16, torch.bfloat16)


class Measured(NamedTuple):
    """One parameter tensor that is measured.

    Parameters
    ----------
    name : str
        As in ``named_parameters()`` of the module without its wrapper.
    kind : str
        The class of the module that owns it.
    tensor : torch.nn.Parameter
        The parameter.
    frozen : bool
        Whether the caller's module has it without gradient.
    one_row_per_output : bool
        Whether it is the weight of a linear layer or a convolution, with a row for each output.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.parameters import choose
    >>> choose(torch.nn.Linear(2, 1), None)[1].name
    'bias'
    """

    name: str
    kind: str
    tensor: Tensor
    frozen: bool
    one_row_per_output: bool = False


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside what `torch.compile` and data parallelism wrap around it.

    Parameters
    ----------
    model : torch.nn.Module
        The module.

    Returns
    -------
    torch.nn.Module
        The module itself, which shares all parameters with its wrapper.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.parameters import unwrap
    >>> unwrap(torch.nn.DataParallel(torch.nn.Linear(1, 1)))
    Linear(in_features=1, out_features=1, bias=True)
    """
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, parallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def kind_of(model: nn.Module) -> Kind:
    """Return dtype and device of a module, as its data have to have them.

    Parameters
    ----------
    model : torch.nn.Module
        The module without wrapper.

    Returns
    -------
    Kind
        float32 in place of a half precision, on a copy in which the module is to be measured.

    Raises
    ------
    TypeError, ValueError
        If it has no floating-point parameters, or values that cannot be measured.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.parameters import kind_of
    >>> kind_of(torch.nn.Linear(1, 1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise ValueError(
            "The model has lazy layers without shapes yet; call it once on a batch first."
        )
    if any(p.is_complex() for p in model.parameters()):
        raise TypeError("The model has complex parameters, for which no trace is defined here.")
    if not parameters:
        raise ValueError(
            f"The model, a {type(model).__name__}, has no floating-point parameters to measure."
        )
    dtypes = frozenset(p.dtype for p in parameters)
    devices = {p.device for p in parameters}
    if any(device.type == "meta" for device in devices):
        raise ValueError("The model is on the meta device, which holds no values.")
    if len(devices) > 1:
        names = " and ".join(sorted(map(str, devices)))
        raise ValueError(f"The model is spread over {names}; move it to one device first.")
    if not all(torch.isfinite(p).all() for p in parameters):
        raise ValueError("The model's parameters contain NaN or infinity.")
    integers = any(isinstance(m, (nn.Embedding, nn.EmbeddingBag)) for m in model.modules())
    if dtypes & set(_HALVES):
        return Kind(torch.float32, devices.pop(), True, frozenset({torch.float32}), integers)
    return Kind(parameters[0].dtype, devices.pop(), False, dtypes, integers)


def restore_dtypes(module: nn.Module, like: nn.Module) -> None:
    """Give parameters and buffers the dtypes that they have in another module of the same kind.

    Parameters
    ----------
    module : torch.nn.Module
        The module, changed in place.
    like : torch.nn.Module
        The other one.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.parameters import restore_dtypes
    >>> half = torch.nn.Linear(1, 1, dtype=torch.bfloat16)
    >>> restore_dtypes(layer := torch.nn.Linear(1, 1), like=half)
    >>> layer.weight.dtype
    torch.bfloat16
    """
    dtypes = {name: tensor.dtype for name, tensor in _tensors(like)}
    for name, tensor in _tensors(module):
        tensor.data = tensor.data.to(dtypes.get(name, tensor.dtype))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


def choose(model: nn.Module, parameters: Any) -> list[Measured]:
    """List the parameters that are measured, each tensor once however many names it has.

    Parameters
    ----------
    model : torch.nn.Module
        The module without wrapper.
    parameters : None, "all" or list of str
        The trainable ones, all, or those whose names match one of these patterns.

    Returns
    -------
    list of Measured
        In the module's order.

    Raises
    ------
    TypeError, ValueError
        If `parameters` is something else, or nothing is left to measure.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.parameters import choose
    >>> [entry.name for entry in choose(torch.nn.Linear(2, 1), ["w*"])]
    ['weight']
    """
    owners = dict(model.named_modules())
    found = []
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point():
            place, _, own_name = name.rpartition(".")
            owner = owners.get(place)
            rows = isinstance(owner, _ROWS) and own_name == "weight"
            frozen = not tensor.requires_grad
            found.append(Measured(name, type(owner).__name__, tensor, frozen, rows))
    if parameters is None:
        trainable = [entry for entry in found if not entry.frozen]
        if not trainable:
            raise ValueError(
                "The model has no trainable parameters: all have requires_grad=False; "
                "measure them all the same with parameters='all', or make some trainable with "
                "requires_grad_(True)."
            )
        return trainable
    if isinstance(parameters, str):
        if parameters != "all":
            raise ValueError(
                f"parameters must be None, 'all' or a list of name patterns, not {parameters!r}."
            )
        return found
    if not isinstance(parameters, Iterable):
        raise TypeError(
            "parameters must be None, 'all' or a list of name patterns, not "
            f"{type(parameters).__name__}."
        )
    patterns = list(parameters)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"parameters must hold strings, not {type(pattern).__name__}.")
        if not any(fnmatch.fnmatchcase(entry.name, pattern) for entry in found):
            raise ValueError(
                f"No parameter's name matches {pattern!r}; names are such as {found[0].name!r}."
            )
    if not patterns:
        raise ValueError("parameters is an empty list: there is nothing to measure.")
    return [e for e in found if any(fnmatch.fnmatchcase(e.name, p) for p in patterns)]
