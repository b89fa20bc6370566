"""From equations and forms to the free scales and what each of them does to the parameters."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import Tensor

from flattest.modules.symmetry.affine_shift import AffineShift
from flattest.modules.symmetry.equations import FROZEN, Equations, Solution
from flattest.modules.symmetry.labels import ANY, core
from flattest.modules.symmetry.scaled_tensor import ScaledTensor
from flattest.modules.symmetry.walk import Walk


class Scales(NamedTuple):
    """The free scales of a module.

    Parameters
    ----------
    tensors : tuple of ScaledTensor
        How each parameter scales.
    names : list of str
        The channel that each free scale is named after.
    reasons : dict of str to str
        Why a tensor is frozen, for those that are.
    ends : dict of str to str
        Why channels that a tensor leads to are frozen, for those of which some are.
    affine : tuple of AffineShift
        The biases that shift with the scales.
    """

    tensors: tuple[ScaledTensor, ...]
    names: list[str]
    reasons: dict[str, str]
    ends: dict[str, str]
    affine: tuple[AffineShift, ...]


def assemble(walk: Walk, shapes: dict[str, tuple[int, ...]], fixed: set[str]) -> Scales:
    """Solve the equations, and leave out what no parameter shows.

    Parameters
    ----------
    walk : Walk
        All that the graph demands.
    shapes : dict of str to tuple
        All parameters, in order.
    fixed : set of str
        Those that were constants in the walk.

    Returns
    -------
    Scales
        The free scales.
    """
    entries = {name: walk.forms.entries(name) for name in shapes if name not in fixed}
    solution = walk.equations.solve()
    keep = _visible(solution, list(entries.values()))
    used = torch.unique(
        torch.cat(
            [torch.tensor([FROZEN]), *(t.reshape(-1) for pair in entries.values() for t in pair)]
        )
    )
    used = used[used != ANY]
    channels = csr_matrix(solution.basis[used.numpy()][:, keep])
    number = torch.full((walk.equations.n_variables,), 0)
    number[used] = torch.arange(len(used))
    tensors = []
    for name, shape in shapes.items():
        if name in entries:
            out, into = (number[core(t)[0]] for t in entries[name])
        else:
            out = into = torch.zeros((1,) * len(shape), dtype=torch.int64)
        tensors.append(ScaledTensor(name, shape, out, into, channels))
    names = _names(walk, solution.free[keep])
    reasons, ends = _reasons(walk, tensors, entries, fixed)
    affine = tuple(
        AffineShift(shift.gain, shift.bias, shift.centre, number[shift.into], channels)
        for shift in walk.shifts
        if not {shift.gain, shift.bias} & walk.forms.reused
    )
    return Scales(tuple(tensors), names, reasons, ends, affine)


def _visible(solution: Solution, entries: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Return which free variables to keep: those that move nothing are set to zero.

    What moves no parameter solves y_out = y_into for all entries. Its own free variables are those
    that can be held at zero without losing anything.
    """
    n_free = len(solution.free)
    if not n_free:
        return np.zeros(0, dtype=np.int64)
    rows: list[csr_matrix] = []
    for out, into in entries:
        pairs = _spanning(out, into)
        difference = csr_matrix(solution.basis[pairs[:, 0]] - solution.basis[pairs[:, 1]])
        difference.eliminate_zeros()
        rows.append(difference[difference.getnnz(axis=1) > 0])
    stacked = csr_matrix(vstack(rows)) if rows else csr_matrix((0, n_free))
    still = Equations(n_free + 1)
    width = stacked.getnnz(axis=1)
    for terms in np.unique(width):
        chosen = csr_matrix(stacked[width == terms])
        ids = chosen.indices.reshape(-1, terms).astype(np.int64) + 1
        weights = chosen.data.reshape(-1, terms)
        for pattern in np.unique(weights, axis=0):
            same = (weights == pattern).all(axis=1)
            still.relate(ids[same], pattern.tolist())
    hidden = still.solve().free - 1
    return np.setdiff1d(np.arange(n_free), hidden)


def _spanning(out: Tensor, into: Tensor) -> np.ndarray:
    """Return pairs of channels whose differences span those of all entries."""
    first, second = core(out, into)
    axes = [
        [a for a in range(first.ndim) if t.shape[a] > 1 and t.stride(a) != 0]
        for t in (first, second)
    ]
    if set(axes[0]).isdisjoint(axes[1]):
        # Every end meets every start: the first of each with all of the other side.
        ends, starts = torch.unique(core(out)[0]), torch.unique(core(into)[0])
        pairs = torch.cat(
            [
                torch.stack([ends, starts[:1].expand(len(ends))], dim=1),
                torch.stack([ends[:1].expand(len(starts)), starts], dim=1),
            ]
        )
    else:
        pairs = torch.stack([first.reshape(-1), second.reshape(-1)], dim=1)
        pairs = torch.unique(pairs, dim=0)
    return pairs.numpy()


def _names(walk: Walk, free: np.ndarray) -> list[str]:
    """Name variables after the parameter that they were created for."""
    starts = [start for start, _, _ in walk.origins]
    names = []
    for variable in free.tolist():
        at = bisect_right(starts, variable) - 1
        start, count, name = walk.origins[at] if at >= 0 else (0, 0, "")
        inside = at >= 0 and variable < start + count
        names.append(f"{name}[{variable - start}]" if inside else f"scale {variable}")
    return names


def _reasons(
    walk: Walk,
    tensors: list[ScaledTensor],
    entries: dict[str, tuple[Tensor, Tensor]],
    fixed: set[str],
) -> tuple[dict[str, str], dict[str, str]]:
    """Return why tensors are frozen, and why channels are that tensors lead to."""
    reasons: dict[str, str] = {}
    ends: dict[str, str] = {}
    explain = walk.equations.reasons()
    moving = np.diff(tensors[0].channels.indptr) > 0 if tensors else np.zeros(0, dtype=bool)
    for tensor in tensors:
        if tensor.name in fixed:
            reasons[tensor.name] = ends[tensor.name] = "it does not require gradients"
            continue
        if tensor.name not in walk.forms.pieces:
            reasons[tensor.name] = ends[tensor.name] = "no output depends on it"
            continue
        out, into = (core(labels)[0].reshape(-1) for labels in entries[tensor.name])
        still = ~torch.from_numpy(moving)[core(tensor.out)[0].reshape(-1)]
        if bool(still.any()):
            first = int(out[still][0])
            why = explain.of(first) if first != FROZEN else None
            ends[tensor.name] = why or explain.of(int(into[0])) or _TIED
        if tensor.is_frozen:
            reasons[tensor.name] = ends.get(tensor.name, _TIED)
    return reasons, ends


_TIED = "its channels scale with what they come from"
