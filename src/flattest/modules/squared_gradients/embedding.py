"""The rule for tables of which every sample takes a few rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Rows
from flattest.modules.squared_gradients.layouts import Layout, Unsupported


def embedding(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Rows by their number; a padding row has no gradient."""
    if node._saved_scale_grad_by_freq or len(shape) != 2:
        raise Unsupported
    indices = node._saved_indices
    numbers = torch.arange(layout.n_samples, device=indices.device)
    if layout.order == "samples first":
        if not indices.ndim or len(indices) % layout.n_samples:
            raise Unsupported
        samples = numbers.repeat_interleave(indices.numel() // layout.n_samples)
    else:
        if indices.ndim < 2 or indices.shape[1] != layout.n_samples:
            raise Unsupported
        samples = (
            numbers.reshape(1, -1, *([1] * (indices.ndim - 2))).expand(indices.shape).flatten()
        )
    n_rows, width = shape
    pairs, place = torch.unique(samples * n_rows + indices.flatten(), return_inverse=True)
    values = cotangents.new_zeros(len(cotangents), len(pairs), width)
    values.index_add_(1, place, cotangents.reshape(len(cotangents), -1, width))
    sample, row = pairs // n_rows, pairs % n_rows
    if node._saved_padding_idx >= 0:
        values[:, row == node._saved_padding_idx] = 0
    return Rows(values, sample, row, shape, layout.n_samples)


RULES = {"EmbeddingBackward0": embedding}
