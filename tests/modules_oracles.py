"""Slow and obviously right, for modules: dense second derivatives by autograd, and tiny networks.

Nothing here uses flattest. A `Case` is a network in float64 with inputs and targets; `NETWORKS`
makes them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


@dataclass
class Case:
    """A network with data and a loss of (outputs, targets)."""

    module: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    linear: tuple[str, ...] | None = None  # what must be proved, "*" for everything
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = dict(self.module.named_parameters())

    def outputs(self) -> Tensor:
        return self.module(self.inputs)

    def linearised(self) -> tuple[Tensor, Tensor]:
        """Return the outputs and the loss's gradient in them."""
        outputs = self.outputs()
        logits = outputs.detach().requires_grad_()
        (cotangent,) = torch.autograd.grad(self.loss(logits, self.targets), logits)
        return outputs, cotangent


@dataclass
class Dense:
    """Diagonals of the dense matrices, per parameter tensor."""

    hessian: dict[str, Tensor]
    gauss_newton: dict[str, Tensor]

    def residual(self, name: str) -> float:
        return (self.hessian[name] - self.gauss_newton[name]).sum().item()

    @property
    def size(self) -> float:
        """What rounding errors are relative to."""
        matrices = (*self.hessian.values(), *self.gauss_newton.values())
        return max(1e-300, *(diagonal.abs().sum().item() for diagonal in matrices))


@contextmanager
def plain_attention():
    with sdpa_kernel(SDPBackend.MATH):
        yield


def gradient(value: Tensor, tensor: Tensor) -> Tensor:
    """Differentiate with a graph; zeros where there is no dependence."""
    if not value.requires_grad:
        return torch.zeros_like(tensor)
    (found,) = torch.autograd.grad(
        value, tensor, create_graph=True, allow_unused=True, retain_graph=True
    )
    return torch.zeros_like(tensor) if found is None else found


def second_derivatives(function: Callable[[], Tensor], tensor: Tensor) -> Tensor:
    """Return the Hessian of fixed combinations of outputs in one tensor, entry by entry."""
    outputs = function()
    weights = torch.linspace(0.5, 2, outputs.numel(), dtype=outputs.dtype).reshape(outputs.shape)
    first = gradient((weights * outputs).sum(), tensor).flatten()
    return torch.stack([gradient(entry, tensor).flatten() for entry in first])


def dense_diagonals(case: Case) -> Dense:
    """Differentiate the loss twice in every parameter, and the outputs once, entry by entry."""
    with plain_attention():
        outputs = case.outputs()
        loss = case.loss(outputs, case.targets)
        logits = outputs.detach().requires_grad_()
        curvature = gradient(case.loss(logits, case.targets), logits).flatten()
        curvature = torch.stack([gradient(entry, logits).flatten() for entry in curvature])
        hessian, gauss_newton = {}, {}
        for name, tensor in case.tensors.items():
            first = gradient(loss, tensor).flatten()
            hessian[name] = torch.stack(
                [gradient(entry, tensor).flatten()[i] for i, entry in enumerate(first)]
            ).detach()
        names = list(case.tensors)
        rows: dict[str, list[Tensor]] = {name: [] for name in names}
        for entry in outputs.flatten():
            found = torch.autograd.grad(
                entry, list(case.tensors.values()), retain_graph=True, allow_unused=True
            )
            for name, row in zip(names, found, strict=True):
                tensor = case.tensors[name]
                rows[name].append((torch.zeros_like(tensor) if row is None else row).flatten())
        for name in names:
            J = torch.stack(rows[name])
            gauss_newton[name] = (J * (curvature.detach() @ J)).sum(dim=0)
    return Dense(hessian, gauss_newton)


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


def tokens_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


class Residual(nn.Module):
    """x + body(x), added in place where asked."""

    def __init__(self, *body: nn.Module, in_place: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.in_place:
            out += x
            return out
        return x + out


class Gated(nn.Module):
    """The feed-forward part of Llama: down(silu(gate x) * up x)."""

    def __init__(self, d: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(d, hidden, bias), nn.Linear(d, hidden, bias)
        self.down = nn.Linear(hidden, d, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Lambda(nn.Module):
    """A function of the module that holds its parameters."""

    def __init__(self, function: Callable, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class Attention(nn.Module):
    """Causal attention with fused projections, written out by hand."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(d, 3 * d), nn.Linear(d, d), heads

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        parts = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, t, d))


class LanguageModel(nn.Module):
    """A small GPT: token and position embeddings, pre-norm blocks, an output layer."""

    def __init__(self, vocabulary: int, d: int, length: int, layers: int, tied: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, d)
        self.positions = nn.Parameter(torch.randn(length, d) / 3)
        self.blocks = nn.Sequential(
            *(
                part
                for _ in range(layers)
                for part in (
                    Residual(nn.LayerNorm(d), Attention(d, 2)),
                    Residual(nn.LayerNorm(d), nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d)),
                )
            )
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, vocabulary, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.tokens(x) + self.positions[: x.shape[1]])))


def batch_norm(channels: int, dimension: int = 2) -> nn.Module:
    """A batch norm whose buffers and gains have been trained a little."""
    norm = (nn.BatchNorm1d, nn.BatchNorm2d)[dimension - 1](channels)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def mlp(activation: Callable[[], nn.Module], *widths: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for d, out in pairwise(widths):
        parts += [nn.Linear(d, out), activation()]
    return nn.Sequential(*parts[:-1])


def convolutional(activation: Callable[[], nn.Module], *extra: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        activation(),
        *extra,
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 2),
    )


def recurrent(kind: type[nn.Module], **options: object) -> nn.Module:
    return Lambda(
        lambda self, x: self.head(self.layer(x)[0][:, -1]),
        layer=kind(2, 2, batch_first=True, **options),
        head=nn.Linear(2, 2),
    )


def cells(kind: type[nn.Module]) -> nn.Module:
    """A cell applied to each of three steps."""

    def run(self: nn.Module, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)

    return Lambda(run, cell=kind(2, 2), head=nn.Linear(2, 2))


def shared(activation: Callable[[], nn.Module]) -> nn.Module:
    layer = nn.Linear(3, 3)
    return nn.Sequential(layer, activation(), layer, activation(), nn.Linear(3, 2))


def residual_net(in_place: bool) -> nn.Module:
    def block() -> nn.Module:
        return Residual(
            nn.Conv2d(2, 2, 3, padding=1, bias=False),
            batch_norm(2),
            nn.ReLU(inplace=in_place),
            nn.Conv2d(2, 2, 3, padding=1, bias=False),
            batch_norm(2),
            in_place=in_place,
        )

    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, bias=False),
        batch_norm(2),
        nn.ReLU(inplace=in_place),
        block(),
        nn.ReLU(inplace=in_place),
        block(),
        nn.ReLU(inplace=in_place),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2, 3),
    )


def transformer(**options: object) -> nn.Module:
    return Lambda(
        lambda self, x: self.head(self.layer(x)),
        layer=nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, **options),
        head=nn.Linear(4, 2),
    )


def weight_normed() -> nn.Module:
    wrap = nn.utils.parametrizations.weight_norm
    return nn.Sequential(wrap(nn.Linear(3, 3)), nn.ReLU(), wrap(nn.Linear(3, 2)))


def spectrally_normed() -> nn.Module:
    wrap = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(wrap(nn.Linear(3, 3)), nn.ReLU(), nn.Linear(3, 2))


VECTOR, IMAGE, SEQUENCE, TOKENS = (3,), (1, 4, 4), (3, 4), "tokens"

# Name: (network, the inputs' shape, names that must be proved or "*" for all).
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...] | str, tuple[str, ...]]] = {
    "linear": (lambda: nn.Linear(3, 2), VECTOR, ("*",)),
    "deep linear": (lambda: mlp(nn.Identity, 3, 4, 2), VECTOR, ("*",)),
    "mlp relu": (lambda: mlp(nn.ReLU, 3, 4, 4, 2), VECTOR, ("*",)),
    "mlp leaky": (lambda: mlp(nn.LeakyReLU, 3, 4, 2), VECTOR, ("*",)),
    "mlp gelu": (lambda: mlp(nn.GELU, 3, 4, 4, 2), VECTOR, ("4.weight", "4.bias")),
    "deep mlp gelu": (lambda: mlp(nn.GELU, 3, 4, 4, 4, 4, 2), VECTOR, ("8.weight", "8.bias")),
    "mlp tanh": (lambda: mlp(nn.Tanh, 3, 4, 2), VECTOR, ("2.weight", "2.bias")),
    "mlp silu": (lambda: mlp(nn.SiLU, 3, 4, 2), VECTOR, ("2.weight",)),
    "mlp elu": (lambda: mlp(nn.ELU, 3, 4, 2), VECTOR, ("2.weight",)),
    "mlp hardswish": (lambda: mlp(nn.Hardswish, 3, 4, 2), VECTOR, ("2.weight",)),
    "mlp softplus": (lambda: mlp(nn.Softplus, 3, 4, 2), VECTOR, ("2.weight",)),
    "mlp prelu": (lambda: mlp(lambda: nn.PReLU(4), 3, 4, 4, 2), VECTOR, ("*",)),
    "prelu then gelu": (
        lambda: nn.Sequential(*mlp(lambda: nn.PReLU(4), 3, 4, 4), nn.GELU(), nn.Linear(4, 2)),
        VECTOR,
        ("4.weight", "4.bias"),
    ),
    "checkpointed": (
        lambda: Lambda(
            lambda self, x: self.last(checkpoint(self.first, x, use_reentrant=False)),
            first=mlp(nn.Tanh, 3, 4, 4, 3),
            last=nn.Linear(3, 2),
        ),
        VECTOR,
        ("first.4.weight", "last.weight"),
    ),
    "one prelu": (
        lambda: nn.Sequential(nn.Linear(3, 3), p := nn.PReLU(), nn.Linear(3, 3), p),
        VECTOR,
        ("0.weight", "2.weight"),
    ),
    "gelu then relu": (
        lambda: nn.Sequential(*mlp(nn.GELU, 3, 3, 3), nn.ReLU(), *mlp(nn.ReLU, 3, 3, 2)),
        VECTOR,
        ("2.weight", "2.bias", "4.weight", "6.bias"),
    ),
    "no bias": (
        lambda: nn.Sequential(nn.Linear(3, 4, False), nn.Tanh(), nn.Linear(4, 2, False)),
        VECTOR,
        ("2.weight",),
    ),
    "residual mlp": (
        lambda: nn.Sequential(
            Residual(nn.Linear(3, 4), batch_norm(4, 1), nn.ReLU(), nn.Linear(4, 3)),
            Residual(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3)),
            nn.Linear(3, 2),
        ),
        VECTOR,
        ("*",),
    ),
    "residual gelu": (
        lambda: nn.Sequential(
            Residual(nn.Linear(3, 4), batch_norm(4, 1), nn.GELU(), nn.Linear(4, 3)),
            Residual(nn.LayerNorm(3), nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 3)),
        ),
        VECTOR,
        ("1.body.3.weight", "1.body.3.bias"),
    ),
    "batch norm gelu": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), batch_norm(4, 1), nn.Linear(4, 2)),
        VECTOR,
        ("2.weight", "2.bias", "3.weight"),
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)),
        VECTOR,
        ("1.weight", "1.bias", "3.weight"),
    ),
    "layer norm gelu": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)),
        VECTOR,
        ("3.weight",),
    ),
    "rms norm": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4), nn.Tanh(), nn.Linear(4, 2)),
        VECTOR,
        ("3.weight",),
    ),
    "residual network": (lambda: residual_net(False), IMAGE, ("*",)),
    "residual network in place": (lambda: residual_net(True), IMAGE, ("*",)),
    "cnn relu": (lambda: convolutional(nn.ReLU), IMAGE, ("*",)),
    "cnn gelu": (lambda: convolutional(nn.GELU), IMAGE, ("4.weight", "4.bias")),
    "channels scaled": (
        lambda: Lambda(
            lambda self, x: (
                (F.gelu(self.conv(x)) * self.scale.view(1, -1, 1, 1) + self.shift[:, None, None])
                .tanh()
                .flatten(1)
            ),
            conv=nn.Conv2d(1, 2, 2),
            scale=nn.Parameter(torch.randn(2)),
            shift=nn.Parameter(torch.randn(2)),
        ),
        IMAGE,
        (),
    ),
    "cnn of few places": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(2, 2, (3, 2), padding=1, stride=2, dilation=(1, 2)),
            nn.Tanh(),
            nn.Conv2d(2, 2, 2, bias=False),
            nn.SiLU(),
            nn.Flatten(),
        ),
        IMAGE,
        (),
    ),
    "cnn batch norm gelu": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 2), batch_norm(2), nn.GELU(), nn.Flatten(1)),
        IMAGE,
        (),
    ),
    "cnn group norm": (
        lambda: convolutional(nn.Tanh, nn.GroupNorm(2, 2)),
        IMAGE,
        ("2.weight", "2.bias", "5.weight"),
    ),
    "cnn instance norm": (
        lambda: convolutional(nn.ReLU, nn.InstanceNorm2d(2, affine=True)),
        IMAGE,
        ("2.weight", "2.bias", "5.weight"),
    ),
    "grouped strided dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 2, dilation=2),
            nn.SiLU(),
            nn.Conv2d(4, 4, 2, groups=2, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, 2),
        ),
        IMAGE,
        ("5.weight",),
    ),
    "transposed": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.ConvTranspose2d(2, 2, 2, stride=2, groups=2, output_padding=1),
            nn.GELU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        ),
        IMAGE,
        (),
    ),
    "up and down": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 2, stride=2),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.ZeroPad2d(1),
            nn.Conv2d(2, 1, 3),
            nn.ReLU6(),
            nn.PixelUnshuffle(2),
            nn.Flatten(),
        ),
        IMAGE,
        ("*",),
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 3, 2), nn.GELU(), nn.Conv1d(3, 2, 2, groups=1), nn.Flatten()
        ),
        SEQUENCE,
        ("2.weight", "2.bias"),
    ),
    "three dimensions": (
        lambda: nn.Sequential(nn.Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 2, 2)), nn.Tanh()),
        IMAGE,
        (),
    ),
    "gated": (lambda: Gated(3, 4), VECTOR, ("up.weight", "down.weight")),
    "gated on tokens": (lambda: Gated(4, 3, True), SEQUENCE, ("up.weight", "up.bias", "down.bias")),
    "mlp on tokens": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.GELU(), nn.Linear(3, 2)),
        SEQUENCE,
        ("2.weight",),
    ),
    "tokens mixed": (
        lambda: Lambda(
            lambda self, x: self.last(self.mix(F.gelu(self.first(x)).mT).mT.tanh().flatten(1)),
            first=nn.Linear(4, 5),
            mix=nn.Linear(3, 2),
            last=nn.Linear(10, 2),
        ),
        SEQUENCE,
        ("last.weight",),
    ),
    "time major": (
        lambda: Lambda(
            lambda self, x: self.last(self.first(x.transpose(0, 1)).tanh()).mean(0).tanh(),
            first=nn.Linear(4, 3),
            last=nn.Linear(3, 2),
        ),
        SEQUENCE,
        (),
    ),
    "attention": (
        lambda: nn.Sequential(Attention(4, 2), nn.Linear(4, 2)),
        SEQUENCE,
        ("0.out.weight", "1.weight"),
    ),
    "attention module": (
        lambda: Lambda(
            lambda self, x: self.layer(x, x, x, need_weights=False)[0],
            layer=nn.MultiheadAttention(4, 2, batch_first=True),
        ),
        SEQUENCE,
        ("layer.out_proj.weight", "layer.out_proj.bias"),
    ),
    "separate projections": (
        lambda: Lambda(
            lambda self, x: F.softmax(self.q(x) @ self.k(x).mT, -1) @ self.v(x),
            q=nn.Linear(4, 3),
            k=nn.Linear(4, 3),
            v=nn.Linear(4, 2),
        ),
        SEQUENCE,
        ("v.weight", "v.bias"),
    ),
    "transformer": (lambda: transformer(batch_first=True), SEQUENCE, ("head.weight", "head.bias")),
    "transformer gelu first": (
        lambda: transformer(batch_first=True, activation="gelu", norm_first=True),
        SEQUENCE,
        ("layer.linear2.weight", "head.weight"),
    ),
    "language model": (
        lambda: LanguageModel(5, 4, 3, 1, tied=False),
        TOKENS,
        ("head.weight", "norm.weight", "norm.bias"),
    ),
    "tied language model": (lambda: LanguageModel(5, 4, 3, 1, tied=True), TOKENS, ("norm.weight",)),
    "embedding bag": (
        lambda: Lambda(
            lambda self, x: self.head(self.bag(x)), bag=nn.EmbeddingBag(5, 3), head=nn.Linear(3, 5)
        ),
        TOKENS,
        ("*",),
    ),
    "padded embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 4, padding_idx=1), nn.GELU(), nn.Linear(4, 5)),
        TOKENS,
        ("2.weight",),
    ),
    "lstm": (lambda: recurrent(nn.LSTM), (3, 2), ("head.weight",)),
    "gru": (lambda: recurrent(nn.GRU), (3, 2), ("head.weight",)),
    "rnn relu": (
        lambda: recurrent(nn.RNN, nonlinearity="relu"),
        (3, 2),
        ("layer.weight_ih_l0", "layer.bias_hh_l0", "head.weight"),
    ),
    "lstm cells": (lambda: cells(nn.LSTMCell), (3, 2), ("head.weight",)),
    "gru cells": (lambda: cells(nn.GRUCell), (3, 2), ("head.weight",)),
    "shared relu": (lambda: shared(nn.ReLU), VECTOR, ("4.weight",)),
    "shared tanh": (lambda: shared(nn.Tanh), VECTOR, ("4.weight",)),
    "parallel use": (
        lambda: Lambda(
            lambda self, x: self.w(x).relu() + self.w(x.flip(1)).relu(), w=nn.Linear(3, 2)
        ),
        VECTOR,
        ("*",),
    ),
    "weight norm": (
        weight_normed,
        VECTOR,
        ("0.parametrizations.weight.original0", "2.parametrizations.weight.original0", "0.bias"),
    ),
    "spectral norm": (spectrally_normed, VECTOR, ("0.bias", "2.weight")),
    "unused": (
        lambda: Lambda(lambda self, x: self.w(x).tanh(), w=nn.Linear(3, 2), other=nn.Linear(2, 2)),
        VECTOR,
        ("other.weight", "other.bias"),
    ),
    "positions looked up": (
        lambda: Lambda(
            lambda self, x: self.head(
                F.gelu(self.tokens(x) + self.positions(torch.arange(x.shape[1])))
            ),
            tokens=nn.Embedding(5, 4),
            positions=nn.Embedding(4, 4),
            head=nn.Linear(4, 5),
        ),
        TOKENS,
        ("head.weight",),
    ),
    "sliced weight": (
        lambda: Lambda(
            lambda self, x: (x @ self.w[:3] + self.w[3]).tanh(), w=nn.Parameter(torch.randn(4, 2))
        ),
        VECTOR,
        (),
    ),
    "scales": (
        lambda: Lambda(
            lambda self, x: (self.scale * (x @ self.w) + self.shift).sin(),
            w=nn.Parameter(torch.randn(3, 2)),
            scale=nn.Parameter(torch.randn(2)),
            shift=nn.Parameter(torch.randn(1, 2)),
        ),
        VECTOR,
        (),
    ),
    "bilinear": (
        lambda: Lambda(
            lambda self, x: self.b(x, self.w(x)), b=nn.Bilinear(3, 2, 2), w=nn.Linear(3, 2)
        ),
        VECTOR,
        ("*",),
    ),
    "einsum": (
        lambda: Lambda(
            lambda self, x: torch.einsum("ntd,de->nte", x, self.w).tanh() @ self.v,
            w=nn.Parameter(torch.randn(4, 3)),
            v=nn.Parameter(torch.randn(3, 2)),
        ),
        SEQUENCE,
        ("v",),
    ),
    "written in place": (
        lambda: Lambda(
            lambda self, x: _halves(self.first(x)) @ self.last,
            first=nn.Linear(3, 4),
            last=nn.Parameter(torch.randn(4, 2)),
        ),
        VECTOR,
        ("last",),
    ),
}


def _halves(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2].exp_()
    return x


def make_case(name: str, *, seed: int = 0, n: int = 3) -> Case:
    """Make a network by name, in float64 and evaluation mode, with data that it does not fit."""
    make, shape, linear = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make().double().eval()
        if shape == TOKENS:
            inputs = torch.randint(0, 5, (n, 3))
        else:
            inputs = torch.randn(n, *shape, dtype=torch.float64)
        with torch.no_grad():
            outputs = module(inputs)
        if shape == TOKENS:
            targets, loss = torch.randint(0, 5, outputs.shape[:-1]), tokens_cross_entropy
        else:
            targets, loss = torch.randn_like(outputs), squared
    names = tuple(dict(module.named_parameters())) if linear == ("*",) else linear
    return Case(module, inputs, targets, loss, names)
