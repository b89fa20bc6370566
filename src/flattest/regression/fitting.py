"""The two ways to fit: a Gaussian process with a network beside it, or a network alone.

Both go from rows and settings to one kind of result, `Found`, from which the estimator takes its
attributes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool

from flattest.regression.elimination import Learner, Round, choose, eliminate, fold_learners, sizes
from flattest.regression.projection_search import StartsOn
from flattest.regression.regularisation_path import Fit
from flattest.regression.robust_fit import fit_robustly
from flattest.regression.settings import Settings
from flattest.regression.smooth_link import SmoothLink
from flattest.regression.starts import starts
from flattest.regression.training_data import Rows, TrainingData
from flattest.regression.trust import HeldOutFold, trusting
from flattest.regression.variation import Variation
from flattest.two_layer.networks import TwoLayerNet


class Found(NamedTuple):
    """What a fit finds, whichever way it went.

    Parameters
    ----------
    link : SmoothLink or None
        The processes, where they predict.
    network : TwoLayerNet
        The network on all standardised features.
    fit : Fit
        How it was found.
    data : TrainingData
        The rows that it was fitted to.
    variation : Variation
        The directions along which the predictions vary.
    n_directions : int
        How many of these count.
    path : DataFrame
        All networks tried.
    outliers : ndarray of bool
        The rows given whose targets were left out.
    """

    link: SmoothLink | None
    network: TwoLayerNet
    fit: Fit
    data: TrainingData
    variation: Variation
    n_directions: int
    path: pd.DataFrame
    outliers: Bool[np.ndarray, " g"]


def fit_gaussian_process(rows: Rows, settings: Settings) -> Found | None:
    """Find directions by processes, and fit a network on these directions beside them.

    Parameters
    ----------
    rows : Rows
        The data.
    settings : Settings
        The parameters.

    Returns
    -------
    Found or None
        None where there is nothing to learn for a process.
    """
    robust = fit_robustly(
        rows,
        settings.n_directions,
        functools.partial(_starts_of, settings),
        settings.rng,
        bias=settings.network.bias,
        device=settings.device,
        verbose=settings.verbose,
    )
    if robust is None:
        return None
    kept, variation = rows.without(robust.outliers), robust.link.variation
    k = settings.n_directions or variation.n_directions
    learners = [
        learner.with_directions(variation.vectors[:, :k], robust.data.standardise)
        for learner in _learners(kept, robust.data, settings)
    ]
    (chosen,) = _rounds(learners, [learners[-1].basis.shape[1]], settings)
    *folds, whole = learners
    held_out = [
        HeldOutFold.of(kept, fold.train, fold.held_out, outputs)
        for fold, outputs in zip(folds, chosen.outputs, strict=True)
        if fold.train is not None and fold.held_out is not None
    ]
    wanted = chosen.n_directions if settings.n_directions else variation.n_directions
    return Found(
        link=trusting(robust.link, robust.data.standardise, held_out),
        network=whole.network(chosen.fit),
        fit=chosen.fit,
        data=robust.data,
        variation=variation,
        n_directions=min(wanted, robust.link.n_directions),
        path=chosen.table(),
        outliers=(rows.position >= 0) & (kept.position < 0),
    )


def fit_network(rows: Rows, settings: Settings) -> Found:
    """Find directions by eliminating those along which networks vary least.

    Parameters
    ----------
    rows : Rows
        The data.
    settings : Settings
        The parameters.

    Returns
    -------
    Found
        Without a link.
    """
    data = TrainingData.of(rows, bias=settings.network.bias, device=settings.device)
    learners = _learners(rows, data, settings)
    counts = sizes(data.basis.shape[1], settings.n_directions or 1, settings.max_rounds)
    rounds = _rounds(learners, counts, settings)
    chosen = rounds[-1] if settings.n_directions else choose(rounds)
    whole = learners[-1].with_basis(chosen.basis)
    variation = whole.variation(chosen.fit)
    return Found(
        link=None,
        network=whole.network(chosen.fit),
        fit=chosen.fit,
        data=data,
        variation=variation,
        n_directions=chosen.n_directions if settings.n_directions else variation.n_directions,
        path=pd.concat([entry.table() for entry in rounds], ignore_index=True),
        outliers=np.zeros(len(rows.position), dtype=bool),
    )


def _starts_of(settings: Settings, training: TrainingData) -> StartsOn:
    """Make what makes the starts of a search on some training data."""
    return lambda some, data, k: starts(
        training.take(some), data, k, settings.network, settings.rng, settings.max_rounds
    )


def _learners(rows: Rows, data: TrainingData, settings: Settings) -> list[Learner]:
    """Make a learner per fold, and then the one on all rows."""
    folds = fold_learners(settings.folds(rows), settings.network, settings.device)
    return [*folds, Learner.on(data, settings.network)]


def _rounds(learners: list[Learner], counts: list[int], settings: Settings) -> list[Round]:
    return eliminate(
        learners,
        settings.strengths,
        counts,
        settings.rng,
        n_jobs=settings.n_jobs,
        verbose=settings.verbose,
    )
