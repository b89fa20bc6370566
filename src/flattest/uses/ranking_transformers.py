"""Ranking of small transformers that read the rows of digits as tokens."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from torch import nn

from flattest.study import Claim, Design
from flattest.uses import ranked, ranking
from flattest.uses.networks import Transformer
from flattest.uses.ranking_mlps import SOURCE

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
class Settings(ranked.Settings):
    """One transformer on a trajectory; the seed says on which."""

    epochs: int = 150


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a transformer and take all measures, see `ranked.trained_and_measured`."""

    def make(levels: dict[str, Any]) -> nn.Module:
        return Transformer(levels["width"], levels["depth"], levels["heads"])

    return ranked.trained_and_measured(FACTORS, settings, seed, make, groups=True)


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
    table=functools.partial(ranking.table, factors=list(FACTORS)),
)
