"""Ranking of small transformers that read the rows of digits as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from flattest.study import Claim, Design
from flattest.uses import ranking
from flattest.uses.digits import split
from flattest.uses.fitting import Recipe, fit
from flattest.uses.measures import measures
from flattest.uses.networks import Transformer, initialised
from flattest.uses.ranking_mlps import SOURCE
from flattest.uses.trajectories import point

FACTORS: dict[str, tuple[Any, Any]] = {
    "width": (12, 24),
    "depth": (1, 2),
    "heads": (1, 2),
    "learning_rate": (3e-3, 1e-2),
    "batch_size": (32, 128),
    "weight_decay": (0.0, 0.3),
    "label_noise": (0.0, 0.1),
    "n_samples": (200, 600),
}
"""The low and the high level of each hyper-parameter."""


@dataclass(frozen=True)
class Settings:
    """One transformer on a trajectory; the seed says on which.

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
    epochs: int = 150
    enough: float = 0.02


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a transformer and take all measures.

    Parameters
    ----------
    settings : Settings
        Where on the trajectory.
    seed : int
        The trajectory; also the seed of data, start and minibatches.

    Returns
    -------
    dict
        The hyper-parameters, the one that was turned last, the measures and the gap.
    """
    levels, turned = point(FACTORS, settings.position, seed)
    data = split(levels["n_samples"], seed, label_noise=levels["label_noise"])
    recipe = Recipe(
        learning_rate=levels["learning_rate"],
        epochs=settings.epochs,
        batch_size=levels["batch_size"],
        weight_decay=levels["weight_decay"],
        enough=settings.enough,
    )
    sizes = (levels["width"], levels["depth"], levels["heads"])
    net = fit(initialised(lambda: Transformer(*sizes), seed), data, recipe, seed)
    found = measures(net, data, label_noise=levels["label_noise"], groups=True, random_state=seed)
    return {**levels, "turned": turned, **found}


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the coefficients, see :func:`flattest.uses.ranking.table`.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        One row per measure.
    """
    return ranking.table(records, list(FACTORS))


_CELLS = tuple(Settings(position) for position in range(len(FACTORS) + 1))

CLAIM = Claim(
    name="transformers",
    title="Ranking transformers",
    question=(
        "In a transformer the values and the output projection of each attention head can be mixed "
        "by any invertible matrix, and queries against keys; no output shows it, but the trace "
        "does. Does flatness rank transformers once these groups are taken out?"
    ),
    method=(
        "Transformers that read the eight rows of a digit as tokens, trained with AdamW to a "
        "cross-entropy of 0.02 or for 150 epochs. Eight hyper-parameters at two levels each: width "
        "12 or 24, 1 or 2 blocks, 1 or 2 heads, step 0.003 or 0.01, minibatches of 32 or 128, "
        "weight decay 0 or 0.3, none or 10 % of the labels wrong, 200 or 600 samples. "
        "Trajectories, gap and correlations as for fully connected networks. The trace is that of "
        "the Gauss-Newton matrix."
    ),
    limits=(
        "Transformers of a few thousand parameters on tiny images, trained for minutes at most: "
        "what is said of large pretrained ones is not tested here. Curvature is taken on 400 "
        "training samples at most."
    ),
    source=SOURCE,
    trial=trial,
    quick=Design(_CELLS, n_seeds=8),
    full=Design(_CELLS, n_seeds=20),
    verdicts=ranking.verdicts,
    figure=ranking.figure,
    caption=(
        "Left: rank correlation of each measure with the generalisation gap, over all pairs of "
        "transformers and over pairs that differ in one hyper-parameter, with 95 % intervals. "
        "Right: the gap against three of the measures, one mark per transformer."
    ),
    table=table,
)
