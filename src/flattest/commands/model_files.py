"""Modules and data as the command line names them: functions by import path, and files.

A module is what a function returns, with weights from a checkpoint, or a program written by
`torch.export`. Data are arrays in a file, or batches that a function yields. Files cannot run code:
arrays are read without pickles, and what PyTorch pickles is read as weights only.
"""

from __future__ import annotations

import contextlib
import os
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flattest.errors import FlattestError
from flattest.references import load

if TYPE_CHECKING:
    from torch import Tensor, nn

_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and trainers put before all names of a state dict."""
_PROGRAM = ".pt2"
_PICKLES = (".pt", ".pth", ".bin", ".ckpt")
_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_NESTED = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the weights, beside the state of the optimiser and the like."""
_MOST_NAMES = 3


class ModelFileError(FlattestError):
    """A module, checkpoint or data file that cannot be used; the message says why."""


class Data(NamedTuple):
    """What a function such as :func:`flattest.measure` takes as `X` and `y`.

    Parameters
    ----------
    X : object
        Inputs, by position or by name, or an iterable of batches.
    y : object
        The targets; None for batches.

    Examples
    --------
    >>> from flattest.commands.model_files import Data
    >>> Data([[1.0]], [2.0]).y
    [2.0]
    """

    X: Any
    y: Any


def names_module(reference: str) -> bool:
    """Tell whether a string names a module, rather than the folder or the file of a fit.

    Parameters
    ----------
    reference : str
        As on the command line.

    Returns
    -------
    bool
        Whether it is an import path or the file of a program.

    Examples
    --------
    >>> from flattest.commands.model_files import names_module
    >>> names_module("package.module:function"), names_module("flattest-fit")
    (True, False)
    """
    if Path(reference).suffix in (_PROGRAM, *_PICKLES):
        return True
    return ":" in reference and not Path(reference).exists()


def load_module(reference: str, checkpoint: Path | None = None) -> nn.Module:
    """Make a module in evaluation mode.

    Parameters
    ----------
    reference : str
        ``"package.module:function"`` or ``"file.py:function"``, of a function without arguments
        that returns a module; or a ``.pt2`` file written by `torch.export.save`.
    checkpoint : Path, optional
        The weights: a safetensors file, or a state dict written by `torch.save`.

    Returns
    -------
    torch.nn.Module
        The module.

    Raises
    ------
    ModelFileError
        If there is no such function or file, it does not give a module, or the weights are those
        of another one.

    Examples
    --------
    >>> from flattest.commands.model_files import load_module
    >>> load_module("torch.nn:Identity")
    Identity()
    """
    suffix = Path(reference).suffix
    if suffix == _PROGRAM:
        if checkpoint is not None:
            raise ModelFileError(f"A {_PROGRAM} file holds its own weights; leave --weights out.")
        return _load_program(Path(reference))
    if suffix in _PICKLES:
        raise ModelFileError(
            f"{reference} holds weights, not a module; give a function that makes the module, as "
            f"package.module:function, and --weights {reference}."
        )
    from torch import nn

    module = _call(reference, "MODEL")
    if not isinstance(module, nn.Module):
        raise ModelFileError(
            f"{reference} returned {type(module).__name__}, not a torch.nn.Module."
        )
    if checkpoint is not None:
        _load_weights(module, checkpoint)
    return module.eval()


def load_data(reference: str, module: nn.Module) -> Data:
    """Read the data for a module.

    Parameters
    ----------
    reference : str
        An ``.npz`` or ``.safetensors`` file with the targets under ``y``, ``labels`` or
        ``targets``, and either one array of inputs or several, named as the module's arguments
        are; or a function, as for `load_module`, that returns batches, or one pair (X, y).
    module : torch.nn.Module
        Floating-point arrays take its dtype.

    Returns
    -------
    Data
        Inputs and targets, or batches.

    Raises
    ------
    ModelFileError
        If there is no such file or function, or if no targets are in it.

    Examples
    --------
    >>> import torch
    >>> from flattest.commands.model_files import load_data
    >>> load_data("builtins:list", torch.nn.Identity()).X
    []
    """
    path = Path(reference)
    if path.suffix not in (".npz", ".safetensors"):
        if ":" not in reference:
            raise ModelFileError(
                f"The data {reference} must be an .npz or .safetensors file, or a function that "
                "returns batches or one pair (X, y), as package.module:function."
            )
        found = _call(reference, "The data")
        # A pair of batches has no shapes, a pair of inputs and targets has.
        if isinstance(found, tuple) and len(found) == 2 and hasattr(found[1], "shape"):
            return Data(*found)
        return Data(found, None)
    arrays = _read_arrays(path, module)
    from flattest.modules.data import TARGET_NAMES

    targets = [name for name in TARGET_NAMES if name in arrays]
    if len(targets) != 1:
        held = " and ".join(targets) if targets else f"only {_listed(arrays)}"
        raise ModelFileError(
            f"{path} must hold the targets under one of {', '.join(TARGET_NAMES)}, but has {held}."
        )
    y = arrays.pop(targets[0])
    if not arrays:
        raise ModelFileError(f"{path} holds targets, but no inputs.")
    return Data(next(iter(arrays.values())) if len(arrays) == 1 else arrays, y)


def load_loss(name: str) -> Any:
    """Return a loss.

    Parameters
    ----------
    name : str
        The name of a loss of :func:`flattest.measure`; or, as for `load_module`, that of a function
        of logits and targets, or of a class, which is made without arguments.

    Returns
    -------
    str or callable
        What :func:`flattest.measure` takes.

    Raises
    ------
    ModelFileError
        If there is no such function.

    Examples
    --------
    >>> from flattest.commands.model_files import load_loss
    >>> load_loss("mse"), load_loss("torch.nn:HuberLoss")
    ('mse', HuberLoss())
    """
    if ":" not in name:
        return name
    found = _import(name, "The loss")
    return found() if isinstance(found, type) else found


def _import(reference: str, what: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # the program's own folder stands where Python puts the user's
    return load(reference, what=what, error=ModelFileError)


def _call(reference: str, what: str) -> Any:
    function = _import(reference, what)
    try:
        return function()
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{reference}() failed with {why}.") from error


def _load_program(path: Path) -> nn.Module:
    import torch

    _check_exists(path)
    try:
        with _weights_only():
            return torch.export.load(path).module()
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{path} is no program that this PyTorch can load: {why}") from error


def _load_weights(module: nn.Module, path: Path) -> None:
    """Load weights, of which every one has to have its place and its shape."""
    own = module.state_dict(keep_vars=True)
    weights = _without_wrapper(_read_weights(path), own)
    # Tied tensors have two names in the module; files hold them under one.
    stored = {id(own[name]) for name in weights if name in own}
    missing = [name for name in own if name not in weights and id(own[name]) not in stored]
    surplus = [name for name in weights if name not in own]
    for names, what in ((missing, "lacks"), (surplus, "has, and the module lacks,")):
        if names:
            raise ModelFileError(f"{path} {what} {_listed(names)}: it is of another module.")
    for name, tensor in weights.items():
        if own[name].shape != tensor.shape:
            raise ModelFileError(
                f"{path} is of another module: {name} has shape {tuple(tensor.shape)} there, and "
                f"{tuple(own[name].shape)} in the module."
            )
    module.load_state_dict(weights, strict=False)


def _without_wrapper(weights: dict[str, Tensor], own: dict[str, Any]) -> dict[str, Tensor]:
    """Take the prefix off all names that a wrapper put there, unless the module has it too."""
    for prefix in _WRAPPERS:
        if all(name.startswith(prefix) for name in weights):
            stripped = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
            if stripped.keys() & own.keys() and not weights.keys() & own.keys():
                return stripped
    return weights


def _read_weights(path: Path) -> dict[str, Tensor]:
    import torch

    _check_exists(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelFileError(
            f"{path} is neither safetensors nor weights that can be read without running code; "
            "write it with safetensors.torch.save_file(module.state_dict(), FILE)."
        ) from error
    for name in _NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping) or not all(
        isinstance(entry, torch.Tensor) for entry in found.values()
    ):
        raise ModelFileError(f"{path} holds no state dict, which maps names to tensors.")
    return dict(found)


def _read_arrays(path: Path, module: nn.Module) -> dict[str, Any]:
    import numpy as np

    _check_exists(path)
    if path.suffix == ".safetensors":
        dtypes = [p.dtype for p in module.parameters() if p.is_floating_point()]
        return {
            name: tensor.to(dtypes[0]) if dtypes and tensor.is_floating_point() else tensor
            for name, tensor in _read_safetensors(path).items()
        }
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ModelFileError(
            f"{path} is no .npz file of numbers, as numpy.savez writes: {error}"
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is no safetensors file: {error}") from error


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise ModelFileError(f"There is no file {path}.")


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Keep PyTorch from reading pickles that run code, inside functions that leave no choice."""
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


def _listed(names: Any) -> str:
    names = list(names)
    shown = ", ".join(names[:_MOST_NAMES]) or "nothing"
    rest = len(names) - _MOST_NAMES
    return f"{shown} and {rest:,} more" if rest > 0 else shown
