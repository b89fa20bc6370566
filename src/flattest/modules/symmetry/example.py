"""Example inputs of a module, in whatever form it is called, as a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from flattest.modules.data import Batch, Kind, convert, count_samples
from flattest.validation import Argument


def read_example(kind: Kind, example: Any, name: str) -> Batch:
    """Turn what a module is called with into a batch.

    Parameters
    ----------
    kind : Kind
        What the module is like.
    example : Tensor, array_like, tuple, list, dict or Batch
        One argument, several in a tuple, or named ones in a dictionary; a batch stays as it is.
    name : str
        What to call it in messages.

    Returns
    -------
    Batch
        The arguments, on the module's device and of its dtype.

    Raises
    ------
    TypeError, ValueError
        If it holds no tensor, or values that cannot be used.
    """
    if isinstance(example, Batch):
        return example
    argument = Argument(name)
    array = isinstance(example, (Tensor, Mapping, tuple, list)) or hasattr(example, "__array__")
    if not array and isinstance(example, Iterable) and not isinstance(example, (str, bytes)):
        raise TypeError(
            f"{name} is a {type(example).__name__}; give the arguments of one call of the model: "
            "a tensor, a tuple of them, or a dictionary."
        )
    values = convert(example, argument, kind)
    n_samples = count_samples(values, argument)
    if isinstance(values, dict):
        return Batch((), values, None, n_samples)
    args = values if isinstance(values, (tuple, list)) else (values,)
    return Batch(tuple(args), {}, None, n_samples)
