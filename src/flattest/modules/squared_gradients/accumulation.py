"""The sums over a data set of squared per-sample gradients, micro-batch by micro-batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.output_hessian import Blocks, OutputHessian
from flattest.modules.squared_gradients.bottleneck import (
    Head,
    below,
    find_head,
    hidden,
    of_head,
    relative_of_head,
    worthwhile,
)
from flattest.modules.squared_gradients.calibration import calibrate
from flattest.modules.squared_gradients.forms import KINDS, Forms
from flattest.modules.squared_gradients.graph import Graph
from flattest.modules.squared_gradients.rules import ARRIVALS
from flattest.modules.squared_gradients.ways import Way, by_rules, sample_by_sample

BUDGET = 1 << 24
"""Entries of cotangents that are held together."""


class SquaredGradients:
    """Sums of squared per-sample gradients, per entry of every parameter.

    Parameters
    ----------
    parameters : list of Tensor
        The parameters.
    rows : collection of int
        The numbers of those with one row per output whose relative flatness is wanted.
    budget : int
        Entries of cotangents that are held together.

    Attributes
    ----------
    totals : list of Tensor
        The sums so far, in float64.
    relative : dict of int to float
        The relative flatness so far, of the tensors in `rows`.
    reached : set of int
        The numbers of the parameters that some outputs depend on.
    sample_by_sample : set of int
        The numbers of those that had no rule.
    low_precision : bool
        Whether the graph kept something in half precision.
    """

    def __init__(
        self, parameters: list[Tensor], rows: Collection[int] = (), budget: int = BUDGET
    ) -> None:
        self.parameters, self.rows, self.budget = parameters, rows, budget
        self.relative = dict.fromkeys(rows, 0.0)
        self.totals = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        self.reached: set[int] = set()
        self.sample_by_sample: set[int] = set()
        self.low_precision = False
        self._ways: dict[tuple[object, ...], dict[int, Way]] = {}
        self._grams: dict[int, Tensor] = {}

    def add(
        self,
        graph: Graph,
        single: Callable[[int], Tensor],
        hessian: OutputHessian,
        samples: slice,
        weight: float,
        forms: Float[Tensor, "3 t c n"] | None = None,
    ) -> None:
        """Add the squared gradients of a micro-batch, for all columns of the output Hessian.

        Parameters
        ----------
        graph : Graph
            Of the outputs for the micro-batch.
        single : callable
            From the number of a sample in it to the outputs for this sample alone.
        hessian : OutputHessian
            Of the batch.
        samples : slice
            Which samples of the batch these are.
        weight : float
            What to multiply with.
        forms : Tensor of shape (3, tensors, c, n), optional
            Where the signed forms of single gradients are written, see `Forms`.
        """
        head = find_head(graph, self.parameters) if forms is None else None
        if head is not None and worthwhile(head, hessian):
            outputs_of = single
            inner = below(head, hessian, samples)
            self._add_head(head, hessian, inner, samples, weight)
            hessian, samples = inner, slice(None)
            graph = Graph(head.hidden, self.parameters, graph.data)

            def single(number: int) -> Tensor:
                return hidden(outputs_of(number))

        ways = self._ways_for(graph, single)
        self.reached |= ways.keys()
        self.low_precision |= graph.has_low_precision()
        n, dtype = len(graph.outputs), graph.outputs.dtype
        step = max(1, self.budget // max(1, entries(graph)))
        slow = [number for number, way in ways.items() if way.frontier is None]
        self.sample_by_sample.update(slow)
        for start in range(0, hessian.n_columns, step):
            which = range(start, min(start + step, hessian.n_columns))
            columns, signs = (part.to(dtype) for part in hessian.columns(which, samples))
            values = signs.new_zeros(KINDS, len(self.totals), len(which), n)
            own = self._forms(values, complete=forms is not None)
            with torch.no_grad():
                found = by_rules(graph, columns, signs, self.parameters, ways, own)
            for number, total in found.items():
                self.totals[number] += weight * total.double()
            missing = [k for k, way in ways.items() if way.frontier and k not in found]
            for batched in (True, False):
                numbers = [k for k in slow if ways[k].batched == batched]
                numbers += [] if batched else missing
                self._add_singly(single, columns, signs, numbers, batched, weight, own)
            for number in self.rows:
                self.relative[number] += weight * float((values[2, number] * signs).sum())
            if forms is not None:
                forms[..., start : which.stop, :] = (values * signs).to(forms)

    def _forms(self, values: Float[Tensor, "3 t c n"], complete: bool) -> dict[int, Forms]:
        """Say where the forms that are wanted are written: all, or only the relative ones."""
        numbers = range(len(self.parameters)) if complete else self.rows
        return {
            number: Forms(
                values[:, number],
                squares=self.parameters[number].detach() ** 2 if complete else None,
                gram=self._gram(number) if number in self.rows else None,
            )
            for number in numbers
        }

    def _gram(self, number: int) -> Tensor:
        if number not in self._grams:
            rows = self.parameters[number].detach().flatten(1)
            self._grams[number] = rows @ rows.T
        return self._grams[number]

    def _add_head(
        self, head: Head, hessian: OutputHessian, inner: Blocks, samples: slice, weight: float
    ) -> None:
        """Add the last layer in closed form."""
        for number, values in zip(
            (head.weight_number, head.bias_number), of_head(head, hessian, samples), strict=True
        ):
            if number is not None:
                self.totals[number] += weight * values
                self.reached.add(number)
        if head.weight_number is not None and head.weight_number in self.rows:
            self.relative[head.weight_number] += weight * relative_of_head(head, inner)

    def _add_singly(
        self,
        single: Callable[[int], Tensor],
        columns: Tensor,
        signs: Tensor,
        numbers: list[int],
        batched: bool,
        weight: float,
        forms: dict[int, Forms],
    ) -> None:
        """Add the squared gradients of the tensors that are taken sample by sample."""
        chosen = [self.parameters[number] for number in numbers]
        for sample in range(columns.shape[1] if numbers else 0):
            own = {
                place: forms[number].of(sample, sample + 1)
                for place, number in enumerate(numbers)
                if number in forms
            }
            column = columns[:, sample : sample + 1]
            parts = sample_by_sample(single(sample), column, signs[:, sample], chosen, batched, own)
            for number, part in zip(numbers, parts, strict=True):
                if part is not None:
                    self.totals[number] += weight * part.double()

    def merge(self, other: SquaredGradients, factor: float) -> None:
        """Add the sums of another, multiplied by a factor.

        Parameters
        ----------
        other : SquaredGradients
            Of the same parameters.
        factor : float
            The factor.
        """
        for total, part in zip(self.totals, other.totals, strict=True):
            total += factor * part
        for number, value in other.relative.items():
            self.relative[number] += factor * value
        self.reached |= other.reached
        self.sample_by_sample |= other.sample_by_sample
        self.low_precision |= other.low_precision
        self._ways.update(other._ways)

    def empty(self) -> SquaredGradients:
        """Return sums of nothing for the same parameters, which know the same ways."""
        result = SquaredGradients(self.parameters, self.rows, self.budget)
        result._ways, result._grams = self._ways, self._grams
        return result

    def _ways_for(self, graph: Graph, single: Callable[[int], Tensor]) -> dict[int, Way]:
        """Look the ways up that were right for a graph of this shape, or find them."""
        if graph.depends_on_values():
            return calibrate(graph, single, self.parameters)
        uses = graph.uses("near")
        signature = (
            tuple(graph.outputs.shape),
            tuple((n, tuple(u.signature for u in found)) for n, found in sorted(uses.items())),
            tuple(sorted(graph.names)),
            tuple(sorted(graph.reached())),
        )
        if signature not in self._ways:
            self._ways[signature] = calibrate(graph, single, self.parameters)
        return self._ways[signature]


def entries(graph: Graph) -> int:
    """Return the number of entries of all cotangents that are kept for one column.

    Parameters
    ----------
    graph : Graph
        Of the outputs.

    Returns
    -------
    int
        The number.
    """
    nodes = {id(use.node): use.node for found in graph.uses("near").values() for use in found}
    return sum(
        math.prod(node._input_metadata[0].shape)
        for node in nodes.values()
        if node.name() not in ARRIVALS
    )
