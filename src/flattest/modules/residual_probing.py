"""Dividing parameters into blocks, and probing these until their traces are known well enough."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flattest.modules.residual_blocks import (
    Block,
    KnownBlock,
    TensorBlock,
    UseBlock,
    find_layouts,
    groups_of,
)
from flattest.modules.residual_graph import find_uses
from flattest.modules.residual_known import Known, known_curvatures
from flattest.modules.residual_uses import LinearUse, Use

_CLOSED_FORM = 64  # double backwards that a closed form may be worth whatever is asked for
_DEGREES = 7  # degrees of freedom of a block's variance at least: independent samples, less means


@dataclass
class Tally:
    """What is known of one block: its exact traces, or its draws so far.

    Parameters
    ----------
    block : Block
        The block.
    exact : list of float or None
        The exact traces, one per tensor.
    cost : int
        The double backwards taken.
    draws : list of Tensor
        The traces drawn, each by units and tensors.
    """

    block: Block
    exact: list[float] | None = None
    cost: int = 0
    draws: list[Tensor] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The block's tensors."""
        return self.block.names

    def draw(self, generator: torch.Generator) -> None:
        """Draw once more."""
        self.draws.append(self.block.draw(generator))
        self.cost += 1

    def value(self, name: str) -> float:
        """Return the trace of a tensor, as far as it is known."""
        if self.exact is not None:
            return self.exact[self.names.index(name)]
        return float(torch.stack(self.draws)[..., self.names.index(name)].sum(dim=1).mean())

    def variances(self, name: str | None = None) -> Tensor:
        """Return the variance of the mean per unit, of one tensor or of the block's sum."""
        if self.exact is not None:
            return torch.zeros(1, dtype=torch.float64)
        draws = torch.stack(self.draws)
        units = draws.sum(dim=2) if name is None else draws[..., self.names.index(name)]
        return units.var(dim=0) / len(self.draws)

    def how(self) -> str:
        """Say how the traces came about."""
        if self.exact is not None:
            if isinstance(self.block, KnownBlock):
                return "exact: in closed form"
            return f"exact: {self.cost} double backwards" if self.cost else "exact: no curvature"
        kind = "with signs per sample" if self.block.quiet else "in the tensor's entries"
        return f"estimated: {len(self.draws)} probes {kind}"


def divide(
    outputs: Tensor,
    cotangent: Tensor,
    tensors: Mapping[str, Tensor],
    limit: float | int,
    generator: torch.Generator,
) -> list[Tally]:
    """Divide the tensors into blocks, and do exactly what is cheap enough.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, with their graph.
    cotangent : Tensor
        The gradient of the loss in them.
    tensors : mapping of str to Tensor
        The parameter tensors that are not proved linear.
    limit : float
        How many double backwards exact traces may take in all.
    generator : torch.Generator
        For the test of how samples lie.

    Returns
    -------
    list of Tally
        The blocks, some of them exact.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_probing import divide
    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> _ = torch.nn.init.ones_(layer.weight)
    >>> outputs = layer(torch.tensor([[1.0], [2.0]])).square()
    >>> (tally,) = divide(
    ...     outputs, torch.ones(2, 1), dict(layer.named_parameters()), 0, torch.Generator()
    ... )
    >>> tally.exact, tally.how()  # 2 + 2 * 4
    ([10.0], 'exact: in closed form')
    """
    found = find_uses(outputs, tensors)
    pairs = known_curvatures(outputs, cotangent, found, max(limit, _CLOSED_FORM))
    known = {use.names: part for use, part in pairs if part}
    closed = [
        KnownBlock(use, part)
        for use in found
        if (part := known.get(use.names)) is not None and part.exact
    ]
    done = {name for block in closed for name in block.names}
    rest = {name: tensor for name, tensor in tensors.items() if name not in done}
    found = [use for use in found if not done.intersection(use.names)]
    tallies = [Tally(block, exact=block.exact().tolist()) for block in closed]
    return tallies + _divide_rest(outputs, cotangent, rest, found, known, limit, generator)


def _divide_rest(
    outputs: Tensor,
    cotangent: Tensor,
    tensors: Mapping[str, Tensor],
    found: list[Use],
    known: Mapping[tuple[str, ...], Known],
    limit: float | int,
    generator: torch.Generator,
) -> list[Tally]:
    """Divide the tensors that are in no closed form, by their uses."""
    layouts = find_layouts(outputs, found, generator)
    uses = [(use, at) for use, at in zip(found, layouts, strict=True) if at is not None]
    in_uses = {name for use, _ in uses for name in use.names}
    costs: dict[tuple[str, ...], int] = {
        use.names: use.n_columns(layout)
        if isinstance(use, LinearUse)
        else sum(tensors[name].numel() for name in use.names)
        for use, layout in uses
    }
    costs |= {(name,): tensors[name].numel() for name in tensors if name not in in_uses}
    exact = _cheapest(costs, limit)
    # Only linear layers have a way of their own to exact traces; others go entry by entry.
    uses = [(use, at) for use, at in uses if isinstance(use, LinearUse) or use.names not in exact]
    in_uses = {name for use, _ in uses for name in use.names}
    exact_names = {name for names in exact for name in names}
    alone = {name: tensor for name, tensor in tensors.items() if name not in in_uses}
    points: list[Any] = [*(use.edge for use, _ in uses), *alone.values()]
    if not points:
        return []
    gradients = torch.autograd.grad(
        outputs,
        points,
        cotangent,
        create_graph=True,
        allow_unused=True,
    )
    by_use = [
        UseBlock(use, layout, gradient, known.get(use.names))
        for (use, layout), gradient in zip(uses, gradients, strict=False)
    ]
    by_tensor = [
        TensorBlock(name, tensor, gradient)
        for (name, tensor), gradient in zip(alone.items(), gradients[len(uses) :], strict=True)
    ]
    tallies, left = [], []
    for block in (*by_use, *by_tensor):
        if block.vanishes:
            tallies.append(Tally(block, exact=[0.0] * len(block.names)))
        elif exact_names.issuperset(block.names):
            tallies.append(Tally(block, block.exact().tolist(), cost=int(block.exact_cost)))
        else:
            left.append(block)
    groups = groups_of([block for block in left if isinstance(block, UseBlock)])
    tensors_left = [block for block in left if isinstance(block, TensorBlock)]
    return tallies + [Tally(block) for block in (*groups, *tensors_left)]


def _cheapest(costs: Mapping[tuple[str, ...], int], limit: float | int) -> set[tuple[str, ...]]:
    """Return the cheapest keys whose costs sum to no more than the limit."""
    chosen = set()
    for names in sorted(costs, key=lambda names: costs[names]):
        limit -= costs[names]
        if limit < 0:
            break
        chosen.add(names)
    return chosen


def probe(
    tallies: Iterable[Tally],
    generator: torch.Generator,
    wanted: float | None,
    n_probes: int,
    max_probes: int,
) -> None:
    """Draw from every block, then from the one that lowers the variance most, until it is low.

    Parameters
    ----------
    tallies : iterable of Tally
        The blocks, of which those that are not exact are drawn from.
    generator : torch.Generator
        Where the signs come from.
    wanted : float or None
        The standard error of the sum at which to stop.
    n_probes, max_probes : int
        Draws of each block at the least and at the most.
    """
    drawn = [tally for tally in tallies if tally.exact is None]
    for tally in drawn:
        tally.draw(generator)
        units = len(tally.draws[0])
        for _ in range(max(n_probes - 1, math.ceil(_DEGREES / units))):
            tally.draw(generator)
    if wanted is None:
        return
    variances = {id(tally): float(tally.variances().sum()) for tally in drawn}
    while sum(variances.values()) > wanted**2:
        open_ones = [tally for tally in drawn if len(tally.draws) < max_probes]
        if not open_ones:
            return
        noisiest = max(open_ones, key=lambda tally: variances[id(tally)] / (len(tally.draws) + 1))
        noisiest.draw(generator)
        variances[id(noisiest)] = float(noisiest.variances().sum())
