"""How many diagonal symmetries a module has, counted without looking at its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flattest.modules.outputs import select

_ROWS, _DRAWS = 24, 25


def independent_rank(
    model: nn.Module, draw_inputs: Callable[[torch.Generator], tuple[Any, ...]]
) -> tuple[int, Tensor]:
    """Return the rank of theta * gradient over random parameters and inputs, and what is unseen.

    Multiplying parameter e by exp(c_e t) leaves all outputs alone exactly if c is orthogonal to
    theta * gradient of every output, for all parameters and inputs. So the number of such c is the
    number of parameters less this rank. Parameters of which no gradient was ever seen are returned
    as a mask: they do not count.
    """
    generator = torch.Generator().manual_seed(0)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    for buffer in model.buffers():
        if buffer.is_floating_point():  # statistics of 0 and 1 would hide what they do
            buffer += 0.3 + torch.rand(buffer.shape, generator=generator, dtype=buffer.dtype)
    n_parameters = sum(p.numel() for p in parameters.values())
    rows: list[Tensor] = []
    while len(rows) < _DRAWS or sum(map(len, rows)) < 1.3 * n_parameters + 20:
        theta = {
            name: (1.5 * (p.std().nan_to_num(0.3) + 0.2) * _randn(p, generator)).requires_grad_()
            for name, p in parameters.items()
        }
        with sdpa_kernel(SDPBackend.MATH):
            called = torch.func.functional_call(model, theta, draw_inputs(generator))
        outputs = select(called, None).flatten()
        some = torch.randperm(len(outputs), generator=generator)[:_ROWS]
        gradients = torch.autograd.grad(
            outputs[some],
            list(theta.values()),
            torch.eye(len(some), dtype=torch.float64),
            is_grads_batched=True,
            allow_unused=True,
        )
        rows.append(
            torch.cat(
                [
                    torch.zeros(len(some), p.numel(), dtype=torch.float64)
                    if g is None
                    else (g * p.detach()).reshape(len(some), -1)
                    for g, p in zip(gradients, theta.values(), strict=True)
                ],
                dim=1,
            ).detach()
        )
    matrix = torch.cat(rows)
    matrix = matrix / matrix.norm(dim=1, keepdim=True).clamp_min(1e-300)
    values = torch.linalg.svdvals(matrix)
    return int((values > 1e-12 * values[0]).sum()), matrix.abs().amax(dim=0) < 1e-13


def _randn(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)
