"""From a measured diagonal and the symmetries of a module to the minimum over its orbit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

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

_RELATIVE_GAPS = {torch.float64: 1e-13}
_SURE, _STILL = 1e-8, 1e-12
"""Relative gaps of a minimum over groups that is known, and of a network that is left alone."""
_ROUGH_GAP = 1e-11
"""Of other dtypes, whose diagonals are not known better: below it a network is balanced."""
_HALVES = {torch.float16: 1e-5, torch.bfloat16: 1e-3}
"""How far above the minimum rounding to a half precision may leave a balanced network: the gap goes
with the square of what rounding changes."""


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
    flatness: Flatness,
    symmetries: Symmetries,
    groups: GroupSums | None,
    norm: float,
    dtype: torch.dtype,
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
    dtype : torch.dtype
        Of the module as it came: to its rounding the network at the minimum is known.

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
    rtol = _RELATIVE_GAPS.get(dtype, _ROUGH_GAP)
    if groups is None:
        found = _over_scales(symmetries, diagonals, rtol)
        limit = found.value * (1 + _HALVES.get(dtype, 0.0)) + found.vanishing
        if dtype in _HALVES and flatness.gauss_newton <= limit:
            found = found._replace(position=Position(np.zeros_like(found.log_scales)))
    else:
        known = max(rtol, _STILL, _HALVES.get(dtype, 0.0))
        found = _over_all(symmetries, diagonals, groups, norm, flatness.gauss_newton, known)
    scale_of = {tensor.name: tensor for tensor in symmetries.tensors}
    layers = tuple(
        layer._replace(
            at_minimum=_scaled(layer, found.diagonals, scale_of.get(layer.name), found.log_scales)
            + found.of_groups.get(layer.name, 0.0)
        )
        for layer in flatness.layers
    )
    orbit = Orbit(
        minimum=found.value,
        ratio=_ratio(flatness.gauss_newton, found.value),
        gap=found.gap,
        attained=found.attained,
        why=found.status.value,
        symmetry="scales" if groups is None else "all",
        batch_norm=symmetries.batch_norm,
        n_scales=symmetries.n_scales,
        n_groups=0 if groups is None else len(groups.members),
        n_left_alone=found.n_left_alone,
    )
    sure = found.status is not BalanceStatus.STALLED
    exact = flatness.provenance["gauss_newton"].exact and sure
    result = replace(
        flatness,
        orbit_minimum=found.value,
        orbit=orbit,
        layers=layers,
        provenance={**flatness.provenance, "orbit_minimum": _provenance(flatness, orbit, exact)},
    )
    return result, found.position


class _Found(NamedTuple):
    """A minimum, and what of each tensor is in it: scaled diagonals and parts of groups."""

    value: float
    gap: float
    attained: bool
    status: BalanceStatus
    position: Position
    log_scales: np.ndarray
    n_left_alone: int
    diagonals: Mapping[str, Tensor]
    of_groups: Mapping[str, float]
    vanishing: float = 0.0


def _over_scales(symmetries: Symmetries, diagonals: Mapping[str, Tensor], rtol: float) -> _Found:
    channels = sparse.csr_array(symmetries.tensors[0].channels)
    best = minimise(Terms(parts_of(symmetries, diagonals), channels), rtol=rtol)
    return _Found(
        value=best.value,
        gap=best.gap,
        attained=best.attained,
        status=best.status,
        position=Position(best.log_scales),
        log_scales=best.log_scales,
        n_left_alone=int(best.left_alone.sum()),
        diagonals=diagonals,
        of_groups={},
        vanishing=best.vanishing,
    )


def _over_all(
    symmetries: Symmetries,
    diagonals: Mapping[str, Tensor],
    groups: GroupSums,
    norm: float,
    trace: float,
    rtol: float,
) -> _Found:
    """Minimise over groups as well; a network at the minimum, to `rtol`, stays where it is."""
    channels = sparse.csr_array(symmetries.tensors[0].channels)
    rest = groups.rest(diagonals)
    best = groups.minimise(parts_of(symmetries, rest), norm)
    z = best.scales.log_scales
    if best.gap > _SURE * best.value:
        status = BalanceStatus.STALLED
    else:
        status = BalanceStatus.CONVERGED if best.attained else BalanceStatus.NOT_ATTAINED
    position = Position(z, *groups.applied(best))
    return _Found(
        value=best.value,
        gap=best.gap,
        attained=best.attained,
        status=status,
        position=Position(np.zeros_like(z)) if trace <= best.value * (1 + rtol) else position,
        log_scales=z,
        n_left_alone=int((best.scales.left_alone & ~groups.own_scales()).sum()),
        diagonals=rest,
        of_groups=groups.after(best, channels @ z),
    )


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

    Weights of 0 are rounded to 0, and make none.

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
        noisy = diagonals[tensor.name].cpu().masked_fill(sizes == 0, 0.0)
        amounts, out, into = by_channels(tensor, noisy, torch.sum)
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
