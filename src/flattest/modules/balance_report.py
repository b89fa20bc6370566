"""What balancing did to a module: its objective before and after, and every tensor's factors."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flattest.flatness import Flatness
from flattest.wording import count

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    "trace": "Gauss-Newton trace",
    "range": "noise of rounding, by equal ranges",
    "quantisation": "noise of rounding",
}
"""The objectives, and what each is called."""
SHORT = {"trace": "trace", "range": "noise", "quantisation": "noise"}
"""The same in a word."""


class ScaledLayer(NamedTuple):
    """What balancing did to one parameter tensor.

    Parameters
    ----------
    name : str
        The tensor.
    smallest, largest : float
        The smallest and largest factor that an entry was multiplied by; NaN where a linear group
        mixed its entries.
    before, after : float
        Its part in the objective: the Gauss-Newton trace, or the noise of rounding, 0 for what is
        not rounded.
    """

    name: str
    smallest: float
    largest: float
    before: float
    after: float


@dataclass(frozen=True, repr=False)
class BalanceReport:
    """What balancing did to a module.

    Parameters
    ----------
    objective : str
        What was minimised.
    before, after : float
        Its value.
    flatness : Flatness
        The measurement before, with the orbit minimum.
    layers : tuple of ScaledLayer
        Each parameter tensor.
    largest_change : float
        The largest change of an output on the first batch, in float64 and relative to the largest
        output.
    rounding_change : float
        The same for the module as it is returned, in its own dtype.
    equalised : float
        For the objectives of rounding, the value that cross-layer equalisation reaches; else NaN.
    gap : float
        A bound of ``after`` less the infimum; NaN for ``"range"``, which has none.
    n_left_alone : int
        Scales left at 1, since their units carry nothing, or next to nothing.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _, report = ft.balance(net, torch.ones(4, 2), torch.ones(4, 1), return_report=True)
    >>> report.after <= report.before, list(report.to_frame()["name"])
    (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """

    objective: str
    before: float
    after: float
    flatness: Flatness
    layers: tuple[ScaledLayer, ...]
    largest_change: float
    rounding_change: float
    equalised: float = math.nan
    gap: float = math.nan
    n_left_alone: int = 0

    @property
    def bits_gained(self) -> float:
        """By how many bits coarser the module can be rounded, for the same expected loss.

        Half the base-2 logarithm of the ratio of the noises, for the objectives of rounding.
        """
        if self.objective == "trace" or not self.after > 0:
            return math.nan
        return 0.5 * math.log2(self.before / self.after)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each parameter tensor.

        Returns
        -------
        DataFrame
            The fields of `ScaledLayer`.
        """
        import pandas as pd

        return pd.DataFrame(self.layers, columns=list(ScaledLayer._fields))

    def _lines(self) -> list[str]:
        moved = sum(layer.smallest != 1 or layer.largest != 1 for layer in self.layers)
        lines = [f"{WORDS[self.objective]}: {self.before:.6g} -> {self.after:.6g}"]
        if self.objective != "trace":
            lines[0] += f", {self.bits_gained:.2g} bits; equalised {self.equalised:.6g}"
        if self.n_left_alone:
            lines.append(
                f"{count(self.n_left_alone, 'scale')} left at 1: nothing flows through, or next to "
                "nothing"
            )
        return [
            *lines,
            f"{count(moved, 'tensor')} of {len(self.layers)} changed; outputs change by "
            f"{self.largest_change:.1e} in float64, {self.rounding_change:.1e} as returned",
        ]

    def __repr__(self) -> str:
        """Print a table with a line for each tensor."""
        width = max((len(layer.name) for layer in self.layers), default=0)
        lines = [type(self).__name__, *(f"  {line}" for line in self._lines())]
        for name, low, high, before, after in self.layers:
            factor = f"x {low:.3g}" if low == high else f"x {low:.3g} to {high:.3g}"
            if math.isnan(low):
                factor = "mixed by matrices"
            part = f"{SHORT[self.objective]} {before:.4g} -> {after:.4g}"
            lines.append(f"  {name:<{width}}  {factor:<22} {part}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Show the same table in a notebook."""
        notes = "<br>".join(html.escape(line) for line in self._lines())
        body = "".join(
            f"<tr><td>{html.escape(name)}</td>{_factors(low, high)}"
            f"<td>{before:.4g}</td><td>{after:.4g}</td></tr>"
            for name, low, high, before, after in self.layers
        )
        what = SHORT[self.objective]
        head = f"<th></th><th>smallest</th><th>largest factor</th><th>{what}</th><th>after</th>"
        return (
            f"<table><caption>{type(self).__name__}: {notes}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )


def _factors(low: float, high: float) -> str:
    if math.isnan(low):
        return '<td colspan="2">mixed by matrices</td>'
    return f"<td>{low:.3g}</td><td>{high:.3g}</td>"
