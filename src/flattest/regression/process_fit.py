"""The fit of a process: its directions, lengths, variances and noise maximise a likelihood."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import Bounds, minimize

from flattest.regression.evidence import evidence_and_slopes
from flattest.regression.gaussian_process import Data, Process
from flattest.regression.occam import degrees_of_freedom, scored
from flattest.regression.tuning import (
    LBFGS_MEMORY,
    LOG_LENGTH,
    LOG_NOISE,
    LOG_VARIANCE,
    Effort,
)

_BEYOND = 1.05  # times the least noise, from where on a fit was not held up by it


def fit_process(
    data: Data, start: Process, effort: Effort, *, only_lengths: bool = False
) -> Process:
    r"""Maximise the restricted marginal likelihood, summed over the blocks, by L-BFGS.

    .. math::
        -\tfrac12 y^T K^{-1} y - \tfrac12 \log\det K - \tfrac n2 \log 2 \pi
        + \tfrac{\nu}2 \log \sigma^2

    Directions fitted to few rows follow their noise, and the noise variance then looks smaller than
    it is, down to nothing. The last term gives it back the ``nu`` degrees of freedom that the
    directions have taken, as restricted maximum likelihood does for fixed effects (Patterson and
    Thompson, Biometrika 58, 1971); ``nu`` is that of the start.

    Parameters
    ----------
    data : Data
        Blocks of rows; the targets of mean 0.
    start : Process
        Where to start.
    effort : Effort
        When to stop.
    only_lengths : bool
        Whether to hold directions, of which all was fitted before, and fit their lengths only.

    Returns
    -------
    Process
        The best found, scored.
    """
    rows = data.cut(effort.part) if effort.part else data
    start = start._replace(spent=degrees_of_freedom(rows, start))
    enough = effort.single * start.variance
    if start.noise > enough:
        # Where the fit ends at the least noise for single precision, it goes on in double.
        rough = rows.to(torch.float32)
        start = _climb(rough, start, effort, only_lengths=only_lengths, least_noise=enough)
        if start.noise > _BEYOND * enough:
            return scored(data, start)
    return scored(data, _climb(rows, start, effort, only_lengths=only_lengths))


def _climb(
    data: Data, start: Process, effort: Effort, *, only_lengths: bool, least_noise: float = 0.0
) -> Process:
    """Maximise from a start, in the precision of the data."""
    base, k, q = start.projection, start.n_directions, len(start.variances)
    free = start.free == "projection" and not only_lengths
    # The projection is a matrix times a scale, or one for each of its columns. Where the matrix is
    # free the scale is redundant, but along it lie the long valleys of smooth functions, which are
    # straight in the logarithms of scale and variance.
    scale = base.norm(dim=0, keepdim=True)
    if not (start.additive or only_lengths or start.free == "lengths"):
        scale = scale.square().mean(1, keepdim=True).sqrt()
    scale = scale.clamp_min(1e-3 * float(scale.max()) or 1.0)
    unit = base / scale
    size, scales = unit.numel() if free else 0, scale.numel()
    first = unit.flatten().cpu().numpy()[:size]
    logs = [scale.log().flatten(), start.variances.log()]
    theta = np.concatenate([first, *(x.cpu().numpy() for x in logs), [math.log(start.noise)]])
    ranges = [(-np.inf, np.inf)] * size + [LOG_LENGTH] * scales + [LOG_VARIANCE] * q
    low, high = np.array([*ranges, LOG_NOISE]).T
    if least_noise:
        low[-1] = max(low[-1], math.log(least_noise))
    rows = data.y.numel()

    def at(theta: np.ndarray, precision: torch.dtype = base.dtype) -> Process:
        values = torch.from_numpy(theta).to(base)
        matrix = values[:size].reshape(base.shape) if free else unit
        return start._replace(
            projection=(matrix * values[size : size + scales].exp()).to(precision),
            variances=values[size + scales : -1].exp().to(precision),
            noise=math.exp(theta[-1]),
        )

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        process = at(theta, data.y.dtype)
        value, slope, in_variances, in_noise = evidence_and_slopes(data, process)
        value += process.spent / 2 * math.log(process.noise)
        rest = in_variances, in_noise + process.spent / 2
        factor = torch.from_numpy(theta[size : size + scales]).to(slope).exp()
        in_scale = (slope * process.projection).sum(0)
        in_scale = in_scale if scales == k else in_scale.sum(0, keepdim=True)
        slopes = [(slope * factor).flatten()[:size], in_scale]
        return -value / rows, -np.concatenate([*(x.cpu().numpy() for x in slopes), *rest]) / rows

    end = minimize(
        objective,
        np.clip(theta, low, high),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(low, high),
        options={"maxiter": effort.max_iter, "maxcor": LBFGS_MEMORY, "ftol": effort.tol},
    )
    return at(end.x)._replace(converged=bool(end.success))
