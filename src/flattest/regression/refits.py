"""Candidates fitted again without some rows, directions included, and judged on these.

Where rows are few beside the parameters, many directions explain them about as well, and the best
ones found explain them better than they will explain others. The linear model of `occam` knows of
errors near the directions found, but not of other ones far away; only rows that had no say in the
directions do. Refits start near the full fit, not at it: directions that follow the function are
found again, those that followed the noise of all rows are lost. On so few rows they are cheap.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from flattest.regression.gaussian_process import Data, Process
from flattest.regression.posterior import Posterior
from flattest.regression.process_fit import fit_process
from flattest.regression.tuning import (
    FINE,
    MOST_REFITTED,
    REFIT_FOLDS,
    REFIT_NATS,
    REFIT_ROWS,
    REFIT_ROWS_PER_PARAMETER,
    REFIT_STEP,
    START_NOISE,
)


def judged_on_held_out_rows(
    data: Data, candidates: list[Process], rng: np.random.Generator
) -> list[Process]:
    """Correct the scores of candidates, and how sure they are, by rows that they have not seen.

    Of each class (linear functions, functions of all features with one length or with many, or of a
    number of directions) the best one is fitted again, and its correction holds for the class. The
    score becomes the average of what it was and of the log density of the held-out rows.

    Parameters
    ----------
    data : Data
        Blocks of rows.
    candidates : list of Process
        With their scores.
    rng : numpy.random.Generator
        Draws the folds and the starts.

    Returns
    -------
    list of Process
        The same ones in the same order, as they were where rows are plenty.
    """
    best = max(candidates, key=lambda process: process.score)
    rows, fitted = data.y.numel(), max(process.n_parameters for process in candidates)
    if rows > min(REFIT_ROWS, REFIT_ROWS_PER_PARAMETER * fitted) or math.isinf(best.score):
        return candidates
    merged = Data(*(values.flatten(0, 1) for values in data))
    folds = torch.arange(REFIT_FOLDS).repeat(-(-rows // REFIT_FOLDS))[:rows]
    folds = folds[torch.from_numpy(rng.permutation(rows))].to(data.y.device)
    firsts: dict[tuple[str, int], Process] = {}
    for process in sorted(candidates, key=lambda process: -process.score):
        if process.score > best.score - REFIT_NATS and len(firsts) < MOST_REFITTED:
            firsts.setdefault(_class(process), process)
    changes = {}
    for key, process in firsts.items():
        density, square = _held_out(merged, process, folds, rng)
        changes[key] = (density - process.score) / 2, max(square, 1.0)
    return [
        _corrected(process, *changes.get(_class(process), (0.0, 1.0))) for process in candidates
    ]


def _class(process: Process) -> tuple[str, int]:
    if process.shape == "linear":
        return "linear", 0
    return process.free, process.n_directions


def _corrected(process: Process, change: float, inflation: float) -> Process:
    return process._replace(score=process.score + change, correction=change, inflation=inflation)


def _moved(process: Process, rng: np.random.Generator) -> Process:
    """Move the directions of a process a little, where they are fitted."""
    if process.free != "projection":
        return process
    B = process.projection
    step = torch.from_numpy(rng.standard_normal(tuple(B.shape))).to(B)
    moved = B + REFIT_STEP * B.square().mean().sqrt() * step
    return process._replace(projection=moved, noise=max(process.noise, START_NOISE))


def _held_out(
    data: Data, process: Process, folds: torch.Tensor, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the log density of all rows, and the mean square of their standardised residuals.

    Each row is predicted by a fit without its fold.
    """
    densities, squares = [], []
    for fold in range(REFIT_FOLDS):
        train, test = data.take(folds != fold), data.take(folds == fold)
        refitted = fit_process(train.blocks(len(train.y)), _moved(process, rng), FINE)
        mean, variance, doubt = Posterior.of(refitted, train)(test.X)
        variance = variance + doubt + refitted.noise * test.spread
        squares.append((test.y[:, 0] - mean).square() / variance)
        densities.append(-(squares[-1] + variance.log() + math.log(2 * math.pi)) / 2)
    return float(torch.cat(densities).sum()), float(torch.cat(squares).mean())
