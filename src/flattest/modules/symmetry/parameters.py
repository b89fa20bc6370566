"""How each entry of a parameter scales: from the uses in the graph to one `ScaledTensor` each.

While only views have been taken, a parameter's entries need no labels: `Raw` says by strides which
entries a view holds. Its first use gives these entries their form, the difference between the
labels of two channels, and every other use demands that its own form is equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN, Equations
from flattest.modules.symmetry.labels import ANY, Labels, compact, core

_ALL_ROWS = 50_000
"""Up to how many entries two forms are compared one by one."""


@dataclass(frozen=True, eq=False)
class Raw:
    """A view of a parameter.

    Parameters
    ----------
    name : str
        The parameter.
    view : Tensor
        A tensor without data whose strides and offset say which entries.
    """

    name: str
    view: Tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the view."""
        return self.view.shape

    def same_entries(self, other: Raw) -> bool:
        """Tell whether two views hold the same entries in the same places."""
        return (
            self.name == other.name
            and self.view.shape == other.view.shape
            and self.view.storage_offset() == other.view.storage_offset()
            and all(
                a == b or size == 1
                for a, b, size in zip(
                    self.view.stride(), other.view.stride(), self.view.shape, strict=True
                )
            )
        )

    def without_repeats(self) -> Raw:
        """Return the view with size 1 where it repeats entries."""
        view = self.view
        for axis, (size, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
            if size > 1 and stride == 0:
                view = view.narrow(axis, 0, 1)
        return replace(self, view=view)

    def sorted(self) -> tuple[Raw, list[int]]:
        """Return the view with its dimensions in the order of the strides, and that order."""
        strides = self.view.stride()
        order = sorted(range(self.view.ndim), key=lambda axis: (-strides[axis], axis))
        return Raw(self.name, self.view.permute(order)), order

    @property
    def last(self) -> int:
        """The largest position in memory."""
        steps = zip(self.view.shape, self.view.stride(), strict=True)
        return int(self.view.storage_offset()) + sum((size - 1) * step for size, step in steps)

    def positions(self) -> Tensor:
        """Return the position in memory of each entry."""
        found = torch.tensor(self.view.storage_offset())
        for axis, (size, stride) in enumerate(
            zip(self.view.shape, self.view.stride(), strict=True)
        ):
            shape = [1] * self.view.ndim
            shape[axis] = size
            found = found + (torch.arange(size) * stride).view(shape)
        return found.expand(self.view.shape)


@dataclass(frozen=True, eq=False)
class Copied(Raw):
    """All entries of a parameter in a copy that no view is; `view` holds their positions."""

    def positions(self) -> Tensor:
        """Return the position in memory of each entry."""
        return self.view


class _Piece(NamedTuple):
    """The form of some entries."""

    raw: Raw
    out: Labels
    into: Labels


@dataclass
class Forms:
    """The forms of all parameters' entries.

    Parameters
    ----------
    equations : Equations
        Where equality of forms is demanded.
    shapes : dict of str to tuple
        The parameters and their shapes.
    pieces : dict of str to list
        What is known of each parameter.
    reused : set of str
        The parameters of which some entries are used more than once.
    """

    equations: Equations
    shapes: dict[str, tuple[int, ...]]
    pieces: dict[str, list[_Piece]] = field(default_factory=dict)
    reused: set[str] = field(default_factory=set)

    def bind(self, raw: Raw, out: Labels, into: Labels) -> None:
        """Give the entries of a view their form, or demand that they have it.

        Parameters
        ----------
        raw : Raw
            Which entries.
        out, into : Tensor
            The labels whose difference is the entries' log scale; they broadcast to the view.
        """
        out = torch.where(out == ANY, FROZEN, out) if bool((out == ANY).any()) else out
        into = torch.where(into == ANY, FROZEN, into) if bool((into == ANY).any()) else into
        if isinstance(raw, Copied):
            out, into = (self._in_place(raw, labels) for labels in (out, into))
            raw = self._whole(raw.name)
        raw, order = raw.sorted()
        piece = _Piece(raw, *(_permuted(labels, len(order), order) for labels in (out, into)))
        known = self.pieces.setdefault(raw.name, [])
        touching = [other for other in known if _overlap(other.raw, raw)]
        if not touching:
            known.append(piece)
            return
        self.reused.add(raw.name)
        if len(touching) == 1 and touching[0].raw.same_entries(raw):
            self._demand_equal(touching[0], piece)
        else:
            self._merge_densely(raw.name, piece)

    def known(self, raw: Raw) -> tuple[Labels, Labels] | None:
        """Return the form of a view's entries, if all of it was given at once."""
        if isinstance(raw, Copied):
            found = self.known(self._whole(raw.name))
            if found is None:
                return None
            shape = self.shapes[raw.name]
            return tuple(  # type: ignore[return-value]
                labels.expand(shape).reshape(-1)[raw.view] for labels in found
            )
        arranged, order = raw.sorted()
        for piece in self.pieces.get(raw.name, []):
            if piece.raw.same_entries(arranged):
                self.reused.add(raw.name)
                back = [order.index(axis) for axis in range(len(order))]
                return tuple(  # type: ignore[return-value]
                    labels.permute(back) for labels in (piece.out, piece.into)
                )
        return None

    def is_whole(self, raw: Raw) -> bool:
        """Tell whether a view holds every entry of its parameter once."""
        single = raw.without_repeats()
        return single.shape == raw.shape and raw.view.numel() == math.prod(self.shapes[raw.name])

    def _whole(self, name: str) -> Raw:
        return Raw(name, torch.empty(self.shapes[name], device="meta"))

    def _in_place(self, raw: Copied, labels: Labels) -> Labels:
        """Put labels of a copy in the order of its parameter."""
        shape = self.shapes[raw.name]
        result = torch.empty(math.prod(shape), dtype=torch.int64)
        result[raw.view.reshape(-1)] = labels.expand(raw.shape).reshape(-1)
        return compact(result.view(shape))

    def entries(self, name: str) -> tuple[Labels, Labels]:
        """Return the labels of both channels of every entry, as small as they can be broadcast.

        Parameters
        ----------
        name : str
            The parameter.

        Returns
        -------
        out, into : Tensor
            Labels that broadcast to the parameter's shape. Entries that no use reached extend what
            is known beside them, where that is the same for all, and are frozen elsewhere.
        """
        shape = self.shapes[name]
        pieces = self.pieces.get(name, [])
        if not pieces:
            one = torch.full((1,) * len(shape), FROZEN, dtype=torch.int64)
            return one, one
        if len(pieces) == 1 and (aligned := _aligned(pieces[0], shape)):
            return aligned
        return self._dense(name)

    def _demand_equal(self, one: _Piece, other: _Piece) -> None:
        a, b, c, d = core(one.out, one.into, other.out, other.into)
        lines = [[a, b, c, d]]
        if a.numel() > _ALL_ROWS and all(_one_axis(labels) for labels in (a, b, c, d)):
            # A sum of functions of one axis each is zero if it is along every axis.
            lines = []
            for axis in range(a.ndim):
                line = [a, b, c, d]
                for rest in range(a.ndim):
                    if rest != axis:
                        line = [labels.narrow(rest, 0, 1) for labels in line]
                lines.append(line)
        for line in lines:
            rows = torch.stack([labels.reshape(-1) for labels in line], dim=1)
            rows = torch.unique(rows, dim=0).numpy()
            self.equations.relate(rows, (1.0, -1.0, -1.0, 1.0))

    def _merge_densely(self, name: str, piece: _Piece) -> None:
        """Write all forms of a parameter out, entry by entry."""
        size = math.prod(self.shapes[name])
        out = torch.full((size,), ANY, dtype=torch.int64)
        into = out.clone()
        for known in self.pieces[name]:
            positions = known.raw.positions().reshape(-1)
            out[positions] = known.out.expand(known.raw.shape).reshape(-1)
            into[positions] = known.into.expand(known.raw.shape).reshape(-1)
        positions = piece.raw.positions().reshape(-1)
        new_out = piece.out.expand(piece.raw.shape).reshape(-1)
        new_into = piece.into.expand(piece.raw.shape).reshape(-1)
        old = out[positions] != ANY
        rows = torch.stack(
            [out[positions][old], into[positions][old], new_out[old], new_into[old]], dim=1
        )
        self.equations.relate(torch.unique(rows, dim=0).numpy(), (1.0, -1.0, -1.0, 1.0))
        out[positions[~old]], into[positions[~old]] = new_out[~old], new_into[~old]
        missing = out == ANY
        fill = torch.from_numpy(self.equations.fresh(int(missing.sum())))
        out[missing], into[missing] = fill, FROZEN
        whole, shape = self._whole(name), self.shapes[name]
        self.pieces[name] = [_Piece(whole, out.view(shape), into.view(shape))]

    def _dense(self, name: str) -> tuple[Labels, Labels]:
        shape = self.shapes[name]
        out = torch.full((math.prod(shape),), FROZEN, dtype=torch.int64)
        into = out.clone()
        for piece in self.pieces[name]:
            positions = piece.raw.positions().reshape(-1)
            out[positions] = piece.out.expand(piece.raw.shape).reshape(-1)
            into[positions] = piece.into.expand(piece.raw.shape).reshape(-1)
        return tuple(core(compact(labels.view(shape)))[0] for labels in (out, into))  # type: ignore[return-value]


def _permuted(labels: Labels, ndim: int, order: list[int]) -> Labels:
    """Give labels all dimensions of the view, in the order of its strides."""
    full = labels.reshape((1,) * (ndim - labels.ndim) + tuple(labels.shape))
    return full.permute(order)


def _overlap(one: Raw, other: Raw) -> bool:
    first, second = (raw.view.storage_offset() for raw in (one, other))
    if one.last < second or other.last < first:
        return False
    if one.same_entries(other):
        return True
    # Intervals may interleave: columns of a matrix, for example.
    return bool(np.intersect1d(one.positions().reshape(-1), other.positions().reshape(-1)).size)


def _one_axis(labels: Tensor) -> bool:
    """Tell whether labels change along at most one axis."""
    return sum(labels.shape[a] > 1 and labels.stride(a) != 0 for a in range(labels.ndim)) <= 1


def _aligned(piece: _Piece, shape: tuple[int, ...]) -> tuple[Labels, Labels] | None:
    """Return a piece's labels in the parameter's own dimensions, if the view has the same ones."""
    whole = torch.empty(shape, device="meta")
    raw, order = Raw(piece.raw.name, whole).sorted()
    view = piece.raw.view
    keep = [axis for axis in range(view.ndim) if view.shape[axis] > 1]
    wanted = [axis for axis in range(len(shape)) if raw.view.shape[axis] > 1]
    if [view.stride(axis) for axis in keep] != [raw.view.stride(axis) for axis in wanted]:
        return None
    results = []
    for labels in (piece.out, piece.into):
        small = core(compact(labels.expand(view.shape)))[0]
        arranged = small.reshape([small.shape[axis] for axis in keep])
        sizes = [1] * len(shape)
        for axis, target in zip(keep, wanted, strict=True):
            # Rows that no use reached extend the others only where all of them are equal.
            partial = view.shape[axis] < raw.view.shape[target]
            if partial and small.shape[axis] > 1:
                return None
            sizes[target] = small.shape[axis]
        back = [order.index(axis) for axis in range(len(shape))]
        results.append(arranged.reshape(sizes).permute(back))
    return results[0], results[1]


def materialised(forms: Forms, raw: Raw) -> Labels:
    """Return a label for every entry of a view.

    Parameters
    ----------
    forms : Forms
        What is known of the parameters.
    raw : Raw
        The view.

    Returns
    -------
    Tensor
        Labels of its shape: new variables, if its entries have no form yet.
    """
    distinct = raw.without_repeats()
    known = forms.known(distinct)
    equations = forms.equations
    if known is None:
        labels = torch.from_numpy(equations.fresh(math.prod(distinct.shape))).view(distinct.shape)
        forms.bind(
            distinct, labels, torch.full((), FROZEN, dtype=torch.int64).expand(raw.shape[:0])
        )
        return labels.expand(raw.shape)
    out, into = known
    if bool((into == FROZEN).all()):
        return out.expand(raw.shape)
    labels = difference(equations, out.expand(distinct.shape), into.expand(distinct.shape))
    return labels.expand(raw.shape)


def difference(equations: Equations, out: Labels, into: Labels) -> Labels:
    """Return labels of the difference of two, by new variables for each distinct pair."""
    first, second = core(out, into)
    pairs = torch.stack([first.reshape(-1), second.reshape(-1)], dim=1)
    distinct, inverse = torch.unique(pairs, dim=0, return_inverse=True)
    new = equations.fresh(len(distinct))
    rows: Int[np.ndarray, "n 3"] = np.concatenate([new[:, None], distinct.numpy()], axis=1)
    equations.relate(rows, (1.0, -1.0, 1.0))
    return torch.from_numpy(new)[inverse].view(first.shape).expand(out.shape)
