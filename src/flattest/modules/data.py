"""Batches of anything: tensors, arrays, dictionaries, tuples and loaders become calls of a module.

A `Batch` holds the arguments of one call and the targets. Samples lie along the first dimension of
every tensor that has one entry per sample; other tensors, such as a mask common to all, are handed
on whole. Floating-point arrays take the model's dtype, everything moves to the model's device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flattest.modules.trees import leaves, map_leaves, select_samples
from flattest.validation import Argument, batches

TARGET_NAMES = ("labels", "label", "targets", "target", "y")
"""Under which of these names a batch that is a dictionary holds its targets."""


class Batch(NamedTuple):
    """One call of the module, and what it should have returned.

    Parameters
    ----------
    args, kwargs : tuple, dict
        The arguments of the call.
    targets : object
        The targets, in whatever form the loss takes them.
    n_samples : int
        The number of samples.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.data import Batch
    >>> Batch((torch.zeros(3, 2),), {}, None, 3).inputs(slice(0, 1))[0][0].shape
    torch.Size([1, 2])
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: Any
    n_samples: int

    def inputs(self, samples: Any = slice(None)) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments for some of the samples: a copy, which the module may overwrite."""
        chosen = select_samples((self.args, self.kwargs), self.n_samples, samples)
        return map_leaves(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, chosen)


class Kind(NamedTuple):
    """The dtypes of a model's parameters and the one that data take, and its device.

    Parameters
    ----------
    dtype : torch.dtype
        What floating-point arrays are converted to.
    device : torch.device
        Where all data go.
    converted : bool
        Whether tensors are converted as well: the model is measured on a copy of another dtype.
    dtypes : frozenset of torch.dtype
        What tensors may have.
    integers : bool
        Whether integers among the inputs stay integers when they come as arrays or lists: they are
        tokens for a model with an embedding, and numbers for any other.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.data import Kind
    >>> Kind(torch.float32, torch.device("cpu"), False, frozenset({torch.float32})).dtype
    torch.float32
    """

    dtype: torch.dtype
    device: torch.device
    converted: bool
    dtypes: frozenset[torch.dtype]
    integers: bool = False


def read_batches(X: Any, y: Any, kind: Kind) -> Iterator[Batch]:
    """Yield the batches of a data set, of a loader, or of any other iterable, each once.

    Parameters
    ----------
    X, y : object
        As for :func:`flattest.measure`.
    kind : Kind
        What the model is like.

    Yields
    ------
    Batch
        The batches.

    Raises
    ------
    TypeError, ValueError
        If the data are of the wrong type, shape or value.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.data import Kind, read_batches
    >>> kind = Kind(torch.float32, torch.device("cpu"), False, frozenset({torch.float32}))
    >>> [batch.n_samples for batch in read_batches([({"x": [[1.0], [2.0]]}, [0, 1])], None, kind)]
    [2]
    """

    def check_inputs(values: Any, argument: Argument) -> Any:
        return convert(values, argument, kind)

    def check_targets(values: Any, inputs: Any, argument: Argument) -> Any:
        targets = convert(values, argument, kind._replace(integers=True))
        n_samples = count_samples(inputs, argument._replace(name="X"))
        if isinstance(targets, Tensor) and (targets.ndim == 0 or len(targets) % n_samples):
            length = "no dimension" if targets.ndim == 0 else f"{len(targets)} values"
            raise ValueError(f"{argument} has {length}, but X has {n_samples} samples.")
        return targets

    if y is None and isinstance(X, Mapping):
        X, y = _split(X, "X")
    elif y is None and not _is_array(X) and isinstance(X, Iterable):
        X = _pairs(X)
    elif y is not None and isinstance(X, tuple):
        # Several inputs of the model: a tuple of tensors, whatever these hold.
        X = dict(enumerate(X))
    for inputs, targets in batches(X, y, check_inputs=check_inputs, check_targets=check_targets):
        args, kwargs = _call(inputs)
        yield Batch(args, kwargs, targets, count_samples(inputs, Argument("X")))


def is_one_batch(X: Any, y: Any) -> bool:
    """Tell the data of one batch from an iterable of batches.

    Parameters
    ----------
    X, y : object
        As for :func:`flattest.measure`.

    Returns
    -------
    bool
        Whether it is one batch.

    Examples
    --------
    >>> from flattest.modules.data import is_one_batch
    >>> is_one_batch([[1.0]], None), is_one_batch(iter([]), None)
    (True, False)
    """
    if y is not None or _is_array(X) or isinstance(X, Mapping):
        return True
    return isinstance(X, (tuple, list)) and bool(X) and _is_array(X[0])


def read_whole_batches(X: Any, y: Any, kind: Kind) -> Iterator[Any]:
    """Yield batches for a loss that takes the model and the batch: on the device, not taken apart.

    Parameters
    ----------
    X : object
        One batch (a tensor, a dictionary, a tuple of tensors) or an iterable of them.
    y : None
        The batch holds its targets itself.
    kind : Kind
        What the model is like.

    Yields
    ------
    object
        The batches.

    Raises
    ------
    TypeError, ValueError
        If `y` is given, or if the data are of the wrong type or value.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.data import Kind, read_whole_batches
    >>> kind = Kind(torch.float32, torch.device("cpu"), False, frozenset({torch.float32}))
    >>> list(read_whole_batches({"x": torch.zeros(1)}, None, kind))
    [{'x': tensor([0.])}]
    """
    if y is not None:
        raise TypeError("y must be left out where the loss takes the model and the batch.")
    single = is_one_batch(X, None)
    if not single and not isinstance(X, Iterable):
        raise TypeError(f"X must be a batch or an iterable of batches, not {type(X).__name__}.")
    count = 0
    for count, batch in enumerate((X,) if single else X, start=1):
        yield convert(batch, Argument("X", place="" if single else f" of batch {count}"), kind)
    if count == 0:
        raise ValueError("X holds no batches; an iterator that was already read is empty.")


def convert(values: Any, argument: Argument, kind: Kind) -> Any:
    """Turn every array into a tensor of the model's kind, and refuse what cannot be measured.

    Parameters
    ----------
    values : object
        Tensors, arrays, tables, lists of numbers, and containers of them.
    argument : Argument
        What to call them.
    kind : Kind
        What the model is like.

    Returns
    -------
    object
        The same containers of tensors.

    Raises
    ------
    TypeError, ValueError
        If a dtype or a value is wrong.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.data import Kind, convert
    >>> from flattest.validation import INPUTS
    >>> kind = Kind(torch.float32, torch.device("cpu"), False, frozenset({torch.float32}))
    >>> convert([[1.0]], INPUTS, kind)
    tensor([[1.]])
    """
    if values is None:
        raise TypeError(f"{argument} is None; give tensors, arrays or batches of them.")
    if isinstance(values, (str, bytes, set)):
        raise TypeError(f"{argument} must be a tensor or an array, not {type(values).__name__}.")

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            return _check_tensor(value, argument, kind)
        if hasattr(value, "__array__") or hasattr(value, "toarray"):
            return _check_tensor(_from_array(value, argument, kind), argument, kind)
        return value

    def tree(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: tree(entry) for key, entry in value.items()}
        if isinstance(value, list) and _holds_numbers(value):
            return leaf(np.asarray(value))
        if isinstance(value, (tuple, list)) and not _holds_numbers(list(value)):
            return type(value)(tree(entry) for entry in value)
        return leaf(np.asarray(value) if isinstance(value, tuple) else value)

    try:
        converted = tree(values)
    except ValueError as error:
        if "inhomogeneous" in str(error):
            raise ValueError(
                f"{argument} must be rectangular: its rows differ in length."
            ) from None
        raise
    if not any(isinstance(value, Tensor) for value in leaves(converted)):
        raise TypeError(f"{argument} holds no tensor: it is a {type(values).__name__}.")
    return converted


def count_samples(inputs: Any, argument: Argument) -> int:
    """Return the length of the first dimension of the first tensor that has one."""
    for leaf in leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.ndim > 0:
            if leaf.numel() == 0:
                raise ValueError(f"{argument} is empty: its shape is {tuple(leaf.shape)}.")
            return len(leaf)
    raise ValueError(f"{argument} has no dimension that samples could lie along.")


def _check_tensor(tensor: Tensor, argument: Argument, kind: Kind) -> Tensor:
    if tensor.is_meta:
        raise ValueError(f"{argument} is on the meta device, which holds no values.")
    if tensor.layout != torch.strided:
        raise TypeError(f"{argument} is a sparse tensor; use {argument.name}.to_dense().")
    tensor = tensor.detach().to(kind.device)
    if not tensor.is_floating_point():
        return tensor
    if kind.converted:
        tensor = tensor.to(kind.dtype)
    if tensor.dtype not in kind.dtypes:
        raise TypeError(
            f"{argument} has dtype {tensor.dtype}, but the model has {kind.dtype}; "
            f"use {argument.name}.to({kind.dtype})."
        )
    if not torch.isfinite(tensor).all():
        bad = ~torch.isfinite(tensor)
        row = f" in row {int(bad.nonzero()[0, 0])}" if tensor.ndim else ""
        raise ValueError(f"{argument} contains NaN or infinity{row}; remove or impute it first.")
    return tensor


def _from_array(values: Any, argument: Argument, kind: Kind) -> Tensor:
    if hasattr(values, "toarray"):
        raise TypeError(f"{argument} is a sparse matrix; use {argument.name}.toarray().")
    array = np.asarray(values)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{argument} must hold numbers, but holds other values; encode or drop them first."
            ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{argument} must hold real numbers, but has dtype {array.dtype}.")
    needs_copy = any(stride < 0 for stride in array.strides) or not array.flags.writeable
    tensor = torch.as_tensor(array.copy() if needs_copy else array)
    if tensor.is_floating_point() or (array.dtype.kind in "iu" and not kind.integers):
        return tensor.to(kind.dtype)
    return tensor.to(torch.int64) if array.dtype.kind in "iu" else tensor


def _holds_numbers(values: list[Any]) -> bool:
    """Tell a list that is an array, however deep, from a container of inputs."""
    while values and isinstance(values[0], (list, tuple)):
        values = list(values[0])
    scalar = (bool, int, float, np.number, np.bool_)
    return bool(values) and all(isinstance(value, scalar) for value in values)


def _is_array(values: Any) -> bool:
    """Tell one array from an iterable of batches."""
    if isinstance(values, (Tensor, str, bytes)) or hasattr(values, "__array__"):
        return True
    if isinstance(values, list):
        return _holds_numbers(values)
    return hasattr(values, "toarray")


def _pairs(iterable: Iterable[Any]) -> Iterator[Any]:
    """Make batches that are dictionaries into pairs of inputs and targets."""
    for position, batch in enumerate(iterable, start=1):
        yield _split(batch, f"Batch {position}") if isinstance(batch, Mapping) else batch


def _split(batch: Mapping[str, Any], who: str) -> tuple[dict[str, Any], Any]:
    names = [name for name in TARGET_NAMES if name in batch]
    if len(names) != 1:
        found = " and ".join(names) if names else "none of them"
        raise TypeError(
            f"{who} is a dictionary, whose targets are looked for under "
            f"{', '.join(TARGET_NAMES)}, but it has {found}; give (inputs, targets) instead."
        )
    return {key: value for key, value in batch.items() if key != names[0]}, batch[names[0]]


def _call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Hand a dictionary over by names, a tuple or list by positions, anything else as it is."""
    if isinstance(inputs, dict):
        if all(isinstance(key, int) for key in inputs):
            return tuple(inputs.values()), {}
        return (), inputs
    return (tuple(inputs), {}) if isinstance(inputs, (tuple, list)) else ((inputs,), {})
