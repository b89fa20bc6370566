"""Checks at the boundary: what a caller hands in becomes clean tensors, or one clear sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK = 1 << 22  # entries looked at together when searching for NaN and infinity
_ENTRIES = dict.fromkeys(("weights", "coefficients", "biases", "scales"), "neuron")
_ENTRIES["directions"] = "direction"  # what the first dimension runs over, if not samples


def check_X(X: Any, like: Any = None, name: str = "X") -> Tensor:
    """Return a data matrix as a finite floating-point tensor of shape (n, d).

    Parameters
    ----------
    X : Tensor or array_like
        A tensor must already have the model's dtype and device. Anything else is converted to
        them, or to float64 on the CPU where there is no model.
    like : torch.nn.Module, optional
        The model the data are for: sets dtype, device and, where it has `n_features`, columns.
    name : str
        What to call the argument in messages.

    Returns
    -------
    Tensor
        Of shape (n, d); no copy where none was needed, never attached to an autograd graph.

    Raises
    ------
    TypeError
        If `X` does not hold floating-point numbers, or its dtype is not the model's.
    ValueError
        If the shape, the device or a value is wrong.

    Examples
    --------
    >>> from flattest.validation import check_X
    >>> check_X([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    tensor = _as_tensor(X, like, name)
    if tensor.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(tensor.shape)}.")
    if tensor.ndim != 2:
        row, variable = _ENTRIES.get(name, "sample"), _variable(name)
        advice = (
            f"; use {variable}.reshape(1, -1) for one {row} or "
            f"{variable}.reshape(-1, 1) for one feature."
        )
        raise ValueError(
            f"{name} must be two-dimensional ({row}s, features), but has shape "
            f"{tuple(tensor.shape)}{advice if tensor.ndim == 1 else '.'}"
        )
    d, expected = tensor.shape[1], getattr(like, "n_features", None)
    if expected is not None and d != expected:
        raise ValueError(f"{name} has {d} features, but the model expects {expected}.")
    _check_finite(tensor, name)
    return tensor


def check_y(y: Any, n_samples: int | None = None, like: Any = None, name: str = "y") -> Tensor:
    """Return targets as a finite floating-point tensor of shape (n,).

    Parameters
    ----------
    y : Tensor or array_like
        Of shape (n,) or (n, 1).
    n_samples : int, optional
        The number of rows of the data matrix.
    like : torch.nn.Module or Tensor, optional
        What `y` must match in dtype and device: the model, or the checked data matrix.
    name : str
        What to call the argument in messages.

    Returns
    -------
    Tensor
        Of shape (n,).

    Raises
    ------
    TypeError
        If `y` does not hold floating-point numbers, or its dtype is not the model's.
    ValueError
        If the shape, the device or a value is wrong.

    Examples
    --------
    >>> from flattest.validation import check_y
    >>> check_y([[1.0], [2.0]], n_samples=2)
    tensor([1., 2.], dtype=torch.float64)
    """
    tensor = _as_tensor(y, like, name)
    if tensor.ndim == 2 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    if tensor.ndim != 1:
        raise ValueError(
            f"{name} must hold one number per {_ENTRIES.get(name, 'sample')}, shape (n,) or "
            f"(n, 1), but has shape {tuple(tensor.shape)}."
        )
    if n_samples is not None and len(tensor) != n_samples:
        raise ValueError(f"{name} has {len(tensor)} values, but X has {n_samples} samples.")
    if len(tensor) == 0:
        raise ValueError(f"{name} is empty.")
    _check_finite(tensor, name)
    return tensor


def check_batches(
    X: Any, y: Any = None, like: Any = None, *, needs_targets: bool = True
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield checked batches from one data set, or from an iterable of (X, y) batches.

    Parameters
    ----------
    X : Tensor or array_like of shape (n, d), or iterable of (X, y) batches
        The data.
    y : Tensor or array_like of shape (n,), optional
        The targets; None for batches.
    like : torch.nn.Module, optional
        The model the data are for.
    needs_targets : bool
        Whether one data set must come with targets.

    Yields
    ------
    X : Tensor of shape (n, d)
        One batch.
    y : Tensor of shape (n,) or None
        Its targets.

    Raises
    ------
    TypeError
        If a type or dtype is wrong, or the targets are missing.
    ValueError
        If a shape, device or value is wrong, or there is no batch.

    Examples
    --------
    >>> from flattest.validation import check_batches
    >>> [len(X) for X, y in check_batches([[1.0], [2.0]], [0.0, 1.0])]
    [2]
    """
    if _is_data_set(X) or not isinstance(X, Iterable):
        if y is None and needs_targets:
            check_X(X, like)
            raise TypeError("y is missing: give targets, or an iterable of (X, y) batches as X.")
        checked = check_X(X, like)
        yield checked, None if y is None else check_y(y, len(checked), _or_data(like, checked, y))
        return
    if y is not None:
        raise TypeError("y must be left out when X is an iterable of (X, y) batches.")
    count = 0
    for count, batch in enumerate(X, start=1):
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise TypeError(f"Batch {count} must be a pair (X, y), not {type(batch).__name__}.")
        checked = check_X(batch[0], like, f"X of batch {count}")
        like_y = _or_data(like, checked, batch[1])
        yield checked, check_y(batch[1], len(checked), like_y, f"y of batch {count}")
    if count == 0:
        raise ValueError("X holds no batches; an iterator that was already read is empty.")


def _is_data_set(X: Any) -> bool:
    """Tell a data matrix from an iterable of batches."""
    if isinstance(X, (Tensor, str, bytes, dict)) or hasattr(X, "__array__"):
        return True
    if not isinstance(X, (list, tuple)):
        return hasattr(X, "toarray")
    first = X[0] if len(X) else None
    # Rows may hold NumPy scalars; only whole arrays make a pair a batch.
    return not (isinstance(first, (list, tuple)) and any(getattr(v, "ndim", 0) > 0 for v in first))


def _or_data(like: Any, X: Tensor, y: Any) -> Any:
    """Return what targets must match: the model or, without one, data that are tensors too."""
    return X if like is None and isinstance(y, Tensor) else like


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


def _as_tensor(values: Any, like: Any, name: str) -> Tensor:
    """Convert to a strided floating-point tensor with the dtype and device of `like`."""
    reference = _reference_tensor(like)
    if isinstance(values, Tensor):
        if not values.is_floating_point():
            raise TypeError(
                f"{name} must hold floating-point numbers, but has dtype {values.dtype}; "
                f"use {_variable(name)}.to({getattr(reference, 'dtype', torch.float64)})."
            )
        if values.layout != torch.strided:
            raise TypeError(f"{name} is a sparse tensor; use {_variable(name)}.to_dense().")
        if reference is not None:
            _check_same_kind(
                values, reference, name, "" if like is reference else ", like the model"
            )
        if values.is_meta:
            raise ValueError(f"{name} is on the meta device, which holds no values.")
        return values.detach()
    array = _as_float_array(values, name)
    dtype, device = torch.float64, torch.device("cpu")
    if reference is not None:
        dtype, device = reference.dtype, reference.device
    return torch.as_tensor(array).to(device=device, dtype=dtype)


def _as_float_array(values: Any, name: str) -> np.ndarray:
    """Convert an array, a DataFrame or nested lists to a float32 or float64 array."""
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} is a sparse matrix; use {_variable(name)}.toarray().")
    if values is None or isinstance(values, (str, bytes, dict, set)):
        raise TypeError(f"{name} must be a tensor or an array, not {type(values).__name__}.")
    try:
        with torch.no_grad():  # lets NumPy read lists of tensors that are in an autograd graph
            array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be rectangular: its rows differ in length.") from error
    except (RuntimeError, TypeError) as error:  # a list of tensors on a GPU
        raise TypeError(
            f"{name} holds tensors that NumPy cannot read; use torch.stack({_variable(name)})."
        ) from error
    if array.dtype == object and array.ndim == 0:
        raise TypeError(f"{name} must be a tensor or an array, not {type(values).__name__}.")
    if array.dtype == object:
        # A table of mixed numeric columns arrives as objects; text among them fails here.
        try:
            array = array.astype(np.float64)
        except (OverflowError, TypeError, ValueError) as error:
            raise TypeError(
                f"{name} must hold numbers, but holds other values; encode or drop them first."
            ) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} must hold real numbers, but has dtype {array.dtype}; "
            "encode or drop those values first."
        )
    if array.dtype in (np.float32, np.float64):
        # torch shares the memory, and refuses negative strides and warns of read-only arrays.
        needs_copy = any(stride < 0 for stride in array.strides) or not array.flags.writeable
        return array.copy() if needs_copy else array
    return array.astype(np.float64)


def _reference_tensor(like: Any) -> Tensor | None:
    """Return the tensor whose dtype and device the data must have."""
    if like is None or isinstance(like, Tensor):
        return like
    return next(like.parameters(), None)


def _check_same_kind(tensor: Tensor, reference: Tensor, name: str, whose: str) -> None:
    """Refuse a tensor whose dtype or device is not the reference's."""
    if tensor.device != reference.device:
        raise ValueError(
            f"{name} is on {tensor.device}, but must be on {reference.device}{whose}; "
            f"use {_variable(name)}.to({str(reference.device)!r})."
        )
    if tensor.dtype != reference.dtype:
        raise TypeError(
            f"{name} has dtype {tensor.dtype}, but must have {reference.dtype}{whose}; "
            f"use {_variable(name)}.to({reference.dtype})."
        )


def _variable(name: str) -> str:
    """Return the name to write in advice: that of the variable, without "of batch 3"."""
    return name.split(" of ")[0]


def _check_finite(tensor: Tensor, name: str) -> None:
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
            advice = "; remove or impute those rows first" if name[0] in "Xy" else ""
            raise ValueError(f"{name} contains NaN or infinity in row {row}{advice}.")
