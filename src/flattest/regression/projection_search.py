"""The search for the directions: Gaussian processes on ever fewer of them, by their evidence.

Functions of all features are fitted first (`_of_all_features`). Each start, a guess at a few more
directions than are needed, is followed down to few of them on a part of the rows (`_best_chain`);
the best one goes on with more rows (`_descend`). Other kernels are tried at its best number of
directions (`_other_kernels`), the lengths of the best candidates are fitted to the end
(`_polished`), and the winner is fitted to most of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from flattest.regression.evidence import evidence, gradients, trend_slope
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.kernels import SHAPES
from flattest.regression.mixture import contenders, kind
from flattest.regression.process_fit import fit_process
from flattest.regression.refits import judged_on_held_out_rows
from flattest.regression.tuning import (
    CARE_NATS,
    CARE_NATS_PER_ROW,
    COMPARED_DIRECTIONS,
    EXACT_ROWS,
    FEWEST_START_ROWS,
    FINAL_BLOCK,
    FINAL_ROWS,
    FINE,
    LAST,
    LENGTHS_TO_THE_END,
    MORE_NATS,
    MORE_NATS_PER_ROW,
    MOST_DIRECTIONS,
    MOST_FITTED_AGAIN,
    MOST_POLISHED,
    MOST_START_ROWS,
    NEAR_NATS,
    NEARLY_NATS,
    OTHER_SHAPES,
    PASSING,
    ROTATION_ROWS,
    ROTATIONS,
    ROUGH,
    SAME_END_COSINE,
    SAME_END_NATS,
    SEARCH_BLOCK,
    SEARCH_ROWS,
    START_ROWS_PER_FEATURE,
    TIED_NATS,
    TREND_VARIANCE,
    USUAL_STARTS,
    Effort,
)

StartsOn = Callable[[Tensor, Data, int], Iterator[Process]]
"""Makes starts: called with the indices of some rows, these rows, and a number of directions."""


class Found(NamedTuple):
    """What a search finds.

    Parameters
    ----------
    processes, shares : list of Process, list of float
        The process of the best score, then those that may be as good, and how much each counts.
    candidates : list of Process
        All that were compared, the best one last.
    """

    processes: list[Process]
    shares: list[float]
    candidates: list[Process]


def search(
    rows: Data,
    k: int | None,
    starts_on: StartsOn,
    rng: np.random.Generator,
    step: Callable[[], None],
    *,
    by_feature: bool,
) -> Found:
    """Find the directions on which the targets depend.

    Parameters
    ----------
    rows : Data
        Inputs, and targets of unit size.
    k : int, optional
        The number of directions. None lets the score decide, among linear functions and functions
        of all features too.
    starts_on : callable
        Makes starts on some of the rows.
    rng : numpy.random.Generator
        Draws rows where there are many, and rotations.
    step : callable
        Called after each of `SEARCH_STEPS` steps, fewer where starts agree.
    by_feature : bool
        Whether the inputs are the features, of which each may have a length of its own.

    Returns
    -------
    Found
        The processes.
    """
    n, d = rows.X.shape
    order = torch.from_numpy(rng.permutation(n)).to(rows.y.device)
    some = order[: min(max(START_ROWS_PER_FEATURE * d, FEWEST_START_ROWS), MOST_START_ROWS)]
    few = rows.take(some).blocks(SEARCH_BLOCK)
    beginnings = starts_on(some, few, min(d, max(MOST_DIRECTIONS, k or 1)))
    data = rows.take(order[:SEARCH_ROWS]).blocks(SEARCH_BLOCK)

    plain = [] if k else [fit_process(data, process, ROUGH) for process in _alike(data)]
    step()
    floor = _best(plain).score / data.y.numel() if plain else -math.inf
    chain = _best_chain(few, beginnings, k or 1, floor, step)
    descended = _descend(data, chain, k, few)
    allowed = [process for process in descended if k in (None, process.n_directions)]
    plain = _of_all_features(data, plain, _best(allowed), by_feature=by_feature)
    candidates = descended + plain
    step()
    variants = _other_kernels(data, allowed, rng)
    step()
    polished = _polished(data, [*(candidates if k is None else allowed), *variants])
    compared = judged_on_held_out_rows(data, [*candidates, *variants, *polished], rng)
    found = _decided(rows.take(order[:FINAL_ROWS]), compared, k, LAST)
    step()
    return found


def search_again(
    rows: Data, k: int | None, before: list[Process], rng: np.random.Generator
) -> Found:
    """Fit what a search found on nearly the same rows, or on the same ones in other units.

    A monotone function of the targets depends on the same directions, and a few rows more or less
    seldom change them: what was as good as the best there is fitted again from there.

    Parameters
    ----------
    rows : Data
        Inputs, and targets of unit size.
    k : int, optional
        The number of directions; None lets the score decide.
    before : list of Process
        What a search compared (`worth_fitting_again`), in the coordinates of the inputs.
    rng : numpy.random.Generator
        Draws rows where there are many.

    Returns
    -------
    Found
        The processes.
    """
    order = torch.from_numpy(rng.permutation(len(rows.X))).to(rows.y.device)
    data = rows.take(order[:SEARCH_ROWS]).blocks(SEARCH_BLOCK)
    candidates = [fit_process(data, process, ROUGH) for process in before]
    compared = judged_on_held_out_rows(data, candidates, rng)
    return _decided(rows.take(order[:FINAL_ROWS]), compared, k, FINE)


def worth_fitting_again(candidates: list[Process], rows: int) -> list[Process]:
    """Return the best of each kind among what a search compared, the best ones only."""
    kinds: dict[tuple[str, bool, bool, str, int], Process] = {}
    classes: dict[tuple[bool, str, int], Process] = {}
    for process in sorted(candidates[:-1], key=_score, reverse=True):
        kinds.setdefault(kind(process), process)
        classes.setdefault((process.shape == "linear", process.free, process.n_directions), process)
    best = next(iter(kinds.values()))
    near = [p for p in kinds.values() if p.score > best.score - NEAR_NATS * rows]
    # What a single far row costs a simple function may be more than that.
    firsts = [
        p
        for p in classes.values()
        if p.n_directions <= COMPARED_DIRECTIONS or p.free != "projection"
    ]
    chosen = {id(p): p for p in (*near[:MOST_FITTED_AGAIN], *firsts)}
    return [process._replace(correction=0.0, inflation=1.0) for process in chosen.values()]


def _decided(rows: Data, compared: list[Process], k: int | None, effort: Effort) -> Found:
    """Fit the best of what was compared to most rows, and average it with what may be as good."""
    n = len(rows.y)
    whole = rows.blocks(EXACT_ROWS if n <= EXACT_ROWS else FINAL_BLOCK)
    if k is not None:
        compared = [process for process in compared if process.n_directions == k]
    last = fit_process(whole, _simplest(compared), effort)
    return Found(*contenders(last, compared, whole), [*compared, last])


def _of_all_features(
    data: Data, plain: list[Process], best: Process, *, by_feature: bool
) -> list[Process]:
    """Fit functions of all features with care, with a length for each too, if they may win."""
    if not plain or not _is_near(_best(plain), best, data):
        return plain
    with_lengths = _with_lengths(data) if by_feature else ()
    return [fit_process(data, process, FINE) for process in (*plain, *with_lengths)]


def _other_kernels(data: Data, allowed: list[Process], rng: np.random.Generator) -> list[Process]:
    """Fit other kernels for the best number of directions.

    Also for the next best one and for a single direction, if these are near.
    """
    # Of candidates as good as tied the simplest: variants of others may hide that it suffices.
    first = _simplest(allowed)
    others = sorted((p for p in allowed if p is not first), key=_score, reverse=True)
    likely = [p for i, p in enumerate(others) if i == 0 or p.n_directions == 1]
    tried = [first, *(p for p in likely if _may_win(p, first, data))]
    return [variant for process in tried for variant in _variants(data, process, first, rng)]


def _polished(data: Data, candidates: list[Process]) -> list[Process]:
    """Fit the lengths of the best candidates to the end, and try a trend beside the best one."""
    first, *others = sorted(candidates, key=_score, reverse=True)
    near = [p for p in others[: MOST_POLISHED - 1] if p.score > first.score - NEARLY_NATS]
    polished = [_polish(data, process, LENGTHS_TO_THE_END) for process in (first, *near)]
    best = _best(polished)
    if best.shape != "linear" and trend_slope(data, best) > 0:
        trend = _polish(data, _with_trend(data, best), FINE)
        if trend.score > best.score - NEARLY_NATS:
            trend = _polish(data, trend, LENGTHS_TO_THE_END)
        polished.append(trend)
    return polished


def _polish(data: Data, process: Process, effort: Effort) -> Process:
    """Fit the lengths of a process at the same directions."""
    return fit_process(data, process, effort, only_lengths=process.free != "scale")


def _with_trend(data: Data, process: Process) -> Process:
    """Add a linear function of the directions to a process."""
    size = (data.X @ process.projection).square().sum(-1).mean()
    variances = torch.cat([process.variances, TREND_VARIANCE / size[None]])
    return process._replace(variances=variances, trend=True)


def _score(process: Process) -> float:
    return process.score


def _best(processes: list[Process]) -> Process:
    return max(processes, key=_score)


def _simplest(processes: list[Process]) -> Process:
    """Return the process of fewest directions whose score is as good as tied with the best."""
    best = _best(processes).score
    tied = [process for process in processes if process.score >= best - TIED_NATS]
    return min(tied, key=lambda p: (1 if p.shape == "linear" else p.n_directions, -p.score))


def _is_near(process: Process, better: Process, data: Data) -> bool:
    """Tell whether another kernel might reverse the order of two processes."""
    return process.score > better.score - NEAR_NATS * data.y.numel()


def _may_win(process: Process, first: Process, data: Data) -> bool:
    """Tell whether another kernel might reverse the order of two that are both given others."""
    nats = NEAR_NATS / 2 * data.y.numel()
    if process.n_directions > first.n_directions:
        nats = min(nats, max(MORE_NATS, MORE_NATS_PER_ROW * data.y.numel()))
    return process.score > first.score - nats


def _is_worth_care(process: Process, best: Process, data: Data) -> bool:
    """Tell whether a process that was fitted roughly may come near the best one."""
    nats = max(CARE_NATS, CARE_NATS_PER_ROW * data.y.numel())
    return _is_near(process, best, data) and process.score > best.score - nats


def _best_chain(
    data: Data,
    beginnings: Iterator[Process],
    fewest: int,
    floor: float,
    step: Callable[[], None],
) -> list[Process]:
    """Follow starts to a few directions, and return the fits of the one with the best end.

    Once two starts come to the same end, the remaining ones are left out, unless rows are few:
    there starts cost little, and may agree by chance. More than the usual ones are followed only
    where none of these gets beyond the floor, the score per row of functions of all features.
    """
    chains: list[list[Process]] = []
    found: list[Tensor] = []
    rows, least = data.y.numel(), max(fewest, COMPARED_DIRECTIONS)
    passing = PASSING if rows >= START_ROWS_PER_FEATURE * data.X.shape[-1] else ROUGH
    for start in beginnings:
        chain = [fit_process(data, start, passing)]
        while (k := chain[-1].n_directions) > least:
            effort = passing if k - 1 > least else ROUGH
            chain.append(fit_process(data, _without_least_needed(data, chain[-1]), effort))
        slopes = gradients(data, chain[-1]) @ chain[-1].projection.T
        outer = slopes.T @ slopes
        found.append(outer / outer.norm())
        chains.append(chain)
        if len(chains) <= USUAL_STARTS:
            step()
        first, *others = sorted(range(len(chains)), key=lambda i: -chains[i][-1].restricted)
        agree = [
            chains[first][-1].restricted - chains[i][-1].restricted < SAME_END_NATS * rows
            and float((found[first] * found[i]).sum()) > SAME_END_COSINE
            for i in others
        ]
        if rows >= FEWEST_START_ROWS and any(agree):
            break
        # With too few rows for the parameters no score is finite.
        best = max(entry[-1].score for entry in chains)
        if len(chains) >= USUAL_STARTS and (best > floor * rows or math.isinf(best)):
            break
    return max(chains, key=lambda entry: entry[-1].restricted)


def _descend(data: Data, chain: list[Process], k: int | None, few: Data) -> list[Process]:
    """Fit the last process of a chain with more rows, then ever fewer directions.

    Where their number is free, one more direction at a time is tried too, as long as it is better.
    """
    fitted: list[Process] = []

    def add(start: Process) -> None:
        fitted.append(_fit(data, start, _best(fitted) if fitted else None))

    add(chain[-1])
    while fitted[-1].n_directions > (k or 1):
        add(_without_least_needed(data, fitted[-1]))
    for start in reversed(chain[:-1] if k is None else []):
        if not _is_near(start, chain[-1], few):
            break
        add(start)
        if fitted[-1] is not _best(fitted):
            break
    return fitted


def _fit(data: Data, start: Process, best: Process | None) -> Process:
    """Fit a process roughly, and with care where that comes near the best."""
    process = fit_process(data, start, ROUGH)
    if best is None or _is_worth_care(process, best, data):
        process = fit_process(data, process, FINE)
    return process


def _without_least_needed(data: Data, process: Process) -> Process:
    """Drop the direction without which the evidence is highest.

    The directions are the eigenvectors of the average gradient outer product.
    """
    slopes = gradients(data, process)
    axes = torch.linalg.eigh(slopes.T @ slopes)[1].flip(1)
    k = process.n_directions
    rests = [axes[:, [j for j in range(k) if j != left_out]] for left_out in range(k)]
    starts = [process._replace(projection=process.projection @ rest) for rest in rests]
    return max(starts, key=lambda start: evidence(data, start))


def _variants(
    data: Data, process: Process, best: Process, rng: np.random.Generator
) -> list[Process]:
    """Fit the same directions with other kernels, and as a sum of functions of each."""
    fitted = [_fit(data, process._replace(shape=shape), best) for shape in OTHER_SHAPES]
    if process.n_directions > 1:
        fitted.append(_fit(data, _as_sum(data, _best([process, *fitted]), rng), best))
    return fitted


def _as_sum(data: Data, process: Process, rng: np.random.Generator) -> Process:
    """Turn directions within their span to where a sum of functions of each explains most."""
    rows = Data(*(values[:1, :ROTATION_ROWS] for values in data))
    k = process.n_directions
    turned = []
    for _ in range(ROTATIONS):
        turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((k, k)))[0]).to(data.X)
        start = process._replace(
            projection=process.projection @ turn,
            variances=(process.variances / k).expand(k),
            additive=True,
        )
        turned.append((evidence(rows, start), start))
    return max(turned, key=lambda pair: pair[0])[1]


def _alike(data: Data) -> Iterator[Process]:
    """Start from linear functions, and from functions of all features with one length."""
    for shape in ("linear", *SHAPES):
        yield Process(shape, _identity(data), data.X.new_ones(1), 0.5, free="scale")


def _with_lengths(data: Data) -> Iterator[Process]:
    """Start from functions of all features, each with a length of its own."""
    for shape in SHAPES:
        yield Process(shape, _identity(data), data.X.new_ones(1), 0.5, free="lengths")


def _identity(data: Data) -> Tensor:
    d = data.X.shape[-1]
    return torch.eye(d, dtype=data.X.dtype, device=data.X.device) / d**0.5
