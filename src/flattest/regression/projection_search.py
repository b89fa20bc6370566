"""The search for the directions: Gaussian processes on ever fewer of them, by their evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from flattest.regression.elimination import Network
from flattest.regression.gaussian_process import (
    Data,
    Effort,
    Process,
    evidence,
    fit_process,
    gradients,
    trend_slope,
)
from flattest.regression.kernels import SHAPES
from flattest.regression.mixture import contenders
from flattest.regression.starts import STARTS, starts
from flattest.regression.training_data import TrainingData

STEPS = STARTS + 4
"""All features, the starts, ever fewer directions, other kernels, and all rows."""
_MOST = 5
"""Directions at the start, where their number is not given."""
_COMPARED = 3
"""Directions down to which all starts are followed; the best one goes on."""
_AGREE, _ALIKE = 0.1, 0.85
"""Nats per row by which two starts may differ that have come to the same end, and the least cosine
between the average gradient outer products."""
_NEAR = 0.1
"""Nats per row within which a worse candidate may still win with another kernel."""
_NEARLY = 5.0
"""Nats, of all rows, within which one may win when its lengths are fitted to the end."""
_TIE = 1.0
"""Nats, of all rows, that do not matter: the odds are less than three to one."""
_ROWS_PER_FEATURE, _START_ROWS = 20, (250, 1000)
"""Rows on which starts are compared, per feature, and their bounds."""
_SEARCH_ROWS, _SEARCH_BLOCK = 1000, 500
_FINAL_ROWS, _FINAL_BLOCK, _EXACT = 4000, 500, 1000
_PASSING = Effort(max_iter=15, tol=5e-4)  # on the way to fewer directions, where rows are enough
_ROUGH = Effort(max_iter=25, tol=5e-4)
_FINE = Effort(max_iter=60, tol=1e-4)
_LAST = Effort(max_iter=300, tol=1e-6)
_LONG = Effort(max_iter=200, tol=1e-5)
_POLISHED = 3
_SMOOTH = ("gaussian",)
"""What else functions of a few directions are fitted with; those of all features with any shape."""
_TREND = 0.1  # its variance at the start
_ROTATIONS, _ROTATION_ROWS = 16, 250


def search(
    training: TrainingData,
    rows: Data,
    k: int | None,
    network: Network,
    rng: np.random.Generator,
    max_rounds: int,
    step: Callable[[], None],
) -> tuple[tuple[list[Process], list[float]], list[Process]]:
    """Find the directions on which the targets depend.

    From several starts with a few directions more than are needed, the one without which the
    evidence is highest is dropped, and the rest fitted anew, one after the other. The number that
    scores best goes on: with another kernel, as a sum of functions of one direction each, with a
    linear function added, and, where it is not given, against a linear function and functions of
    all features.

    Parameters
    ----------
    training : TrainingData
        The data.
    rows : Data
        The same in coordinates of the basis, and targets of unit size.
    k : int, optional
        The number of directions.
    network : Network
        What the networks start from that find directions to start from.
    rng : numpy.random.Generator
        Draws rows where there are many, networks and rotations.
    max_rounds : int
        Rounds of re-weighting at the starts.
    step : callable
        Told each of `STEPS` steps done; starts that are not needed are none.

    Returns
    -------
    processes, shares : list of Process, list of float
        The one of the best score, fitted to more of the rows, and those that may be as good.
    candidates : list of Process
        Those compared, and the first of the above.
    """
    n = len(rows.y)
    order = torch.from_numpy(rng.permutation(n)).to(rows.y.device)
    fewest, most = _START_ROWS
    some = order[: min(max(_ROWS_PER_FEATURE * rows.X.shape[1], fewest), most)]
    few = rows.some(some).blocks(_SEARCH_BLOCK)
    at_first = min(rows.X.shape[1], max(_MOST, k or 1))
    beginnings = starts(training.some(some), few, at_first, network, rng, max_rounds)
    data = rows.some(order[:_SEARCH_ROWS]).blocks(_SEARCH_BLOCK)
    plain = [] if k else [fit_process(data, process, _ROUGH) for process in _alike(data)]
    step()
    floor = _best(plain).score / data.y.numel() if plain else -math.inf
    chain = _best_chain(few, beginnings, k or 1, floor, step)
    candidates = _descend(data, chain, k, few)
    allowed = [process for process in candidates if k in (None, process.n_directions)]
    if plain and _is_near(_best(plain), _best(allowed), data):
        with_lengths = _with_lengths(data) if training.has_axes else ()
        plain = [fit_process(data, process, _FINE) for process in (*plain, *with_lengths)]
    candidates += plain
    step()
    # Other kernels for the best number of directions, and for the next one and a single direction
    # if they are near.
    first, *others = sorted(allowed, key=_score, reverse=True)
    likely = [p for i, p in enumerate(others) if i == 0 or p.n_directions == 1]
    tried = [first, *(p for p in likely if _is_near(p, first, data, _NEAR / 2))]
    variants = [variant for process in tried for variant in _variants(data, process, first, rng)]
    step()
    final = [*candidates, *variants] if k is None else [*allowed, *variants]
    final.sort(key=_score, reverse=True)
    near = [p for p in final[1:_POLISHED] if p.score > final[0].score - _NEARLY]
    polished = [_polish(data, process, _LAST) for process in (final[0], *near)]
    if (best := _best(polished)).shape != "linear" and trend_slope(data, best) > 0:
        trend = _polish(data, _with_trend(data, best), _FINE)
        if trend.score > best.score - _NEARLY:
            trend = _polish(data, trend, _LAST)
        polished.append(trend)
    whole = rows.some(order[:_FINAL_ROWS]).blocks(_EXACT if n <= _EXACT else _FINAL_BLOCK)
    last = fit_process(whole, _simplest(polished), _LONG)
    step()
    compared = [*candidates, *variants, *polished]
    return contenders(last, compared, whole), [*compared, last]


def _polish(data: Data, process: Process, effort: Effort) -> Process:
    """Fit the lengths at the same directions."""
    free = process.free
    lengths = process if free == "scale" else process._replace(free="lengths")
    polished = fit_process(data, lengths, effort)
    return polished._replace(free=free).fitted(polished.evidence, data.y.numel())


def _with_trend(data: Data, process: Process) -> Process:
    """Add a linear function."""
    size = (data.X @ process.projection).square().sum(-1).mean()
    variances = torch.cat([process.variances, _TREND / size[None]])
    return process._replace(variances=variances, trend=True)


def _score(process: Process) -> float:
    return process.score


def _best(processes: list[Process]) -> Process:
    return max(processes, key=_score)


def _simplest(processes: list[Process]) -> Process:
    """Return the fewest directions whose score is hardly distinguishable from the best."""
    best = _best(processes).score
    tied = [process for process in processes if process.score >= best - _TIE]
    return min(tied, key=lambda p: (1 if p.shape == "linear" else p.n_directions, -p.score))


def _is_near(process: Process, better: Process, data: Data, near: float = _NEAR) -> bool:
    """Tell whether another kernel might turn the order round."""
    return process.score > better.score - near * data.y.numel()


def _best_chain(
    data: Data,
    beginnings: Iterator[Process],
    fewest: int,
    floor: float,
    step: Callable[[], None],
) -> list[Process]:
    """Follow starts to a few directions, and return the fits of the one that gets furthest.

    Once two come to the same end, the remaining ones are left out, unless the rows are few: there
    they cost little, and may agree by chance. More than the usual ones are followed only where none
    of these gets beyond the floor, a score per row that takes no directions to reach.
    """
    chains: list[list[Process]] = []
    found: list[Tensor] = []
    rows, least = data.y.numel(), max(fewest, _COMPARED)
    passing = _PASSING if rows >= _ROWS_PER_FEATURE * data.X.shape[-1] else _ROUGH
    for start in beginnings:
        chain = [fit_process(data, start, passing)]
        while (k := chain[-1].n_directions) > least:
            effort = passing if k - 1 > least else _ROUGH
            chain.append(fit_process(data, _without_least_needed(data, chain[-1]), effort))
        slopes = gradients(data, chain[-1]) @ chain[-1].projection.T
        outer = slopes.T @ slopes
        found.append(outer / outer.norm())
        chains.append(chain)
        if len(chains) <= STARTS:
            step()
        first, *others = sorted(range(len(chains)), key=lambda i: -chains[i][-1].evidence)
        agree = [
            chains[first][-1].evidence - chains[i][-1].evidence < _AGREE * rows
            and float((found[first] * found[i]).sum()) > _ALIKE
            for i in others
        ]
        if rows >= _START_ROWS[0] and any(agree):
            break
        # With too few rows for the parameters no score is finite.
        best = max(entry[-1].score for entry in chains)
        if len(chains) >= STARTS and (best > floor * rows or math.isinf(best)):
            break
    return max(chains, key=lambda entry: entry[-1].evidence)


def _descend(data: Data, chain: list[Process], k: int | None, few: Data) -> list[Process]:
    """Fit the last of a chain, ever fewer directions, and more if one more is better."""
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
    """Fit with care where what little effort finds is near the best."""
    process = fit_process(data, start, _ROUGH)
    if best is None or _is_near(process, best, data):
        process = fit_process(data, process, _FINE)
    return process


def _without_least_needed(data: Data, process: Process) -> Process:
    """Drop the direction that is needed least, of those along which the function varies apart."""
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
    fitted = [_fit(data, process._replace(shape=shape), best) for shape in _SMOOTH]
    if process.n_directions > 1:
        fitted.append(_fit(data, _as_sum(data, _best([process, *fitted]), rng), best))
    return fitted


def _as_sum(data: Data, process: Process, rng: np.random.Generator) -> Process:
    """Turn the directions, within their span, to where a sum of functions of each fits best."""
    rows = Data(*(values[:1, :_ROTATION_ROWS] for values in data))
    k = process.n_directions
    turned = []
    for _ in range(_ROTATIONS):
        turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((k, k)))[0]).to(data.X)
        start = process._replace(
            projection=process.projection @ turn,
            variances=(process.variances / k).expand(k),
            additive=True,
        )
        turned.append((evidence(rows, start), start))
    return max(turned, key=lambda pair: pair[0])[1]


def _alike(data: Data) -> Iterator[Process]:
    """Linear functions, and functions of all features alike."""
    for shape in ("linear", *SHAPES):
        yield Process(shape, _identity(data), data.X.new_ones(1), 0.5, free="scale")


def _with_lengths(data: Data) -> Iterator[Process]:
    """Functions of all features, each with a length of its own."""
    for shape in SHAPES:
        yield Process(shape, _identity(data), data.X.new_ones(1), 0.5, free="lengths")


def _identity(data: Data) -> Tensor:
    d = data.X.shape[-1]
    return torch.eye(d, dtype=data.X.dtype, device=data.X.device) / d**0.5
