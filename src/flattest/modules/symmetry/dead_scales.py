"""Scales that nothing balances: all that they move on one side is zero, or there is nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
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
        if tensor.is_frozen:
            continue
        exponents = tensor.exponents.tocoo()
        occurs = tensor.sums(parameters[tensor.name].detach() == parameters[tensor.name]) > 0
        moves = tensor.sums(parameters[tensor.name].detach() != 0) > 0
        for side, sign in enumerate((exponents.data > 0, exponents.data < 0)):
            there[side, exponents.col[sign & occurs[exponents.row]]] = True
            alive[side, exponents.col[sign & moves[exponents.row]]] = True
    found = {}
    for scale in np.flatnonzero(~alive.all(axis=0)).tolist():
        if not there[:, scale].all():
            found[names[scale]] = _INVARIANT
        elif not alive[:, scale].any():
            found[names[scale]] = _BOTH
        else:
            found[names[scale]] = _NOTHING_OUT if alive[0, scale] else _NOTHING_IN
    return found
