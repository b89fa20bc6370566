"""Checks at the boundary: what a caller hands in becomes clean tensors, or one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 22  # entries looked at together when searching for NaN and infinity
Inputs = TypeVar("Inputs")
Targets = TypeVar("Targets")


class Argument(NamedTuple):
    """How messages speak of an argument.

    Parameters
    ----------
    name : str
        Its name.
    entry : str
        What its first dimension runs over, in the singular.
    place : str
        Where it was found, if it is a part of something: ``" of batch 3"``.

    Examples
    --------
    >>> from flattest.validation import Argument
    >>> str(Argument("X", place=" of batch 3"))
    'X of batch 3'
    """

    name: str
    entry: str = "sample"
    place: str = ""

    def __str__(self) -> str:
        """Return the name with its place."""
        return self.name + self.place


INPUTS, TARGETS = Argument("X"), Argument("y")


class Like(NamedTuple):
    """What data must be like: tensors have to, anything else is converted.

    Parameters
    ----------
    dtype : torch.dtype
        Their type.
    device : torch.device
        Where they lie.
    n_features : int or None
        Their columns, where that is known.
    whose : str
        Whose dtype and device these are, as the end of a sentence.

    Examples
    --------
    >>> import torch
    >>> from flattest.validation import Like
    >>> Like.tensor(torch.zeros(2)).dtype
    torch.float32
    """

    dtype: torch.dtype
    device: torch.device
    n_features: int | None = None
    whose: str = ""

    @classmethod
    def tensor(cls, tensor: Tensor) -> Like:
        """Take dtype and device of a tensor."""
        return cls(tensor.dtype, tensor.device)

    @classmethod
    def model(cls, parameter: Tensor, n_features: int | None = None) -> Like:
        """Take those of a model, by one of its parameters."""
        return cls(parameter.dtype, parameter.device, n_features, ", like the model")


def check_matrix(values: Any, argument: Argument = INPUTS, like: Like | None = None) -> Tensor:
    """Return a matrix as a finite floating-point tensor of shape (n, d).

    Parameters
    ----------
    values : Tensor or array_like
        A tensor must already have the dtype and device wanted. Anything else is converted to
        them, or to float64 on the CPU where none are.
    argument : Argument
        What to call the values in messages.
    like : Like, optional
        The dtype, device and number of columns wanted.

    Returns
    -------
    Tensor
        Of shape (n, d); no copy where none was needed, never attached to an autograd graph.

    Raises
    ------
    TypeError
        If these are no floating-point numbers, or of another dtype.
    ValueError
        If the shape, the device or a value is wrong.

    Examples
    --------
    >>> from flattest.validation import check_matrix
    >>> check_matrix([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    tensor = _as_tensor(values, argument, like)
    if tensor.numel() == 0:
        raise ValueError(f"{argument} is empty: its shape is {tuple(tensor.shape)}.")
    if tensor.ndim != 2:
        name, entry = argument.name, argument.entry
        advice = (
            f"; use {name}.reshape(1, -1) for one {entry} or {name}.reshape(-1, 1) for one feature."
        )
        raise ValueError(
            f"{argument} must be two-dimensional ({entry}s, features), but has shape "
            f"{tuple(tensor.shape)}{advice if tensor.ndim == 1 else '.'}"
        )
    expected = None if like is None else like.n_features
    if expected is not None and tensor.shape[1] != expected:
        raise ValueError(
            f"{argument} has {tensor.shape[1]} features, but the model expects {expected}."
        )
    _check_finite(tensor, argument)
    return tensor


def check_vector(
    values: Any,
    argument: Argument = TARGETS,
    like: Like | None = None,
    *,
    n_samples: int | None = None,
) -> Tensor:
    """Return one number per sample, or per entry of another kind, as a tensor of shape (n,).

    Parameters
    ----------
    values : Tensor or array_like
        Of shape (n,) or (n, 1).
    argument : Argument
        What to call the values in messages.
    like : Like, optional
        The dtype and device wanted.
    n_samples : int, optional
        The number of rows of the data matrix.

    Returns
    -------
    Tensor
        Finite, of shape (n,).

    Raises
    ------
    TypeError
        If these are no floating-point numbers, or of another dtype.
    ValueError
        If the shape, the device or a value is wrong.

    Examples
    --------
    >>> from flattest.validation import check_vector
    >>> check_vector([[1.0], [2.0]], n_samples=2)
    tensor([1., 2.], dtype=torch.float64)
    """
    tensor = _as_tensor(values, argument, like)
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.ndim != 1:
        raise ValueError(
            f"{argument} must hold one number per {argument.entry}, shape (n,) or (n, 1), but has "
            f"shape {tuple(tensor.shape)}."
        )
    if n_samples is not None and len(tensor) != n_samples:
        raise ValueError(f"{argument} has {len(tensor)} values, but X has {n_samples} samples.")
    if len(tensor) == 0:
        raise ValueError(f"{argument} is empty.")
    _check_finite(tensor, argument)
    return tensor


def like_inputs(X: Tensor, y: Any) -> Like | None:
    """Return what targets must be like where there is no model: inputs that are tensors too.

    Parameters
    ----------
    X : Tensor
        The checked inputs.
    y : object
        The targets as they were given.

    Returns
    -------
    Like or None
        None for targets that are converted.
    """
    return Like.tensor(X) if isinstance(y, Tensor) else None


def batches(
    X: Any,
    y: Any = None,
    *,
    check_inputs: Callable[[Any, Argument], Inputs],
    check_targets: Callable[[Any, Inputs, Argument], Targets],
    needs_targets: bool = True,
) -> Iterator[tuple[Inputs, Targets | None]]:
    """Yield checked batches from one data set, or from an iterable of (X, y) batches.

    What inputs and targets may be is up to the two checks: matrices and numbers for a two-layer
    network, images and classes, tokens or dictionaries of tensors for others.

    Parameters
    ----------
    X : object, or iterable of (X, y) batches
        The data. An array, a tensor, a dictionary or nested lists of numbers are one data set.
    y : object, optional
        The targets; None for batches.
    check_inputs : callable
        Called as ``check_inputs(values, argument)``; returns the inputs as they are to be.
    check_targets : callable
        Called as ``check_targets(values, inputs, argument)`` with the checked inputs.
    needs_targets : bool
        Whether one data set must come with targets.

    Yields
    ------
    X, y : object
        What the checks returned; no targets where there are none.

    Raises
    ------
    TypeError
        If the targets are missing, or a batch is no pair; and as the checks do.
    ValueError
        If there is no batch.

    Examples
    --------
    >>> from flattest.validation import batches, check_matrix, check_vector
    >>> pairs = batches(
    ...     [[1.0], [2.0]],
    ...     [0.0, 1.0],
    ...     check_inputs=check_matrix,
    ...     check_targets=lambda y, X, argument: check_vector(y, argument, n_samples=len(X)),
    ... )
    >>> [len(X) for X, y in pairs]
    [2]
    """
    if _is_data_set(X) or not isinstance(X, Iterable):
        inputs = check_inputs(X, INPUTS)
        if y is None and needs_targets:
            raise TypeError("y is missing: give targets, or an iterable of (X, y) batches as X.")
        yield inputs, None if y is None else check_targets(y, inputs, TARGETS)
        return
    if y is not None:
        raise TypeError("y must be left out when X is an iterable of (X, y) batches.")
    count = 0
    for count, batch in enumerate(X, start=1):
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise TypeError(f"Batch {count} must be a pair (X, y), not {type(batch).__name__}.")
        place = f" of batch {count}"
        inputs = check_inputs(batch[0], INPUTS._replace(place=place))
        yield inputs, check_targets(batch[1], inputs, TARGETS._replace(place=place))
    if count == 0:
        raise ValueError("X holds no batches; an iterator that was already read is empty.")


def _is_data_set(X: Any) -> bool:
    """Tell one data set from an iterable of batches."""
    if isinstance(X, (Tensor, str, bytes, Mapping)) or hasattr(X, "__array__"):
        return True
    if not isinstance(X, (list, tuple)):
        return hasattr(X, "toarray")
    first = X[0] if len(X) else None
    # Rows may hold NumPy scalars; only whole arrays, or what holds them, make a pair a batch.
    return not (isinstance(first, (list, tuple)) and any(_is_whole(value) for value in first))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Mapping) or getattr(value, "ndim", 0) > 0


def check_positive_int(value: Any, name: str, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`.

    Parameters
    ----------
    value : int
        Any integer type; booleans are refused.
    name : str
        What to call the argument in messages.
    minimum : int
        The smallest value allowed.

    Returns
    -------
    int
        The value.

    Raises
    ------
    TypeError
        If `value` is not an integer.
    ValueError
        If it is too small.

    Examples
    --------
    >>> from flattest.validation import check_positive_int
    >>> check_positive_int(3, "width")
    3
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__} ({value!r}).")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, not {value}.")
    return int(value)


def check_positive_float(
    value: Any, name: str, *, minimum: float | int = 0, allow_minimum: bool = False
) -> float:
    """Return `value` as a finite float above `minimum` (or equal to it, where allowed).

    Parameters
    ----------
    value : float
        Any real number type; booleans are refused.
    name : str
        What to call the argument in messages.
    minimum : float
        The bound below.
    allow_minimum : bool
        Whether `minimum` itself is allowed.

    Returns
    -------
    float
        The value.

    Raises
    ------
    TypeError
        If `value` is not a real number.
    ValueError
        If it is not finite or too small.

    Examples
    --------
    >>> from flattest.validation import check_positive_float
    >>> check_positive_float(2, "factor", minimum=1, allow_minimum=True)
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, not {type(value).__name__} ({value!r}).")
    number = float(value)
    if not math.isfinite(number) or number < minimum or (number == minimum and not allow_minimum):
        relation = "at least" if allow_minimum else "greater than"
        raise ValueError(f"{name} must be finite and {relation} {minimum:g}, not {number:g}.")
    return number


def check_range(values: Any, name: str) -> None:
    """Refuse data whose squares leave the range of float64: ValueError."""
    largest = float(abs(values).max())
    if largest != 0 and not 1e-100 < largest < 1e100:
        raise ValueError(
            f"The largest entry of {name} has size {largest:.3g}; rescale {name} to a size near 1."
        )


def check_random_state(random_state: Any) -> np.random.Generator:
    """Return a NumPy random generator; no global state is read or set.

    Parameters
    ----------
    random_state : int, numpy.random.Generator or None
        A seed for reproducible draws, a generator to draw from, or None for fresh entropy.

    Returns
    -------
    numpy.random.Generator
        The generator.

    Raises
    ------
    TypeError
        If `random_state` is of another type.
    ValueError
        If it is a negative integer.

    Examples
    --------
    >>> from flattest.validation import check_random_state
    >>> int(check_random_state(0).integers(10))
    8
    """
    if random_state is None or isinstance(random_state, np.random.Generator):
        return np.random.default_rng(random_state)
    if isinstance(random_state, bool) or not isinstance(random_state, Integral):
        raise TypeError(
            "random_state must be an integer, a numpy.random.Generator or None, "
            f"not {type(random_state).__name__}."
        )
    if random_state < 0:
        raise ValueError(f"random_state must not be negative, but is {random_state}.")
    return np.random.default_rng(int(random_state))


def _as_tensor(values: Any, argument: Argument, like: Like | None) -> Tensor:
    """Convert to a strided floating-point tensor of the dtype and on the device wanted."""
    if isinstance(values, Tensor):
        name = argument.name
        if not values.is_floating_point():
            raise TypeError(
                f"{argument} must hold floating-point numbers, but has dtype {values.dtype}; "
                f"use {name}.to({torch.float64 if like is None else like.dtype})."
            )
        if values.layout != torch.strided:
            raise TypeError(f"{argument} is a sparse tensor; use {name}.to_dense().")
        if like is not None:
            _check_same_kind(values, argument, like)
        if values.is_meta:
            raise ValueError(f"{argument} is on the meta device, which holds no values.")
        return values.detach()
    array = _as_float_array(values, argument)
    if like is None:
        return torch.as_tensor(array).to(torch.float64)
    return torch.as_tensor(array).to(device=like.device, dtype=like.dtype)


def _as_float_array(values: Any, argument: Argument) -> np.ndarray:
    """Convert an array, a DataFrame or nested lists to a float32 or float64 array."""
    if hasattr(values, "toarray"):
        raise TypeError(f"{argument} is a sparse matrix; use {argument.name}.toarray().")
    if values is None or isinstance(values, (str, bytes, dict, set)):
        raise TypeError(f"{argument} must be a tensor or an array, not {type(values).__name__}.")
    try:
        with torch.no_grad():  # lets NumPy read lists of tensors that are in an autograd graph
            array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{argument} must be rectangular: its rows differ in length.") from error
    except (RuntimeError, TypeError) as error:  # a list of tensors on a GPU
        raise TypeError(
            f"{argument} holds tensors that NumPy cannot read; use torch.stack({argument.name})."
        ) from error
    if array.dtype == object and array.ndim == 0:
        raise TypeError(f"{argument} must be a tensor or an array, not {type(values).__name__}.")
    if array.dtype == object:
        # A table of mixed numeric columns arrives as objects; text among them fails here.
        try:
            array = array.astype(np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise TypeError(
                f"{argument} must hold numbers, but holds other values; encode or drop them first."
            ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{argument} must hold real numbers, but has dtype {array.dtype}; "
            "encode or drop those values first."
        )
    if array.dtype in (np.float32, np.float64):
        # torch shares the memory, and refuses negative strides and warns of read-only arrays.
        needs_copy = any(stride < 0 for stride in array.strides) or not array.flags.writeable
        return array.copy() if needs_copy else array
    return array.astype(np.float64)


def _check_same_kind(tensor: Tensor, argument: Argument, like: Like) -> None:
    """Refuse a tensor whose dtype or device is not the one wanted."""
    if tensor.device != like.device:
        raise ValueError(
            f"{argument} is on {tensor.device}, but must be on {like.device}{like.whose}; "
            f"use {argument.name}.to({str(like.device)!r})."
        )
    if tensor.dtype != like.dtype:
        raise TypeError(
            f"{argument} has dtype {tensor.dtype}, but must have {like.dtype}{like.whose}; "
            f"use {argument.name}.to({like.dtype})."
        )


def _check_finite(tensor: Tensor, argument: Argument) -> None:
    """Refuse NaN and infinity, naming the first bad row; looks at one block of rows at a time."""
    rows = max(1, _BLOCK // max(1, math.prod(tensor.shape[1:])))
    for start in range(0, len(tensor), rows):
        block = tensor[start : start + rows]
        # A finite sum proves finite entries and needs no temporary; otherwise look closely.
        if math.isfinite(block.sum().item()):
            continue
        bad = ~torch.isfinite(block)
        if bad.any():
            bad_rows = bad if bad.ndim == 1 else bad.any(dim=1)
            row = start + int(bad_rows.nonzero()[0, 0])
            advice = "; remove or impute those rows first" * (argument.entry == "sample")
            raise ValueError(f"{argument} contains NaN or infinity in row {row}{advice}.")
