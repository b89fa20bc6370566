"""Rules for gains and shifts of normalisation layers, whose inputs are normalised without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Dense
from flattest.modules.squared_gradients.layouts import Layout, Unsupported

_SUMS = 2  # the gradients by a gain and by a shift


def of_channels(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Batch and group norm, of whose cotangents the sums over space were kept (`ARRIVALS`)."""
    if slot not in (1, 2) or cotangents.shape[-1] != _SUMS:
        raise Unsupported
    return Dense(layout.matrix(cotangents[..., slot - 1]).sum(dim=2))


def layer_norm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Over the last dimensions."""
    if slot == 1:
        cotangents = cotangents * ((node._saved_input - node._saved_result1) * node._saved_result2)
    elif slot != 2:
        raise Unsupported
    return Dense(layout.reduced(cotangents, shape))


def in_batch_norm(node: Any) -> Callable[[Tensor], Tensor] | None:
    """Return what keeps the sums of a cotangent, with the running statistics."""
    if node._saved_training:
        return None
    mean, variance = node._saved_running_mean, node._saved_running_var
    inputs = node._saved_input
    channels = (1, -1, *([1] * (inputs.ndim - 2)))
    scale = (variance + node._saved_eps).rsqrt().reshape(channels)
    return _sums_over_space((inputs - mean.reshape(channels)) * scale)


def in_group_norm(node: Any) -> Callable[[Tensor], Tensor]:
    """Return what keeps the sums of a cotangent, over groups of channels and space."""
    inputs = node._saved_input
    grouped = inputs.reshape(len(inputs), node._saved_group, -1)
    normal = (grouped - node._saved_result1[..., None]) * node._saved_result2[..., None]
    return _sums_over_space(normal.reshape(inputs.shape))


def _sums_over_space(normal: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what turns a cotangent into the gradients by gains and shifts, row by row."""
    rows = normal.reshape(*normal.shape[:2], -1)

    def sums(cotangent: Float[Tensor, "n channels *space"]) -> Float[Tensor, "n channels 2"]:
        own = cotangent.reshape(rows.shape)
        return torch.stack([(own * rows).sum(dim=-1), own.sum(dim=-1)], dim=-1)

    return sums


RULES = {
    "CudnnBatchNormBackward0": of_channels,
    "NativeBatchNormBackward0": of_channels,
    "NativeGroupNormBackward0": of_channels,
    "NativeLayerNormBackward0": layer_norm,
}
ARRIVALS = {
    "CudnnBatchNormBackward0": in_batch_norm,
    "NativeBatchNormBackward0": in_batch_norm,
    "NativeGroupNormBackward0": in_group_norm,
}
"""What is kept of each column as soon as it arrives, for it is a small part of the cotangent."""
