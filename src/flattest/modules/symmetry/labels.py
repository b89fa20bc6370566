"""Labels: for every entry of a tensor the variable that is its log scale.

Labels are integer tensors of the shape of what they describe, and stay small: a dimension along
which nothing changes is expanded, never filled. Two values have a meaning of their own. `FROZEN` is
the variable that is zero, for what must not scale. `ANY` stands for entries that are zero or
infinite by construction, such as padding and masks, which fit every scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN

ANY = -1

Labels = Int[Tensor, "..."]


def frozen(shape: Sequence[int]) -> Labels:
    """Return labels of something that must not scale.

    Parameters
    ----------
    shape : sequence of int
        Its shape.

    Returns
    -------
    Tensor
        Of that shape, with one entry in memory.
    """
    return torch.full((), FROZEN, dtype=torch.int64).expand(tuple(shape))


def of_constant(values: Tensor, generic: bool) -> Labels:
    """Return labels of a constant.

    Parameters
    ----------
    values : Tensor
        The constant.
    generic : bool
        Whether its zeros are an accident of its values, so that they do not count.

    Returns
    -------
    Tensor
        `ANY` where it is infinite or, unless generic, zero; else `FROZEN`.
    """
    free = (
        torch.isinf(values)
        if values.is_floating_point()
        else torch.zeros_like(values, dtype=torch.bool)
    )
    if not generic:
        free = free | (values == 0)
    return compact(torch.where(free, ANY, FROZEN).cpu())


def core(*tensors: Tensor) -> list[Tensor]:
    """Broadcast tensors, less the dimensions along which none of them changes.

    Parameters
    ----------
    *tensors : Tensor
        Labels that broadcast.

    Returns
    -------
    list of Tensor
        Of one shape, with size 1 in those dimensions.
    """
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    wide = [tensor.expand(shape) for tensor in tensors]
    for axis, size in enumerate(shape):
        if size > 1 and all(tensor.stride(axis) == 0 for tensor in wide):
            wide = [tensor.narrow(axis, 0, 1) for tensor in wide]
    return wide


def compact(labels: Labels) -> Labels:
    """Find the dimensions along which labels do not change, and expand them.

    Parameters
    ----------
    labels : Tensor
        Labels.

    Returns
    -------
    Tensor
        Equal ones.
    """
    small = core(labels)[0]
    for axis, size in enumerate(small.shape):
        if size > 1:
            first = small.narrow(axis, 0, 1)
            if bool((small == first).all()):
                small = first
    return small.expand(labels.shape)


def constant_along(labels: Labels, axis: int) -> bool:
    """Tell whether labels are the same all along a dimension: after `compact`, a look at it."""
    return labels.shape[axis] <= 1 or labels.stride(axis) == 0


def map_core(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply an entrywise function to what is in memory, and expand its result.

    Parameters
    ----------
    function : callable
        Of tensors of one shape.
    *tensors : Tensor
        Labels that broadcast.

    Returns
    -------
    Tensor
        Of their common shape.
    """
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return function(*core(*tensors)).expand(shape)


def rearranged(
    operation: Callable[..., Tensor], labels: Labels, *args: object, **kwargs: object
) -> Labels:
    """Run an operation that only moves entries, and fills in zeros, on labels.

    Parameters
    ----------
    operation : callable
        Of a tensor and further arguments.
    labels : Tensor
        Labels.
    *args, **kwargs : object
        Further arguments of the operation.

    Returns
    -------
    Tensor
        The labels of the result; what was filled in is `ANY`.
    """
    shifted = labels - ANY  # so that zeros become ANY again
    try:
        moved = operation(shifted, *args, **kwargs)
    except (RuntimeError, NotImplementedError):
        # Some operations exist for floating-point numbers only, which hold these integers exactly.
        moved = operation(shifted.double(), *args, **kwargs).long()
    return compact(moved + ANY)
