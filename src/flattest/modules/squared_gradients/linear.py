"""Rules for matrix products: the gradient is an outer product, summed over positions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Dense, Outer
from flattest.modules.squared_gradients.layouts import Layout, Unsupported


def addmm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``beta b + alpha A W``: `F.linear` with a bias."""
    if slot == 0:
        return Dense(layout.reduced(cotangents * node._saved_beta, shape))
    if slot == 2:
        return _right(node._saved_mat1, cotangents * node._saved_alpha, layout, shape)
    return _left(node._saved_mat2, cotangents * node._saved_alpha, layout, shape)


def mm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``A B``: `F.linear` without a bias, ``x @ W``, ``W @ x.T``."""
    if slot == 1:
        return _right(node._saved_self, cotangents, layout, shape)
    return _left(node._saved_mat2, cotangents, layout, shape)


def bmm(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate a batch of products; the batch runs over parameters, as in `torch.einsum`."""
    if slot == 1:  # (b, r, k) @ (b, k, o)
        inputs, outputs = layout.matrix(node._saved_self), layout.matrix(cotangents)
        left = inputs[None].permute(0, 2, 1, 4, 3)  # (1, n, b, k, t)
        right = outputs.permute(0, 2, 1, 4, 3)  # (c, n, b, o, t)
    else:  # (b, o, k) @ (b, k, r)
        inputs, outputs = layout.matrix(node._saved_mat2.mT), layout.matrix(cotangents.mT)
        left = outputs.permute(0, 2, 1, 4, 3)
        right = inputs[None].permute(0, 2, 1, 4, 3)
    return Outer(left, right, shape)


def mv(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``A v``: a product with a vector of parameters."""
    if slot != 1:
        raise Unsupported
    return _right(node._saved_self, cotangents[..., None], layout, shape)


def linear(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``A W^T + b`` as one operation, with any leading dimensions."""
    rows = cotangents.flatten(1, -2)
    if slot == 2:
        return Dense(layout.reduced(cotangents, shape))
    inputs = node._saved_input
    inputs = layout.matrix(inputs.reshape(-1, inputs.shape[-1]))
    outputs = layout.matrix(rows)
    return Outer(outputs.mT.unsqueeze(2), inputs.mT[None].unsqueeze(2), shape)


def _right(
    inputs: Tensor | None, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Outer:
    """For the right factor W of ``A W``, of shape (k, o)."""
    if inputs is None:
        raise Unsupported
    left = layout.matrix(inputs).mT[None].unsqueeze(2)  # (1, n, 1, k, t)
    return Outer(left, layout.matrix(cotangents).mT.unsqueeze(2), shape)


def _left(
    inputs: Tensor | None, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Outer:
    """For the left factor W of ``W B``, of shape (o, k)."""
    if inputs is None:
        raise Unsupported
    left = layout.matrix(cotangents.mT).mT.unsqueeze(2)  # (c, n, 1, o, t)
    return Outer(left, layout.matrix(inputs.mT).mT[None].unsqueeze(2), shape)


RULES = {
    "AddmmBackward0": addmm,
    "BmmBackward0": bmm,
    "LinearBackward0": linear,
    "MmBackward0": mm,
    "MvBackward0": mv,
}
