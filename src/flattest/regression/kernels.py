"""Kernels of distances, and the linear one: values, and slopes in the squared distance.

To add a kernel, write a function from squared distances, which it may overwrite, to values and
their derivative, and register it in `SHAPES`: functions of all features are then tried with it. Do
the same in NumPy in `prediction.kernels`; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flattest.regression.tuning import NO_DISTANCE


def _gaussian(r2: Tensor) -> tuple[Tensor, Tensor]:
    value = r2.mul_(-0.5).exp_()
    return value, value * -0.5


def _matern52(r2: Tensor) -> tuple[Tensor, Tensor]:
    r = r2.mul_(5).sqrt_()
    decay = torch.exp(-r)
    slope = (r + 1).mul_(decay)
    value = r.square_().mul_(decay).div_(3).add_(slope)
    return value, slope.mul_(-5 / 6)


def _matern12(r2: Tensor) -> tuple[Tensor, Tensor]:
    r = r2.sqrt_()
    value = torch.exp(-r)
    equal = r < NO_DISTANCE
    return value, r.reciprocal_().mul_(value).mul_(-0.5).masked_fill_(equal, 0)


SHAPES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "matern52": _matern52,
    "gaussian": _gaussian,
    "matern12": _matern12,
}
"""Value and derivative of each radial kernel as functions of the squared distance.

The argument is overwritten: large matrices cost as much to allocate as to compute with.
"""


def kernel(
    shape: str, z: Tensor, others: Tensor, *, same_from: int | None = None
) -> tuple[Tensor, Tensor]:
    """Return a kernel between points, and its slope in the squared distance.

    Parameters
    ----------
    shape : str
        The kernel. The linear one, ``z . z'``, is no function of the distance; its slope is a
        single 0.
    z, others : Tensor of shape (..., n, k) and (..., m, k)
        The points.
    same_from : int, optional
        That `z` are the points of `others` from this one on: their distances to themselves are then
        0, without rounding, which a square root would magnify. By default, if both are one tensor.

    Returns
    -------
    value, slope : Tensor of shape (..., n, m)
        Value and slope.
    """
    if shape == "linear":
        return z @ others.mT, z.new_zeros(())
    if same_from is None and z is others:
        same_from = 0
    squares = _squared_distances(z, others)
    if same_from is not None:
        squares.diagonal(offset=same_from, dim1=-2, dim2=-1).zero_()
    return SHAPES[shape](squares)


def _squared_distances(z: Tensor, others: Tensor) -> Tensor:
    """Return ``|z|^2 - 2 z . z' + |z'|^2`` by one product of matrices."""
    ones, theirs = torch.ones_like(z[..., :1]), torch.ones_like(others[..., :1])
    left = torch.cat([z.square().sum(-1, keepdim=True), ones, z * -2], dim=-1)
    right = torch.cat([theirs, others.square().sum(-1, keepdim=True), others], dim=-1)
    return (left @ right.mT).clamp_(min=0)
