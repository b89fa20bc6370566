"""The squared per-sample gradients of one parameter, from its contributions at all its uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.squared_gradients.contributions import (
    Contribution,
    Outer,
    chunks,
    weighed,
)
from flattest.modules.squared_gradients.forms import Forms
from flattest.modules.squared_gradients.graph import Use, permutation

_IN_PLACE = ("itself", "transposed")


@dataclass(frozen=True)
class Part:
    """One contribution, and how it becomes gradients by the parameter itself.

    Parameters
    ----------
    contribution : Contribution
        Gradients by what is used.
    kind : str
        Parts of one kind can be joined.
    place : callable
        Takes values of shape (..., *used) to (..., *parameter).
    selects : bool
        Whether `place` only moves entries, so that it commutes with squares.
    """

    contribution: Contribution
    kind: str
    place: Callable[[Tensor], Tensor]
    selects: bool


def part(contribution: Contribution, use: Use, parameter: Tensor, near: bool) -> Part:
    """Find how gradients by what is used become gradients by the parameter.

    Parameters
    ----------
    contribution : Contribution
        Gradients by what is used.
    use : Use
        Where.
    parameter : Tensor
        The parameter.
    near : bool
        Whether only views lie between the two.

    Returns
    -------
    Part
        The contribution with its way back.
    """
    if getattr(use.source, "variable", None) is parameter:
        return Part(contribution, "itself", lambda values: values, True)
    below = use.source.next_functions[0][0] if use.source.next_functions else None
    if use.source.name() == "TBackward0" and getattr(below, "variable", None) is parameter:
        return Part(contribution, "transposed", lambda values: values.mT, True)
    index = permutation(use, parameter) if near else None
    size = len(use.shape)
    if index is not None:
        inside = index >= 0

        def move(values: Tensor) -> Tensor:
            flat = values.reshape(*values.shape[: values.ndim - size], -1)
            return flat[..., index.clamp(min=0)] * inside

        return Part(contribution, f"moved {id(use.source)}", move, True)

    def pull_back(values: Tensor) -> Tensor:
        batch = values.shape[: values.ndim - size]
        flat = use.pull_back(parameter, values.reshape(-1, *use.shape))
        return flat.reshape(*batch, *parameter.shape)

    return Part(contribution, f"derived {id(use.source)}", pull_back, False)


def squares(
    parts: list[Part], signs: Float[Tensor, "c n"], parameter: Tensor, forms: Forms | None = None
) -> Tensor:
    """Add per-sample gradients over uses, then square and sum over columns and samples.

    Parameters
    ----------
    parts : list of Part
        The contributions at all uses.
    signs : Tensor of shape (c, n)
        Of columns and samples.
    parameter : Tensor
        The parameter.
    forms : Forms, optional
        Where forms of the single gradients are written.

    Returns
    -------
    Tensor
        The signed sum, of the parameter's shape.
    """
    parts = _joined(parts)
    single = parts[0]
    if len(parts) == 1 and single.selects and (forms is None or single.kind in _IN_PLACE):
        own = forms.turned() if forms and single.kind == "transposed" else forms
        return single.place(single.contribution.squares(signs, own))
    total = torch.zeros_like(parameter)
    for start, stop in chunks(signs, tuple(parameter.shape)):
        gradients = sum(part.place(part.contribution.form(start, stop)) for part in parts)
        some = None if forms is None else forms.of(start, stop)
        total += weighed(gradients, signs[:, start:stop], some)  # type: ignore[arg-type]
    return total


def _joined(parts: list[Part]) -> list[Part]:
    """Join the outer products of one kind, such as those of all time steps."""
    groups: dict[str, list[Part]] = {}
    for entry in parts:
        groups.setdefault(entry.kind, []).append(entry)
    result: list[Part] = []
    for group in groups.values():
        outers = [e.contribution for e in group if isinstance(e.contribution, Outer)]
        joined = Outer.joined(outers) if len(outers) > 1 else None
        if joined is None:
            result.extend(group)
            continue
        first = group[0]
        result.append(Part(joined, first.kind, first.place, first.selects))
        result.extend(e for e in group if not isinstance(e.contribution, Outer))
    return result
