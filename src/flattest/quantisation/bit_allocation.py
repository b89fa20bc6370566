"""What `allocate_bits` returns: bits for each weight, and what rounding with them costs."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


class LayerBits(NamedTuple):
    """The bits of one weight.

    Parameters
    ----------
    name : str
        The weight.
    n_parameters : int
        The number of its entries.
    bits : int
        The bits of each.
    cost : float
        By how much rounding it so is expected to raise the loss.
    uniform_cost : float
        The same with the number of bits that all weights could have within the budget.
    """

    name: str
    n_parameters: int
    bits: int
    cost: float
    uniform_cost: float


@dataclass(frozen=True, repr=False)
class BitAllocation(Mapping[str, int]):
    """Bits by the name of the weight: a mapping, with a table.

    Parameters
    ----------
    layers : tuple of LayerBits
        The weights.
    uniform : int
        The number of bits that all of them could have within the budget.
    weighed : str
        How rounding errors were weighed.
    measured : bool
        Whether the costs are measured losses, and not expected ones.
    per_channel, affine : bool
        How weights are to be rounded, for which the bits were chosen: :func:`flattest.quantise`
        rounds them so.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Linear(3, 2)
    >>> chosen = ft.allocate_bits(ft.measure(net, torch.eye(3), torch.ones(3, 2)), net, budget=6)
    >>> dict(chosen), chosen.average, chosen.uniform
    ({'weight': 6}, 6.0, 6)
    """

    layers: tuple[LayerBits, ...]
    uniform: int
    weighed: str
    measured: bool = False
    per_channel: bool = True
    affine: bool = False

    def __getitem__(self, name: str) -> int:
        """Return the bits of a weight."""
        return dict(self._pairs())[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the weights."""
        return (layer.name for layer in self.layers)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self.layers)

    def _pairs(self) -> list[tuple[str, int]]:
        return [(layer.name, layer.bits) for layer in self.layers]

    @property
    def average(self) -> float:
        """The average bits of an entry."""
        return self.n_bits / sum(layer.n_parameters for layer in self.layers)

    @property
    def n_bits(self) -> int:
        """The bits of all entries together."""
        return sum(layer.bits * layer.n_parameters for layer in self.layers)

    @property
    def cost(self) -> float:
        """By how much rounding is expected to raise the loss."""
        return math.fsum(layer.cost for layer in self.layers)

    @property
    def uniform_cost(self) -> float:
        """The same where all weights have `uniform` bits."""
        return math.fsum(layer.uniform_cost for layer in self.layers)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each weight.

        Returns
        -------
        DataFrame
            The fields of `LayerBits`.
        """
        import pandas as pd

        return pd.DataFrame(self.layers, columns=list(LayerBits._fields))

    def _summary(self) -> str:
        return (
            f"{self.average:.3g} bits on average, {self.n_bits / 8e3:,.1f} kB; cost "
            f"{self.cost:.3g}, at {self.uniform} bits throughout {self.uniform_cost:.3g}"
        )

    def __repr__(self) -> str:
        """Print a table with a line for each weight."""
        width = max(len(layer.name) for layer in self.layers)
        lines = [
            f"  {layer.name:<{width}}  {layer.bits:>2} bits  {layer.n_parameters:>10,} entries  "
            f"cost {layer.cost:.3g}"
            for layer in self.layers
        ]
        return "\n".join([type(self).__name__, *lines, f"  {self._summary()}"])

    def _repr_html_(self) -> str:
        """Show the same table in a notebook."""
        body = "".join(
            f"<tr><td>{html.escape(layer.name)}</td><td>{layer.bits}</td>"
            f"<td>{layer.n_parameters:,}</td><td>{layer.cost:.3g}</td></tr>"
            for layer in self.layers
        )
        return (
            f"<table><caption>{type(self).__name__}: {html.escape(self._summary())}</caption>"
            "<thead><tr><th>weight</th><th>bits</th><th>entries</th><th>cost</th></tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )
