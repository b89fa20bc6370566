"""Small modules of every kind that the documentation names as supported, with their inputs.

`ARCHITECTURES` maps the name in the documentation to a function of a number of samples that returns
a module in float64 and evaluation mode, and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

Made = tuple[nn.Module, tuple[Any, ...]]
ARCHITECTURES: dict[str, Callable[[int], Made]] = {}


def supported(name: str) -> Callable[[Callable[[int], Made]], Callable[[int], Made]]:
    """Register a function under its name in the documentation."""

    def register(make: Callable[[int], Made]) -> Callable[[int], Made]:
        def seeded(n: int) -> Made:
            with torch.random.fork_rng():
                torch.manual_seed(len(name))
                module, inputs = make(n)
                for parameter in module.parameters():
                    # Gains of 1 and shifts of 0 would hide mistakes.
                    parameter.data += 0.1 * torch.randn(parameter.shape)
                return module.double().eval(), tuple(
                    x.double() if isinstance(x, Tensor) and x.is_floating_point() else x
                    for x in inputs
                )

        ARCHITECTURES[name] = seeded
        return seeded

    return register


class Applied(nn.Module):
    """Parts, and a function of them and of the inputs."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, Tensor) else part)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


def of_parts(
    name: str, inputs: Callable[[int], tuple[Any, ...]], **parts: Callable[[], Any]
) -> Any:
    """Register a module whose forward pass is the decorated function."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make(n: int) -> Made:
            return Applied(function, **{key: part() for key, part in parts.items()}), inputs(n)

        supported(name)(make)
        return function

    return register


def sequential(
    name: str, inputs: Callable[[int], tuple[Any, ...]], *layers: Callable[[], Any]
) -> None:
    supported(name)(lambda n: (nn.Sequential(*(layer() for layer in layers)), inputs(n)))


def randn(*shape: int) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randn(n, *shape),)


def tokens(length: int, vocabulary: int = 7) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda n: (torch.randint(0, vocabulary, (n, length)),)


def part(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: make(*args, **kwargs)


L, R, FLAT = nn.Linear, part(nn.ReLU), part(nn.Flatten)

# Dense layers
sequential("linear", randn(4), part(L, 4, 3))
sequential(
    "multilayer perceptron", randn(5), part(L, 5, 6), R, part(L, 6, 4), part(nn.GELU), part(L, 4, 3)
)
sequential(
    "linear without bias",
    randn(4),
    part(L, 4, 5, bias=False),
    part(nn.Tanh),
    part(L, 5, 2, bias=False),
)
sequential("linear over positions", randn(3, 4), part(L, 4, 3), R, part(L, 3, 2), FLAT)
sequential(
    "linear over positions without bias",
    randn(3, 4),
    part(L, 4, 3, bias=False),
    R,
    part(L, 3, 2),
    FLAT,
)
sequential("linear over a grid", randn(2, 2, 4), part(L, 4, 3), R, part(L, 3, 2, bias=False), FLAT)
sequential(
    "PReLU",
    randn(5),
    part(L, 5, 4),
    part(nn.PReLU, 4),
    part(L, 4, 3),
    part(nn.PReLU),
)
sequential(
    "smooth activations",
    randn(4),
    part(L, 4, 4),
    part(nn.SiLU),
    part(L, 4, 4),
    part(nn.Softplus),
    part(L, 4, 4),
    part(nn.ELU),
    part(L, 4, 2),
)
sequential("softmax inside", randn(4), part(L, 4, 5), part(nn.Softmax, dim=1), part(L, 5, 3))


@of_parts(
    "bilinear layer",
    lambda n: (torch.randn(n, 3), torch.randn(n, 4)),
    a=part(nn.Bilinear, 3, 4, 2),
    b=part(L, 2, 3),
)
def _(m, x, y):
    return m.b(m.a(x, y).tanh())


# Convolutions
sequential(
    "LeNet",
    randn(1, 12, 12),
    part(nn.Conv2d, 1, 3, 3),
    R,
    part(nn.MaxPool2d, 2),
    part(nn.Conv2d, 3, 4, 3, padding=1),
    R,
    part(nn.AvgPool2d, 2),
    FLAT,
    part(L, 16, 5),
    R,
    part(L, 5, 3),
)
sequential(
    "convolution 1d, strided and dilated",
    randn(2, 13),
    part(nn.Conv1d, 2, 4, 3, stride=2, padding=2, dilation=2),
    R,
    part(nn.Conv1d, 4, 3, 2),
    FLAT,
    part(L, 18, 2),
)
sequential(
    "convolution 2d, grouped, uneven",
    randn(4, 7, 6),
    part(nn.Conv2d, 4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
    R,
    part(nn.Conv2d, 6, 6, 3, groups=6),
    FLAT,
    part(L, 36, 2),
)
sequential(
    "convolution 3d",
    randn(2, 4, 5, 4),
    part(nn.Conv3d, 2, 4, 2, stride=(1, 2, 1), groups=2),
    R,
    FLAT,
    part(L, 72, 2),
)
sequential(
    "transposed convolution 1d",
    randn(2, 5),
    part(nn.ConvTranspose1d, 2, 3, 3, stride=2, output_padding=1, padding=1),
    R,
    FLAT,
    part(L, 30, 2),
)
sequential(
    "transposed convolution 2d, grouped",
    randn(4, 3, 3),
    part(nn.ConvTranspose2d, 4, 6, 3, stride=2, padding=1, output_padding=1, groups=2, dilation=1),
    R,
    FLAT,
    part(L, 216, 2),
)
sequential(
    "transposed convolution 3d, dilated",
    randn(2, 2, 3, 2),
    part(nn.ConvTranspose3d, 2, 2, 2, dilation=2, bias=False),
    R,
    FLAT,
    part(L, 160, 2),
)
sequential(
    "convolution with circular and reflected borders",
    randn(2, 5, 5),
    part(nn.Conv2d, 2, 3, 3, padding=1, padding_mode="circular"),
    R,
    part(nn.Conv2d, 3, 2, 3, padding=1, padding_mode="reflect"),
    FLAT,
    part(L, 50, 2),
)
sequential(
    "convolution with same padding",
    randn(2, 6),
    part(nn.Conv1d, 2, 3, 4, padding="same"),
    R,
    FLAT,
    part(L, 18, 2),
)
sequential(
    "image to image",
    randn(1, 4, 4),
    part(nn.Conv2d, 1, 3, 3, padding=1),
    R,
    part(nn.Conv2d, 3, 2, 3, padding=1),
)
sequential(
    "pixel shuffle and upsampling",
    randn(1, 3, 3),
    part(nn.Conv2d, 1, 4, 1),
    part(nn.PixelShuffle, 2),
    part(nn.Upsample, scale_factor=2),
    part(nn.Conv2d, 1, 1, 3, stride=4),
)


@of_parts(
    "frames folded into the batch", randn(3, 2, 5, 5), c=part(nn.Conv2d, 2, 3, 3), h=part(L, 3, 2)
)
def _(m, x):
    y = m.c(x.flatten(0, 1)).relu().mean((2, 3))
    return m.h(y.reshape(len(x), -1, 3).mean(1))


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.na, self.nb = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        for norm in (self.na, self.nb):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.na(self.a(x)), inplace=True)
        out = self.nb(self.b(out))
        out += x
        return F.relu_(out)


sequential(
    "residual block in place",
    randn(2, 5, 5),
    part(nn.Conv2d, 2, 3, 3),
    part(nn.ReLU, inplace=True),
    part(Block, 3),
    part(nn.AdaptiveAvgPool2d, 1),
    FLAT,
    part(L, 3, 3),
)

# Normalisation
sequential("batch norm 1d", randn(4), part(L, 4, 5), part(nn.BatchNorm1d, 5), R, part(L, 5, 2))
sequential(
    "batch norm 1d over positions",
    randn(2, 6),
    part(nn.Conv1d, 2, 3, 3),
    part(nn.BatchNorm1d, 3),
    R,
    FLAT,
    part(L, 12, 2),
)
sequential(
    "batch norm 3d",
    randn(2, 3, 3, 3),
    part(nn.BatchNorm3d, 2),
    part(nn.Conv3d, 2, 2, 3),
    FLAT,
    part(L, 2, 2),
)
sequential(
    "layer norm",
    randn(3, 4),
    part(L, 4, 5),
    part(nn.LayerNorm, 5),
    part(nn.GELU),
    part(nn.LayerNorm, (3, 5)),
    FLAT,
    part(L, 15, 2),
)
sequential(
    "group norm",
    randn(4, 5),
    part(nn.GroupNorm, 2, 4),
    part(nn.Conv1d, 4, 4, 3),
    part(nn.GroupNorm, 4, 4),
    R,
    FLAT,
    part(L, 12, 2),
)
sequential("group norm without space", randn(6), part(nn.GroupNorm, 3, 6), part(L, 6, 2))
sequential(
    "instance norm",
    randn(2, 5, 5),
    part(nn.InstanceNorm2d, 2, affine=True),
    part(nn.Conv2d, 2, 3, 3),
    part(nn.InstanceNorm2d, 3, affine=True, track_running_stats=True),
    R,
    FLAT,
    part(L, 27, 2),
)
sequential(
    "RMS norm",
    randn(3, 4),
    part(nn.RMSNorm, 4),
    part(L, 4, 3),
    part(nn.RMSNorm, 3),
    FLAT,
    part(L, 9, 2),
)
sequential(
    "local response norm",
    randn(4, 5),
    part(nn.Conv1d, 4, 4, 3),
    part(nn.LocalResponseNorm, 2),
    FLAT,
    part(L, 12, 2),
)
sequential(
    "weight norm", randn(4), lambda: weight_norm(L(4, 5)), R, lambda: weight_norm(L(5, 2), dim=None)
)
sequential(
    "weight norm of a convolution",
    randn(2, 6),
    lambda: weight_norm(nn.Conv1d(2, 3, 3)),
    R,
    FLAT,
    part(L, 12, 2),
)
sequential("spectral norm", randn(4), lambda: spectral_norm(L(4, 5)), R, part(L, 5, 2))
sequential("orthogonal weights", randn(4), lambda: orthogonal(L(4, 4)), R, part(L, 4, 2))


# Sharing
@of_parts("shared module", randn(4), a=part(L, 4, 4), h=part(L, 4, 2))
def _(m, x):
    return m.h(m.a(m.a(x).relu()).tanh() + m.a(x))


@of_parts(
    "functional weight",
    randn(4),
    w=part(torch.randn, 5, 4),
    v=part(torch.randn, 5),
    s=part(torch.randn, 3, 5),
)
def _(m, x):
    return (x @ m.w.T * m.v).relu() @ m.s.T - m.v[:3]


@of_parts("slices of a weight", randn(4), w=part(torch.randn, 9, 4), h=part(L, 3, 2))
def _(m, x):
    q, k, v = (x @ part.T for part in m.w.split(3))
    return m.h(q * k.sigmoid() + v + m.w[1:4, 2])


@of_parts("scaled weight", randn(4), w=part(torch.randn, 3, 4), g=part(torch.randn, 3, 1))
def _(m, x):
    return F.linear(x, m.w * m.g / 2).tanh() @ m.w[:, :2]


@of_parts(
    "low-rank update",
    randn(4),
    w=part(L, 4, 4),
    a=part(torch.randn, 2, 4),
    b=part(torch.randn, 4, 2),
    h=part(L, 4, 2),
)
def _(m, x):
    return m.h(F.linear(x, m.w.weight + m.b @ m.a, m.w.bias).relu())


@of_parts("vector of weights", randn(4), w=part(torch.randn, 4), b=part(torch.randn, ()))
def _(m, x):
    return (x @ m.w + m.b).sinh()


# Tokens, attention, recurrence
sequential("embedding", tokens(3), part(nn.Embedding, 7, 4, padding_idx=0), FLAT, part(L, 12, 2))
sequential("embedding bag", tokens(3), part(nn.EmbeddingBag, 7, 4, mode="mean"), part(L, 4, 2))


@of_parts("tied language model", tokens(4), e=part(nn.Embedding, 7, 3), a=part(L, 3, 3))
def _(m, x):
    return F.linear(m.a(m.e(x)).tanh(), m.e.weight).transpose(1, 2)


@of_parts(
    "language model with flattened rows",
    tokens(3),
    e=part(nn.Embedding, 7, 3),
    p=part(torch.randn, 3, 3),
    h=part(L, 3, 5),
)
def _(m, x):
    y = (m.e(x) + m.p).cumsum(1)
    return m.h(y.relu()).reshape(-1, 5)


@of_parts(
    "class token and positions",
    randn(3, 4),
    t=part(torch.randn, 1, 1, 4),
    p=part(torch.randn, 1, 4, 4),
    h=part(L, 4, 2),
)
def _(m, x):
    y = torch.cat([m.t.expand(len(x), -1, -1), x], 1) + m.p
    return m.h(y.softmax(1)[:, 0] * y.sum(1))


@of_parts(
    "multi-head attention, batch first",
    randn(3, 4),
    a=part(nn.MultiheadAttention, 4, 2, batch_first=True),
    h=part(L, 4, 2),
)
def _(m, x):
    return m.h(m.a(x, x, x)[0]).flatten(1)


@of_parts(
    "multi-head attention, time first",
    randn(3, 4),
    a=part(nn.MultiheadAttention, 4, 2),
    h=part(L, 4, 2),
)
def _(m, x):
    x = x.transpose(0, 1)
    return m.h(m.a(x, x[:2], x[:2], need_weights=False)[0]).transpose(0, 1).flatten(1)


@of_parts(
    "cross attention with other widths",
    randn(3, 4),
    a=part(nn.MultiheadAttention, 4, 2, kdim=3, vdim=2, batch_first=True, add_bias_kv=True),
    h=part(L, 4, 2),
)
def _(m, x):
    return m.h(m.a(x, x[..., :3], x[..., :2])[0]).flatten(1)


sequential(
    "transformer encoder layer",
    randn(3, 4),
    part(nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.1, batch_first=True),
    FLAT,
    part(L, 12, 2),
)
sequential(
    "transformer encoder layer, norm first",
    randn(3, 4),
    part(nn.TransformerEncoderLayer, 4, 2, 8, batch_first=True, norm_first=True, activation="gelu"),
    FLAT,
    part(L, 12, 2),
)


@of_parts(
    "transformer, time first", randn(3, 4), a=part(nn.Transformer, 4, 2, 1, 1, 8), h=part(L, 4, 2)
)
def _(m, x):
    x = x.transpose(0, 1)
    return m.h(m.a(x, x[:2])).transpose(0, 1).flatten(1)


def recurrent(
    name: str, layer: Callable[[], nn.Module], width: int, *, time_first: bool = False
) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.r(x.transpose(0, 1) if time_first else x)[0]
        return m.h(y[-1] if time_first else y[:, -1])

    of_parts(name, randn(3, 4), r=layer, h=part(L, width, 2))(forward)


recurrent("LSTM", part(nn.LSTM, 4, 3, batch_first=True), 3)
recurrent(
    "LSTM with projection, time first, two layers",
    part(nn.LSTM, 4, 3, 2, proj_size=2),
    2,
    time_first=True,
)
recurrent("GRU, both directions", part(nn.GRU, 4, 3, batch_first=True, bidirectional=True), 6)
recurrent("RNN", part(nn.RNN, 4, 3, batch_first=True, nonlinearity="relu"), 3)


@of_parts(
    "gated linear unit and einsum", randn(3, 4), w=part(torch.randn, 2, 4, 6), h=part(L, 3, 2)
)
def _(m, x):
    y = F.glu(torch.einsum("nti,hio->nhto", x, m.w), dim=-1)
    return m.h(y.amax(dim=(1, 2)))


@of_parts("mixture of experts", randn(4), g=part(L, 4, 2), a=part(L, 4, 3), b=part(L, 4, 3))
def _(m, x):
    gate = m.g(x).softmax(-1)
    choice = gate.argmax(-1)
    out = x.new_zeros(len(x), 3)
    for number, expert in enumerate((m.a, m.b)):
        chosen = (choice == number).nonzero()[:, 0]
        if len(chosen):
            out = out.index_add(0, chosen, gate[chosen, number, None] * expert(x[chosen]))
    return out


class Doubled(torch.autograd.Function):
    """A function of which nothing but its first derivative is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return 2 * x * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return 2 * g * w, (2 * g * x).sum(0)


@of_parts("custom autograd function", randn(4), a=part(L, 4, 3), w=part(torch.randn, 3))
def _(m, x):
    return Doubled.apply(m.a(x), m.w).sigmoid()


@of_parts("non-reentrant checkpoint", randn(4), a=part(L, 4, 4), h=part(L, 4, 2))
def _(m, x):
    return m.h(checkpoint(lambda v: m.a(v).tanh(), x, use_reentrant=False))


@of_parts("python control flow", randn(4), a=part(L, 4, 4), h=part(L, 4, 2))
def _(m, x):
    n, *_ = x.shape
    y = torch.stack([m.a(row) if row[0] > 0 else row for row in x])
    return m.h(y.reshape(n, -1))


@of_parts("integers that select weights", tokens(2), w=part(torch.randn, 7, 3), h=part(L, 3, 2))
def _(m, x):
    return m.h(m.w[x].prod(1) + m.w.gather(0, x[:, :1].expand(-1, 3)))


@of_parts("object with logits", randn(4), a=part(L, 4, 3))
def _(m, x):
    return SimpleNamespace(logits=m.a(x), cache=None)


@of_parts("writing in place into inputs and outputs", randn(4), a=part(L, 4, 3), b=part(L, 4, 3))
def _(m, x):
    x += 1
    out = torch.zeros(len(x), 2, 3, dtype=x.dtype)
    out[:, 0] = m.a(x)
    out[:, 1] = m.b(x).relu_()
    return out.flatten(1)
