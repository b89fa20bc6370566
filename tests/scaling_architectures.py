"""Small modules whose channels scale in ways of their own, with their inputs.

`SCALING` maps a name to a function of a number of samples that returns a module in float64 and
evaluation mode, its arguments, and how many free scales it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, Applied, part, randn, tokens
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...]]
SCALING: dict[str, tuple[Callable[[int], Made], int]] = {}
L = nn.Linear
C = nn.Conv2d


def scaling(
    name: str, n_scales: int, inputs: Callable[[int], tuple[Any, ...]], **parts: Callable[[], Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a module whose forward pass is the decorated function."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make(n: int) -> Made:
            with torch.random.fork_rng():
                torch.manual_seed(len(name))
                module = Applied(function, **{key: made() for key, made in parts.items()})
                for parameter in module.parameters():
                    parameter.data += 0.1 * torch.randn(parameter.shape)
                arguments = inputs(n)
                return module.double().eval(), tuple(
                    x.double() if x.is_floating_point() else x for x in arguments
                )

        SCALING[name] = (make, n_scales)
        return function

    return register


def activation(name: str, free: bool, function: Callable[[Tensor], Tensor]) -> None:
    """Register a network of two layers with an activation between."""
    scaling(name, 5 if free else 0, randn(3), a=part(L, 3, 5), b=part(L, 5, 2))(
        lambda m, x: m.b(function(m.a(x)))
    )


# Case 23: which activations are positively homogeneous.
activation("ReLU", True, F.relu)
activation("leaky ReLU", True, F.leaky_relu)
activation("absolute value", True, torch.abs)
activation("squared ReLU", True, lambda z: F.relu(z).square())
activation("cube", True, lambda z: z**3)
activation("root of a square", True, lambda z: (z * z).sqrt())
activation("ReLU6", False, F.relu6)
activation("Hardtanh", False, F.hardtanh)
activation("Hardswish", False, F.hardswish)
activation("GELU", False, F.gelu)
activation("SiLU", False, F.silu)
activation("sigmoid", False, torch.sigmoid)
activation("Softplus", False, F.softplus)
activation("ELU", False, F.elu)
activation("Mish", False, F.mish)
activation("clipping from above at zero", True, lambda z: z.clamp(max=0))
activation("clipping at one", False, lambda z: z.clamp(min=-1))
activation("sign times size", True, lambda z: z.sign() * z.abs())
activation("choice by sign", True, lambda z: torch.where(z > 0, 2 * z, z / 3))
activation("choice by a threshold", False, lambda z: torch.where(z > 1, 3 * z - 2, z))
activation("adding a number", False, lambda z: F.relu(z + 1))
activation("soft shrinkage", False, F.softshrink)
activation("largest of three", True, lambda z: torch.maximum(torch.maximum(z, 2 * z), -z))


# Case 24: the same graph however it is written.
def in_place(m: Any, x: Tensor) -> Tensor:
    y = m.a(x)
    torch.relu_(y)
    z = m.c(y)
    z += y
    return m.b(F.relu_(z))


scaling("in place", 4, randn(3), a=part(L, 3, 4), c=part(L, 4, 4), b=part(L, 4, 2))(in_place)
scaling(
    "one activation used three times",
    9,
    randn(3),
    a=part(L, 3, 4),
    c=part(L, 4, 5),
    b=part(L, 5, 2),
    r=part(nn.ReLU),
)(lambda m, x: m.b(m.r(m.c(m.r(m.a(m.r(x)))))))


# Cases 20 to 22: convolutions, concatenation, flattening, depthwise layers, gates.
@scaling(
    "two branches side by side", 7, randn(3), a=part(L, 3, 4), c=part(L, 3, 3), b=part(L, 7, 2)
)
def _(m, x):
    return m.b(torch.cat([m.a(x).relu(), m.c(x).abs()], 1))


@scaling(
    "one-channel convolutions",
    4 + 6,
    randn(1, 5, 5),
    a=part(C, 1, 4, 1),
    b=part(C, 4, 6, 2),
    c=part(C, 6, 1, 1),
)
def _(m, x):
    return m.c(m.b(m.a(x).relu()).relu()).flatten(1)


@scaling("strided flattening", 4, randn(2, 4, 4), a=part(C, 2, 4, 2), b=part(L, 36, 2))
def _(m, x):
    return m.b(m.a(x).relu().permute(0, 2, 3, 1).flatten(1))


@scaling(
    "depthwise and pointwise",
    4 + 4 + 3,
    randn(2, 6, 6),
    a=part(C, 2, 4, 2),
    d=part(C, 4, 4, 2, groups=4),
    p=part(C, 4, 3, 1),
    h=part(L, 3, 2),
)
def _(m, x):
    return m.h(m.p(m.d(m.a(x).relu()).relu()).relu().mean((2, 3)))


@scaling(
    "squeeze and excitation",
    4 + 2,
    randn(2, 5, 5),
    a=part(C, 2, 4, 2),
    s=part(L, 2, 2),
    e=part(L, 2, 4),
    h=part(L, 4, 2),
)
def _(m, x):
    y = m.a(x).relu()
    gate = m.e(m.s(x.mean((2, 3))).relu()).sigmoid()
    return m.h((y * gate[:, :, None, None]).mean((2, 3)))


@scaling(
    "broadcast mask",
    4,
    lambda n: (torch.randn(n, 3, 3), torch.rand(n, 3, 1).round()),
    a=part(L, 3, 4),
    b=part(L, 4, 2),
)
def _(m, x, mask):
    return m.b((m.a(x).relu() * mask).sum(1))


@scaling("constant mask", 4, randn(4, 3), a=part(L, 3, 4), b=part(L, 4, 2))
def _(m, x):
    y = m.a(x).relu()
    return m.b(y.masked_fill(torch.ones(4, 4).triu(1).bool()[:, :4], 0.0).sum(1))


# Case 25: gated layers and attention.
@scaling("gated MLP", 6, randn(3), g=part(L, 3, 6), u=part(L, 3, 6), d=part(L, 6, 2))
def _(m, x):
    return m.d(F.silu(m.g(x)) * m.u(x))


@scaling("two factors", 6 + 6, randn(3), g=part(L, 3, 6), u=part(L, 3, 6), d=part(L, 6, 2))
def _(m, x):
    return m.d(m.g(x).relu() * m.u(x).relu())


@scaling("a quotient", 6 + 6, randn(3), g=part(L, 3, 6), u=part(L, 3, 6), d=part(L, 6, 2))
def _(m, x):
    return m.d(m.g(x).relu() / m.u(x).abs())


def heads(y: Tensor, count: int) -> Tensor:
    return y.unflatten(-1, (count, -1)).transpose(1, 2)


@scaling(
    "attention by hand",
    4 + 4,
    randn(3, 4),
    q=part(L, 4, 4),
    k=part(L, 4, 4),
    v=part(L, 4, 4),
    o=part(L, 4, 2),
)
def _(m, x):
    q, k, v = (heads(layer(x), 2) for layer in (m.q, m.k, m.v))
    scores = (q @ k.transpose(-1, -2) / 2**0.5).softmax(-1)
    return m.o((scores @ v).transpose(1, 2).flatten(2)).flatten(1)


@scaling(
    "grouped queries",
    2 + 2,
    randn(3, 4),
    q=part(L, 4, 4),
    k=part(L, 4, 2),
    v=part(L, 4, 2),
    o=part(L, 4, 2),
)
def _(m, x):
    q, k, v = heads(m.q(x), 2), heads(m.k(x), 1), heads(m.v(x), 1)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return m.o(y.transpose(1, 2).flatten(2)).flatten(1)


def rotated(y: Tensor) -> Tensor:
    angles = torch.arange(y.shape[-2])[:, None] / 10.0 ** torch.arange(y.shape[-1] // 2)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    first, second = y.chunk(2, -1)
    return y * cos + torch.cat([-second, first], -1) * sin


@scaling(
    "rotary embedding",
    4 + 2 * 2,
    randn(3, 4),
    q=part(L, 4, 8),
    k=part(L, 4, 8),
    v=part(L, 4, 4),
    o=part(L, 4, 2),
)
def _(m, x):
    q, k, v = heads(m.q(x), 2), heads(m.k(x), 2), heads(m.v(x), 2)
    y = F.scaled_dot_product_attention(rotated(q), rotated(k), v)
    return m.o(y.transpose(1, 2).flatten(2)).flatten(1)


@scaling(
    "normalised queries and keys",
    4 + 2,
    randn(3, 4),
    q=part(L, 4, 4),
    k=part(L, 4, 4),
    v=part(L, 4, 4),
    o=part(L, 4, 2),
    a=part(nn.LayerNorm, 2, bias=False),
    b=part(nn.LayerNorm, 2, bias=False),
)
def _(m, x):
    q, k, v = (heads(layer(x), 2) for layer in (m.q, m.k, m.v))
    y = F.scaled_dot_product_attention(m.a(q), m.b(k), v)
    return m.o(y.transpose(1, 2).flatten(2)).flatten(1)


# Sums, ties and positions.
@scaling(
    "residual layers",
    4 + 5,
    randn(3),
    a=part(L, 3, 4),
    b=part(L, 4, 5),
    c=part(L, 5, 4),
    h=part(L, 4, 2),
)
def _(m, x):
    y = m.a(x).relu()
    return m.h((y + m.c(m.b(y).relu())).relu())


@scaling("residual from the data", 0, randn(4), a=part(L, 4, 4), h=part(L, 4, 2))
def _(m, x):
    return m.h((x + m.a(x)).relu())


@scaling("layer scale", 5 + 4, randn(4), a=part(L, 4, 5), b=part(L, 5, 4), g=part(torch.randn, 4))
def _(m, x):
    return x + m.g * m.b(m.a(x).relu())


@scaling(
    "tokens mixed without biases",
    5 + 1 + 4,
    randn(3, 4),
    a=part(L, 3, 5, bias=False),
    b=part(L, 5, 3, bias=False),
    c=part(L, 4, 4, bias=False),
    h=part(L, 4, 2, bias=False),
)
def _(m, x):
    y = m.b(m.a(x.transpose(1, 2)).relu()).transpose(1, 2)
    return m.h(m.c(y).relu()).sum(1)


@scaling(
    "tokens mixed with biases",
    5 + 1 + 4,
    randn(3, 4),
    a=part(L, 3, 5),
    b=part(L, 5, 3),
    c=part(L, 4, 4),
    h=part(L, 4, 2),
)
def _(m, x):
    y = m.b(m.a(x.transpose(1, 2)).relu()).transpose(1, 2)
    return m.h(m.c(y).relu()).sum(1)


@scaling(
    "learnt positions",
    4,
    tokens(3),
    e=part(nn.Embedding, 7, 4),
    p=part(nn.Embedding, 5, 4),
    h=part(L, 4, 2),
)
def _(m, x):
    return m.h((m.e(x) + m.p(torch.arange(x.shape[1]))).relu()).flatten(1)


@scaling("tied layers", 0, randn(4), a=part(L, 4, 4), b=part(L, 4, 2))
def _(m, x):
    y = m.a(x).relu()
    return m.b(m.a(y).relu())


@scaling("a mean over a window", 3, randn(2, 8), a=part(nn.Conv1d, 2, 3, 3), b=part(L, 9, 2))
def _(m, x):
    return m.b(F.avg_pool1d(m.a(x).relu(), 2).flatten(1))


@scaling("largest in a window", 3, randn(2, 8), a=part(nn.Conv1d, 2, 3, 3), b=part(L, 9, 2))
def _(m, x):
    return m.b(F.max_pool1d(m.a(x).relu(), 2).flatten(1))


@scaling("a norm of channels", 3, randn(2, 4), a=part(nn.Conv1d, 2, 3, 2), b=part(L, 3, 2))
def _(m, x):
    return m.b(m.a(x).norm(dim=2))


@scaling("largest channel", 1, randn(3), a=part(L, 3, 5), b=part(L, 1, 2))
def _(m, x):
    return m.b(m.a(x).amax(1, keepdim=True))


@scaling("sorted channels", 1, randn(3), a=part(L, 3, 5), b=part(L, 5, 2))
def _(m, x):
    return m.b(m.a(x).sort(1)[0])


@scaling("chosen by the largest", 4, randn(3), a=part(L, 3, 4), c=part(L, 3, 4), b=part(L, 4, 2))
def _(m, x):
    return m.b(torch.where(x[:, :1] > 0, m.a(x), m.c(x)).relu())


@scaling(
    "a convolution of a computed weight",
    6,
    randn(2, 5),
    w=part(torch.randn, 3, 2, 2),
    g=part(torch.rand, 3),
    h=part(L, 3, 2),
)
def _(m, x):
    return m.h(F.conv1d(x, m.w * m.g[:, None, None].relu()).relu().mean(2))


@scaling("sorted stably", 1, randn(3), a=part(L, 3, 5), b=part(L, 5, 2))
def _(m, x):
    return m.b(torch.sort(m.a(x), stable=True, descending=True)[0])


@scaling("scattered by data", 1, randn(3), a=part(L, 3, 4), b=part(L, 4, 2))
def _(m, x):
    places = (x @ torch.arange(12.0).view(3, 4).sin().to(x)).argsort(1)
    return m.b(torch.zeros_like(m.a(x)).scatter(1, places, m.a(x).relu()))


@scaling(
    "written where a mask says", 4, randn(3), a=part(L, 3, 4), c=part(L, 3, 4), b=part(L, 4, 2)
)
def _(m, x):
    y = m.a(x)
    y[x.sum(1) > 0] = m.c(x)[x.sum(1) > 0]
    return m.b(y.relu())


@scaling(
    "sampled at positions",
    3,
    lambda n: (torch.randn(n, 2, 4, 4), torch.rand(n, 2, 2, 2) - 0.5),
    a=part(C, 2, 3, 1),
    b=part(L, 12, 2),
)
def _(m, x, grid):
    return m.b(F.grid_sample(m.a(x).relu(), grid, align_corners=False).flatten(1))


@scaling("product of all", 4, randn(3), a=part(L, 3, 4), b=part(L, 1, 2))
def _(m, x):
    return m.b(m.a(x).prod(1, keepdim=True))


ALL = {**ARCHITECTURES, **{name: make for name, (make, _) in SCALING.items()}}
"""All small modules of the tests, by name."""
