"""From sums over a data set to the result: figures, how each came about, the table per layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flattest.flatness import NOT_MEASURED, Flatness, LayerFlatness, Provenance
from flattest.modules.data import Kind
from flattest.modules.parameters import Measured


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
    errors : list of float or None
        The standard errors of its sums over each parameter and, last, over all; None if exact.
    reached : set of int
        The numbers of the parameters that outputs depend on.
    low_precision : bool
        Whether the forward pass kept values in half precision.
    cost : Cost
        Of exact figures, and of these.
    loss : float
        The loss.
    n_samples : int
        The number of samples.
    kind : Kind
        The dtype and device of the module that was measured.
    original : torch.dtype
        That of the caller's.
    """

    measured: list[Measured]
    diagonals: list[Tensor]
    errors: list[float] | None
    reached: set[int]
    low_precision: bool
    cost: Cost
    loss: float
    n_samples: int
    kind: Kind
    original: torch.dtype

    def tabulate(self, n_everything: int) -> Flatness:
        """Return the result.

        Parameters
        ----------
        n_everything : int
            The number of all parameters of the module, measured or not.

        Returns
        -------
        Flatness
            The figures.
        """
        layers = tuple(self._layer(number) for number in range(len(self.measured)))
        provenance = self._provenance()
        n_parameters = sum(layer.n_parameters for layer in layers)
        return Flatness(
            loss=self.loss,
            trace=math.nan,
            gauss_newton=math.fsum(layer.gauss_newton for layer in layers),
            residual=math.nan,
            orbit_minimum=math.nan,
            adaptive=math.fsum(layer.adaptive for layer in layers),
            n_samples=self.n_samples,
            n_parameters=n_parameters,
            n_left_out=n_everything - n_parameters,
            layers=layers,
            provenance={
                "loss": Provenance(
                    exact=not self.low_precision, why="evaluated in float64 on the model's outputs"
                ),
                "gauss_newton": provenance,
                # Its draws are weighed otherwise, and their spread is not followed.
                "adaptive": provenance._replace(standard_error=None),
                **dict.fromkeys(("trace", "residual", "orbit_minimum"), NOT_MEASURED),
            },
            dtype=str(self.kind.dtype),
            device=str(self.kind.device),
            diagonals={
                entry.name: diagonal
                for entry, diagonal in zip(self.measured, self.diagonals, strict=True)
            },
        )

    def _provenance(self) -> Provenance:
        """Say how the Gauss-Newton figures came about."""
        why = "squared gradients of all columns of the loss's output Hessian, summed over samples"
        if self.errors is not None:
            why = (
                "importance-drawn columns of the loss's output Hessian: "
                f"{self.cost.taken / self.n_samples:.3g} backward passes per sample, where exact "
                f"figures take {self.cost.exact / self.n_samples:.6g}"
            )
        if self.kind.converted:
            why += f"; measured on a float32 copy of a {self.original} model"
        if self.low_precision:
            why += "; the forward pass keeps values in half precision, which limits the accuracy"
        exact = self.errors is None and not self.low_precision
        error = None if self.errors is None else self.errors[-1]
        return Provenance(exact=exact, why=why, standard_error=error)

    def _layer(self, number: int) -> LayerFlatness:
        name, kind, tensor, frozen = self.measured[number]
        diagonal, squares = self.diagonals[number], tensor.detach().double() ** 2
        return LayerFlatness(
            name=name,
            shape=tuple(tensor.shape),
            n_parameters=tensor.numel(),
            trace=math.nan,
            gauss_newton=float(diagonal.sum()),
            residual=math.nan,
            exact=self.errors is None and not self.low_precision,
            standard_error=None if self.errors is None else self.errors[number],
            kind=kind,
            squared_norm=float(squares.sum()),
            adaptive=float((diagonal * squares).sum()),
            unused=number not in self.reached,
            frozen=frozen,
        )
