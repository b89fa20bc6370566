"""The residual part of a module's Hessian trace over a data set, micro-batch by micro-batch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flattest.modules.parameters import Measured
from flattest.modules.part import Part
from flattest.modules.residual import ResidualTrace, added, residual_trace
from flattest.modules.watching import Watch

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
    watch : Watch
        Is told what is done.

    Attributes
    ----------
    missing : str or None
        Why the residual part is not measured, if it is not.
    """

    def __init__(
        self,
        measured: list[Measured],
        method: str,
        rtol: float,
        rng: np.random.Generator,
        watch: Watch,
    ) -> None:
        self._parameters = {entry.name: entry.tensor for entry in measured}
        self._method, self._rtol, self._rng, self._watch = method, rtol, rng, watch
        self._parts: list[ResidualTrace] = []
        self.missing = "not measured, as residual='none'" if method == "none" else None

    def add(
        self, part: Part, gauss_newton: float, proved: Sequence[ResidualTrace] | None = None
    ) -> None:
        """Add a batch.

        Parameters
        ----------
        part : Part
            The batch.
        gauss_newton : float
            Its Gauss-Newton trace.
        proved : sequence of ResidualTrace, optional
            The residual traces of its micro-batches, where these are proved to be 0.
        """
        if self.missing is not None:
            return
        if proved:
            self._parts.extend(proved)
            self._watch.tick(part.call.n_samples)
            return
        slopes = self._slopes(part)
        wanted = self._rtol * gauss_newton * (part.step / part.call.n_samples) ** 0.5
        for start in range(0, part.call.n_samples, part.step):
            chosen = slice(start, min(start + part.step, part.call.n_samples))
            try:
                self._parts.append(self._trace(part, slopes, chosen, wanted))
            except NotImplementedError as error:
                if self._method != "auto":
                    raise
                self.missing = f"not measured: {error}"
                return
            self._watch.tick(chosen.stop - start)

    def attempt(self, part: Part, samples: slice) -> None:
        """Do what `add` does for some samples, and forget it.

        Parameters
        ----------
        part : Part
            The batch.
        samples : slice
            Which samples.
        """
        if self.missing is None:
            with contextlib.suppress(NotImplementedError):
                self._trace(part, self._slopes(part), samples, 0.0)

    def interrupt(self) -> None:
        """Note that the residual part is not that of all samples."""
        if self.missing is None:
            self.missing = "not measured, as the measurement was interrupted before"

    def state(self) -> tuple[int, str | None]:
        """Return what `restore` takes to forget what is added from now on."""
        return len(self._parts), self.missing

    def restore(self, state: tuple[int, str | None]) -> None:
        """Return to an earlier state."""
        n_parts, self.missing = state
        del self._parts[n_parts:]

    def _slopes(self, part: Part) -> Tensor:
        leaf = part.logits.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(part.weight * part.evaluate(leaf), leaf)[0]

    def _trace(self, part: Part, slopes: Tensor, samples: slice, wanted: float) -> ResidualTrace:
        def linearised() -> tuple[Tensor, Tensor]:
            outputs, _ = part.call.outputs(samples)
            return outputs, slopes[samples].to(outputs.dtype)

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
