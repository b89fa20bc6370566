"""Where in a parameter the coordinates are that one dimension of a view or a copy of it counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from flattest.modules.symmetry.parameters import Copied, Raw


class Slot(NamedTuple):
    """Where coordinates are in a parameter.

    Parameters
    ----------
    name : str
        The parameter.
    axis : int
        The dimension that holds them.
    at : tuple of (int, int)
        Dimensions held at one position.
    """

    name: str
    axis: int
    at: tuple[tuple[int, int], ...] = ()


class Place(NamedTuple):
    """Some of the coordinates, in one slot.

    Parameters
    ----------
    slot : Slot
        Which dimension of the parameter.
    positions : ndarray of int
        Where each is along it.
    which : ndarray of int
        Which coordinates they are.
    """

    slot: Slot
    positions: np.ndarray
    which: np.ndarray


def places(raw: Raw, axis: int, shape: tuple[int, ...]) -> list[Place] | None:
    """Say where in a parameter the positions along one dimension of a view are.

    Parameters
    ----------
    raw : Raw
        The view.
    axis : int
        A dimension of it.
    shape : tuple of int
        The shape of the parameter.

    Returns
    -------
    list of Place or None
        One for each slot: heads that a weight keeps in a dimension of its own are several. None if
        the dimension is none of the parameter, nor several of them, or if the view does not hold
        all of every other one.
    """
    one = None if isinstance(raw, Copied) else _by_strides(raw, axis, shape)
    return [one] if one is not None else _by_entries(raw, axis, shape)


def _by_strides(raw: Raw, axis: int, shape: tuple[int, ...]) -> Place | None:
    """Find the one dimension with the same stride."""
    steps = torch.empty(shape, device="meta").stride()
    offset = int(raw.view.storage_offset())
    start = [(offset // step) % size for step, size in zip(steps, shape, strict=True)]
    used: dict[int, int] = {}
    for inner, (size, step) in enumerate(zip(raw.view.shape, raw.view.stride(), strict=True)):
        if size == 1:
            continue
        same = [a for a in range(len(shape)) if steps[a] == step and shape[a] > 1]
        if not same or start[same[0]] + size > shape[same[0]]:
            return None
        used[same[0]] = inner
    target = next((a for a, inner in used.items() if inner == axis), None)
    if target is None:
        return None
    for other, inner in used.items():
        if inner != axis and raw.view.shape[inner] != shape[other]:
            return None
    at = tuple((a, start[a]) for a in range(len(shape)) if a not in used and shape[a] > 1)
    count = np.arange(raw.view.shape[axis])
    return Place(Slot(raw.name, target, at), start[target] + count, count)


def _by_entries(raw: Raw, axis: int, shape: tuple[int, ...]) -> list[Place] | None:
    """Compare the positions of all entries: every dimension goes with rows or with columns."""
    if raw.view.numel() == 0 or raw.view.shape[axis] == 1:
        return None
    flat = raw.positions().movedim(axis, -1).reshape(-1, raw.view.shape[axis])
    rows, columns = flat[:, 0], flat[0]
    if bool((flat != rows[:, None] + (columns - columns[0])).any()):
        return None
    of_rows, of_columns = (np.unravel_index(ends.numpy(), shape) for ends in (rows, columns))
    others, own = (
        [a for a in range(len(shape)) if (where[a] != where[a][0]).any()]
        for where in (of_rows, of_columns)
    )
    complete = len(rows) == len(np.unique(rows)) == np.prod([shape[a] for a in others], dtype=int)
    if not own or set(others) & set(own) or not complete:
        return None
    # Coordinates follow each other; heads, if there are any, come one after the other.
    target = next(a for a in own if of_columns[a][1] != of_columns[a][0])
    fixed = [a for a in range(len(shape)) if a not in (*others, target) and shape[a] > 1]
    heads, head = np.unique(
        np.stack([of_columns[a] for a in fixed] or [np.zeros(len(columns), int)], axis=1),
        axis=0,
        return_inverse=True,
    )
    found = []
    for number, held in enumerate(heads.tolist()):
        which = np.flatnonzero(head.reshape(-1) == number)
        slot = Slot(raw.name, target, tuple(zip(fixed, held, strict=False)))
        found.append(Place(slot, of_columns[target][which], which))
    return found
