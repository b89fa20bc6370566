"""The sums over a data set of squared per-sample gradients, micro-batch by micro-batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.output_hessian import OutputHessian
from flattest.modules.squared_gradients.bottleneck import (
    below,
    find_head,
    hidden,
    of_head,
    worthwhile,
)
from flattest.modules.squared_gradients.calibration import calibrate
from flattest.modules.squared_gradients.graph import Graph
from flattest.modules.squared_gradients.ways import Way, by_rules, sample_by_sample

BUDGET = 1 << 24
"""Entries of cotangents that are held together."""


class SquaredGradients:
    """Sums of squared per-sample gradients, per entry of every parameter.

    Parameters
    ----------
    parameters : list of Tensor
        The parameters.

    Attributes
    ----------
    totals : list of Tensor
        The sums so far, in float64.
    reached : set of int
        The numbers of the parameters that some outputs depend on.
    sample_by_sample : set of int
        The numbers of those that had no rule.
    low_precision : bool
        Whether the graph kept something in half precision.
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters = parameters
        self.totals = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        self.reached: set[int] = set()
        self.sample_by_sample: set[int] = set()
        self.low_precision = False
        self._ways: dict[tuple[object, ...], dict[int, Way]] = {}

    def add(
        self,
        graph: Graph,
        single: Callable[[int], Tensor],
        hessian: OutputHessian,
        samples: slice,
        weight: float,
        norms: Float[Tensor, "t c n"] | None = None,
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
        norms : Tensor of shape (tensors, c, n), optional
            Where the signed squared norms of single gradients are written.
        """
        head = find_head(graph, self.parameters) if norms is None else None
        if head is not None and worthwhile(head, hessian.n_columns):
            outputs_of = single
            for number, values in zip(
                (head.weight_number, head.bias_number),
                of_head(head, hessian, samples),
                strict=True,
            ):
                if number is not None:
                    self.totals[number] += weight * values
                    self.reached.add(number)
            hessian, samples = below(head, hessian, samples), slice(None)
            graph = Graph(head.hidden, self.parameters, graph.data)

            def single(number: int) -> Tensor:
                return hidden(outputs_of(number))

        ways = self._ways_for(graph, single)
        self.reached |= ways.keys()
        self.low_precision |= graph.has_low_precision()
        n, dtype = len(graph.outputs), graph.outputs.dtype
        step = max(1, BUDGET // max(1, entries(graph)))
        slow = [number for number, way in ways.items() if way.frontier is None]
        self.sample_by_sample.update(slow)
        for start in range(0, hessian.n_columns, step):
            which = range(start, min(start + step, hessian.n_columns))
            columns, signs = (part.to(dtype) for part in hessian.columns(which, samples))
            own = None if norms is None else signs.new_zeros(len(self.totals), len(which), n)
            with torch.no_grad():
                found = by_rules(graph, columns, signs, self.parameters, ways, own)
            for number, values in found.items():
                self.totals[number] += weight * values.double()
            missing = [k for k, way in ways.items() if way.frontier and k not in found]
            for batched in (True, False):
                numbers = [k for k in slow if ways[k].batched == batched]
                numbers += [] if batched else missing
                self._add_singly(single, columns, signs, numbers, batched, weight, own)
            if norms is not None and own is not None:
                norms[:, start : which.stop] = (own * signs).to(norms)

    def _add_singly(
        self,
        single: Callable[[int], Tensor],
        columns: Tensor,
        signs: Tensor,
        numbers: list[int],
        batched: bool,
        weight: float,
        norms: Tensor | None,
    ) -> None:
        """Add the squared gradients of the tensors that are taken sample by sample."""
        chosen = [self.parameters[number] for number in numbers]
        for sample in range(columns.shape[1] if numbers else 0):
            own = columns[:, sample : sample + 1]
            parts = sample_by_sample(single(sample), own, signs[:, sample], chosen, batched)
            for number, part in zip(numbers, parts, strict=True):
                if part is not None:
                    self.totals[number] += weight * part[0].double()
                    if norms is not None:
                        norms[number, :, sample] = part[1]

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
        self.reached |= other.reached
        self.sample_by_sample |= other.sample_by_sample
        self.low_precision |= other.low_precision
        self._ways.update(other._ways)

    def empty(self) -> SquaredGradients:
        """Return sums of nothing for the same parameters, which know the same ways."""
        result = SquaredGradients(self.parameters)
        result._ways = self._ways
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
    """Return the number of entries of all cotangents that one column needs.

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
    return sum(math.prod(node._input_metadata[0].shape) for node in nodes.values())
