"""Slow and obviously right: the dense Gauss-Newton matrix of any module by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from flattest.modules.outputs import select


def diagonal(
    model: nn.Module, inputs: tuple[Any, ...], loss: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return diag(J^T H J) for all outputs of a batch at once, one output after the other.

    Nothing is assumed of samples: H is the dense Hessian of the loss in all outputs together.
    """
    parameters = dict(model.named_parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        outputs = select(model(*(x.clone() for x in inputs)), None)
    rows = [
        torch.autograd.grad(z, list(parameters.values()), retain_graph=True, allow_unused=True)
        for z in outputs.flatten()
    ]
    hessian = torch.autograd.functional.hessian(
        lambda z: loss(z.reshape(outputs.shape)), outputs.detach().flatten()
    )
    result = {}
    for position, (name, parameter) in enumerate(parameters.items()):
        zero = torch.zeros_like(parameter)
        jacobian = torch.stack(
            [zero if row[position] is None else row[position] for row in rows]
        ).reshape(len(rows), -1)
        result[name] = ((hessian @ jacobian) * jacobian).sum(dim=0).reshape(parameter.shape)
    return result
