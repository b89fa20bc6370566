"""Training, as everybody trains: minibatches and Adam with decoupled weight decay.

The minibatches and the moves of images come from a generator of their own. What comes back is in
float64 and evaluation mode, ready to be measured.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from flattest.uses.digits import Split, shifted, split
from flattest.uses.networks import KINDS, initialised


@dataclass(frozen=True)
class Recipe:
    """How a network is trained by AdamW.

    Parameters
    ----------
    learning_rate : float
        The step.
    epochs : int
        How often each sample is seen at most.
    batch_size : int
        Samples of a step.
    weight_decay : float
        The share of the weights that a step of size 1 takes off.
    moved : bool
        Whether images are moved by up to a pixel at each step.
    falling : bool
        Whether the step falls to zero along a cosine over all epochs.
    enough : float
        The training loss, without moves, at which to stop.
    """

    learning_rate: float = 1e-2
    epochs: int = 20
    batch_size: int = 64
    weight_decay: float = 0.0
    moved: bool = False
    falling: bool = False
    enough: float = 0.0


def fit(net: nn.Module, data: Split, recipe: Recipe, random_state: int) -> nn.Module:
    """Train a network on cross-entropy, and return it in float64 and evaluation mode.

    Parameters
    ----------
    net : torch.nn.Module
        The network, which is changed.
    data : Split
        The samples.
    recipe : Recipe
        How.
    random_state : int
        The seed of minibatches and moves.

    Returns
    -------
    torch.nn.Module
        The same network.

    Examples
    --------
    >>> from flattest.uses.digits import split
    >>> from flattest.uses.fitting import Recipe, fit, scores
    >>> from flattest.uses.networks import initialised, mlp
    >>> data = split(300, 0)
    >>> net = fit(initialised(mlp, 0), data, Recipe(learning_rate=3e-3, epochs=10), 0)
    >>> scores(net, data.X, data.y).error < 0.1 < scores(net, data.X_test, data.y_test).loss
    True
    """
    generator = torch.Generator().manual_seed(random_state)
    X, y = data.X.float(), data.y
    steps_per_epoch = -(-len(X) // recipe.batch_size)
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, recipe.epochs * steps_per_epoch
    )
    for _ in range(recipe.epochs):
        net.train()
        for chosen in _batches(len(X), recipe.batch_size, generator):
            inputs = shifted(X[chosen], generator) if recipe.moved else X[chosen]
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(net(inputs), y[chosen]).backward()
            optimiser.step()
            if recipe.falling:
                schedule.step()
        if recipe.enough and scores(net.eval(), X, y).loss <= recipe.enough:
            break
    for parameter in net.parameters():
        parameter.grad = None
    return net.double().eval()


def _batches(n: int, size: int, generator: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    yield from torch.randperm(n, generator=generator).split(size)


class Scores(NamedTuple):
    """What a network makes of samples.

    Parameters
    ----------
    loss : float
        The mean cross-entropy.
    error : float
        The share of samples whose class is not predicted.
    """

    loss: float
    error: float


@torch.no_grad()
def scores(net: nn.Module, X: Float[Tensor, "n 1 8 8"], y: Int[Tensor, " n"]) -> Scores:
    """Score a network in evaluation mode.

    Parameters
    ----------
    net : torch.nn.Module
        The network.
    X, y : Tensor
        The samples, in the network's dtype.

    Returns
    -------
    Scores
        Loss and error.
    """
    logits = net(X)
    return Scores(float(F.cross_entropy(logits, y)), float((logits.argmax(1) != y).double().mean()))


class Trained(NamedTuple):
    """A network and what it was trained on.

    Parameters
    ----------
    net : torch.nn.Module
        The network, which nobody is to change.
    data : Split
        The samples.
    """

    net: nn.Module
    data: Split


@functools.lru_cache(maxsize=32)
def trained(kind: str, random_state: int, n_samples: int = 1000) -> Trained:
    """Train a network of a kind; kept, since many trials look at the same network.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    random_state : int
        The seed of data, start and minibatches.
    n_samples : int
        Samples to train on.

    Returns
    -------
    Trained
        Network and samples.

    Examples
    --------
    >>> from flattest.uses.fitting import scores, trained
    >>> net, data = trained("mlp", 0, n_samples=300)
    >>> scores(net, data.X, data.y).error < 0.1
    True
    """
    chosen = KINDS[kind]
    data = split(n_samples, random_state)
    recipe = Recipe(learning_rate=chosen.learning_rate, epochs=chosen.epochs, falling=True)
    return Trained(fit(initialised(chosen.build, random_state), data, recipe, random_state), data)
