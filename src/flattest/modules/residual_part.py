"""The residual part of a module's Hessian trace over a data set, micro-batch by micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flattest.modules.calls import Call
from flattest.modules.parameters import Measured
from flattest.modules.residual import ResidualTrace, added, residual_trace

METHODS = ("auto", "exact", "estimate", "none")
_MOST_PROBES = 16


class ResidualPart:
    """Sums the residual traces of micro-batches, of which each is a part of the loss.

    Parameters
    ----------
    measured : list of Measured
        The parameters.
    method : {"auto", "exact", "estimate", "none"}
        As for :func:`flattest.measure`.
    rtol : float
        The standard error at which probing stops, relative to the Gauss-Newton trace.
    rng : numpy.random.Generator
        Draws the probes.

    Attributes
    ----------
    missing : str or None
        Why the residual part is not measured, if it is not.
    """

    def __init__(
        self, measured: list[Measured], method: str, rtol: float, rng: np.random.Generator
    ) -> None:
        self._parameters = {entry.name: entry.tensor for entry in measured}
        self._method, self._rtol, self._rng = method, rtol, rng
        self._parts: list[ResidualTrace] = []
        self.missing = "not measured, as residual='none'" if method == "none" else None

    def add(
        self,
        call: Call,
        logits: Tensor,
        evaluate: Callable[[Tensor], Tensor],
        weight: float,
        step: int,
        gauss_newton: float,
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        call : Call
            The batch.
        logits : Tensor of shape (n, ...)
            Its logits, samples first, in float64.
        evaluate : callable
            The loss of such logits.
        weight : float
            How much the batch counts.
        step : int
            Samples worked on together.
        gauss_newton : float
            The Gauss-Newton trace of the batch.
        """
        if self.missing is not None:
            return
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            (slopes,) = torch.autograd.grad(weight * evaluate(leaf), leaf)
        wanted = self._rtol * gauss_newton * (step / call.n_samples) ** 0.5
        for start in range(0, call.n_samples, step):
            part = slice(start, min(start + step, call.n_samples))

            def linearised(part: slice = part) -> tuple[Tensor, Tensor]:
                outputs, _ = call.outputs(part)
                return outputs, slopes[part].to(outputs.dtype)

            try:
                self._parts.append(self._trace(linearised, wanted))
            except NotImplementedError as error:
                if self._method != "auto":
                    raise
                self.missing = f"not measured: {error}"
                return

    def _trace(
        self, linearised: Callable[[], tuple[Tensor, Tensor]], wanted: float
    ) -> ResidualTrace:
        options: dict[str, Any] = {"standard_error": wanted} if wanted > 0 else {}
        return residual_trace(
            linearised,
            self._parameters,
            method=self._method,
            max_probes=_MOST_PROBES,
            random_state=self._rng,
            **options,
        )

    def result(self) -> ResidualTrace | None:
        """Return the sum over all batches; None where it is not measured."""
        return None if self.missing is not None else added(self._parts)
