"""Sums over batches, each weighed by the loss's own normaliser.

For each batch: the logits, once, without a graph; the Hessian of the loss in them, taken apart into
columns; then, micro-batch by micro-batch, one forward pass with its graph and one batched backward
pass for all columns, whose squared gradients are summed; then the residual part, where the outputs
are not proved to be piecewise linear.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from flattest.flatness import NOT_MEASURED, Provenance
from flattest.modules.calls import Call
from flattest.modules.columns import Columns
from flattest.modules.curvature import products
from flattest.modules.eigenvalue import Curvature, largest_eigenvalue
from flattest.modules.loss_sum import BatchLoss, LossSum
from flattest.modules.parameters import Measured
from flattest.modules.part import Part
from flattest.modules.products import jacobian_product
from flattest.modules.residual import no_second_derivative
from flattest.modules.residual_part import ResidualPart
from flattest.modules.results import Results
from flattest.modules.settings import Settings
from flattest.modules.trees import select_samples
from flattest.modules.watching import Stopped, Watch


class Summation:
    """One measurement.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    measured : list of Measured
        The parameters.
    settings : Settings
        The options.
    rng : numpy.random.Generator
        For draws and probes.
    watch : Watch
        Is told what is done.
    """

    def __init__(
        self,
        module: nn.Module,
        measured: list[Measured],
        settings: Settings,
        rng: np.random.Generator,
        watch: Watch,
    ) -> None:
        self._measured, self._settings = measured, settings
        self._rng, self._watch = rng, watch
        self._columns = Columns(measured, settings, rng, watch)
        self._residual = ResidualPart(measured, settings.residual, settings.rtol, rng, watch)
        self._loss = LossSum(module, settings.loss, settings.output)
        self._fisher_rao, self._n_batches = 0.0, 0
        self._parts: list[Part] = []
        self._missing_norm: str | None = None
        self.partial = False
        self.observers: list[Callable[[Part], None]] = []

    def add(self, call: Call) -> None:
        """Add a batch.

        Parameters
        ----------
        call : Call
            The batch.

        Raises
        ------
        Stopped
            If the user ended the measurement. What is summed then is the batches before; of the
            first batch it is its first samples, without their residual part.
        """
        settings = self._settings
        self._watch.begin(call.n_samples)
        step = self._columns.plan(call)
        found = self._loss.on(call, step)
        if found.weight == 0:
            self._loss.count(found, call.n_samples)
            return
        shape = found.logits.shape

        def of_samples(values: Tensor) -> Tensor:
            return found.evaluate(values.reshape(shape), found.targets)

        part = Part(call, found.samples, of_samples, found.weight, step)
        before = self._columns.state() if self._n_batches else None
        residual_before = self._residual.state()
        try:
            self._add_parts(part)
        except Stopped:
            self.partial = True
            if before is not None:
                self._columns.restore(before)
                self._residual.restore(residual_before)
            else:
                self._keep_first_samples(part, found)
            raise
        self._loss.count(found, call.n_samples)
        self._n_batches += 1
        for observe in self.observers:
            observe(part)
        if settings.largest_eigenvalue is not None:
            self._parts.append(part)

    def _add_parts(self, part: Part) -> None:
        before = self._columns.gauss_newton()
        part = self._columns.add(part, self._residual)
        if self._settings.panel:
            self._add_fisher_rao(part)
        self._watch.stage(1)
        grown = self._columns.gauss_newton() - before
        self._residual.add(part, grown, self._columns.proved)

    def _keep_first_samples(self, part: Part, found: BatchLoss) -> None:
        """Count the first samples of a batch, whose Gauss-Newton part is summed."""
        done, n_samples = self._columns.n_done, part.call.n_samples
        self._residual.interrupt()
        self._fisher_rao = math.nan
        if done == 0:
            return
        loss = self._settings.loss
        weight, value = found.weight * done / n_samples, found.value
        if done < n_samples and not loss.takes_model:
            z = found.logits[: len(found.logits) // n_samples * done]
            targets = select_samples(found.targets, n_samples, slice(0, done))
            value = float(found.evaluate(z, targets))
            if loss.normaliser is not None:
                weight = loss.normaliser(z, targets)
        weight = 1.0 if math.isnan(weight) else weight
        self._loss.count(found._replace(weight=weight, value=value), done)

    def _add_fisher_rao(self, part: Part) -> None:
        """Add ``(J theta)^T H (J theta)``, with H the Hessian of the loss in the logits."""
        parameters = [entry.tensor for entry in self._measured]
        along = torch.zeros_like(part.logits)
        try:
            with no_second_derivative():
                for start in range(0, part.call.n_samples, part.step):
                    chosen = slice(start, min(start + part.step, part.call.n_samples))
                    outputs, _ = part.call.outputs(chosen)
                    vectors = [parameter.detach() for parameter in parameters]
                    along[chosen] = jacobian_product(outputs, parameters, vectors).double()
        except NotImplementedError as error:
            self._missing_norm = f"not measured: {error}"
            self._fisher_rao = math.nan
            return
        bent = products(part.evaluate, part.logits, self._settings.loss.name)(along)
        self._fisher_rao += part.weight * float((along * bent).sum())

    def results(self) -> Results:
        """Divide by the sum of the normalisers.

        Returns
        -------
        Results
            The figures.

        Raises
        ------
        ValueError
            If no sample counts.
        """
        settings, columns = self._settings, self._columns
        norm = self._loss.norm
        return Results(
            measured=self._measured,
            diagonals=[total / norm for total in columns.squares.totals],
            relative={n: value / norm for n, value in columns.squares.relative.items()},
            errors=columns.errors(norm),
            adaptive_error=columns.adaptive_error(norm),
            reached=columns.squares.reached,
            low_precision=columns.squares.low_precision,
            residual=self._residual.result(),
            missing=self._residual.missing,
            norm=norm,
            cost=columns.cost,
            loss=self._loss.mean,
            fisher_rao=self._fisher_rao / norm if settings.panel else math.nan,
            missing_fisher_rao=self._missing_norm,
            largest_eigenvalue=self._eigenvalue(norm),
            n_samples=self._loss.n_samples,
            loss_name=settings.loss.name,
            normaliser=norm if self._loss.normaliser_is_known else math.nan,
            summed=self._loss.summed,
            partial=self.partial,
        )

    def _eigenvalue(self, norm: float) -> tuple[float, Provenance] | None:
        """Find the largest eigenvalue, unless Ctrl-C comes first."""
        matrix, name = self._settings.largest_eigenvalue, self._settings.loss.name
        if matrix is None:
            return None
        parameters = [entry.tensor for entry in self._measured]
        curvature = Curvature(self._parts, parameters, matrix, norm, name, self._watch)
        try:
            self._watch.check()
            with no_second_derivative():
                return largest_eigenvalue(curvature, matrix, self._rng)
        except Stopped:
            why = "not measured, as the measurement was interrupted before"
            return math.nan, NOT_MEASURED._replace(why=why)

    @property
    def is_empty(self) -> bool:
        """Whether no sample was measured yet."""
        return self._loss.n_samples == 0
