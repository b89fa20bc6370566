"""The networks on which traces are measured, with their data, drawn by seeds.

Weights are random but for those of the small GPT, of which the Hessian's trace would be about 0: it
is trained on a Markov chain, once per process.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Problem(NamedTuple):
    """A network, its data, and the loss of its outputs."""

    model: nn.Module
    X: Tensor
    y: Tensor
    loss: nn.Module

    def value(self) -> Tensor:
        return self.loss(self.model(self.X), self.y)


class Block(nn.Module):
    """Two convolutions around which the input goes, as ResNets are written."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class ResNet20(nn.Module):
    """He et al. (2016), for images of 32 x 32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        blocks, channels = [], 16
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            for number in range(3):
                blocks.append(Block(channels, width, stride if number == 0 else 1))
                channels = width
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class TransformerBlock(nn.Module):
    """Causal attention and a GELU layer, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, width = x.shape
        shape = (n, t, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.ln1(x)).reshape(shape).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(n, t, width))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class GPT(nn.Module):
    """A language model as GPT-2, its logits with classes along axis 1, as PyTorch's loss takes."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, length: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads) for _ in range(layers)))
        self.ln, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        return self.head(self.ln(self.blocks(x))).mT


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _classes(model: nn.Module, X: Tensor, classes: int) -> Problem:
    y = torch.randint(0, classes, (len(X),), generator=_generator())
    return Problem(model.eval(), X, y, nn.CrossEntropyLoss())


def two_layer() -> Problem:
    model = nn.Sequential(nn.Linear(100, 128, bias=False), nn.ReLU(), nn.Linear(128, 1, bias=False))
    X = torch.randn(512, 100, generator=_generator())
    return Problem(model.eval(), X, X[:, :1].abs(), nn.MSELoss())


def mlp() -> Problem:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    return _classes(model, torch.randn(256, 64, generator=_generator()), 10)


def gelu_mlp() -> Problem:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 10)
    )
    return _classes(model, torch.randn(64, 64, generator=_generator()), 10)


def lenet() -> Problem:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    return _classes(model, torch.randn(64, 1, 28, 28, generator=_generator()), 10)


def resnet20(classes: int = 10) -> Problem:
    return _classes(ResNet20(classes), torch.randn(64, 3, 32, 32, generator=_generator()), classes)


_VOCABULARY, _LENGTH, _STEPS = 256, 64, 300


def sequences(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw sequences of a Markov chain in which each token has four successors, and targets."""
    chances = torch.tensor([0.5, 0.25, 0.15, 0.1])
    following = torch.randint(0, _VOCABULARY, (_VOCABULARY, len(chances)), generator=_generator())
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(0, _VOCABULARY, (n,), generator=generator)]
    for _ in range(_LENGTH):
        which = torch.multinomial(chances, n, replacement=True, generator=generator)
        tokens.append(following[tokens[-1], which])
    X = torch.stack(tokens, dim=1)
    return X[:, :-1], X[:, 1:]


@functools.cache
def _trained() -> dict[str, Tensor]:
    """Train the small GPT on sixteen new sequences at each step."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(_VOCABULARY, 128, 6, 4, _LENGTH)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3)
    warmup = torch.optim.lr_scheduler.LinearLR(optimiser, 0.05, total_iters=20)
    for step in range(_STEPS):
        X, y = sequences(16, seed=1 + step)
        optimiser.zero_grad()
        F.cross_entropy(model(X), y).backward()
        optimiser.step()
        warmup.step()
    return model.state_dict()


def fresh_gpt() -> Problem:
    """Make the small GPT with random weights and targets."""
    X = torch.randint(0, 256, (4, 65), generator=_generator())
    model = GPT(_VOCABULARY, 128, 6, 4, _LENGTH)
    return Problem(model.eval(), X[:, :-1], X[:, 1:], nn.CrossEntropyLoss())


def small_gpt() -> Problem:
    """Make the trained one, with sequences that it has not seen."""
    model = GPT(_VOCABULARY, 128, 6, 4, _LENGTH)
    model.load_state_dict(_trained())
    return Problem(model.eval(), *sequences(4, seed=0), nn.CrossEntropyLoss())


def gpt2() -> Problem:
    X = torch.randint(0, 50257, (4, 65), generator=_generator())
    return Problem(GPT(50257, 768, 12, 12, 1024).eval(), X[:, :-1], X[:, 1:], nn.CrossEntropyLoss())


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "two-layer net": two_layer,
    "MLP": mlp,
    "LeNet": lenet,
    "GELU MLP": gelu_mlp,
    "small GPT": small_gpt,
    "ResNet-20": resnet20,
}


def make(name: str) -> Problem:
    """Make a problem, the same one each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PROBLEMS[name]()
