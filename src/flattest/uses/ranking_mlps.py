"""Ranking of fully connected networks on digits."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from flattest.study import Claim, Design
from flattest.uses import ranking
from flattest.uses.networks import mlp
from flattest.uses.ranked import Settings, trained_and_measured

FACTORS: dict[str, tuple[Any, Any]] = {
    "width": (32, 96),
    "depth": (2, 4),
    "learning_rate": (1e-3, 4e-3),
    "batch_size": (32, 128),
    "weight_decay": (0.0, 0.3),
    "label_noise": (0.0, 0.1),
    "n_samples": (300, 1000),
    "augmentation": (False, True),
}
"""The low and the high level of each hyper-parameter."""


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a network and take all measures, see `ranked.trained_and_measured`."""

    def make(levels: dict[str, Any]) -> nn.Module:
        return mlp(levels["width"], levels["depth"])

    return trained_and_measured(FACTORS, settings, seed, make, groups=False)


_CELLS = tuple(Settings(position) for position in range(len(FACTORS) + 1))
SOURCE = (
    "Y. Jiang, B. Neyshabur, H. Mobahi, D. Krishnan, S. Bengio, Fantastic Generalization Measures "
    "and Where to Find Them, ICLR 2020. Against it: M. Andriushchenko, F. Croce, M. Müller, M. "
    "Hein, N. Flammarion, A Modern Look at the Relationship between Sharpness and Generalization, "
    "ICML 2023 (arXiv 2302.07011), where adaptive sharpness does not correlate with generalisation "
    "in modern settings. Of transformers: M. F. da Silva, F. Dangel, S. Oore, Hide & Seek: "
    "Transformer Symmetries Obscure Sharpness & Riemannian Geometry Finds It, ICML 2025 (arXiv "
    "2505.05409), where sharpness correlates only once the symmetries of attention are taken out."
)
"""Published for and against."""

CLAIM = Claim(
    name="ranking",
    title="Ranking fully connected networks",
    question=(
        "Of two networks trained in different ways, is the flatter one the one that generalises "
        "better? And is that more than an effect of the hyper-parameter in which they differ?"
    ),
    method=(
        "Fully connected ReLU networks on digits, trained with AdamW to a cross-entropy of 0.02 or "
        "for 200 epochs. Eight hyper-parameters at two levels each: width 32 or 96, 2 or 4 hidden "
        "layers, step 0.001 or 0.004, minibatches of 32 or 128, weight decay 0 or 0.3, none or 10 "
        "% of the labels wrong, 300 or 1,000 samples, images moved or not. Each trajectory starts "
        "at random levels and turns one hyper-parameter after the other. The gap is the test error "
        "less the training error, both for labels of the law trained on. Rank correlations over "
        "all networks; over neighbours, which differ in one hyper-parameter (Jiang et al.'s "
        "granulated coefficient); and the least share of information given any two "
        "hyper-parameters (their conditional measure). Intervals from trajectories drawn again."
    ),
    limits=(
        "One data set and one family of networks. Curvature is taken on 400 training samples. "
        "Networks that do not reach the training loss are ranked with the others; the table "
        "gives tau among the fitted ones besides. A correlation is no cause."
    ),
    source=SOURCE,
    trial=trial,
    quick=Design(_CELLS, n_seeds=8),
    full=Design(_CELLS, n_seeds=30),
    verdicts=ranking.verdicts,
    figure=ranking.figure,
    caption=(
        "Left: rank correlation of each measure with the generalisation gap, over all pairs of "
        "networks and over pairs that differ in one hyper-parameter, with 95 % intervals. Right: "
        "the gap against three of the measures, one mark per network."
    ),
    table=functools.partial(ranking.table, factors=list(FACTORS)),
)
