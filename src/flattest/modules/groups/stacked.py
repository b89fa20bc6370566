"""The stacked gradients of linear factors over a data set, as triangular factors.

A group mixes the rows of a factor, so that its diagonal of squared gradients does not tell what a
matrix makes of it: that takes the sums of outer products over samples and columns of the loss's
output Hessian. Columns of a factor that scale differently are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.modules.groups.pairs import triangular
from flattest.modules.output_hessian import OutputHessian
from flattest.modules.part import Part
from flattest.modules.squared_gradients.ways import gradients
from flattest.modules.symmetry.linear_group import Factor

_ROWS = 1 << 12
"""Rows that are collected before they are reduced to a triangle."""


class Stack:
    """The triangular factors of one factor's stacked gradients, one for each class of columns.

    Parameters
    ----------
    factor : Factor
        Which part of which parameter.
    classes : Tensor of shape (c,)
        The class of each of its columns, counted from 0.
    size : int
        The number r of coordinates.
    bias : Factor or None
        A bias with one entry for each column, whose gradient is the first coordinate; see
        `Translation`.

    Attributes
    ----------
    triangles : list of Tensor of shape (q, r) or (q, 1 + r)
        For each class.
    """

    def __init__(
        self, factor: Factor, classes: Int[Tensor, " c"], size: int, bias: Factor | None = None
    ) -> None:
        self.factor, self.bias = factor, bias
        self._members = [
            (classes == number).nonzero()[:, 0] for number in range(int(classes.max()) + 1)
        ]
        width = size + (bias is not None)
        self.triangles = [torch.zeros(0, width, dtype=torch.float64) for _ in self._members]
        self._waiting: list[Tensor] = []

    def add(self, found: dict[str, Tensor], weight: float) -> None:
        """Add the gradients of one sample.

        Parameters
        ----------
        found : dict of str to Tensor
            By parameter, of shape (columns, *shape).
        weight : float
            What their squares are multiplied by.
        """
        rows = []
        for index, gradient in enumerate(found[self.factor.name]):
            own = self.factor.read(gradient).T  # (c, r)
            if self.bias is not None:
                outer = self.bias.read(found[self.bias.name][index]).reshape(-1, 1)
                own = torch.cat([outer, own], dim=1)
            rows.append(own)
        self._waiting.append(torch.stack(rows).double().cpu() * weight**0.5)
        if sum(len(part) for part in self._waiting) * len(self._members) > _ROWS:
            self.reduce()

    def reduce(self) -> None:
        """Reduce what waits to triangles."""
        if not self._waiting:
            return
        rows = torch.cat(self._waiting)
        self._waiting = []
        for number, members in enumerate(self._members):
            some = rows[:, members].flatten(0, 1)
            self.triangles[number] = triangular(some, self.triangles[number])


class StackedGradients:
    """Stacks of all factors, fed batch by batch.

    Parameters
    ----------
    stacks : sequence of Stack
        The stacks.
    parameters : dict of str to Tensor
        The parameters of the module that is measured.
    hessian_of : callable
        From a part of the loss to the Hessian in its logits.
    """

    def __init__(
        self,
        stacks: Sequence[Stack],
        parameters: dict[str, Tensor],
        hessian_of: Callable[[Part], OutputHessian],
    ) -> None:
        self._stacks, self._hessian_of = stacks, hessian_of
        names = {stack.factor.name for stack in stacks}
        names |= {stack.bias.name for stack in stacks if stack.bias is not None}
        self._names = sorted(names)
        self._parameters = [parameters[name] for name in self._names]

    def add(self, part: Part) -> None:
        """Add a batch, sample by sample.

        Parameters
        ----------
        part : Part
            The batch.
        """
        hessian = self._hessian_of(part)
        for sample in range(part.call.n_samples):
            one = slice(sample, sample + 1)
            columns, signs = hessian.columns(range(hessian.n_columns), one)
            if (signs < 0).any():
                raise ValueError("The loss bends downwards in places.")
            outputs, _ = part.call.outputs(one)
            used = [p for p in self._parameters if p.requires_grad]
            found = dict.fromkeys(self._names)
            values = _gradients(outputs, used, columns.to(outputs.dtype))
            own = iter(values)
            complete = {}
            for name, parameter in zip(self._names, self._parameters, strict=True):
                value = next(own) if parameter.requires_grad else None
                shape = (len(columns), *parameter.shape)
                complete[name] = parameter.new_zeros(shape) if value is None else value
            del found
            for stack in self._stacks:
                stack.add(complete, part.weight)

    def triangles(self, norm: float) -> list[list[Float[Tensor, "q r"]]]:
        """Return the triangles of every stack.

        Parameters
        ----------
        norm : float
            What the loss's sums are divided by.

        Returns
        -------
        list of list of Tensor
            For every stack, by class.
        """
        for stack in self._stacks:
            stack.reduce()
        return [[triangle / norm**0.5 for triangle in stack.triangles] for stack in self._stacks]


def _gradients(outputs: Tensor, parameters: list[Tensor], columns: Tensor) -> list[Tensor | None]:
    try:
        return gradients(outputs, parameters, columns, batched=True)
    except RuntimeError:  # an operation without a rule for batches
        return gradients(outputs, parameters, columns, batched=False)
