"""Rules for gains and shifts of normalisation layers, whose inputs are normalised without them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Dense
from flattest.modules.squared_gradients.layouts import Layout, Unsupported


def batch_norm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """With the running statistics; the channels are along axis 1."""
    if node._saved_training:
        raise Unsupported
    if slot == 2:
        return Dense(layout.matrix(_over_space(cotangents)).sum(dim=2))
    if slot != 1:
        raise Unsupported
    mean, variance = node._saved_running_mean, node._saved_running_var
    inputs = node._saved_input
    channels = (1, -1, *([1] * (inputs.ndim - 2)))
    scale = (variance + node._saved_eps).rsqrt().reshape(channels)
    return _gain(cotangents, (inputs - mean.reshape(channels)) * scale, layout)


def layer_norm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Over the last dimensions."""
    if slot == 1:
        cotangents = cotangents * ((node._saved_input - node._saved_result1) * node._saved_result2)
    elif slot != 2:
        raise Unsupported
    return Dense(layout.reduced(cotangents, shape))


def group_norm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Over groups of channels and space."""
    if slot == 2:
        return Dense(layout.matrix(_over_space(cotangents)).sum(dim=2))
    if slot != 1:
        raise Unsupported
    inputs = node._saved_input
    grouped = inputs.reshape(len(inputs), node._saved_group, -1)
    normal = (grouped - node._saved_result1[..., None]) * node._saved_result2[..., None]
    return _gain(cotangents, normal.reshape(inputs.shape), layout)


def _gain(cotangents: Tensor, normal: Tensor, layout: Layout) -> Dense:
    """Return the gradients by a gain per channel, from the normalised inputs."""
    if normal.ndim > 2:
        flat = normal.flatten(2)
        # Column by column, as products of one fit into the processor's cache.
        by_channel = torch.stack([(part.flatten(2) * flat).sum(dim=-1) for part in cotangents])
    else:
        by_channel = cotangents * normal
    return Dense(layout.matrix(by_channel).sum(dim=2))


def _over_space(cotangents: Tensor) -> Tensor:
    return cotangents.flatten(3).sum(dim=-1) if cotangents.ndim > 3 else cotangents


RULES = {
    "CudnnBatchNormBackward0": batch_norm,
    "NativeBatchNormBackward0": batch_norm,
    "NativeGroupNormBackward0": group_norm,
    "NativeLayerNormBackward0": layer_norm,
}
