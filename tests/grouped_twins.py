"""Twins of modules: random scales, and random matrices and translations of linear groups."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import flattest as ft
from flattest.modules.symmetry.linear_group import Kind, LinearGroup
from flattest.modules.symmetry.result import Symmetries


def twin(
    net: nn.Module,
    X: Tensor,
    seed: int,
    condition: float = 1e4,
    spread: float = 1,
    *,
    own: bool = True,
) -> nn.Module:
    """Apply random scales, and matrices of a condition with translations.

    Without `own` no scales are given to the coordinates of groups, whose matrices scale them, too:
    then the condition is that of all that is done to these coordinates.
    """
    found = ft.symmetries(net, X)
    rng = np.random.default_rng(seed)
    matrices, shifts = {}, {}
    z = rng.normal(0, spread, found.n_scales)
    for number, group in enumerate(found.groups):
        if group.kind is Kind.GENERAL:
            left, right = (
                np.linalg.qr(rng.normal(size=(group.size, group.size)))[0] for _ in range(2)
            )
            sizes = np.logspace(0, np.log10(condition), group.size)
            matrices[number] = torch.from_numpy(left @ np.diag(sizes) @ right)
            if group.translation is not None:
                shifts[number] = torch.from_numpy(rng.normal(size=group.size))
            if not own:
                z[_scales_of(group, found)] = 0
    return found.transformed(net, z, matrices=matrices, shifts=shifts)


def _scales_of(group: LinearGroup, found: Symmetries) -> np.ndarray:
    """Return the scales of a group's coordinates."""
    factor = group.forward[0]
    tensor = next(each for each in found.tensors if each.name == factor.name)
    ends = [factor.read(each.expand(tensor.shape)) for each in (tensor.out, tensor.into)]
    coordinates = next(each[:, 0] for each in ends if (each != each[:1]).any())
    return tensor.channels[coordinates.numpy()].indices
