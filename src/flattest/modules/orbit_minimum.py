"""From a measured diagonal and the symmetries of a module to the minimum over its orbit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from flattest.flatness import NOT_MEASURED, Flatness, LayerFlatness, Provenance
from flattest.modules.balancing.coupled_layers import Layer
from flattest.modules.balancing.minimum import BalanceStatus, minimise
from flattest.modules.balancing.terms import Grid, Listed, Part, Terms
from flattest.modules.group_minimum import GroupSums
from flattest.modules.symmetry.result import Symmetries
from flattest.modules.symmetry.scaled_tensor import ScaledTensor
from flattest.orbit import Orbit

_RELATIVE_GAPS = {"torch.float64": 1e-13}
_SURE, _STILL = 1e-8, 1e-12
"""Relative gaps of a minimum over groups that is known, and of a network that is left alone."""
_ROUGH_GAP = 1e-11
"""Of other dtypes, whose diagonals are not known better: below it a network is balanced."""


@dataclass(frozen=True)
class Position:
    """Where on the orbit the minimum is.

    Parameters
    ----------
    z : array of shape (n_scales,)
        The log scales.
    matrices, shifts : dict of int to Tensor
        For linear groups, by number.
    """

    z: np.ndarray
    matrices: dict[int, Tensor] = field(default_factory=dict)
    shifts: dict[int, Tensor] = field(default_factory=dict)

    @property
    def is_identity(self) -> bool:
        """Whether nothing is to be changed."""
        return not (self.z.any() or self.matrices or self.shifts)


def on_orbit(
    flatness: Flatness, symmetries: Symmetries, groups: GroupSums | None, norm: float
) -> tuple[Flatness, Position | None]:
    """Add the minimum over symmetries to a measurement.

    Parameters
    ----------
    flatness : Flatness
        The measurement, with its diagonal.
    symmetries : Symmetries
        Of the same module.
    groups : GroupSums or None
        The sums of linear groups; None for scales alone.
    norm : float
        What the sums of these are divided by.

    Returns
    -------
    flatness : Flatness
        The same with its orbit minimum.
    position : Position or None
        Where it is; None if there is none, and the provenance says why.
    """
    diagonals = flatness.diagonal()
    negative = [name for name, values in diagonals.items() if bool((values < 0).any())]
    if negative:
        why = (
            f"not measured: the loss bends downwards in places, so that the diagonal is negative "
            f"in {negative[0]}, and scaling up makes it as small as one likes"
        )
        return _without(flatness, why), None
    channels = sparse.csr_array(symmetries.tensors[0].channels)
    rtol = _RELATIVE_GAPS.get(flatness.dtype, _ROUGH_GAP)
    after: dict[str, float] = {}
    if groups is None:
        scales = minimise(Terms(parts_of(symmetries, diagonals), channels), rtol=rtol)
        value, gap, attained, why = scales.value, scales.gap, scales.attained, scales.status.value
        sure = scales.status is not BalanceStatus.STALLED
        position = Position(scales.log_scales)
    else:
        rest = groups.rest(diagonals)
        found = groups.minimise(parts_of(symmetries, rest), norm)
        scales, value, gap, attained = found.scales, found.value, found.gap, found.attained
        sure = gap <= _SURE * value
        why = (BalanceStatus.CONVERGED if attained else BalanceStatus.NOT_ATTAINED).value
        if not sure:
            why = BalanceStatus.STALLED.value
        after = groups.after(found, channels @ scales.log_scales)
        diagonals = rest
        position = Position(scales.log_scales, *groups.applied(found))
        if flatness.gauss_newton <= value * (1 + max(rtol, _STILL)):
            position = Position(np.zeros_like(scales.log_scales))
    scale_of = {tensor.name: tensor for tensor in symmetries.tensors}
    layers = tuple(
        layer._replace(
            at_minimum=_scaled(layer, diagonals, scale_of.get(layer.name), scales.log_scales)
            + after.get(layer.name, 0.0)
        )
        for layer in flatness.layers
    )
    orbit = Orbit(
        minimum=value,
        ratio=_ratio(flatness.gauss_newton, value),
        gap=gap,
        attained=attained,
        why=why,
        symmetry="scales" if groups is None else "all",
        batch_norm=symmetries.batch_norm,
        n_scales=symmetries.n_scales,
        n_groups=0 if groups is None else len(groups.members),
        n_left_alone=int(scales.left_alone.sum()),
    )
    exact = flatness.provenance["gauss_newton"].exact and sure
    result = replace(
        flatness,
        orbit_minimum=value,
        orbit=orbit,
        layers=layers,
        provenance={**flatness.provenance, "orbit_minimum": _provenance(flatness, orbit, exact)},
    )
    return result, position


def parts_of(symmetries: Symmetries, diagonals: Mapping[str, Tensor]) -> list[Part]:
    """Return the terms of a trace as a function of scales.

    Parameters
    ----------
    symmetries : Symmetries
        How each parameter scales.
    diagonals : mapping of str to Tensor
        The diagonal for some parameters, by name.

    Returns
    -------
    list of Grid or Listed
        One part for each of these parameters.
    """
    return [
        part_of(tensor, diagonals[tensor.name])
        for tensor in symmetries.tensors
        if tensor.name in diagonals
    ]


def part_of(tensor: ScaledTensor, values: Tensor) -> Part:
    """Return the terms of one parameter: a dense layer where its channels allow.

    Parameters
    ----------
    tensor : ScaledTensor
        How it scales.
    values : Tensor
        Of its shape, at least 0.

    Returns
    -------
    Grid or Listed
        The terms, summed over entries with the same channels.
    """
    summed, out, into = by_channels(tensor, values.detach().cpu().double(), torch.sum)
    return (Grid if summed.ndim == 2 else Listed)(summed, out, into)


def layers_of(
    symmetries: Symmetries, diagonals: Mapping[str, Tensor], module: nn.Module
) -> dict[str, Layer]:
    """Return the weights whose rounding makes noise: all parameters with two dimensions or more.

    Parameters
    ----------
    symmetries : Symmetries
        How each parameter scales.
    diagonals : mapping of str to Tensor
        The diagonal for some parameters, by name.
    module : torch.nn.Module
        Their values.

    Returns
    -------
    dict of str to Layer
        By the name of the parameter.
    """
    parameters = dict(module.named_parameters())
    layers = {}
    for tensor in symmetries.tensors:
        if tensor.name not in diagonals or len(tensor.shape) < 2:
            continue
        sizes = parameters[tensor.name].detach().cpu().double().abs()
        amounts, out, into = by_channels(tensor, diagonals[tensor.name].cpu(), torch.sum)
        logarithms, _, _ = by_channels(tensor, sizes.log(), torch.amax)
        layers[tensor.name] = Layer(amounts, logarithms, out, into)
    return layers


def by_channels(
    tensor: ScaledTensor, values: Tensor, over: Callable[..., Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrange values by the channels of their entries.

    Parameters
    ----------
    tensor : ScaledTensor
        How they scale.
    values : Tensor
        Of its shape.
    over : callable
        Reduces values over dimensions on which no channel depends: `torch.sum`, `torch.amax`.

    Returns
    -------
    values : array of shape (r, c) or (t,)
        A matrix where the first channels depend on other dimensions than the second.
    out, into : array of int
        The channels of its rows and columns; of each entry where it is no matrix.
    """
    shape = tensor.block_shape
    same = [axis for axis, size in enumerate(shape) if size == 1 and tensor.shape[axis] != 1]
    if same:
        values = over(values, same, keepdim=True)
    out, into = (
        ends.reshape((1,) * (len(shape) - ends.ndim) + tuple(ends.shape))
        for ends in (tensor.out, tensor.into)
    )
    rows = [axis for axis, size in enumerate(out.shape) if size > 1]
    columns = [axis for axis, size in enumerate(into.shape) if size > 1]
    if not set(rows) & set(columns):
        ordered = values.permute(*rows, *columns, *_rest(shape, rows, columns))
        matrix = ordered.reshape(out.numel(), into.numel()).contiguous().numpy()
        return matrix, out.flatten().numpy(), into.flatten().numpy()
    return (
        values.flatten().numpy(),
        out.expand(shape).flatten().numpy(),
        into.expand(shape).flatten().numpy(),
    )


def _rest(shape: tuple[int, ...], rows: list[int], columns: list[int]) -> list[int]:
    return [axis for axis in range(len(shape)) if axis not in (*rows, *columns)]


def _scaled(
    layer: LayerFlatness,
    diagonals: Mapping[str, Tensor],
    tensor: ScaledTensor | None,
    z: np.ndarray,
) -> float:
    """Return the part of a tensor in the trace at the minimum."""
    if tensor is None:
        return layer.gauss_newton
    factors = (-2 * tensor.log_scales(z)).exp()
    return float((diagonals[layer.name].detach().cpu() * factors).sum())


def _ratio(trace: float, minimum: float) -> float:
    if minimum:
        return trace / minimum
    return math.inf if trace else 1.0


def _provenance(flatness: Flatness, orbit: Orbit, exact: bool) -> Provenance:
    residual = flatness.provenance.get("residual", NOT_MEASURED)
    of = "the Gauss-Newton part"
    if residual.exact and flatness.residual == 0:
        of += ", which is all of the trace"
    why = (
        f"the least of {of} over {orbit.n_scales:,} scales and {orbit.n_groups:,} linear groups; "
        f"{orbit.why} "
        f"Dual gap {orbit.certificate:.1g}"
    )
    if not flatness.provenance["gauss_newton"].exact:
        why += "; from an estimated diagonal, whose minimum is on average below that of the exact"
    return Provenance(exact=exact, why=why)


def _without(flatness: Flatness, why: str) -> Flatness:
    provenance = {**flatness.provenance, "orbit_minimum": NOT_MEASURED._replace(why=why)}
    return replace(flatness, provenance=provenance)
