"""The networks of the study: small, of the kinds that people use, and with symmetries.

Every builder takes its size and draws the start from PyTorch's own initialisation, under a seed
that leaves PyTorch's random state as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from flattest.uses.digits import N_CLASSES


def mlp(width: int = 64, depth: int = 3) -> nn.Module:
    """Return a fully connected ReLU network on images.

    Parameters
    ----------
    width : int
        The units of each hidden layer.
    depth : int
        The number of hidden layers.

    Returns
    -------
    torch.nn.Module
        The network.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before in [64, *[width] * (depth - 1)]:
        layers += [nn.Linear(before, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, N_CLASSES))


def cnn(width: int = 8) -> nn.Module:
    """Return three convolutions with batch normalisation, and a linear layer.

    Parameters
    ----------
    width : int
        The channels of the first; the others have twice as many.

    Returns
    -------
    torch.nn.Module
        The network.
    """
    return nn.Sequential(
        *_convolution(1, width, 3),
        *_convolution(width, 2 * width, 3),
        nn.MaxPool2d(2),
        *_convolution(2 * width, 2 * width, 3),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, N_CLASSES),
    )


def depthwise(width: int = 12) -> nn.Module:
    """Return two depthwise separable blocks with batch normalisation, as phones' networks have.

    Parameters
    ----------
    width : int
        The channels of the first block; the last one has twice as many.

    Returns
    -------
    torch.nn.Module
        The network.
    """
    return nn.Sequential(
        *_convolution(1, width, 3),
        *_convolution(width, width, 3, groups=width),
        *_convolution(width, 2 * width, 1),
        nn.MaxPool2d(2),
        *_convolution(2 * width, 2 * width, 3, groups=2 * width),
        *_convolution(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, N_CLASSES),
    )


def _convolution(before: int, after: int, size: int, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, size, padding=size // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


class Transformer(nn.Module):
    """A transformer encoder that reads the eight rows of an image as tokens.

    Layer normalisation comes first in each block, and the feed-forward part has ReLUs.

    Parameters
    ----------
    width : int
        The dimension of tokens, a multiple of `heads`.
    depth : int
        The number of blocks.
    heads : int
        The heads of each block's attention.
    """

    def __init__(self, width: int = 16, depth: int = 2, heads: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Linear(8, width)
        self.positions = nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, N_CLASSES)

    def forward(self, X: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n c"]:
        """Return the logits.

        Parameters
        ----------
        X : Tensor of shape (n, 1, 8, 8)
            Images.

        Returns
        -------
        Tensor of shape (n, 10)
            The logits.
        """
        tokens = self.embedding(X[:, 0]) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens).mean(1))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        read = self.norm(tokens)
        query, key, value = (
            layer(read).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed)
        return tokens + self.down(torch.relu(self.up(self.feed_norm(tokens))))


@dataclass(frozen=True)
class Kind:
    """A network with the options that it is trained with wherever its kind is all that matters.

    Parameters
    ----------
    title : str
        What it is called in texts.
    build : callable
        Makes it.
    learning_rate : float
        Of Adam.
    epochs : int
        How often each sample is seen.
    """

    title: str
    build: Callable[[], nn.Module]
    learning_rate: float
    epochs: int


KINDS = {
    "mlp": Kind("MLP", mlp, 3e-3, 40),
    "cnn": Kind("CNN with batch norm", cnn, 1e-2, 8),
    "depthwise": Kind("depthwise CNN", depthwise, 1e-2, 10),
}
"""The networks of the parts on noise and on rounding, by name."""


def initialised(build: Callable[[], nn.Module], random_state: int) -> nn.Module:
    """Build a network under a seed, and leave PyTorch's random state as it was.

    Parameters
    ----------
    build : callable
        Makes the network.
    random_state : int
        The seed.

    Returns
    -------
    torch.nn.Module
        The network, in float32 and training mode.

    Examples
    --------
    >>> import torch
    >>> from flattest.uses.networks import initialised, mlp
    >>> one, other = (initialised(mlp, 0)[1].weight for _ in range(2))
    >>> torch.equal(one, other)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        return build().float()
