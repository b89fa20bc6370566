"""The measurement of a two-layer network: checked data, one pass, the figures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from flattest.flatness import LayerFlatness, Provenance
from flattest.two_layer.bounds import bound_from_sum
from flattest.two_layer.closed_form import Accumulator, NeuronSums
from flattest.two_layer.flatness import PerNeuron, TwoLayerFlatness
from flattest.two_layer.networks import TwoLayerNet
from flattest.validation import (
    Argument,
    batches,
    check_matrix,
    check_positive_int,
    check_vector,
)

_CLOSED_FORM = Provenance(
    exact=True,
    why="closed form; a sample on a neuron's kink counts by autograd's convention, curvature 0",
)
_EXACT = ("loss", "trace", "gauss_newton", "residual", "orbit_minimum", "lower_bound", "ratio")
_PROVENANCE = dict.fromkeys((*_EXACT, "reflected", "reflected_orbit_minimum"), _CLOSED_FORM)


def measure(
    net: TwoLayerNet, X: Any, y: Any = None, *, loss: str = "mse", chunk_size: int | None = None
) -> TwoLayerFlatness:
    """Measure the flatness of a two-layer network: the general function for this kind.

    Parameters
    ----------
    net : TwoLayerNet
        The network.
    X, y, loss, chunk_size
        As for :func:`flattest.measure`.

    Returns
    -------
    TwoLayerFlatness
        The measurements.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    check_squared_loss(loss)
    sums = sum_over(net, X, y, chunk_size=chunk_size)
    bound = bound_from_sum(sums.bound_sum, sums.n_samples, net.width, net.activation)
    minimum = sums.orbit_minimum.sum().item()
    per_neuron = PerNeuron(
        outer=sums.outer,
        inner=sums.inner,
        gauss_newton=2 * (sums.outer + sums.inner),
        residual=2 * sums.residual,
        orbit_minimum=sums.orbit_minimum,
        scale=sums.scale,
    )
    gauss_newton = per_neuron.gauss_newton.sum().item()
    residual = per_neuron.residual.sum().item()
    layers = (
        # The outputs are linear in the coefficients: all of the residual part is in the weights.
        _layer("weights", net.weights, 2 * sums.inner.sum().item(), residual),
        _layer("coefficients", net.coefficients, 2 * sums.outer.sum().item(), 0.0),
    )
    return TwoLayerFlatness(
        loss=sums.loss,
        trace=gauss_newton + residual,
        gauss_newton=gauss_newton,
        residual=residual,
        orbit_minimum=minimum,
        n_samples=sums.n_samples,
        n_parameters=sum(layer.n_parameters for layer in layers),
        layers=layers,
        provenance=_PROVENANCE,
        dtype=str(net.weights.dtype),
        device=str(net.weights.device),
        lower_bound=bound,
        ratio=_ratio(minimum, bound),
        reflected=sums.reflected.sum().item(),
        reflected_orbit_minimum=sums.reflected_orbit_minimum.sum().item(),
        per_neuron=per_neuron,
        n_features=net.n_features,
        width=net.width,
        degree=net.degree,
    )


def sum_over(
    net: TwoLayerNet,
    X: Any,
    y: Any,
    *,
    chunk_size: int | None = None,
    needs_targets: bool = True,
) -> NeuronSums:
    """Check a network and its data, and sum over all of them.

    Parameters
    ----------
    net : TwoLayerNet
        The network.
    X, y, chunk_size
        As for :func:`flattest.measure`.
    needs_targets : bool
        Whether one data set must come with `y`.

    Returns
    -------
    NeuronSums
        The sums.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    if net.weights.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"The model has dtype {net.weights.dtype}; convert it with model.float() or "
            "model.double() first."
        )
    if not (torch.isfinite(net.weights).all() and torch.isfinite(net.coefficients).all()):
        raise ValueError("The model's parameters contain NaN or infinity.")
    rows = None if chunk_size is None else check_positive_int(chunk_size, "chunk_size")
    like = net.like

    def inputs_of(values: Any, argument: Argument) -> Tensor:
        return check_matrix(values, argument, like)

    def targets_of(values: Any, inputs: Tensor, argument: Argument) -> Tensor:
        return check_vector(values, argument, like, n_samples=len(inputs))

    accumulator = Accumulator(net, rows)
    for inputs, targets in batches(
        X, y, check_inputs=inputs_of, check_targets=targets_of, needs_targets=needs_targets
    ):
        accumulator.add(inputs, targets)
    return accumulator.result()


def check_squared_loss(loss: Any) -> None:
    """Refuse any loss but the squared one, the only one defined for two-layer networks.

    Parameters
    ----------
    loss : str
        The name given.

    Raises
    ------
    ValueError
        If it is not ``"mse"``.
    """
    if loss != "mse":
        raise ValueError(f"loss must be 'mse' for a two-layer network, not {loss!r}.")


def _layer(name: str, parameter: Tensor, gauss_newton: float, residual: float) -> LayerFlatness:
    return LayerFlatness(
        name=name,
        shape=tuple(parameter.shape),
        n_parameters=parameter.numel(),
        trace=gauss_newton + residual,
        gauss_newton=gauss_newton,
        residual=residual,
        exact=True,
    )


def _ratio(minimum: float, bound: float) -> float:
    if bound == 0:
        return math.nan if minimum == 0 else math.inf
    return minimum / bound
