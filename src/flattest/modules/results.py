"""From sums over a data set to the result: figures, how each came about, the table per layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flattest.flatness import NOT_MEASURED, Flatness, LayerFlatness, Provenance
from flattest.modules.data import Kind
from flattest.modules.parameters import Measured
from flattest.modules.residual import ResidualTrace


@dataclass
class Cost:
    """Backward passes of single samples: how many exact figures take, and how many were taken.

    Parameters
    ----------
    exact, taken : int
        The numbers.
    """

    exact: int = 0
    taken: int = 0


@dataclass(frozen=True)
class Results:
    """All that was summed.

    Parameters
    ----------
    measured : list of Measured
        The parameters.
    diagonals : list of Tensor
        The diagonal of the Gauss-Newton matrix, by parameter.
    relative : dict of int to float
        The relative flatness of tensors, by number.
    errors : list of float or None
        The standard errors of its sums over each parameter and, last, over all; None if exact.
    adaptive_error : float or None
        That of adaptive flatness.
    reached : set of int
        The numbers of the parameters that outputs depend on.
    low_precision : bool
        Whether the forward pass kept values in half precision.
    residual : ResidualTrace or None
        The residual part, times the norm; None where it is not measured.
    missing : str or None
        Why it is not.
    norm : float
        What the loss's sums are divided by.
    cost : Cost
        Of exact figures, and of these.
    loss : float
        The loss.
    fisher_rao : float
        The Fisher-Rao norm; NaN where it is not measured.
    missing_fisher_rao : str or None
        Why it is not.
    largest_eigenvalue : (float, Provenance) or None
        The largest eigenvalue, if it was asked for.
    n_samples : int
        The number of samples.
    loss_name : str
        The loss.
    normaliser : float
        What its sums are divided by, if that is known.
    summed : bool
        Whether that is nothing.
    partial : bool
        Whether the measurement was interrupted.
    """

    measured: list[Measured]
    diagonals: list[Tensor]
    relative: dict[int, float]
    errors: list[float] | None
    adaptive_error: float | None
    reached: set[int]
    low_precision: bool
    residual: ResidualTrace | None
    missing: str | None
    norm: float
    cost: Cost
    loss: float
    fisher_rao: float
    missing_fisher_rao: str | None
    largest_eigenvalue: tuple[float, Provenance] | None
    n_samples: int
    loss_name: str
    normaliser: float
    summed: bool
    partial: bool

    def tabulate(self, n_everything: int, kind: Kind, original: torch.dtype) -> Flatness:
        """Return the result.

        Parameters
        ----------
        n_everything : int
            The number of all parameters of the module, measured or not.
        kind : Kind
            The dtype and device of the module that was measured.
        original : torch.dtype
            That of the caller's.

        Returns
        -------
        Flatness
            The figures.
        """
        layers = tuple(self._layer(number) for number in range(len(self.measured)))
        provenance = self._provenance(kind, original)
        n_parameters = sum(layer.n_parameters for layer in layers)
        gauss_newton = math.fsum(layer.gauss_newton for layer in layers)
        rest = math.nan if self.residual is None else self.residual.value / self.norm
        return Flatness(
            loss=self.loss,
            trace=gauss_newton + rest,
            gauss_newton=gauss_newton,
            residual=rest,
            orbit_minimum=math.nan,
            adaptive=math.fsum(layer.adaptive for layer in layers),
            fisher_rao=self.fisher_rao,
            largest_eigenvalue=math.nan
            if self.largest_eigenvalue is None
            else self.largest_eigenvalue[0],
            n_samples=self.n_samples,
            n_parameters=n_parameters,
            n_left_out=n_everything - n_parameters,
            layers=layers,
            provenance={
                "loss": Provenance(
                    exact=not self.low_precision, why="evaluated in float64 on the model's outputs"
                ),
                "gauss_newton": provenance,
                "adaptive": provenance._replace(
                    why=f"the Gauss-Newton diagonal, weighed by theta**2: {provenance.why}",
                    standard_error=self.adaptive_error,
                ),
                **self._rest_and_trace(provenance),
                **self._panel(),
                "orbit_minimum": NOT_MEASURED,
            },
            loss_name=self.loss_name,
            normaliser=self.normaliser,
            summed=self.summed,
            partial=self.partial,
            dtype=str(kind.dtype),
            device=str(kind.device),
            diagonals={
                entry.name: diagonal
                for entry, diagonal in zip(self.measured, self.diagonals, strict=True)
            },
        )

    def _panel(self) -> dict[str, Provenance]:
        """Say how the figures that were asked for came about."""
        norm = Provenance(
            exact=not self.low_precision,
            why="theta^T G theta, by the derivative of the outputs along theta; no rescaling "
            "changes it",
        )
        if math.isnan(self.fisher_rao):
            norm = NOT_MEASURED._replace(why=self.missing_fisher_rao or NOT_MEASURED.why)
        found = self.largest_eigenvalue
        value = NOT_MEASURED if found is None else found[1]
        return {"fisher_rao": norm, "largest_eigenvalue": value}

    def _rest_and_trace(self, gauss_newton: Provenance) -> dict[str, Provenance]:
        """Say how the residual part and the trace came about."""
        found = self.residual
        if found is None:
            missing = NOT_MEASURED._replace(why=self.missing or NOT_MEASURED.why)
            return {"residual": missing, "trace": missing}
        curved = [name for name, entry in found.tensors.items() if not entry.proof.linear]
        if not curved:
            why = "0, as the outputs are piecewise linear in every parameter tensor"
        else:
            what = f"{len(curved)} of {len(found.tensors)} parameter tensors"
            how = "probes"
            if found.standard_error is None:
                how = "double backward passes" if found.double_backwards else "closed forms"
            why = f"{how} on {what}, those in which the outputs are not proved piecewise linear"
        if not found.converged:
            why += "; stopped before the standard error asked for was reached"
        error = None if found.standard_error is None else found.standard_error / self.norm
        exact = error is None and not self.low_precision
        rest = Provenance(exact=exact, why=why, standard_error=error)
        both = [e for e in (error, gauss_newton.standard_error) if e is not None]
        trace = Provenance(
            exact=exact and gauss_newton.exact,
            why=f"Gauss-Newton part: {gauss_newton.why}. Residual part: {why}",
            standard_error=math.hypot(*both) if both else None,
        )
        return {"residual": rest, "trace": trace}

    def _provenance(self, kind: Kind, original: torch.dtype) -> Provenance:
        """Say how the Gauss-Newton figures came about."""
        why = "squared gradients of all columns of the loss's output Hessian, summed over samples"
        if self.errors is not None:
            why = (
                "importance-drawn columns of the loss's output Hessian: "
                f"{self.cost.taken / self.n_samples:.3g} backward passes per sample, where exact "
                f"figures take {self.cost.exact / self.n_samples:.6g}"
            )
        if kind.converted:
            why += f"; measured on a float32 copy of a {original} model"
        if self.low_precision:
            why += "; the forward pass keeps values in half precision, which limits the accuracy"
        exact = self.errors is None and not self.low_precision
        error = None if self.errors is None else self.errors[-1]
        return Provenance(exact=exact, why=why, standard_error=error)

    def _layer(self, number: int) -> LayerFlatness:
        name, kind, tensor, frozen, _ = self.measured[number]
        diagonal, squares = self.diagonals[number], tensor.detach().double() ** 2
        gauss_newton, rest = float(diagonal.sum()), math.nan
        errors = [] if self.errors is None else [self.errors[number]]
        exact = self.errors is None and not self.low_precision
        if self.residual is not None:
            found = self.residual.tensors[name]
            rest = found.value / self.norm
            exact = exact and found.standard_error is None
            if found.standard_error is not None:
                errors.append(found.standard_error / self.norm)
        return LayerFlatness(
            name=name,
            shape=tuple(tensor.shape),
            n_parameters=tensor.numel(),
            trace=gauss_newton + rest,
            gauss_newton=gauss_newton,
            residual=rest,
            exact=exact,
            standard_error=math.hypot(*errors) if errors else None,
            kind=kind,
            squared_norm=float(squares.sum()),
            adaptive=float((diagonal * squares).sum()),
            unused=number not in self.reached,
            frozen=frozen,
            relative_flatness=self.relative.get(number, math.nan),
        )
