"""The channels of each layer: how many are free, tied to those of other layers, or frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from flattest.modules.symmetry.scaled_tensor import ScaledTensor


class Channels(NamedTuple):
    """The channels that one parameter tensor leads to.

    Parameters
    ----------
    name : str
        The tensor.
    layer : str
        The module that owns it.
    kind : str
        The class of that module.
    shape : tuple of int
        The tensor's shape.
    free : int
        Channels with a scale of their own.
    tied : int
        Channels that share their scale with those of other layers.
    frozen : int
        Channels that do not scale.
    scales : int
        How many free scales move the tensor.
    reason : str
        Why channels are frozen, if some are.
    """

    name: str
    layer: str
    kind: str
    shape: tuple[int, ...]
    free: int
    tied: int
    frozen: int
    scales: int
    reason: str


def channels_of(
    tensors: Sequence[ScaledTensor], kinds: Mapping[str, str], reasons: Mapping[str, str]
) -> list[Channels]:
    """Count the channels of all tensors.

    Parameters
    ----------
    tensors : sequence of ScaledTensor
        The tensors.
    kinds : mapping of str to str
        The class of the module of each layer.
    reasons : mapping of str to str
        Why channels are frozen, by tensor.

    Returns
    -------
    list of Channels
        One for each tensor.
    """
    ends = [_scales(tensor, torch.unique(tensor.out)) for tensor in tensors]
    layers = [tensor.name.rpartition(".")[0] for tensor in tensors]
    owners: dict[int, set[str]] = {}
    # The weights of a layer have its channels; what has its bias only shares them.
    main = _largest(tensors, layers)
    for number, (layer, columns) in enumerate(zip(layers, ends, strict=True)):
        if main[layer] != number:
            continue
        for column in np.unique(columns[columns >= 0]).tolist():
            owners.setdefault(column, set()).add(layer)
    found = []
    for tensor, layer, columns in zip(tensors, layers, ends, strict=True):
        moving = columns[columns >= 0].tolist()
        tied = sum(len(owners.get(column, {layer}) | {layer}) > 1 for column in moving)
        starts = _scales(tensor, torch.unique(tensor.into))
        scales = len(set(moving) | set(starts[starts >= 0].tolist()))
        found.append(
            Channels(
                name=tensor.name,
                layer=layer,
                kind=kinds.get(layer, ""),
                shape=tensor.shape,
                free=len(moving) - tied,
                tied=tied,
                frozen=_count(tensor) - len(moving),
                scales=0 if tensor.is_frozen else scales,
                reason=reasons.get(tensor.name, ""),
            )
        )
    return found


def main_tensors(channels: Sequence[Channels]) -> list[Channels]:
    """Return for each layer the tensor with the most dimensions, which has all its channels."""
    chosen: dict[str, Channels] = {}
    for entry in channels:
        best = chosen.get(entry.layer)
        if best is None or len(entry.shape) > len(best.shape):
            chosen[entry.layer] = entry
    return list(chosen.values())


def _largest(tensors: Sequence[ScaledTensor], layers: Sequence[str]) -> dict[str, int]:
    """Return for each layer the number of the tensor with the most dimensions."""
    main: dict[str, int] = {}
    for number, (tensor, layer) in enumerate(zip(tensors, layers, strict=True)):
        if layer not in main or len(tensor.shape) > len(tensors[main[layer]].shape):
            main[layer] = number
    return main


def _count(tensor: ScaledTensor) -> int:
    """Return the number of channels that a tensor leads to."""
    distinct = len(torch.unique(tensor.out))
    if distinct > 1 or not tensor.shape:
        return distinct
    # One label for all of them.
    return max(tensor.shape[0], 1)


def _scales(tensor: ScaledTensor, channels: torch.Tensor) -> np.ndarray:
    """Return for each channel the first free scale in it; -1 for none."""
    rows = tensor.channels[channels.numpy()]
    found = np.full(len(channels), -1)
    moving = np.flatnonzero(np.diff(rows.indptr))
    found[moving] = rows.indices[rows.indptr[moving]]
    return found
