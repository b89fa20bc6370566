"""Interpolators written down rather than trained, which ignore all structure in the targets.

Each function returns weights and coefficients for the problem, or None where the construction does
not exist; the number of neurons is theirs, not the problem's width. Those of degree 1 rest on
``s(z) = ((alpha + beta) |z| + (alpha - beta) z) / 2``: kinks, and a linear function that is paid
for by two more neurons. Their kinks go through samples, and there rounding decides on which side of
a kink the trace is taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linprog
from torch import Tensor

from flattest.interpolators.result import Problem
from flattest.two_layer.activations import Homogeneous

_SAME_RAY = 1e-10
_CLEAR = 1e-9
"""Share of a neuron's size by which it stays off where it must, so that rounding keeps it off."""
_SLAB = 0.5
"""Half width of a slab over the largest that leaves all other samples outside."""


class Construction(NamedTuple):
    """A network that was written down."""

    weights: Float[Tensor, "m d"]
    coefficients: Float[Tensor, " m"]
    missed: int = 0
    """Number of samples that it is known not to fit."""

    def in_units(self, length: float, size: float) -> Construction:
        """Return the network for inputs and targets that are larger by these factors."""
        return self._replace(weights=self.weights / length, coefficients=self.coefficients * size)


def fan(problem: Problem) -> Construction | None:
    """Interpolate ``y / r`` linearly, cone by cone, in the angle of a random plane.

    The function is even: it has one kink ``|v . x|`` per line through a sample. It needs two
    features, and targets that agree at opposite points.
    """
    d = problem.X.shape[1]
    if d < 2:
        return None
    plane = torch.linalg.qr(problem.normal(d, 2))[0]
    kept = _first_of_each_ray(problem.X @ plane, opposite=True)
    z, y = (problem.X @ plane)[kept], problem.y[kept]
    if len(z) == 0:
        return None
    z = torch.where((z[:, 1] < 0)[:, None], -z, z)  # the half plane of angles in [0, pi)
    order = torch.atan2(z[:, 1], z[:, 0]).argsort()
    z, y = z[order], y[order]
    if len(z) == 1:
        z, y = torch.stack([z[0], _turn(z)[0]]), torch.cat([y, 0 * y])
    # On the cone between two lines the function is linear; its gradient solves a 2 x 2 system.
    after_z, after_y = torch.cat([z[1:], -z[:1]]), torch.cat([y[1:], y[:1]])
    area = z[:, 0] * after_z[:, 1] - z[:, 1] * after_z[:, 0]
    gradient = (_turn(z) * after_y[:, None] - _turn(after_z) * y[:, None]) / area[:, None]
    jump = gradient - torch.cat([-gradient[-1:], gradient[:-1]])
    normal = _turn(z)
    kinks = (jump * normal).sum(dim=1) / (2 * normal.square().sum(dim=1))
    return _from_kinks(normal @ plane.T, kinks, problem.activation)


def slabs(problem: Problem) -> Construction | None:
    """Put the samples on thin slabs around hyperplanes through 0, up to ``d - 1`` on each.

    ``relu(w + e v) - 2 relu(w) + relu(w - e v)`` (of ``x``) is ``e |v . x|`` on the hyperplane
    ``w . x = 0`` and 0 outside a wedge around it; ``v`` gives the samples of one sign their
    values. After Baum (1988), who uses threshold units.
    """
    # Whitened, so that random hyperplanes keep their distance from the other samples.
    U, S, Vh = torch.linalg.svd(problem.X, full_matrices=False)
    rank = int((S > S[0] * max(problem.X.shape) * torch.finfo(S.dtype).eps).sum())
    kept = _first_of_each_ray(problem.X, opposite=True)
    Z, y = (U[:, :rank] * math.sqrt(len(U)))[kept], problem.y[kept]
    back = Vh[:rank] / S[:rank, None] * math.sqrt(len(U))
    signed = [_shuffled(problem, (sign * y > 0).nonzero()[:, 0]) for sign in (1, -1)]
    most = rank - 1
    if most < 1:
        return None
    size = next(
        (g for g in range(1, most) if 3 * sum(-(-len(s) // g) for s in signed) <= problem.width),
        most,
    )
    act, weights, coefficients = problem.activation, [], []
    for members, sign in zip(signed, (1.0, -1.0), strict=True):
        for group in members.split(size) if len(members) else ():
            rows, others = Z[group], torch.ones(len(Z), dtype=torch.bool).to(Z.device)
            others[group] = False
            v = torch.linalg.pinv(rows) @ y[group]
            w = _normal_to(rows, problem.normal(rank))
            off, rise = (Z[others] @ w).abs(), (Z[others] @ v).abs()
            e = _SLAB * float((off / rise.clamp_min(1e-300)).min()) if len(off) else 1.0
            if not e > 0:
                return None
            weights += [w + e * v, w, w - e * v]
            heights = torch.tensor([1.0, -2.0, 1.0]).to(Z)
            coefficients.append(sign * heights / (e * (act.positive + act.negative)))
    return Construction(torch.stack(weights) @ back, torch.cat(coefficients))


def line(problem: Problem) -> Construction | None:
    """Interpolate linearly along a random direction, one neuron per sample.

    It needs a bias: a combination of the columns of ``X`` that is 1 on every sample.
    """
    X, bias = problem.X, _bias(problem.X)
    if bias is None:
        return None
    u = problem.normal(X.shape[1])
    t, order = (X @ u).sort()
    y = problem.y[order]
    new = torch.ones_like(t, dtype=torch.bool)
    new[1:] = t[1:] - t[:-1] > _SAME_RAY * (t[-1] - t[0])
    t, y = t[new], y[new]
    gap = (t[-1] - t[0]) / len(t) if len(t) > 1 else t.new_ones(())
    t, y = torch.cat([t[:1] - gap, t]), torch.cat([0 * y[:1], y])
    slopes = y.diff() / t.diff()
    kinks = slopes.diff(prepend=slopes.new_zeros(1))
    return _from_kinks(u - t[:-1, None] * bias, kinks / 2, problem.activation, hinges=True)


def spikes(problem: Problem, *, partial: bool = False) -> Construction | None:
    """Give every sample with a target a neuron that fires on it alone.

    It exists where each of them can be cut off from all others by a halfspace whose boundary goes
    through 0; with a bias, where it is a vertex of the convex hull. Every such network attains
    the lower bound on the trace (for Boolean inputs, see Wen, Li and Ma, 2023). With `partial`
    the samples that cannot be cut off are left out; otherwise the first of them ends the search.
    """
    X, y, act = problem.X, problem.y, problem.activation
    wanted = ((y != 0) & _first_of_each_ray(X, opposite=False)).nonzero()[:, 0]
    lengths = X.norm(dim=1)
    units = X / lengths.clamp_min(1e-300)[:, None]
    scores, weights = _one_against_all(X)
    found, coefficients, missed = [], [], 0
    for i in wanted.tolist():
        others = (lengths > 0) & ((units - units[i]).norm(dim=1) > _SAME_RAY)
        w: Tensor | None = weights[i]
        if not _cuts_off(scores[i], i, others):
            w = _separate(X[i], units[others])
        if w is None and not partial:
            return None
        if w is None:
            missed += 1
            continue
        found.append(w / (X[i] @ w))
        coefficients.append(y[i])
    if not found:
        return None
    side = 1.0 if act.positive != 0 else -1.0
    slope = act.positive if act.positive != 0 else act.negative
    return Construction(side * torch.stack(found), torch.stack(coefficients) / slope, missed)


def _from_kinks(
    directions: Float[Tensor, "k d"],
    kinks: Float[Tensor, " k"],
    act: Homogeneous,
    *,
    hinges: bool = False,
) -> Construction | None:
    """Build ``sum_k kinks_k |v_k . x|``, or with `hinges` ``sum_k 2 kinks_k relu(v_k . x)``."""
    total, tilt = act.positive + act.negative, act.positive - act.negative
    a = 2 * kinks / total
    linear = (float(hinges) - tilt / total) * kinks @ directions
    if not bool((linear != 0).any()):
        return Construction(directions, a)
    if tilt == 0:
        return None  # an even activation builds even functions only
    pair = torch.tensor([1.0, -1.0]).to(a)
    weights = torch.cat([directions, pair[:, None] * linear])
    return Construction(weights, torch.cat([a, pair / tilt]))


def _turn(z: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Rotate by a right angle."""
    return torch.stack([-z[:, 1], z[:, 0]], dim=1)


def _first_of_each_ray(X: Float[Tensor, "n d"], *, opposite: bool) -> Bool[Tensor, " n"]:
    """Mark one sample of each ray from 0 (or line through 0), and none at 0."""
    lengths = X.norm(dim=1)
    units = X / lengths.clamp_min(1e-300)[:, None]
    near = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist") <= _SAME_RAY
    if opposite:
        near |= torch.cdist(units, -units, compute_mode="donot_use_mm_for_euclid_dist") <= _SAME_RAY
    first = near.int().argmax(dim=1) == torch.arange(len(X), device=X.device)
    return first & (lengths > 0)


def _shuffled(problem: Problem, index: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
    return index[torch.from_numpy(problem.rng.permutation(len(index))).to(index.device)]


def _normal_to(rows: Float[Tensor, "g r"], w: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """Project a random vector on the complement of some rows."""
    basis = torch.linalg.qr(rows.T)[0]
    for _ in range(2):  # once more, for what rounding has left
        w = w - basis @ (basis.T @ w)
    return w / w.norm()


def _bias(X: Float[Tensor, "n d"]) -> Float[Tensor, " d"] | None:
    """Return the combination of columns that is 1 on every sample, where there is one."""
    ones = torch.ones(len(X)).to(X)
    c = torch.linalg.pinv(X) @ ones
    return c if float((X @ c - ones).abs().max()) < _CLEAR else None


def _one_against_all(X: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n n"], Float[Tensor, "n d"]]:
    """Return least-squares classifiers of each sample against the rest: scores and weights."""
    n, inverse = len(X), torch.linalg.pinv(X)
    labels = 2 * torch.eye(n).to(X) - 1
    weights = labels @ inverse.T
    scores = weights @ X.T
    bias = _bias(X)
    if bias is not None:  # the threshold half way between the sample and the next
        own = scores.diagonal()
        rest = scores.masked_fill(torch.eye(n, dtype=torch.bool, device=X.device), -math.inf)
        middle = (own + rest.amax(dim=1).clamp_min(-1e300)) / 2 if n > 1 else own - 1
        weights = weights - middle[:, None] * bias
        scores = scores - middle[:, None]
    return scores, weights


def _cuts_off(scores: Float[Tensor, " n"], i: int, others: Bool[Tensor, " n"]) -> bool:
    margin = _CLEAR * float(scores.abs().max())
    return float(scores[i]) > margin and bool((scores[others] < -margin).all())


def _separate(x: Float[Tensor, " d"], others: Float[Tensor, "k d"]) -> Float[Tensor, " d"] | None:
    """Maximise ``t`` such that ``w . x = |x|`` and ``w . x_k <= -t``, a linear programme."""
    d = len(x)
    solved = linprog(
        np.append(np.zeros(d), -1.0),
        A_ub=np.column_stack([others.cpu().numpy(), np.ones(len(others))]),
        b_ub=np.zeros(len(others)),
        A_eq=np.append((x / x.norm()).cpu().numpy(), 0.0)[None],
        b_eq=np.ones(1),
        bounds=[(None, None)] * d + [(0.0, 1.0)],
        method="highs",
    )
    if solved.status != 0 or solved.x[-1] <= _CLEAR * float(np.abs(solved.x[:-1]).sum()):
        return None
    return torch.from_numpy(solved.x[:-1]).to(x)
