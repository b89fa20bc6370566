"""The Gauss-Newton part of a data set: columns of the loss's output Hessian, all or drawn.

How many samples are worked on together is found in the graph of a few, or, where memory is given,
by measuring what the work on a few of the first batch takes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flattest.modules.calls import Call
from flattest.modules.curvature import output_hessian
from flattest.modules.disagreement import explain
from flattest.modules.memory import Line, peak
from flattest.modules.output_hessian import OutputHessian
from flattest.modules.parameters import Measured
from flattest.modules.part import Part
from flattest.modules.residual import ResidualTrace, proved
from flattest.modules.residual_part import ResidualPart
from flattest.modules.results import Cost
from flattest.modules.sampling import Draws, draws_needed, pilot_draws, spread
from flattest.modules.settings import Settings
from flattest.modules.squared_gradients.accumulation import BUDGET, SquaredGradients, entries
from flattest.modules.squared_gradients.bottleneck import find_head, width
from flattest.modules.squared_gradients.calibration import (
    CoupledSamplesError,
    HiddenParameterError,
    tolerance,
)
from flattest.modules.squared_gradients.forms import KINDS
from flattest.modules.squared_gradients.graph import Graph
from flattest.modules.watching import Watch

_FEW = 3  # samples whose graph shows how much memory a sample needs
_TRIED = (1, 4)  # samples whose memory is measured
_SHARE = 64  # of the memory may go into the cotangents of a batch of columns, in bytes per entry
_FEW_COLUMNS = 100  # up to which drawing some costs more than taking all
_WIDE = 32  # columns that a micro-batch should have room for


class Columns:
    """Sums of squared gradients over batches.

    Parameters
    ----------
    measured : list of Measured
        The parameters.
    settings : Settings
        The options.
    rng : numpy.random.Generator
        For the draws.
    watch : Watch
        Is told what is done.

    Attributes
    ----------
    squares : SquaredGradients
        The sums.
    cost : Cost
        Backward passes.
    n_done : int
        The samples of the last batch whose columns are all in the sums.
    proved : list of ResidualTrace or None
        The residual traces of the last batch, where all of them are proved to be 0.
    """

    def __init__(
        self, measured: list[Measured], settings: Settings, rng: np.random.Generator, watch: Watch
    ) -> None:
        self._measured, self._settings, self._watch = measured, settings, watch
        self._generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        rows = [n for n, entry in enumerate(measured) if entry.one_row_per_output]
        budget = BUDGET
        if settings.memory is not None:
            budget = max(1, min(BUDGET, settings.memory // _SHARE))
        self.squares = SquaredGradients(
            [entry.tensor for entry in measured], rows if settings.panel else (), budget
        )
        self.cost, self._drawn, self.n_done = Cost(), 0.0, 0
        self.proved: list[ResidualTrace] | None = []
        self._variance = torch.zeros(len(measured) + 1, dtype=torch.float64)
        self._adaptive_variance = 0.0
        self._entries, self._width = 1, 1
        self._line: Line | None = None
        self._line_entries = 1

    def gauss_newton(self) -> float:
        """Return the Gauss-Newton trace so far, times the norm."""
        return math.fsum(float(total.sum()) for total in self.squares.totals)

    def errors(self, norm: float) -> list[float] | None:
        """Return the standard errors of each tensor's trace and, last, of all; None if exact."""
        return [math.sqrt(float(v)) / norm for v in self._variance] if self._drawn else None

    def adaptive_error(self, norm: float) -> float | None:
        """Return the standard error of adaptive flatness; None if it is exact."""
        return math.sqrt(self._adaptive_variance) / norm if self._drawn else None

    def state(self) -> tuple[Any, ...]:
        """Return what `restore` takes to forget what is added from now on."""
        totals = [total.clone() for total in self.squares.totals]
        relative, cost = dict(self.squares.relative), Cost(self.cost.exact, self.cost.taken)
        return totals, relative, cost, self._drawn, self._variance.clone(), self._adaptive_variance

    def restore(self, state: tuple[Any, ...]) -> None:
        """Return to an earlier state."""
        self.squares.totals, self.squares.relative, self.cost = state[:3]
        self._drawn, self._variance, self._adaptive_variance = state[3:]

    def plan(self, call: Call) -> int:
        """Choose how many samples are worked on together, by the graph of a few of them.

        It shows what memory they need, and how wide the input of a linear last layer is, which
        bounds the number of columns.

        Parameters
        ----------
        call : Call
            The batch.

        Returns
        -------
        int
            The number.
        """
        limit = self._settings.batch_size
        few = slice(0, min(_FEW, call.n_samples, limit or _FEW))
        graph = self._graph(call, few)
        head = find_head(graph, self.squares.parameters)
        outputs = graph.outputs[0].numel()
        self._width = outputs if head is None else width(head)
        if limit is not None:
            return min(limit, call.n_samples)
        self._entries = max(1, entries(graph) // few.stop)
        columns = max(1, min(_WIDE, outputs, self._width))
        return max(1, min(call.n_samples, self.squares.budget // (columns * self._entries)))

    def add(self, part: Part, residual: ResidualPart) -> Part:
        """Add the Gauss-Newton part of a batch: all columns, or drawn ones.

        Parameters
        ----------
        part : Part
            The batch.
        residual : ResidualPart
            Whose memory is measured as well, where memory is limited.

        Returns
        -------
        Part
            The batch, with the number of samples that were worked on together.
        """
        self.n_done, self.proved = 0, []
        self._watch.stage(0)
        hessian = output_hessian(part.evaluate, part.logits, self._settings.loss.name)
        if self._settings.memory is not None:
            part = part._replace(step=self._fitting(part, hessian, residual))
        n_columns, mode = min(hessian.n_columns, self._width), self._settings.mode
        if mode == "exact" or (mode == "auto" and n_columns <= _FEW_COLUMNS):
            self._add_exactly(part, hessian, n_columns)
        else:
            self._add_drawn(part, hessian, n_columns)
        return part

    def _fitting(self, part: Part, hessian: OutputHessian, residual: ResidualPart) -> int:
        """Return how many samples fit into the memory given, measured on the first batch."""
        n, memory = part.call.n_samples, self._settings.memory
        assert memory is not None
        if self._line is None:
            sizes = sorted({min(size, n) for size in _TRIED})
            sums = self.squares.empty()

            def work(size: int) -> None:
                some = slice(0, size)
                self._pass(part._replace(step=size), hessian, sums, 1.0, samples=some)
                residual.attempt(part, some)

            device = part.logits.device
            peaks = [peak(lambda size=size: work(size), device) for size in sizes]  # type: ignore[misc]
            self._line, self._line_entries = Line.through(sizes, peaks), self._entries
        # Longer sequences, larger images: what they take grows with the entries of their graph.
        slope = self._line.slope * self._entries / self._line_entries
        return min(n, self._line._replace(slope=slope).samples(memory))

    def _add_exactly(self, part: Part, hessian: OutputHessian, n_columns: int) -> None:
        """Add all columns."""
        self.cost.exact += n_columns * part.call.n_samples
        self.cost.taken += n_columns * part.call.n_samples
        self._pass(part, hessian, self.squares, part.weight, watch=self._watch)

    def _add_drawn(self, part: Part, hessian: OutputHessian, n_columns: int) -> None:
        """Add drawn columns: a pilot, then as many as its spread asks for, or all of them."""
        n, weight, sums = part.call.n_samples, part.weight, self.squares.empty()

        def draw(n_draws: int) -> Tensor:
            draws = Draws(hessian, n_draws, self._generator)
            shape = (KINDS, len(self._measured), draws.n_columns, n)
            forms = torch.zeros(shape, dtype=torch.float64)
            self._pass(part, draws, sums, 1.0, forms, watch=self._watch)
            return forms.reshape(*shape[:2], n_draws, len(draws.signs), n).sum(dim=3)

        n_draws = pilot_draws(n)
        values = draw(n_draws) if n_draws < n_columns else None
        if values is not None:
            pilot = spread(values[0])
            adaptive = spread(values[1])
            pilot = pilot._replace(degrees=min(pilot.degrees, adaptive.degrees))
            own = (self._settings.rtol * float(pilot.mean[-1])) ** 2
            together = self._settings.rtol * (self._drawn / weight + float(pilot.mean[-1]))
            allowed = max(own, together**2 - float(self._variance[-1]) / weight**2)
            needed = draws_needed(pilot, n_draws, allowed)
            if needed >= n_columns:
                values = None
            elif needed > n_draws:
                values = torch.cat([values, draw(needed - n_draws)], dim=2)
        if values is None:
            self._add_exactly(part, hessian, n_columns)
            return
        found = spread(values[0])
        self._drawn += weight * float(found.mean[-1])
        self._variance += weight**2 * found.variance
        self._adaptive_variance += weight**2 * float(spread(values[1]).variance[-1])
        self.cost.exact += n_columns * n
        self.cost.taken += values.shape[2] * n
        self.squares.merge(sums, weight / values.shape[2])
        self.n_done = n

    def _pass(
        self,
        part: Part,
        hessian: OutputHessian,
        sums: SquaredGradients,
        weight: float,
        forms: Tensor | None = None,
        *,
        samples: slice = slice(None),
        watch: Watch | None = None,
    ) -> None:
        """Go through a batch, or some of its samples, micro-batch by micro-batch."""
        call = part.call
        n_samples = len(range(call.n_samples)[samples])
        for start in range(0, n_samples, part.step):
            chosen = slice(start, min(start + part.step, n_samples))
            graph = self._graph(call, chosen)
            expected = part.logits[chosen]
            difference = (graph.outputs.detach().double() - expected).abs().max()
            if difference > tolerance(graph.outputs.dtype) * expected.abs().max():
                raise explain(call, chosen)

            def single(number: int, start: int = start) -> Tensor:
                return _alone(call, start + number)

            own = None if forms is None else forms[..., chosen]
            try:
                sums.add(graph, single, hessian, chosen, weight, own)
            except CoupledSamplesError:
                raise explain(call, chosen) from None
            except HiddenParameterError as error:
                raise ValueError(
                    f"{self._measured[error.number].name} receives a gradient that the autograd "
                    "graph of the outputs does not show; checkpoint with use_reentrant=False, and "
                    "differentiate inside custom functions by autograd."
                ) from None
            if sums is self.squares:
                self.n_done = chosen.stop
            if watch is not None:
                self._prove(graph)
                watch.tick(chosen.stop - start)

    def _prove(self, graph: Graph) -> None:
        """Look for a proof that there is no residual part, while the graph is at hand."""
        if self.proved is not None and self._settings.residual != "none":
            named = {entry.name: entry.tensor for entry in self._measured}
            found = proved(graph.outputs, named)
            self.proved = None if found is None else [*self.proved, found]

    def _graph(self, call: Call, samples: slice) -> Graph:
        outputs, leaves = call.outputs(samples)
        graph = Graph(outputs, self.squares.parameters, leaves)
        if "CheckpointFunctionBackward" in graph.names:
            raise ValueError(
                "The model uses reentrant checkpointing, which hides its parameters from autograd; "
                "call torch.utils.checkpoint.checkpoint with use_reentrant=False."
            )
        return graph


def _alone(call: Call, position: int) -> Tensor:
    """Return the outputs for one sample without the others."""
    try:
        return call.outputs(slice(position, position + 1))[0]
    except ValueError as error:
        raise ValueError(
            "The model takes the batch, but not one sample alone, so its outputs depend on the "
            f"other samples or on their number; call model.eval() first. {error}"
        ) from error
