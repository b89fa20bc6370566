"""Small networks of several kinds trained on the handwritten digits of scikit-learn."""

from __future__ import annotations

import functools

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


class Residual(nn.Module):
    """Convolutions with batch normalisation around a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.one, self.norm_one = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.two, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.two(torch.relu(self.norm_one(self.one(x)))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """A transformer's block on the rows of an image, with a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 8), nn.Linear(8, 10)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x[:, 0])
        h = self.norms[0](x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        x = x + self.down(torch.relu(self.up(self.norms[1](x))))
        return self.head(x.mean(1))


def low_rank() -> nn.Module:
    first = (nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4), nn.Linear(4, 16))
    return nn.Sequential(*first, nn.ReLU(), nn.Linear(16, 10))


def mlp() -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.LeakyReLU())
    return nn.Sequential(*layers, nn.Linear(16, 10))


def lenet() -> nn.Module:
    convolutions = (nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    more = (nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    return nn.Sequential(*convolutions, *more, nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))


def depthwise() -> nn.Module:
    first = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=8))
    last = (nn.Conv2d(8, 12, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(*first, nn.ReLU(), *last, nn.Linear(48, 10))


def partly_frozen() -> nn.Module:
    layers = (nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 24), nn.GELU())
    return nn.Sequential(*layers, nn.Linear(24, 10))


KINDS = {
    "mlp": mlp,
    "lenet": lenet,
    "residual": Residual,
    "depthwise": depthwise,
    "partly frozen": partly_frozen,
}
GROUPED = {"attention": Attention, "low rank": low_rank}
"""Networks with linear groups."""


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    """Return images of shape (n, 1, 8, 8) in float64, and their classes."""
    X, y = load_digits(return_X_y=True)
    return torch.from_numpy(X).reshape(-1, 1, 8, 8) / 16, torch.from_numpy(y)


@functools.cache
def trained(kind: str, seed: int, steps: int = 60) -> nn.Module:
    """Return a network after some steps of Adam, in float64 and evaluation mode."""
    X, y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = (KINDS | GROUPED)[kind]().double()
        optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(steps):
            some = torch.randint(0, len(X), (64,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(X[some]), y[some]).backward()
            optimiser.step()
    for parameter in net.parameters():
        parameter.grad = None
    return net.eval()
