"""What is noted of coordinates on the way: where parameters hold them, and what happens to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flattest.modules.symmetry.labels import Labels, core
from flattest.modules.symmetry.parameters import Raw

NONE = 0
"""The label of an entry without coordinate."""


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


class Use(NamedTuple):
    """Coordinates that a parameter leads to, or that it takes.

    Parameters
    ----------
    ids : ndarray of int
        The coordinates.
    positions : ndarray of int
        Where each is along the parameter's dimension.
    slot : Slot
        Which dimension of which parameter.
    mark : int
        A number for the operation.
    out : ndarray of int or None
        For a parameter that takes coordinates, those that it leads to.
    bias : bool
        Whether the parameter is added.
    """

    ids: np.ndarray
    positions: np.ndarray
    slot: Slot
    mark: int
    out: np.ndarray | None = None
    bias: bool = False


class Ledger:
    """All that is noted of coordinates. They are numbered from 1.

    Parameters
    ----------
    shapes : dict of str to tuple
        The shapes of the parameters.

    Attributes
    ----------
    into, out_of : list of Use
        The parameters that lead to coordinates, and those that take them.
    duals : list of pairs of ndarray
        Coordinates that meet in scalar products.
    alike : list of pairs of ndarray
        Coordinates, and numbers of the matrices that they meet.
    pairs : list of pairs of ndarray
        Coordinates that are added to each other.
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self.n_coordinates, self._marks = 1, 0
        self.into: list[Use] = []
        self.out_of: list[Use] = []
        self.duals: list[tuple[np.ndarray, np.ndarray]] = []
        self.alike: list[tuple[np.ndarray, np.ndarray]] = []
        self.pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._blocked: list[np.ndarray] = []
        self._varied: list[np.ndarray] = []
        self._not_shifted: list[np.ndarray] = []

    def flags(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which coordinates are blocked, scaled one by one, and not shifted as a whole."""
        found = []
        for ids in (self._blocked, self._varied, self._not_shifted):
            flag = np.zeros(self.n_coordinates, dtype=bool)
            for some in ids:
                flag[some] = True
            found.append(flag)
        return found[0], found[1], found[2]

    def block(self, labels: Any) -> None:
        """Note that something other than a linear map happens to coordinates."""
        self._note(self._blocked, labels)

    def vary(self, labels: Any) -> None:
        """Note that coordinates are multiplied by constants of their own."""
        self._note(self._varied, labels)

    def unshift(self, labels: Any) -> None:
        """Note that a shift of coordinates does not come through as the same shift."""
        self._note(self._not_shifted, labels)

    def _note(self, where: list[np.ndarray], labels: Any) -> None:
        for part in labels if isinstance(labels, (list, tuple)) else [labels]:
            if part is not None:
                ids = torch.unique(core(part)[0]).numpy()
                where.append(ids[ids > NONE])

    def fresh(self, count: int) -> np.ndarray:
        """Return new coordinates."""
        self.n_coordinates += count
        return np.arange(self.n_coordinates - count, self.n_coordinates)

    def mark(self, count: int = 1) -> int:
        """Return the first of some new numbers of operations."""
        self._marks += count
        return self._marks - count

    def lead(
        self, ids: np.ndarray, located: tuple[Slot, np.ndarray], *, bias: bool = False
    ) -> None:
        """Note a parameter that leads to coordinates."""
        slot, positions = located
        self.into.append(Use(ids, positions, slot, self.mark(), bias=bias))

    def take(
        self, labels: Tensor, located: tuple[Slot, np.ndarray], out: np.ndarray | None
    ) -> None:
        """Note a parameter that takes coordinates; entries without one are passed over."""
        there = (labels > NONE).numpy()
        slot, positions = located
        ids = labels.numpy()[there]
        self.out_of.append(Use(ids, positions[there], slot, self.mark(), out=out))

    def meet(self, labels: Labels) -> None:
        """Note which coordinates meet which matrices of a batch (..., i)."""
        small = core(labels)[0]
        flat = small.expand(*labels.shape[:-1], -1).reshape(-1, small.shape[-1])
        first = self.mark(len(flat))
        rows = torch.arange(len(flat))[:, None].expand(flat.shape)
        there = flat > NONE
        self.alike.append((flat[there].numpy(), (rows[there] + first).numpy()))

    def locate(self, raw: Raw, axis: int) -> tuple[Slot, np.ndarray] | None:
        """Say which dimension of the parameter a dimension of a view is, and where on it.

        Parameters
        ----------
        raw : Raw
            The view.
        axis : int
            A dimension of it.

        Returns
        -------
        tuple of Slot and ndarray, or None
            The place of each of its positions; None if it is no dimension of the parameter, or if
            the view does not hold all of every other one.
        """
        shape = self._shapes[raw.name]
        steps = torch.empty(shape, device="meta").stride()
        offset = int(raw.view.storage_offset())
        places = [(offset // step) % size for step, size in zip(steps, shape, strict=True)]
        used: dict[int, int] = {}
        for inner, (size, step) in enumerate(zip(raw.view.shape, raw.view.stride(), strict=True)):
            if size == 1:
                continue
            same = [a for a in range(len(shape)) if steps[a] == step and shape[a] > 1]
            if not same or places[same[0]] + size > shape[same[0]]:
                return None
            used[same[0]] = inner
        target = next((a for a, inner in used.items() if inner == axis), None)
        if target is None:
            return None
        for other, inner in used.items():
            if inner != axis and raw.view.shape[inner] != shape[other]:
                return None
        at = tuple((a, places[a]) for a in range(len(shape)) if a not in used and shape[a] > 1)
        positions = places[target] + np.arange(raw.view.shape[axis])
        return Slot(raw.name, target, at), positions
