"""Scales that nothing balances: all that they move on one side is zero, or there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from flattest.modules.symmetry.scaled_tensor import ScaledTensor

_NOTHING_IN = "all weights that enter it are zero"
_NOTHING_OUT = "all weights that leave it are zero"
_BOTH = "all its weights are zero"
_INVARIANT = "no other parameter makes up for it, so that the infimum is zero"


def dead_scales(
    tensors: Sequence[ScaledTensor], parameters: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, str]:
    """Find the scales that parameters other than zero have on at most one side.

    Parameters
    ----------
    tensors : sequence of ScaledTensor
        The scales.
    parameters : mapping of str to Tensor
        The parameters' values.
    names : sequence of str
        The names of the scales.

    Returns
    -------
    dict of str to str
        For each such scale, by its name, what is missing.
    """
    n_scales = len(names)
    # Whether there are exponents of either sign, for any parameters and for those that are not 0.
    there = np.zeros((2, n_scales), dtype=bool)
    alive = np.zeros((2, n_scales), dtype=bool)
    for tensor in tensors:
        if not tensor.is_frozen:
            marks = _simple(tensor, parameters[tensor.name])
            for (side, columns), (_, moving) in zip(*marks, strict=True):
                there[side, columns] = True
                alive[side, moving] = True
    found = {}
    for scale in np.flatnonzero(~alive.all(axis=0)).tolist():
        if not there[:, scale].all():
            found[names[scale]] = _INVARIANT
        elif not alive[:, scale].any():
            found[names[scale]] = _BOTH
        else:
            found[names[scale]] = _NOTHING_OUT if alive[0, scale] else _NOTHING_IN
    return found


_Marks = list[tuple[int, np.ndarray]]


def _simple(tensor: ScaledTensor, parameter: Tensor) -> tuple[_Marks, _Marks]:
    """Return which scales occur with either sign: in all entries, and in those that are not 0."""
    widths = np.diff(tensor.channels.indptr)
    used = torch.unique(torch.cat([tensor.out.reshape(-1), tensor.into.reshape(-1)])).numpy()
    if widths[used].max(initial=0) > 1:
        return _general(tensor, parameter)
    first = np.append(tensor.channels.indices, 0)[tensor.channels.indptr[:-1]]
    size = np.append(tensor.channels.data, 0.0)[tensor.channels.indptr[:-1]]
    scale = torch.from_numpy(np.where(widths > 0, first, -1))
    sign = torch.from_numpy(np.where(widths > 0, size, 0.0))
    ends, starts = (labels for labels in (tensor.out, tensor.into))
    shape = tensor.block_shape
    differ = (scale[ends] != scale[starts]) | (sign[ends] != sign[starts])
    nonzero = parameter.detach().cpu() != 0
    over = [axis for axis, count in enumerate(shape) if count == 1 and nonzero.shape[axis] != 1]
    nonzero = nonzero.any(dim=over, keepdim=True) if over else nonzero
    marks: tuple[_Marks, _Marks] = ([], [])
    for channels, power in ((ends, 1.0), (starts, -1.0)):
        for found, where in zip(marks, (differ.expand(shape), differ & nonzero), strict=True):
            axes = [a for a, n in enumerate(shape) if channels.shape[a] == 1 and n != 1]
            some = where.any(dim=axes, keepdim=True) if axes else where
            for side, wanted in enumerate((1.0, -1.0)):
                chosen = some & (torch.sign(sign[channels]) * power == wanted)
                found.append((side, torch.unique(scale[channels][chosen]).numpy()))
    return marks


def _general(tensor: ScaledTensor, parameter: Tensor) -> tuple[_Marks, _Marks]:
    """Do the same where a channel's scale is a combination of several."""
    exponents = tensor.exponents.tocoo()
    values = parameter.detach()
    marks: tuple[_Marks, _Marks] = ([], [])
    for found, entries in zip(marks, (values == values, values != 0), strict=True):
        occurs = tensor.sums(entries) > 0
        for side, sign in enumerate((exponents.data > 0, exponents.data < 0)):
            found.append((side, np.unique(exponents.col[sign & occurs[exponents.row]])))
    return marks
