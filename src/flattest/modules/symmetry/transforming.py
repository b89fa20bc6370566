"""Symmetries applied: a copy of the module with other parameters and the same outputs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flattest.modules.symmetry.affine_shift import AffineShift
from flattest.modules.symmetry.linear_group import Kind, LinearGroup
from flattest.modules.symmetry.scaled_tensor import ScaledTensor


def transformed(
    module: nn.Module,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
    z: Any,
    matrices: Mapping[int, Tensor],
    shifts: Mapping[int, Tensor],
    affine: Sequence[AffineShift] = (),
) -> nn.Module:
    """Return a copy of a module with rescaled parameters and transformed factors.

    Parameters
    ----------
    module : torch.nn.Module
        The module without wrapper.
    tensors : sequence of ScaledTensor
        How its parameters scale.
    groups : sequence of LinearGroup
        Its linear groups.
    z : array_like of shape (n_scales,)
        The log scales, which go first.
    matrices : mapping of int to Tensor
        For some of the groups, by number, the matrix.
    shifts : mapping of int to Tensor
        For some of the groups, by number, the translation.
    affine : sequence of AffineShift
        The biases that shift with the scales.

    Returns
    -------
    torch.nn.Module
        The copy, of the same class, dtypes and device.
    """
    result = copy.deepcopy(module)
    transform(result, tensors, groups, z, matrices, shifts, affine)
    return result


@torch.no_grad()
def transform(
    module: nn.Module,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
    z: Any,
    matrices: Mapping[int, Tensor],
    shifts: Mapping[int, Tensor],
    affine: Sequence[AffineShift] = (),
) -> None:
    """Do the same in place."""
    parameters: dict[str, Tensor] = dict(module.named_parameters())
    if np.asarray(z).any():
        for shift in affine:
            shift.apply(parameters, z)
        for tensor in tensors:
            if tensor.is_frozen:
                continue
            parameter = parameters[tensor.name]
            parameter.copy_(tensor.scaled(parameter, z).to(parameter.dtype))
    for number in sorted({*matrices, *shifts}):
        group = groups[number]
        identity = torch.eye(group.size, dtype=torch.float64)
        group.transform(parameters, matrices.get(number, identity), shifts.get(number))


def random_matrix(group: LinearGroup, rng: np.random.Generator) -> Tensor:
    """Draw a matrix that a group allows, well enough conditioned to compare outputs.

    Parameters
    ----------
    group : LinearGroup
        The group.
    rng : numpy.random.Generator
        What to draw from.

    Returns
    -------
    Tensor of shape (r, r)
        The matrix, in float64.
    """
    r = group.size
    if group.kind is Kind.PAIRED:
        assert group.pairs is not None
        matrix = torch.zeros(r, r, dtype=torch.float64)
        for first, second in group.pairs.tolist():
            a, b = rng.standard_normal(2)
            size = np.exp(0.5 * rng.standard_normal()) / np.hypot(a, b)
            matrix[first, first] = matrix[second, second] = a * size
            matrix[first, second], matrix[second, first] = -b * size, b * size
        return matrix
    left, _ = np.linalg.qr(rng.standard_normal((r, r)))
    right, _ = np.linalg.qr(rng.standard_normal((r, r)))
    return torch.from_numpy(left * np.exp(0.5 * rng.standard_normal(r)) @ right)
