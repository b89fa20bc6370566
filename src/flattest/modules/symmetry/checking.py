"""The check on real data: random symmetries, and outputs that must not change."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from flattest.modules.data import Batch
from flattest.modules.outputs import Output, select
from flattest.modules.symmetry.affine_shift import AffineShift
from flattest.modules.symmetry.linear_group import Kind, LinearGroup
from flattest.modules.symmetry.scaled_tensor import ScaledTensor
from flattest.modules.symmetry.transforming import random_matrix, transform
from flattest.modules.trees import map_leaves

TOLERANCE = 1e-10
"""The largest change of an output, relative to the largest output."""
_ROUNDINGS, _LARGEST = 100, 1e-6
"""How many times what the last digits change outputs by is allowed, and at most."""


class _Float64(TorchDispatchMode):
    """Let modules that convert to float32 inside convert to float64 instead."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
            kwargs = {**kwargs, "dtype": torch.float64}
        return func(*args, **kwargs)


class Comparison:
    """A float64 copy of a module on a batch, whose outputs are compared after transformations."""

    def __init__(
        self,
        module: nn.Module,
        batch: Batch,
        output: Output,
        affine: Sequence[AffineShift] = (),
    ) -> None:
        self._affine = affine
        self.module = copy.deepcopy(module).double().requires_grad_(False)
        self._batch, self._output = batch, output
        self._original: dict[str, Tensor] = dict(module.named_parameters())
        self._rounding: float | None = None
        self._expected = self._outputs()
        if not self._expected.any():
            # Outputs that are zero throughout would show nothing: symmetries hold for any weights.
            self._perturb()
            self._expected = self._outputs()

    def change(
        self,
        tensors: Sequence[ScaledTensor],
        groups: Sequence[LinearGroup],
        z: np.ndarray,
        matrices: dict[int, Tensor] | None = None,
        shifts: dict[int, Tensor] | None = None,
    ) -> float:
        """Return the largest change of an output, relative to the largest output."""
        transform(self.module, tensors, groups, z, matrices or {}, shifts or {}, self._affine)
        try:
            return self.difference()
        finally:
            self._restore()

    def _restore(self) -> None:
        for name, parameter in self.module.named_parameters():
            parameter.copy_(self._original[name].detach())

    def _perturb(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, parameter in self.module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(parameter.device))
            self._original[name] = parameter.clone()

    def breaks(self, change: float) -> bool:
        """Tell whether a change of the outputs is one of the function, and not of rounding.

        The limit is 1e-10, unless the module itself is so badly scaled that perturbing the last
        digit of its parameters changes its outputs by more than a hundredth of that.
        """
        if change <= TOLERANCE:
            return False
        if self._rounding is None:
            generator = torch.Generator().manual_seed(0)
            unit = torch.finfo(torch.float64).eps
            for parameter in self.module.parameters():
                signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2 - 1
                parameter.mul_(1 + unit * signs.to(parameter))
            self._rounding = self.difference()
            self._restore()
        return change > min(_LARGEST, _ROUNDINGS * self._rounding)

    def difference(self) -> float:
        """Return the largest change of an output of the module as it is now."""
        found = self._outputs()
        if not len(self._expected):
            return 0.0
        largest = float(self._expected.abs().max()) or 1.0
        changed = float((found - self._expected).abs().max()) / largest
        return changed if np.isfinite(changed) else float("inf")

    def _outputs(self) -> Tensor:
        args, kwargs = map_leaves(_double, self._batch.inputs())
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), _Float64():
            return select(self.module(*args, **kwargs), self._output).double().flatten()


def outputs_of(module: nn.Module, batch: Batch, output: Output) -> Tensor:
    """Return the outputs of a module as it is, in its own dtype, as float64.

    Parameters
    ----------
    module : torch.nn.Module
        The module without wrapper.
    batch : Batch
        Real data.
    output : str, int, callable or None
        Where the logits are.

    Returns
    -------
    Tensor
        All in one dimension.
    """
    args, kwargs = batch.inputs()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        return select(module(*args, **kwargs), output).double().flatten()


def largest_change(
    module: nn.Module,
    batch: Batch,
    output: Output,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
    z: np.ndarray,
    matrices: dict[int, Tensor] | None = None,
    shifts: dict[int, Tensor] | None = None,
) -> float:
    """Apply given scales and matrices to a copy of a module, and compare its outputs.

    Parameters
    ----------
    module, batch, output, tensors, groups
        As for :func:`check`.
    z : array of shape (n_scales,)
        The log scales.
    matrices, shifts : dict of int to Tensor, optional
        The matrices and translations of groups, by number.

    Returns
    -------
    float
        The largest change of an output in float64, relative to the largest output.

    Raises
    ------
    ValueError
        If it is above 1e-10; the message names the tensors whose change is to blame.
    """
    matrices, shifts = matrices or {}, shifts or {}
    if not (z.any() or matrices or shifts):
        return 0.0
    comparison = Comparison(module, batch, output)
    changed = comparison.change(tensors, groups, z, matrices, shifts)
    if comparison.breaks(changed):
        alone = comparison.change(tensors, (), z)
        names = (
            _moved(comparison, tensors, z)
            if comparison.breaks(alone)
            else _transformed(comparison, tensors, groups, matrices, shifts, len(z))
        )
        _refuse(comparison, changed, names)
    return changed


def check(
    module: nn.Module,
    batch: Batch,
    output: Output,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
    affine: Sequence[AffineShift] = (),
    random_state: int = 0,
) -> float:
    """Apply random scales and matrices to a copy of a module, and compare its outputs.

    Parameters
    ----------
    module : torch.nn.Module
        The module without wrapper.
    batch : Batch
        Real data.
    output : str, int, callable or None
        Where the logits are.
    tensors : sequence of ScaledTensor
        The scales.
    groups : sequence of LinearGroup
        The linear groups.
    affine : sequence of AffineShift
        The biases that shift with the scales.
    random_state : int
        The seed of what is drawn.

    Returns
    -------
    float
        The largest change of an output, relative to the largest output.

    Raises
    ------
    ValueError
        If it is above 1e-10; the message names the tensors whose change is to blame.
    """
    n_scales = tensors[0].channels.shape[1] if tensors else 0
    if not n_scales and not groups:
        return 0.0
    comparison = Comparison(module, batch, output, affine)
    rng = np.random.default_rng(random_state)
    z = 0.7 * rng.standard_normal(n_scales)
    changed = comparison.change(tensors, groups, z)
    if comparison.breaks(changed):
        _refuse(comparison, changed, _moved(comparison, tensors, z))
    matrices = {number: random_matrix(group, rng) for number, group in enumerate(groups)}
    shifts = {
        number: torch.from_numpy(0.5 * rng.standard_normal(group.size))
        for number, group in enumerate(groups)
        if group.translation is not None
    }
    if groups:
        moved = comparison.change(tensors, groups, np.zeros(n_scales), matrices, shifts)
        if comparison.breaks(moved):
            names = _transformed(comparison, tensors, groups, matrices, shifts, n_scales)
            _refuse(comparison, moved, names)
        changed = max(changed, moved)
    return changed


def holding(
    module: nn.Module,
    batch: Batch,
    output: Output,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
) -> tuple[LinearGroup, ...]:
    """Leave out groups of rotated pairs whose rotation is another than that of a position.

    The graph shows which coordinates are combined, not whether by a rotation.

    Parameters
    ----------
    module, batch, output, tensors
        As for `check`.
    groups : sequence of LinearGroup
        The groups that the graph suggests.

    Returns
    -------
    tuple of LinearGroup
        The groups that hold.
    """
    doubtful = [number for number, group in enumerate(groups) if group.kind is Kind.PAIRED]
    if not doubtful:
        return tuple(groups)
    comparison = Comparison(module, batch, output)
    rng = np.random.default_rng(0)
    matrices = {number: random_matrix(groups[number], rng) for number in doubtful}
    none = np.zeros(tensors[0].channels.shape[1])
    if comparison.change(tensors, groups, none, matrices) <= TOLERANCE:
        return tuple(groups)
    wrong = {
        number
        for number, matrix in matrices.items()
        if comparison.change(tensors, groups, none, {number: matrix}) > TOLERANCE
    }
    return tuple(group for number, group in enumerate(groups) if number not in wrong)


def _refuse(comparison: Comparison, changed: float, names: str) -> None:
    if comparison.difference() > TOLERANCE:
        raise ValueError(
            "The model's outputs differ between two calls on the same data, so that no symmetry "
            "can be checked; call model.eval(), and take out what is random."
        )
    raise ValueError(
        f"A symmetry of the example does not hold on these data, where {names} changes the outputs "
        f"by {changed:.1e} of the largest; take the example from these data."
    )


def _moved(comparison: Comparison, tensors: Sequence[ScaledTensor], z: np.ndarray) -> str:
    """Halve the scales until one is left that changes the outputs, and say what it moves."""
    suspects = np.arange(len(z))
    while len(suspects) > 1:
        half = suspects[: len(suspects) // 2]
        part = np.zeros_like(z)
        part[half] = z[half]
        guilty = comparison.breaks(comparison.change(tensors, (), part))
        suspects = half if guilty else suspects[len(suspects) // 2 :]
    part = np.zeros_like(z)
    part[suspects] = 1.0
    names = [tensor.name for tensor in tensors if tensor.log_scales(part).any()]
    return f"rescaling {_some(names)}"


def _some(names: list[str]) -> str:
    """Name a few tensors, and count the others."""
    if len(names) <= 3:
        return " with ".join(names)
    return f"{' with '.join(names[:3])} and {len(names) - 3} others"


def _transformed(
    comparison: Comparison,
    tensors: Sequence[ScaledTensor],
    groups: Sequence[LinearGroup],
    matrices: dict[int, Tensor],
    shifts: dict[int, Tensor],
    n_scales: int,
) -> str:
    """Find the group that changes the outputs."""
    for number, group in enumerate(groups):
        one = {k: v for k, v in matrices.items() if k == number}
        shift = {k: v for k, v in shifts.items() if k == number}
        if comparison.breaks(comparison.change(tensors, groups, np.zeros(n_scales), one, shift)):
            names = dict.fromkeys(f.name for f in (*group.forward, *group.backward))
            return f"transforming {_some(list(names))}"
    return "transforming several groups at once"


def _double(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.double()
    return leaf
