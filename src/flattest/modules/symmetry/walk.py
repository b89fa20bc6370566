"""What the rules work with: values in the graph, and demands on their labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flattest.modules.symmetry.equations import FROZEN, Equations
from flattest.modules.symmetry.labels import ANY, Labels, core, frozen, map_core, of_constant
from flattest.modules.symmetry.parameters import Forms, Raw, materialised


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that neither inputs nor trainable parameters reach.

    Parameters
    ----------
    value : Tensor
        The value.
    generic : bool
        Whether its zeros are an accident, as those of a sine are, and say nothing.
    """

    value: Tensor
    generic: bool = False

    @property
    def shape(self) -> torch.Size:
        """The shape of the value."""
        return self.value.shape


_REMEMBERED = 100_000
"""Up to how many sums at a time are looked up, so that equal ones become one variable."""

Value = Constant | Raw | Tensor
"""What a node of the graph holds: a constant, a view of a parameter, or labels."""


class Step(NamedTuple):
    """The operation that a rule is asked about.

    Parameters
    ----------
    target : callable
        The operation.
    title : str
        Its name for people.
    place : str
        Where it is: after which layer.
    shapes : tuple of tuple of int
        The shapes of its results.
    discrete : bool
        Whether its first result is an integer or a truth value.
    strides : tuple of int
        Those of its first argument, if that is a tensor.
    """

    target: Any
    title: str
    place: str
    shapes: tuple[tuple[int, ...], ...]
    discrete: bool
    strides: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its first result."""
        return self.shapes[0]

    @property
    def reason(self) -> str:
        """What to say of scales that it freezes."""
        return f"{self.title} after {self.place}" if self.place else self.title


class Shift(NamedTuple):
    """A batch normalisation whose bias shifts when its input scales.

    Parameters
    ----------
    gain, bias : str
        Its parameters.
    centre : Tensor of shape (c,)
        The running means over the standard deviations.
    into : Tensor of shape (c,)
        The labels of its input's channels.
    reason : str
        What to say of scales that it freezes after all.
    """

    gain: str
    bias: str
    centre: Tensor
    into: Labels
    reason: str


@dataclass
class Walk:
    """The state of a walk over the graph.

    Parameters
    ----------
    equations : Equations
        What is demanded of labels.
    forms : Forms
        How parameters scale.
    affine : bool
        Whether the input of batch normalisation may scale, and its bias shift.
    origins : list of (int, int, str)
        First number, count and parameter of the variables that stand for its channels.
    shifts : list of Shift
        The biases that shift.
    """

    equations: Equations
    forms: Forms
    affine: bool = False
    origins: list[tuple[int, int, str]] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    _sums: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def fresh(self, shape: Sequence[int], name: str = "") -> Labels:
        """Return new labels.

        Parameters
        ----------
        shape : sequence of int
            Their shape.
        name : str
            Whose channels they are.

        Returns
        -------
        Tensor
            Labels.
        """
        new = self.equations.fresh(math.prod(shape))
        if name and len(new):
            self.origins.append((int(new[0]), len(new), name))
        return torch.from_numpy(new).view(tuple(shape))

    def labels(self, value: Any) -> Labels:
        """Return the labels of any value.

        Parameters
        ----------
        value : Constant, Raw, Tensor or number
            The value.

        Returns
        -------
        Tensor
            Labels of its shape.
        """
        if isinstance(value, Constant):
            return of_constant(value.value, value.generic)
        if isinstance(value, Raw):
            return materialised(self.forms, value)
        if isinstance(value, Tensor):
            return value
        return torch.tensor(ANY if value in (0, math.inf, -math.inf) else FROZEN)

    def freeze(self, value: Any, reason: str) -> None:
        """Demand that a value does not scale.

        Parameters
        ----------
        value : Constant, Raw, Tensor or other
            The value; what has no scale is passed over.
        reason : str
            Why.
        """
        if isinstance(value, Raw):
            new = self.fresh((1,))
            self.equations.freeze(new.numpy(), reason)
            ones = (1,) * len(value.shape)
            self.forms.bind(value, new.view(ones), torch.full(ones, FROZEN, dtype=torch.int64))
        elif isinstance(value, Tensor):
            found = core(value)[0]
            self.equations.freeze(found[found > FROZEN].numpy(), reason)
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.freeze(part, reason)

    def unify(self, *values: Labels) -> Labels:
        """Demand that labels are equal, where none is ANY.

        Parameters
        ----------
        *values : Tensor
            Labels that broadcast.

        Returns
        -------
        Tensor
            What they all are.
        """
        result = values[0]
        for other in values[1:]:
            first, second = core(result, other)
            both = (first != ANY) & (second != ANY)
            self.equations.equate(first[both].numpy(), second[both].numpy())
            if not bool((first == ANY).any()):
                # They are equal from now on: go on with whichever is the smaller.
                shape = torch.broadcast_shapes(result.shape, other.shape)
                sizes = core(result)[0].numel(), core(other)[0].numel()
                smaller = other if sizes[1] < sizes[0] and bool(both.all()) else result
                result = smaller.expand(shape)
            else:
                result = map_core(lambda a, b: torch.where(a == ANY, b, a), result, other)
        return result

    def tie(self, labels: Labels, axes: Sequence[int]) -> Labels:
        """Demand that labels do not change along dimensions.

        Parameters
        ----------
        labels : Tensor
            Labels.
        axes : sequence of int
            The dimensions.

        Returns
        -------
        Tensor
            What they are, of size 1 in these dimensions.
        """
        for axis in {axis % labels.ndim for axis in axes} if labels.ndim else ():
            if labels.shape[axis] > 1 and labels.stride(axis) == 0:
                labels = labels.narrow(axis, 0, 1)
            if labels.shape[axis] > 1:
                small = core(labels)[0]
                known = (small != ANY).to(torch.int8).argmax(dim=axis, keepdim=True)
                first = small.gather(axis, known)
                self.unify(small, first)
                shape = [1 if a == axis else size for a, size in enumerate(labels.shape)]
                labels = first.expand(shape)
        return labels

    def tie_all(self, labels: Labels) -> Labels:
        """Demand that all labels are equal, and return that one."""
        return self.tie(labels, range(labels.ndim)).reshape(())

    def combine(self, *terms: tuple[Labels, float]) -> Labels:
        """Return the labels of a product of powers.

        Parameters
        ----------
        *terms : tuple of Tensor and float
            Labels that broadcast, each with its power.

        Returns
        -------
        Tensor
            Labels: those of one factor where the others are frozen, ANY where one is, else those
            of new variables that stand for the sum.
        """
        terms = tuple(term for term in terms if term[1])
        if len(terms) == 1 and terms[0][1] == 1:
            return terms[0][0]
        if not terms:
            return torch.tensor(FROZEN)
        shape = torch.broadcast_shapes(*(labels.shape for labels, _ in terms))
        small = core(*(labels for labels, _ in terms))
        columns = torch.stack([labels.reshape(-1) for labels in small], dim=1)
        distinct, inverse = torch.unique(columns, dim=0, return_inverse=True)
        powers = [power for _, power in terms]
        found = torch.from_numpy(self._sum(distinct.numpy(), np.array(powers, dtype=np.float64)))
        return found[inverse].view(small[0].shape).expand(shape)

    def _sum(self, rows: np.ndarray, powers: np.ndarray) -> np.ndarray:
        """Return one label for each row of labels."""
        found = np.full(len(rows), FROZEN, dtype=np.int64)
        anything = (rows == ANY).any(axis=1)
        found[anything] = ANY
        moving = (rows > FROZEN) & ~anything[:, None]
        alone = (moving.sum(axis=1) == 1) & (moving * (powers == 1)).any(axis=1)
        found[alone] = rows[alone].max(axis=1)
        rest = np.flatnonzero(moving.any(axis=1) & ~alone)
        if len(rest) > _REMEMBERED:
            new = self.equations.fresh(len(rest))
            self.equations.relate(
                np.concatenate([new[:, None], rows[rest]], axis=1), (-1.0, *powers)
            )
            found[rest] = new
            return found
        keys = [(*rows[i].tolist(), *powers.tolist()) for i in rest]
        unknown = [i for i, key in zip(rest, keys, strict=True) if key not in self._sums]
        new = self.equations.fresh(len(unknown))
        if len(unknown):
            self.equations.relate(
                np.concatenate([new[:, None], rows[unknown]], axis=1), (-1.0, *powers)
            )
            for i, variable in zip(unknown, new.tolist(), strict=True):
                self._sums[(*rows[i].tolist(), *powers.tolist())] = variable
        found[rest] = [self._sums[key] for key in keys]
        return found

    def frozen_results(self, step: Step) -> Any:
        """Return labels of results that do not scale."""
        results = tuple(frozen(shape) for shape in step.shapes)
        return results[0] if len(results) == 1 else results
