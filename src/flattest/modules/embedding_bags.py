"""Embedding bags as embeddings that are added up, which autograd can differentiate twice.

PyTorch has no second derivative of its fused operation. While `differentiable` is entered, bags
with one row of tokens per sample are looked up and then summed or averaged; values and gradients
are the same up to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_FUSED = F.embedding_bag
_SIGNATURE = inspect.signature(_FUSED)


class _InParts(TorchFunctionMode):
    """Replaces the fused operation by its parts, where it is of the usual form."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not _FUSED:
            return function(*args, **kwargs)
        call = _SIGNATURE.bind(*args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        usual = given["input"].ndim == 2 and given["mode"] in ("sum", "mean")
        if not usual or given["max_norm"] is not None or given["scale_grad_by_freq"]:
            return function(*args, **kwargs)
        return _bag(
            given["input"],
            given["weight"],
            given["mode"],
            given["per_sample_weights"],
            given["padding_idx"],
        )


def _bag(
    tokens: Tensor, table: Tensor, mode: str, weights: Tensor | None, padding: int | None
) -> Tensor:
    rows = F.embedding(tokens, table)
    if weights is not None:
        rows = rows * weights[..., None]
    if padding is None:
        return rows.sum(dim=1) if mode == "sum" else rows.mean(dim=1)
    kept = (tokens != padding % len(table)).to(rows.dtype)[..., None]
    total = (rows * kept).sum(dim=1)
    return total if mode == "sum" else total / kept.sum(dim=1).clamp(min=1)


@contextlib.contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Take embedding bags apart while the context lasts, if a module has any.

    Parameters
    ----------
    model : torch.nn.Module
        The module.

    Yields
    ------
    None
        While they are.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.embedding_bags import differentiable
    >>> bag = torch.nn.EmbeddingBag(3, 2)
    >>> with differentiable(bag):
    ...     bag(torch.tensor([[0, 1]])).grad_fn.name()
    'MeanBackward1'
    """
    if not any(isinstance(module, nn.EmbeddingBag) for module in model.modules()):
        yield
        return
    with _InParts():
        yield
