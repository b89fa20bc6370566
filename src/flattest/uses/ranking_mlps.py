"""Ranking of fully connected networks on digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from flattest.study import Claim, Design
from flattest.uses import ranking
from flattest.uses.digits import split
from flattest.uses.fitting import Recipe, fit
from flattest.uses.measures import measures
from flattest.uses.networks import initialised, mlp
from flattest.uses.trajectories import point

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


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a network and take all measures.

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
        moved=levels["augmentation"],
        enough=settings.enough,
    )
    net = fit(initialised(lambda: mlp(levels["width"], levels["depth"]), seed), data, recipe, seed)
    found = measures(net, data, label_noise=levels["label_noise"], groups=False, random_state=seed)
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
    table=table,
)
