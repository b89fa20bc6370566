"""The measurement of any module: batches in, figures out.

For each batch: the logits, once, without a graph; the Hessian of the loss in them, taken apart into
columns; then, micro-batch by micro-batch, one forward pass with its graph and one batched backward
pass for all columns, whose squared gradients are summed; then the residual part, where the outputs
are not proved to be piecewise linear. See `flattest.modules` for the parts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flattest.flatness import Flatness
from flattest.modules.calls import Call, by_sample, loss_of, recorded
from flattest.modules.curvature import output_hessian
from flattest.modules.data import Kind, read_batches, read_whole_batches
from flattest.modules.disagreement import explain
from flattest.modules.guards import measuring, refuse_training_mode
from flattest.modules.losses import Loss, Normalisers, in_float64, refuse_broadcast, resolve
from flattest.modules.output_hessian import OutputHessian
from flattest.modules.outputs import Output, check_output
from flattest.modules.parameters import Measured, choose, kind_of, unwrap
from flattest.modules.residual_part import METHODS, ResidualPart
from flattest.modules.results import Cost, Results
from flattest.modules.sampling import Draws, draws_needed, pilot_draws, spread
from flattest.modules.squared_gradients.accumulation import BUDGET, SquaredGradients, entries
from flattest.modules.squared_gradients.bottleneck import find_head
from flattest.modules.squared_gradients.calibration import (
    CoupledSamplesError,
    HiddenParameterError,
    tolerance,
)
from flattest.modules.squared_gradients.graph import Graph
from flattest.validation import check_positive_float, check_positive_int, check_random_state

_FEW = 3  # samples whose graph shows how much memory a sample needs
_MODES = ("auto", "exact", "sampled")
_FEW_COLUMNS = 100  # up to which drawing some costs more than taking all
_WIDE = 32  # columns that a micro-batch should have room for


def measure(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = "mse",
    output: Any = None,
    parameters: Any = None,
    batch_size: int | None = None,
    mode: str = "auto",
    rtol: float | int = 0.01,
    residual: str = "auto",
    random_state: Any = None,
) -> Flatness:
    """Measure the flatness of any module: the general function for what is no two-layer network.

    Parameters
    ----------
    model : torch.nn.Module
        The module.
    X, y, loss, output, parameters, batch_size, mode, rtol, residual, random_state
        As for :func:`flattest.measure`.

    Returns
    -------
    Flatness
        The measurements.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or the module cannot be measured.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            "model must be a torch.nn.Module, such as a flattest.TwoLayerNet, not "
            f"{type(model).__name__}."
        )
    resolved, place = resolve(loss), check_output(output)
    limit = None if batch_size is None else check_positive_int(batch_size, "batch_size")
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, not {mode!r}.")
    if residual not in METHODS:
        allowed = ", ".join(map(repr, METHODS))
        raise ValueError(f"residual must be one of {allowed}, not {residual!r}.")
    error = check_positive_float(rtol, "rtol")
    module = unwrap(model)
    kind = kind_of(module)
    refuse_training_mode(module)
    original = next(p.dtype for p in module.parameters() if p.is_floating_point())
    if kind.converted:
        module = copy.deepcopy(module).float()
    measured = choose(module, parameters)
    rng = check_random_state(random_state)
    rest = ResidualPart(measured, residual, error, rng)
    run = _Run(module, measured, resolved, place, limit, mode, error, rng, rest)
    with measuring(module, measured):
        for call in _calls(module, X, y, kind, resolved, place):
            run.add(call)
    return run.result(module, kind, original)


def _calls(
    module: nn.Module, X: Any, y: Any, kind: Kind, loss: Loss, output: Output
) -> Iterator[Call]:
    if loss.takes_model:
        for whole in read_whole_batches(X, y, kind):
            yield recorded(module, loss, whole, output)
    else:
        for batch in read_batches(X, y, kind):
            yield Call(module, batch, output)


class _Run:
    """One measurement: sums over batches, each weighed by the loss's own normaliser."""

    def __init__(
        self,
        module: nn.Module,
        measured: list[Measured],
        loss: Loss,
        output: Output,
        batch_size: int | None,
        mode: str,
        rtol: float,
        rng: np.random.Generator,
        residual: ResidualPart,
    ) -> None:
        self._mode, self._rtol, self._residual = mode, rtol, residual
        self._generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        self._cost, self._drawn = Cost(), 0.0
        self._variance = torch.zeros(len(measured) + 1, dtype=torch.float64)
        self._module, self._measured, self._loss, self._output = module, measured, loss, output
        self._batch_size = batch_size
        self._squares = SquaredGradients([entry.tensor for entry in measured])
        self._normalisers = Normalisers(loss.name)
        self._normaliser, self._value = 0.0, 0.0
        self._summed = False
        self.n_samples = 0

    def add(self, call: Call) -> None:
        """Add a batch."""
        step, width = self._plan(call)
        logits = call.logits(step).detach()
        if not torch.isfinite(logits).all():
            raise ValueError("The model's outputs contain NaN or infinity.")
        evaluate = loss_of(call, self._loss, self._module, self._output)
        z, targets = logits.double(), in_float64(call.batch.targets)
        samples_first = by_sample(z, call.n_samples)
        if self._loss.normaliser is None and not self._loss.takes_model:
            refuse_broadcast(evaluate, z, targets, self._loss.name)
        weight = self._weight(evaluate, z, targets)
        self.n_samples += call.n_samples
        if weight == 0:
            return
        value = float(evaluate(z, targets))
        if not math.isfinite(value):
            raise ValueError(f"The loss {self._loss.name} is {value} on a batch.")
        self._normaliser += weight
        self._value += weight * value
        shape = z.shape

        def of_samples(values: Tensor) -> Tensor:
            return evaluate(values.reshape(shape), targets)

        before = self._gauss_newton()
        self._add_columns(call, samples_first, of_samples, weight, step, width)
        grown = self._gauss_newton() - before
        self._residual.add(call, samples_first, of_samples, weight, step, grown)

    def _gauss_newton(self) -> float:
        """Return the Gauss-Newton trace so far."""
        return math.fsum(float(total.sum()) for total in self._squares.totals)

    def _add_columns(
        self,
        call: Call,
        samples_first: Tensor,
        of_samples: Callable[[Tensor], Tensor],
        weight: float,
        step: int,
        width: int,
    ) -> None:
        """Add the Gauss-Newton part of a batch: all columns, or drawn ones."""
        hessian = output_hessian(of_samples, samples_first, self._loss.name)
        n_columns = min(hessian.n_columns, width)
        if self._mode == "exact" or (self._mode == "auto" and n_columns <= _FEW_COLUMNS):
            self._add_exactly(call, samples_first, hessian, weight, step, n_columns)
        else:
            self._add_drawn(call, samples_first, hessian, weight, step, n_columns)

    def _add_exactly(
        self,
        call: Call,
        logits: Tensor,
        hessian: OutputHessian,
        weight: float,
        step: int,
        n_columns: int,
    ) -> None:
        """Add all columns."""
        self._cost.exact += n_columns * call.n_samples
        self._cost.taken += n_columns * call.n_samples
        self._pass(call, logits, hessian, self._squares, weight, step)

    def _add_drawn(
        self,
        call: Call,
        logits: Tensor,
        hessian: OutputHessian,
        weight: float,
        step: int,
        n_columns: int,
    ) -> None:
        """Add drawn columns: a pilot, then as many as its spread asks for, or all of them."""
        n, sums = call.n_samples, self._squares.empty()

        def draw(n_draws: int) -> Tensor:
            draws = Draws(hessian, n_draws, self._generator)
            norms = torch.zeros(len(self._measured), draws.n_columns, n, dtype=torch.float64)
            self._pass(call, logits, draws, sums, 1.0, step, norms)
            return norms.reshape(len(norms), n_draws, len(draws.signs), n).sum(dim=2)

        n_draws = pilot_draws(n)
        values = draw(n_draws) if n_draws < n_columns else None
        if values is not None:
            pilot = spread(values)
            own = (self._rtol * float(pilot.mean[-1])) ** 2
            together = self._rtol * (self._drawn / weight + float(pilot.mean[-1]))
            allowed = max(own, together**2 - float(self._variance[-1]) / weight**2)
            needed = draws_needed(pilot, n_draws, allowed)
            if needed >= n_columns:
                values = None
            elif needed > n_draws:
                values = torch.cat([values, draw(needed - n_draws)], dim=1)
        if values is None:
            self._add_exactly(call, logits, hessian, weight, step, n_columns)
            return
        found = spread(values)
        self._drawn += weight * float(found.mean[-1])
        self._variance += weight**2 * found.variance
        self._cost.exact += n_columns * n
        self._cost.taken += values.shape[1] * n
        self._squares.merge(sums, weight / values.shape[1])

    def _pass(
        self,
        call: Call,
        logits: Tensor,
        hessian: OutputHessian,
        sums: SquaredGradients,
        weight: float,
        step: int,
        norms: Tensor | None = None,
    ) -> None:
        """Go through a batch once, micro-batch by micro-batch."""
        for start in range(0, call.n_samples, step):
            part = slice(start, min(start + step, call.n_samples))
            graph = self._graph(call, part)
            expected = logits[part]
            difference = (graph.outputs.detach().double() - expected).abs().max()
            if difference > tolerance(graph.outputs.dtype) * expected.abs().max():
                raise explain(call, part)

            def single(number: int, start: int = start) -> Tensor:
                position = start + number
                try:
                    return call.outputs(slice(position, position + 1))[0]
                except ValueError as error:
                    raise ValueError(
                        "The model takes the batch, but not one sample alone, so its outputs "
                        "depend on the other samples or on their number; call model.eval() first. "
                        f"{error}"
                    ) from error

            own = None if norms is None else norms[..., part]
            try:
                sums.add(graph, single, hessian, part, weight, own)
            except CoupledSamplesError:
                raise explain(call, part) from None
            except HiddenParameterError as error:
                raise ValueError(
                    f"{self._measured[error.number].name} receives a gradient that the autograd "
                    "graph of the outputs does not show; checkpoint with use_reentrant=False, and "
                    "differentiate inside custom functions by autograd."
                ) from None

    def _graph(self, call: Call, part: slice) -> Graph:
        outputs, leaves = call.outputs(part)
        graph = Graph(outputs, self._squares.parameters, leaves)
        if "CheckpointFunctionBackward" in graph.names:
            raise ValueError(
                "The model uses reentrant checkpointing, which hides its parameters from autograd; "
                "call torch.utils.checkpoint.checkpoint with use_reentrant=False."
            )
        return graph

    def _plan(self, call: Call) -> tuple[int, int]:
        """Choose how many samples are worked on together, and find how few columns may suffice.

        Both show in the graph of a few samples: what memory they need, and how wide the input of a
        linear last layer is.
        """
        few = slice(0, min(_FEW, call.n_samples, self._batch_size or _FEW))
        graph = self._graph(call, few)
        head = find_head(graph, self._squares.parameters)
        outputs = graph.outputs[0].numel()
        width = outputs if head is None else head.weight.shape[1]
        if self._batch_size is not None:
            return min(self._batch_size, call.n_samples), width
        per_column = max(1, entries(graph) // few.stop)
        columns = max(1, min(_WIDE, outputs, width))
        return max(1, min(call.n_samples, BUDGET // (columns * per_column))), width

    def _weight(self, evaluate: Any, logits: Tensor, targets: Any) -> float:
        """Return the normaliser of a batch; losses that are sums count once each."""
        if self._loss.normaliser is not None:
            weight = self._loss.normaliser(logits, targets)
        else:
            weight = self._normalisers.weight(evaluate, logits, targets)
        if math.isnan(weight):
            self._summed = True
            return 1.0
        return weight

    def result(self, module: nn.Module, kind: Kind, original: torch.dtype) -> Flatness:
        """Divide by the sum of the normalisers, and tabulate."""
        if self._normaliser == 0:
            raise ValueError(
                f"The loss {self._loss.name} counts no sample: every target is ignored, or has "
                "weight 0."
            )
        norm = 1.0 if self._summed else self._normaliser
        return Results(
            measured=self._measured,
            diagonals=[total / norm for total in self._squares.totals],
            errors=[math.sqrt(float(v)) / norm for v in self._variance] if self._drawn else None,
            reached=self._squares.reached,
            low_precision=self._squares.low_precision,
            residual=self._residual.result(),
            missing=self._residual.missing,
            norm=norm,
            cost=self._cost,
            loss=self._value / norm,
            n_samples=self.n_samples,
            kind=kind,
            original=original,
        ).tabulate(sum(p.numel() for p in module.parameters() if p.is_floating_point()))
