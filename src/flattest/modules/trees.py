"""Nested inputs: what is done to every tensor inside dictionaries, tuples and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Apply a function to everything that is no container.

    Parameters
    ----------
    function : callable
        Of one leaf.
    tree : object
        Dictionaries, tuples and lists, nested, or one leaf.

    Returns
    -------
    object
        The same containers; any mapping becomes a dictionary.

    Examples
    --------
    >>> from flattest.modules.trees import map_leaves
    >>> map_leaves(lambda leaf: leaf + 1, {"a": (1, [2])})
    {'a': (2, [3])}
    """
    if isinstance(tree, Mapping):
        return {key: map_leaves(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_leaves(function, value) for value in tree))
    if isinstance(tree, (tuple, list)):
        return type(tree)(map_leaves(function, value) for value in tree)
    return function(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """Yield everything that is no container, in order.

    Parameters
    ----------
    tree : object
        Dictionaries, tuples and lists, nested, or one leaf.

    Yields
    ------
    object
        The leaves.

    Examples
    --------
    >>> from flattest.modules.trees import leaves
    >>> list(leaves({"a": (1, [2])}))
    [1, 2]
    """
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, (tuple, list)):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def select_samples(tree: Any, n_samples: int, samples: Any) -> Any:
    """Take some samples out of every tensor that holds one entry per sample.

    Parameters
    ----------
    tree : object
        Nested containers of tensors.
    n_samples : int
        The number of samples.
    samples : slice, or sequence of int
        Which ones.

    Returns
    -------
    object
        The same containers. Tensors whose first dimension is not `n_samples` are common to all.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.trees import select_samples
    >>> select_samples({"x": torch.arange(3), "scale": torch.tensor(2.0)}, 3, slice(0, 2))
    {'x': tensor([0, 1]), 'scale': tensor(2.)}
    """

    def select(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == n_samples:
            return leaf[samples]
        return leaf

    return map_leaves(select, tree)
