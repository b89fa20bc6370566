"""Coordinates through products: with weights, which take them and lead to new ones, and others."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from flattest.modules.symmetry.coordinate_uses import NONE, Ledger
from flattest.modules.symmetry.labels import Labels, core
from flattest.modules.symmetry.parameters import Copied, Raw


def biased(ledger: Ledger, labels: Labels, raw: Raw, *, shifts: bool) -> bool:
    """Take a weight that is added, one entry for each coordinate.

    Parameters
    ----------
    ledger : Ledger
        What is known.
    labels : Tensor
        The coordinates of what it is added to.
    raw : Raw
        The weight.
    shifts : bool
        Whether a change of the weight shifts the coordinate as much.

    Returns
    -------
    bool
        Whether it was possible.
    """
    single = raw.without_repeats()
    wide = [axis for axis, size in enumerate(single.shape) if size > 1]
    small = core(labels)[0]
    sizes = [small.shape[axis - len(raw.shape) + labels.ndim] for axis in wide]
    if not wide or sizes != [single.shape[a] for a in wide] or small.numel() != math.prod(sizes):
        return False
    ids = small.reshape(-1).numpy()
    if len(wide) > 1:
        single = Copied(single.name, single.positions().reshape(-1))
    located = ledger.locate(single, wide[0] if len(wide) == 1 else 0)
    if located is None or len(np.unique(ids)) < len(ids) or (ids <= NONE).any():
        return False
    ledger.lead(ids, located, bias=shifts)
    return True


def met(
    ledger: Ledger, a: Labels | None, b: Labels | None, shape: tuple[int, ...], averages: bool
) -> Labels | None:
    """Multiply (..., p, i) and (..., i, o), neither of which is a weight.

    Parameters
    ----------
    ledger : Ledger
        What is known.
    a, b : Tensor or None
        The coordinates of both.
    shape : tuple of int
        The shape of the product.
    averages : bool
        Whether the rows of the first sum to one.

    Returns
    -------
    Tensor or None
        The coordinates of the product: those of one factor, if the other mixes its rows alike.
    """
    if a is None and b is None:
        return None
    if a is None:
        assert b is not None
        if core(b)[0].shape[-2] > 1:
            ledger.block(b)
            return None
        ledger.meet(b[..., 0, :])
        if not averages:
            ledger.unshift(b)
        return b[..., :1, :].expand(shape)
    if b is None:
        if core(a)[0].shape[-1] > 1:
            ledger.block(a)
            return None
        ledger.meet(a[..., :, 0])
        ledger.unshift(a)
        return a[..., :, :1].expand(shape)
    queries, keys = a[..., 0, :], b[..., :, 0]
    mixed = core(a)[0].shape[-2] > 1 or core(b)[0].shape[-1] > 1
    if mixed or bool((queries <= NONE).any()) or bool((keys <= NONE).any()):
        ledger.block([a, b])
        return None
    ledger.meet(queries)
    ledger.meet(keys)
    first, second = core(queries, keys)
    ledger.duals.append((first.reshape(-1).numpy(), second.reshape(-1).numpy()))
    return None


def weighted(
    ledger: Ledger, labels: Labels | None, shape: tuple[int, ...], weight: Raw
) -> Labels | None:
    """Multiply (..., p, i) by a weight (..., i, o).

    Parameters
    ----------
    ledger : Ledger
        What is known.
    labels : Tensor or None
        The coordinates of what is multiplied.
    shape : tuple of int
        Its shape.
    weight : Raw
        The weight.

    Returns
    -------
    Tensor or None
        New coordinates, if the weight's entries can be told apart by them.
    """
    single = weight.without_repeats()
    if math.prod(single.shape[:-2]) > 1:
        return _weighted_each(ledger, labels, shape, single, weight)
    flat = replace(single, view=single.view.reshape(single.shape[-2:]))
    out, into = ledger.locate(flat, 1), ledger.locate(flat, 0)
    ids = ledger.fresh(flat.shape[1])
    if labels is not None:
        small = core(labels)[0]
        if into is None or small.numel() != small.shape[-1]:
            ledger.block(labels)
        else:
            ledger.take(small.reshape(-1), into, ids if out is not None else None)
    if out is None:
        return None
    ledger.lead(ids, out)
    return torch.from_numpy(ids).expand((*shape[:-1], flat.shape[1]))


def _weighted_each(
    ledger: Ledger, labels: Labels | None, shape: tuple[int, ...], single: Raw, weight: Raw
) -> Labels | None:
    """Multiply by a batch of weights, each of which is one of its own."""
    lead, n_out = single.shape[:-2], single.shape[-1]
    wide = torch.broadcast_shapes(shape[:-2], weight.shape[:-2])
    rows = None
    if labels is not None:
        inner = labels.expand(*wide, *labels.shape[-2:])
        for axis, size in enumerate(lead):
            if size == 1 and wide[axis] > 1 and inner.stride(axis) == 0:
                inner = inner.narrow(axis, 0, 1)
        if inner.stride(-2) == 0 or inner.shape[-2] == 1:
            rows = inner[..., 0, :]
        if rows is None or rows.shape[:-1] != lead:
            ledger.block(labels)
            rows = None
    ids = np.zeros((*lead, n_out), dtype=np.int64)
    for index in np.ndindex(*lead):
        one = replace(single, view=single.view[index])
        out, into = ledger.locate(one, 1), ledger.locate(one, 0)
        new = ledger.fresh(n_out)
        if rows is not None and into is not None:
            ledger.take(rows[index], into, None)
        elif rows is not None:
            ledger.block(labels)
        if out is None:
            return None
        ledger.lead(new, out)
        ids[index] = new
    return torch.from_numpy(ids).unsqueeze(-2).expand((*wide, shape[-2], n_out))


def convolved(
    ledger: Ledger, labels: Labels | None, shape: tuple[int, ...], weight: Any, transposed: bool
) -> Labels | None:
    """Convolve, in one group: new coordinates for the channels.

    Parameters
    ----------
    ledger : Ledger
        What is known.
    labels : Tensor or None
        The coordinates of what is convolved.
    shape : tuple of int
        The shape of the result.
    weight : Raw
        The weight.
    transposed : bool
        Whether the convolution is a transposed one.

    Returns
    -------
    Tensor or None
        The new coordinates.
    """
    axes = (1, 0) if transposed else (0, 1)
    out, into = ledger.locate(weight, axes[0]), ledger.locate(weight, axes[1])
    if labels is not None:
        small = core(labels)[0]
        if into is None or small.numel() != small.shape[1]:
            ledger.block(labels)
        else:
            # At the borders a shift meets the padding.
            ledger.unshift(labels)
            ledger.take(small.reshape(-1), into, None)
    if out is None:
        return None
    ids = ledger.fresh(weight.shape[axes[0]])
    ledger.lead(ids, out)
    return torch.from_numpy(ids).view(1, -1, *(1,) * (len(shape) - 2)).expand(shape)
