"""What is noted of coordinates on the way: where parameters hold them, and what happens to them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flattest.modules.symmetry.coordinate_places import Place, Slot, places
from flattest.modules.symmetry.labels import Labels, core
from flattest.modules.symmetry.parameters import Raw

NONE = 0
"""The label of an entry without coordinate."""


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

    def lead(self, ids: np.ndarray, located: list[Place], *, bias: bool = False) -> None:
        """Note a parameter that leads to coordinates."""
        for slot, positions, which in located:
            self.into.append(Use(ids[which], positions, slot, self.mark(), bias=bias))

    def take(self, labels: Tensor, located: list[Place], out: np.ndarray | None) -> None:
        """Note a parameter that takes coordinates; entries without one are passed over."""
        every = labels.numpy()
        for slot, positions, which in located:
            there = every[which] > NONE
            ids = every[which][there]
            self.out_of.append(Use(ids, positions[there], slot, self.mark(), out=out))

    def meet(self, labels: Labels) -> None:
        """Note which coordinates meet which matrices of a batch (..., i)."""
        small = core(labels)[0]
        flat = small.expand(*labels.shape[:-1], -1).reshape(-1, small.shape[-1])
        first = self.mark(len(flat))
        rows = torch.arange(len(flat))[:, None].expand(flat.shape)
        there = flat > NONE
        self.alike.append((flat[there].numpy(), (rows[there] + first).numpy()))

    def locate(self, raw: Raw, axis: int) -> list[Place] | None:
        """Say where in its parameter a dimension of a view is; see `places`."""
        return places(raw, axis, self._shapes[raw.name])
