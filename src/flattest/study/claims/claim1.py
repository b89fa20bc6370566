"""Claim 1: interpolators that do not generalise stay sharp, whatever symmetry does for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from flattest.datasets import make_multi_index
from flattest.figures import new_figure
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.gap import (
    BAD,
    by_experiment,
    closest_networks,
    draw_gaps,
    draw_zoo,
    gap_by_seed,
    nearest_in_words,
)
from flattest.study.recovery import GAP, RECOVERED
from flattest.study.verdict import Verdict, judge, judge_share
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet

BLIND = "flattest without one direction"
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "flattest": ("flattest", {}),
    "penalised": ("penalised", {}),
    "least norm": ("min_norm", {}),
    "gradient descent, small start": ("gradient_descent", {"init_scale": 0.01}),
    "label-noise SGD": ("label_noise_sgd", {}),
    "SAM": ("sam", {}),
    "gradient descent, start 0.4": ("gradient_descent", {"init_scale": 0.4}),
    "gradient descent, large start": ("gradient_descent", {"init_scale": 1.0}),
    "SGD, large start": ("sgd", {"init_scale": 1.0}),
    "random features": ("random_features", {}),
    "linearised": ("linearised", {}),
    "fan": ("memorizer", {"construction": "fan"}),
    "slabs": ("memorizer", {"construction": "slabs"}),
    "flattest in 14 dimensions": ("memorizer", {"construction": "subspace", "subspace_dim": 14}),
    "flattest in 16 dimensions": ("memorizer", {"construction": "subspace", "subspace_dim": 16}),
    BLIND: ("flattest", {}),
    "20 wrong labels": ("poisoned", {"n_poison": 20}),
    "60 wrong labels": ("poisoned", {"n_poison": 60}),
    "200 wrong labels": ("poisoned", {"n_poison": 200}),
    "40 wrong labels, twice as large": ("poisoned", {"n_poison": 40, "poison_scale": 2.0}),
}
"""The networks by name: the interpolator and its options."""


@dataclass(frozen=True)
class Settings:
    """One way to fit the samples exactly.

    Parameters
    ----------
    network : str
        A name of `ZOO`.
    width : int
        The number of neurons ``m``; some constructions need ``n`` and more.
    n_samples, n_features, n_directions, zoo_width : int
        ``n``, ``d``, ``k``, and the width of the networks that it is compared with.
    """

    network: str = "flattest"
    width: int = 200
    n_samples: int = 400
    n_features: int = 20
    n_directions: int = 3
    zoo_width: int = 200


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Fit noiseless samples of a sum of ReLUs, measure the network, test it on fresh inputs.

    Parameters
    ----------
    settings : Settings
        The network and the sizes.
    seed : int
        Seed of the data, the same for all networks, and of the network.

    Returns
    -------
    dict
        Train MSE, relative test error, orbit minimum, lower bound, their ratio, and status.
    """
    X, y, model = make_multi_index(
        settings.n_samples, settings.n_features, ["relu"] * settings.n_directions, random_state=seed
    )
    method, options = ZOO[settings.network]
    seen = _complement(model.directions[:1]) if settings.network == BLIND else None
    found = interpolate(
        X if seen is None else X @ seen,
        y,
        method,
        width=settings.width,
        random_state=seed,
        **options,
    )
    net = found.net if seen is None else _lift(found.net, seen)
    flatness = measure(net, X, y)
    return {
        "train_error": flatness.loss,
        "test_error": model.relative_error(net, random_state=seed),
        "orbit_minimum": flatness.orbit_minimum,
        "lower_bound": flatness.lower_bound,
        "ratio": flatness.ratio,
        "interpolates": flatness.loss <= 1e-10 * float(y.square().mean()),
        "status": found.status.name.lower(),
    }


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge the gap between the flattest network and those that do not generalise.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        For the largest experiment the gap, whether the flattest generalises, and the gap of the
        networks that come closest, one by one; for every other one the gap.
    """
    judged = []
    for index, (sizes, rows) in enumerate(by_experiment(records)):
        where = f"At {sizes}"
        gaps = gap_by_seed(rows)
        if index == 0:
            flattest = rows[rows["network"] == "flattest"]
            judged += [
                judge(
                    f"{where}, every network with a population loss above {BAD:g} has an orbit "
                    f"minimum at least {GAP:g} times that of the flattest, in {seeds}.",
                    f"least ratio among the former over that of the flattest, {summary}",
                    gaps,
                    "at least",
                    GAP,
                    statistic,
                )
                for seeds, summary, statistic in (
                    ("every seed", "in the worst seed", np.min),
                    ("the median seed", "median over the seeds", np.median),
                )
            ]
            judged.append(
                judge_share(
                    f"{where}, the flattest network generalises: its population loss is at most "
                    f"{RECOVERED:g} in at least two seeds of three.",
                    "share of the seeds",
                    flattest["test_error"] <= RECOVERED,
                    "at least",
                    2 / 3,
                )
            )
            judged += [
                judge(
                    f"{where}, the network '{network}' has an orbit minimum at least {GAP:g} times "
                    f"that of the flattest where its population loss is above {BAD:g}.",
                    "ratio over that of the flattest, median over those seeds",
                    of_network,
                    "at least",
                    GAP,
                )
                for network, of_network in closest_networks(rows)
            ]
        else:
            present = set(rows["network"]) - {"flattest"}
            named = ", ".join(name for name in ZOO if name in present)
            judged.append(
                judge(
                    f"{where}, the gap is at least {GAP:g} in the median seed, with fewer "
                    f"networks beside the flattest: {named}.",
                    "least ratio of a network with a population loss above "
                    f"{BAD:g} over that of the flattest, median over the seeds",
                    gaps,
                    "at least",
                    GAP,
                )
            )
    return judged


def figure(records: pd.DataFrame) -> Figure:
    """Draw population loss against ratio, and how the gap moves with ``n``, ``d`` and ``m``.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Two panels.
    """
    experiments = by_experiment(records)
    with new_figure(9.6, 5.6) as drawn:
        left, right = drawn.subplots(1, 2, width_ratios=(1.7, 1))
        if experiments:
            draw_zoo(left, experiments[0][1], ZOO)
            left.set_title(f"The zoo at {experiments[0][0]}")
        draw_gaps(right, experiments, ZOO)
        drawn.legend(
            *left.get_legend_handles_labels(),
            loc="outside lower center",
            ncols=3,
            fontsize=8,
            columnspacing=1.2,
        )
    return drawn


def _complement(directions: Float[Tensor, "k d"]) -> Float[Tensor, "d r"]:
    """Return an orthonormal basis of what is orthogonal to some directions."""
    return torch.linalg.svd(directions).Vh[len(directions) :].T


def _lift(net: TwoLayerNet, basis: Float[Tensor, "d r"]) -> TwoLayerNet:
    """Return the network of all features that sees their projections on a basis only."""
    return TwoLayerNet(net.weights.detach() @ basis.T, net.coefficients.detach(), net.activation)


def _cells(
    networks: Iterable[str], n: int = 400, d: int = 20, m: int = 200
) -> tuple[Settings, ...]:
    """Lay out the networks of one experiment, each with the neurons that it needs."""
    needed = {"fan": n + 2, "random features": 2 * n}
    return tuple(
        Settings(
            network, width=max(m, needed.get(network, m)), n_samples=n, n_features=d, zoo_width=m
        )
        for network in networks
    )


_SLOW = {
    "penalised",
    "label-noise SGD",
    "SAM",
    "SGD, large start",
    "flattest in 14 dimensions",
    "flattest in 16 dimensions",
    "20 wrong labels",
    "60 wrong labels",
    "200 wrong labels",
    "40 wrong labels, twice as large",
}
_QUICK = tuple(network for network in ZOO if network not in _SLOW)
_SIZES = ((200, 20, 200), (200, 10, 200), (200, 20, 100))
_MORE_SIZES = ((400, 20, 100), (400, 20, 400), (400, 10, 200), (400, 40, 200), (800, 20, 200))
_GAP_ZOO = (
    "flattest",
    BLIND,
    "gradient descent, start 0.4",
    "gradient descent, large start",
    "random features",
    "60 wrong labels",
)

CLAIM = Claim(
    name="claim1",
    title="How flat can a bad interpolator be?",
    question=(
        "Many networks fit the same samples exactly, and some of them are useless on fresh data. "
        "Rescaling can make any network sharp, and it can undo that. Once it has made each one as "
        "flat as it gets, are those that do not generalise still far from the flattest?"
    ),
    method=(
        "Sums of three ReLUs of orthonormal directions, Gaussian inputs, no noise. The same "
        "samples are fitted exactly by every network of the zoo: training algorithms, kernel-like "
        "fits, memorisers built by hand, networks that also fit wrong labels, and networks that "
        "see part of the input only. One of these, 'flattest without one direction', is blind to "
        "one of the true directions, which takes knowledge of the model. Their flatness is the "
        "orbit minimum of the trace over the lower bound for every interpolator; a population "
        "loss of 1 is that of the best constant. "
        "Networks with a train MSE above 1e-10 of the mean squared label are left out. The fan "
        "has n + 2 neurons and the random features are 2 n, as they cannot fit n samples with "
        "fewer than n; for ReLU networks the lower bound does not depend on the width."
    ),
    thresholds=(
        "The source says that such networks cannot be brought near the least trace. How far is "
        "not near is for us to say, since the constants of its theorem are not used: a factor of "
        "5, a round number, the same for all sizes. A network at four times the least trace fails "
        "such a verdict without being as flat, so read the estimate beside it. Ours are also the "
        "population loss above which a network counts as bad, 0.5, half of that of the best "
        "constant, and the one up to which the flattest counts as the model, 1e-6, which stands "
        "for zero up to rounding and to what a solver leaves."
    ),
    limits=(
        "The bad networks are our constructions, not the class of the source's theorem; that none "
        "of them is flat does not exclude one that is. Those that minimise the trace under a "
        "handicap do so approximately. A network may be useless by a little only: the gap is "
        "measured at a loss of 0.5, and it shrinks with that threshold."
    ),
    source=(
        "H. Vardhan, H. Taheri, A. Mazumdar, Flatness and Generalization: Learning Multi-Index "
        "Models with Homogeneous Neural Networks, arXiv 2606.04429, 2026. The constants of its "
        "theorem are not used here."
    ),
    trial=trial,
    quick=Design(
        _cells(_QUICK) + tuple(cell for sizes in _SIZES for cell in _cells(_GAP_ZOO[:2], *sizes)),
        n_seeds=10,
    ),
    full=Design(
        _cells(ZOO) + tuple(c for sizes in _SIZES + _MORE_SIZES for c in _cells(_GAP_ZOO, *sizes)),
        n_seeds=20,
        time_limit=1800.0,
    ),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Left: population loss of exactly fitting networks against their flatness modulo "
        "rescaling, each seed a mark, the flattest a ring with what coincides with it inside; the "
        "claim says that the grey region is empty. Right: the "
        "least ratio among the networks with a population loss above 0.5, over that of the "
        "flattest, by size of the experiment and among the networks that were run at all sizes; "
        "single seeds faint, medians as diamonds, dashed the factor 5."
    ),
    conclusion=nearest_in_words,
)
