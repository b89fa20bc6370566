"""Rules for convolutions in any number of dimensions: outer products with unfolded patches."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Dense, Outer
from flattest.modules.squared_gradients.layouts import Layout, Unsupported


def convolution(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Convolutions and transposed ones, with stride, padding, dilation and groups."""
    if cotangents.shape[1] != layout.n_samples or layout.order != "samples first":
        return _of_several_rows(node, slot, cotangents, layout, shape)
    if slot == 2:
        return Dense(cotangents.flatten(3).sum(dim=-1))
    if slot != 1:
        raise Unsupported
    inputs, groups = node._saved_input, node._saved_groups
    kernel = shape[2:]
    if node._saved_transposed:
        # Inputs and outputs change places: every input is spread over a patch of outputs.
        columns, n, channels = cotangents.shape[:3]
        patches = unfold(cotangents.flatten(0, 1), kernel, node, inputs.shape[2:])
        right = patches.reshape(columns, n, groups, channels // groups * patches.shape[2], -1)
        left = inputs.flatten(2).reshape(n, groups, inputs.shape[1] // groups, -1)[None]
        return Outer(left, right, shape)
    n, channels = inputs.shape[:2]
    patches = unfold(inputs, kernel, node, cotangents.shape[3:])
    right = patches.reshape(n, groups, channels // groups * patches.shape[2], -1)[None]
    left = cotangents.flatten(3)
    left = left.reshape(*left.shape[:2], groups, left.shape[2] // groups, -1)
    return Outer(left, right, shape)


def _of_several_rows(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Convolve several rows per sample, such as the frames of a video: positions are added up."""
    rows = Layout(cotangents.shape[1])
    part = convolution(node, slot, cotangents, rows, shape)
    if isinstance(part, Dense):
        return Dense(layout.matrix(part.gradients).sum(dim=2))
    assert isinstance(part, Outer)
    return Outer(_merged(part.left, layout), _merged(part.right, layout), shape)


def _merged(factor: Float[Tensor, "c r g o t"], layout: Layout) -> Tensor:
    _, _, groups, width, positions = factor.shape
    by_sample = layout.matrix(factor.flatten(2))  # (c, n, s, g o t)
    by_sample = by_sample.reshape(*by_sample.shape[:3], groups, width, positions)
    return by_sample.permute(0, 1, 3, 4, 2, 5).flatten(4)


def unfold(
    images: Float[Tensor, "n channels *space"],
    kernel: tuple[int, ...],
    node: Any,
    positions: tuple[int, ...],
) -> Float[Tensor, "n channels taps places"]:
    """Return what each tap of a kernel sees at each position.

    Parameters
    ----------
    images : Tensor of shape (n, channels, ...)
        The images.
    kernel : tuple of int
        Its size.
    node : autograd node
        With the stride, padding and dilation.
    positions : tuple of int
        The number of positions along each dimension.

    Returns
    -------
    Tensor of shape (n, channels, taps, positions)
        The patches.
    """
    strides, dilations = node._saved_stride, node._saved_dilation
    padding = [amount for amount in reversed(node._saved_padding) for _ in range(2)]
    padded = F.pad(images, padding) if any(padding) else images
    steps = padded.stride()[2:]
    # As a view first, which one copy makes dense.
    view = padded.as_strided(
        (*padded.shape[:2], *kernel, *positions),
        (
            *padded.stride()[:2],
            *(step * dilation for step, dilation in zip(steps, dilations, strict=True)),
            *(step * stride for step, stride in zip(steps, strides, strict=True)),
        ),
    )
    return view.reshape(*padded.shape[:2], math.prod(kernel), math.prod(positions))


RULES = {"ConvolutionBackward0": convolution}
