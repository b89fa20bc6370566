"""From coordinates to linear groups: which of them are alike, and which parameters hold them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from flattest.modules.symmetry.coordinate_places import Slot
from flattest.modules.symmetry.coordinate_uses import Ledger, Use
from flattest.modules.symmetry.linear_group import Factor, Kind, LinearGroup, Translation


class _Place(NamedTuple):
    """One entry of a use: where a coordinate is."""

    use: Use
    position: int
    takes: bool


def linear_groups(found: Ledger, single_use: set[str]) -> tuple[LinearGroup, ...]:
    """Sort coordinates into groups that any matrix may mix.

    Parameters
    ----------
    found : Ledger
        What the walk over the graph noted.
    single_use : set of str
        The parameters that the graph uses once: others may not change by one of their uses.

    Returns
    -------
    tuple of LinearGroup
        Groups of two coordinates and more, in the order of the graph. Single coordinates are
        scales, which are found elsewhere.
    """
    blocked, varied, not_affine = found.flags()
    for use in (*found.into, *found.out_of):
        if use.slot.name not in single_use:
            blocked[use.ids] = True
    families = _families(found)
    for members in families.values():
        if any(blocked[c] for c, _ in members):
            blocked[[c for c, _ in members]] = True
    places = _places(found, blocked)
    marks = _marks(found, blocked)
    partner = _partners(found, blocked)
    classes: dict[tuple[object, ...], list[list[tuple[int, bool]]]] = defaultdict(list)
    seen: set[int] = set()
    for coordinate in range(1, found.n_coordinates):
        if blocked[coordinate] or coordinate in seen:
            continue
        members = families.get(coordinate, [(coordinate, False)])
        seen.update(c for c, _ in members)
        uses = [place for c, _ in members for place in places[c]]
        if len(members) == 1 and not any(place.takes for place in uses):
            continue
        if not all(any(not p.takes for p in places[c]) for c, _ in members):
            continue
        key = tuple(
            (tuple(sorted(marks[c])), odd, tuple(sorted((p.use.mark, p.takes) for p in places[c])))
            for c, odd in sorted(
                members, key=lambda m: (m[1], min(p.use.mark for p in places[m[0]]))
            )
        )
        classes[key].append(members)
    groups = []
    for families_alike in classes.values():
        if len(families_alike) > 1:
            group = _group(families_alike, places, varied, not_affine, partner, found)
            if group is not None:
                groups.append(group)
    return tuple(groups)


def _families(found: Ledger) -> dict[int, list[tuple[int, bool]]]:
    """Join coordinates that meet in scalar products, and say which are dual to the first."""
    neighbours: dict[int, set[int]] = defaultdict(set)
    for first, second in found.duals:
        for a, b in {*zip(first.tolist(), second.tolist(), strict=True)}:
            neighbours[a].add(b)
            neighbours[b].add(a)
    families: dict[int, list[tuple[int, bool]]] = {}
    for start in sorted(neighbours):
        if start in families:
            continue
        sides = {start: False}
        stack = [start]
        while stack:
            here = stack.pop()
            for other in neighbours[here]:
                if other not in sides:
                    sides[other] = not sides[here]
                    stack.append(other)
        members = sorted(sides.items())
        for coordinate in sides:
            families[coordinate] = members
    return families


def _places(found: Ledger, blocked: np.ndarray) -> dict[int, list[_Place]]:
    places: dict[int, list[_Place]] = defaultdict(list)
    for uses, takes in ((found.into, False), (found.out_of, True)):
        for use in uses:
            for coordinate, position in zip(use.ids.tolist(), use.positions.tolist(), strict=True):
                if not blocked[coordinate]:
                    places[coordinate].append(_Place(use, position, takes))
    return places


def _marks(found: Ledger, blocked: np.ndarray) -> dict[int, set[int]]:
    marks: dict[int, set[int]] = defaultdict(set)
    for ids, rows in found.alike:
        for coordinate, row in {*zip(ids.tolist(), rows.tolist(), strict=True)}:
            if not blocked[coordinate]:
                marks[coordinate].add(row)
    return marks


def _partners(found: Ledger, blocked: np.ndarray) -> dict[int, int]:
    """Return for each coordinate the one with which it is rotated; 0 if there are several."""
    partners: dict[int, int] = {}
    for first, second in found.pairs:
        for a, b in {*zip(first.tolist(), second.tolist(), strict=True)}:
            if not blocked[a]:
                partners[a] = b if partners.get(a, b) == b else 0
    return {a: b for a, b in partners.items() if b and partners.get(b) == a}


def _group(
    families: Sequence[list[tuple[int, bool]]],
    places: dict[int, list[_Place]],
    varied: np.ndarray,
    not_affine: np.ndarray,
    partner: dict[int, int],
    found: Ledger,
) -> LinearGroup | None:
    """Make a group of coordinates that are alike."""
    ordered = [
        sorted(members, key=lambda m: (m[1], min(p.use.mark for p in places[m[0]])))
        for members in families
    ]
    first = [members[0][0] for members in ordered]
    everyone = [c for members in ordered for c, _ in members]
    pairs = None
    if varied[everyone].any() or any(c in partner for c in everyone):
        pairs = _paired(first, partner)
        if pairs is None:
            return None
    forward: list[Factor] = []
    backward: list[Factor] = []
    for column, (_, dual) in enumerate(ordered[0]):
        for use_number, place in enumerate(_sorted(places[ordered[0][column][0]])):
            positions = []
            for members in ordered:
                other = _sorted(places[members[column][0]])[use_number]
                if other.use.mark != place.use.mark:
                    return None
                positions.append(other.position)
            factor = _factor(place.use.slot, positions)
            # What leads to a coordinate goes as M, what takes it as the inverse; duals reversed.
            (forward if place.takes == dual else backward).append(factor)
    translation = None
    if len(ordered[0]) == 1 and pairs is None and not not_affine[first].any():
        translation = _translation(first, places, found)
    return LinearGroup(
        name=_name(forward, backward),
        kind=Kind.GENERAL if pairs is None else Kind.PAIRED,
        size=len(first),
        forward=tuple(forward),
        backward=tuple(backward),
        pairs=pairs,
        translation=translation,
    )


def _sorted(places: list[_Place]) -> list[_Place]:
    return sorted(places, key=lambda place: (place.takes, place.use.mark, place.position))


def _factor(slot: Slot, positions: Sequence[int]) -> Factor:
    return Factor(slot.name, slot.axis, torch.tensor(positions), slot.at)


def _paired(coordinates: list[int], partner: dict[int, int]) -> torch.Tensor | None:
    """Return the pairs by their places in the group, if every coordinate has its partner in it."""
    place = {c: number for number, c in enumerate(coordinates)}
    pairs = set()
    for c in coordinates:
        other = partner.get(c)
        if other not in place:
            return None
        pairs.add(tuple(sorted((place[c], place[other]))))
    return torch.tensor(sorted(pairs))


def _translation(
    coordinates: list[int], places: dict[int, list[_Place]], found: Ledger
) -> Translation | None:
    """Look for a bias of the coordinates, and for one behind each weight that takes them."""
    biases = {use.ids.tobytes(): use for use in found.into if use.bias}
    inner = None
    shifts = []
    for number, place in enumerate(_sorted(places[coordinates[0]])):
        positions = [_sorted(places[c])[number].position for c in coordinates]
        factor = _factor(place.use.slot, positions)
        if place.takes:
            outer = biases.get(place.use.out.tobytes()) if place.use.out is not None else None
            if outer is None:
                return None
            shifts.append((factor, _factor(outer.slot, outer.positions.tolist())))
        elif place.use.bias:
            inner = factor
    return Translation(inner, tuple(shifts)) if inner is not None else None


def _name(forward: Sequence[Factor], backward: Sequence[Factor]) -> str:
    """Name a group after its factors."""
    names = []
    for factors in (forward, backward):
        first = factors[0]
        rows = first.rows.tolist()
        consecutive = rows == list(range(rows[0], rows[0] + len(rows)))
        where = f"{rows[0]}:{rows[-1] + 1}" if consecutive else f"{rows[0]}..{rows[-1]}"
        fixed = "".join(f", {position}" for _, position in first.at)
        names.append(f"{first.name}[{where}{fixed}]")
    return " and ".join(names)
