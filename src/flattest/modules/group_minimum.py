"""From the linear groups of a module to the pairs of factors whose trace is minimised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from flattest.modules.balancing.terms import Grid, Listed, Vector
from flattest.modules.groups.joint import JointMinimum, Pair, Side, minimise_jointly
from flattest.modules.groups.stacked import Stack, StackedGradients
from flattest.modules.output_hessian import OutputHessian
from flattest.modules.part import Part
from flattest.modules.symmetry.linear_group import Factor, Kind, LinearGroup
from flattest.modules.symmetry.result import Symmetries
from flattest.modules.symmetry.scaled_tensor import ScaledTensor


class _Ends(NamedTuple):
    """The channels of a factor: of its coordinates, and of its columns by class."""

    coordinates: np.ndarray
    classes: Tensor
    out: np.ndarray
    into: np.ndarray


class _Member(NamedTuple):
    """One factor of a group, with its stack."""

    role: str
    ends: _Ends
    stack: Stack


class GroupSums:
    """The sums that the groups of a module need, and what they yield.

    Parameters
    ----------
    symmetries : Symmetries
        The symmetries. Groups that only scale are left out, since their scales are free anyway, and
        so are those that share a factor with an earlier one.
    module : torch.nn.Module
        The module that is measured.
    hessian_of : callable
        From a part of the loss to the Hessian in its logits.
    """

    def __init__(
        self,
        symmetries: Symmetries,
        module: nn.Module,
        hessian_of: Callable[[Part], OutputHessian],
    ) -> None:
        self._tensors = {tensor.name: tensor for tensor in symmetries.tensors}
        self._channels = sparse.csr_array(symmetries.tensors[0].channels)
        parameters: dict[str, Tensor] = dict(module.named_parameters())
        self.members: dict[int, list[_Member]] = {}
        taken = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in parameters.items()}
        for number, group in enumerate(symmetries.groups):
            members = self._members(group, parameters)
            if group.kind is not Kind.GENERAL or members is None:
                continue
            factors = [member.stack.factor for member in members]
            if any(factor.read(taken[factor.name]).any() for factor in factors):
                continue
            for factor in factors:
                whole = torch.ones_like(factor.read(taken[factor.name]))
                factor.write(taken[factor.name], whole)
            self.members[number] = members
        self._taken = taken
        stacks = [member.stack for members in self.members.values() for member in members]
        self._gradients = StackedGradients(stacks, parameters, hessian_of)

    def add(self, part: Part) -> None:
        """Add a batch."""
        if self.members:
            self._gradients.add(part)

    def _members(
        self, group: LinearGroup, parameters: Mapping[str, Tensor]
    ) -> list[_Member] | None:
        """Return the factors of a group; None if their entries scale in another way."""
        shifts = []
        if group.translation is not None:
            biases = [group.translation.bias, *(bias for _, bias in group.translation.shifts)]
            if all(parameters[bias.name].requires_grad for bias in biases):
                shifts = list(group.translation.shifts)
        chosen: list[tuple[str, Factor, Factor | None]] = [
            ("forward", factor, None) for factor in group.forward
        ]
        for factor in group.backward:
            bias = next((d for moved, d in shifts if _same(moved, factor)), None)
            chosen.append(("backward" if bias is None else "translated", factor, bias))
        members = []
        for role, factor, bias in chosen:
            ends = _ends(self._tensors[factor.name], factor)
            if ends is None:
                return None
            members.append(_Member(role, ends, Stack(factor, ends.classes, group.size, bias)))
        return members

    def rest(self, diagonals: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the diagonals without what belongs to groups.

        Parameters
        ----------
        diagonals : mapping of str to Tensor
            By parameter.

        Returns
        -------
        dict of str to Tensor
            The same with zeros there.
        """
        return {
            name: values.cpu().masked_fill(self._taken[name], 0.0)
            for name, values in diagonals.items()
        }

    def minimise(self, parts: list[Grid | Listed], norm: float) -> JointMinimum:
        """Minimise over scales and groups.

        Parameters
        ----------
        parts : list of Grid or Listed
            Of the diagonals' rest.
        norm : float
            What the loss's sums are divided by.

        Returns
        -------
        JointMinimum
            The minimum.
        """
        triangles = iter(self._gradients.triangles(norm))
        pairs = []
        for members in self.members.values():
            sides: dict[str, list[Side]] = {"forward": [], "backward": [], "translated": []}
            for member in members:
                side = Side(next(triangles), member.ends.out, member.ends.into)
                sides[member.role].append(side)
            pairs.append(Pair(**sides))
        return minimise_jointly(parts, self._channels, pairs)

    def own_scales(self) -> np.ndarray:
        """Return flags of the scales of groups' coordinates, whose place their matrices take."""
        own = np.zeros(self._channels.shape[1], dtype=bool)
        for members in self.members.values():
            for member in members:
                own[self._channels[member.ends.coordinates].indices] = True
        return own

    def applied(self, found: JointMinimum) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Return the matrices and translations to apply after the scales.

        The scales of a group's own coordinates are undone first: its matrix takes their place.

        Parameters
        ----------
        found : JointMinimum
            The minimum.

        Returns
        -------
        matrices, shifts : dict of int to Tensor
            By the group's number.
        """
        y = self._channels @ found.scales.log_scales
        matrices, shifts = {}, {}
        for (number, members), at in zip(self.members.items(), found.groups, strict=True):
            own = torch.from_numpy(y[members[0].ends.coordinates])
            matrices[number] = at.pair.matrix * (-own).exp()
            if at.shift is not None:
                shifts[number] = at.shift * own.exp()
        return matrices, shifts

    def after(self, found: JointMinimum, y: Vector) -> dict[str, float]:
        """Return the traces of all factors at the minimum, by parameter.

        Parameters
        ----------
        found : JointMinimum
            The minimum.
        y : array of shape (m,)
            The log scales of channels there.

        Returns
        -------
        dict of str to float
            The sums.
        """
        totals: dict[str, float] = {}
        for members, at in zip(self.members.values(), found.groups, strict=True):
            ordered = sorted(members, key=lambda member: _ROLES.index(member.role))
            for member, listed in zip(ordered, at.amounts, strict=True):
                listed.move(y)
                name = member.stack.factor.name
                totals[name] = totals.get(name, 0.0) + float(listed.values().sum())
        return totals


_ROLES = ("forward", "backward", "translated")


def _same(one: Factor, other: Factor) -> bool:
    alike = (one.name, one.axis, one.at) == (other.name, other.axis, other.at)
    return alike and torch.equal(one.rows, other.rows)


def _ends(tensor: ScaledTensor, factor: Factor) -> _Ends | None:
    """Tell the channels of a factor's rows from those of its columns."""
    shape = tensor.shape
    out, into = (factor.read(ends.expand(shape)) for ends in (tensor.out, tensor.into))
    for rows, columns, outward in ((out, into, False), (into, out, True)):
        if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
            channels, classes = torch.unique(columns[0], return_inverse=True)
            zero = np.zeros(len(channels), dtype=np.int64)
            ends = (channels.numpy(), zero) if outward else (zero, channels.numpy())
            return _Ends(rows[:, 0].numpy(), classes, *ends)
    return None
