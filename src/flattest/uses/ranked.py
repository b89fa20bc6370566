"""Networks to be ranked: one network of a family, trained at a point of a trajectory and measured.

What the parts on fully connected networks and on transformers share before there are records;
`ranking` has what they share afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from flattest.uses.digits import split
from flattest.uses.fitting import Recipe, fit
from flattest.uses.measures import measures
from flattest.uses.networks import initialised
from flattest.uses.trajectories import point


@dataclass(frozen=True)
class Settings:
    """One network on a trajectory; the seed says on which.

    Parameters
    ----------
    position : int
        How many hyper-parameters have been turned since the start.
    epochs : int
        How often each sample is seen at most.
    enough : float
        The training loss at which training stops.
    """

    position: int = 0
    epochs: int = 200
    enough: float = 0.02


def trained_and_measured(
    factors: Mapping[str, tuple[Any, Any]],
    settings: Settings,
    seed: int,
    make: Callable[[dict[str, Any]], nn.Module],
    *,
    groups: bool,
) -> dict[str, Any]:
    """Train a network and take all measures.

    Parameters
    ----------
    factors : mapping of str to (low, high)
        The levels of each hyper-parameter.
    settings : Settings
        Where on the trajectory.
    seed : int
        The trajectory; also the seed of data, start and minibatches.
    make : callable
        Makes a network at given levels.
    groups : bool
        Whether the symmetries have groups beyond scales.

    Returns
    -------
    dict
        The hyper-parameters, the one that was turned last, the measures and the gap.
    """
    levels, turned = point(factors, settings.position, seed)
    data = split(levels["n_samples"], seed, label_noise=levels["label_noise"])
    recipe = Recipe(
        learning_rate=levels["learning_rate"],
        epochs=settings.epochs,
        batch_size=levels["batch_size"],
        weight_decay=levels["weight_decay"],
        moved=levels.get("augmentation", False),
        enough=settings.enough,
    )
    net = fit(initialised(lambda: make(levels), seed), data, recipe, seed)
    found = measures(net, data, label_noise=levels["label_noise"], groups=groups, random_state=seed)
    return {**levels, "turned": turned, **found}
