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
    jacobians, hessian = factors(model, inputs, loss)
    return {
        name: ((hessian @ jacobian) * jacobian)
        .sum(dim=0)
        .reshape(dict(model.named_parameters())[name].shape)
        for name, jacobian in jacobians.items()
    }


def factors(
    model: nn.Module, inputs: tuple[Any, ...], loss: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the Jacobian of all outputs by each parameter, and the loss's Hessian in them."""
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
    jacobians = {}
    for position, (name, parameter) in enumerate(parameters.items()):
        zero = torch.zeros_like(parameter)
        jacobians[name] = torch.stack(
            [zero if row[position] is None else row[position] for row in rows]
        ).reshape(len(rows), -1)
    return jacobians, hessian


def dense_hessian(
    model: nn.Module, inputs: tuple[Any, ...], loss: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the Hessian of the loss in all parameters, row by row."""
    parameters = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        value = loss(select(model(*(x.clone() for x in inputs)), None))
        first = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True)
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters, first, strict=True)
            ]
        )
        rows = []
        for entry in flat:
            found = (
                torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
                if entry.requires_grad
                else [torch.zeros_like(p) for p in parameters]
            )
            rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)
