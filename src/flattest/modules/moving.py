"""Moving a module along its symmetries: to the minimum, as far as asked, or anywhere."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from flattest.modules.balance_report import WORDS, BalanceReport, ScaledLayer
from flattest.modules.balancing.nearly_dead import equalise_others
from flattest.modules.balancing.rounding_noise import minimise_noise, noise
from flattest.modules.balancing.terms import Terms
from flattest.modules.data import Batch
from flattest.modules.measuring import Measurement, measure_on_orbit
from flattest.modules.orbit_minimum import Position, layers_of, parts_of
from flattest.modules.parameters import kind_of, restore_dtypes, unwrap
from flattest.modules.symmetry.checking import largest_change, outputs_of
from flattest.modules.symmetry.example import read_example
from flattest.modules.symmetry.finding import symmetries as find_symmetries
from flattest.modules.symmetry.result import Symmetries
from flattest.validation import (
    Argument,
    check_positive_float,
    check_random_state,
    check_vector,
)

OBJECTIVES = tuple(WORDS)
_FARTHEST = 300.0
"""The largest log scale that sharpening tries."""
_COSTS_NOTHING = 1e-8
"""By which part of itself the noise of rounding may grow where nearly dead units stay."""


def balance(
    model: nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = "mse",
    objective: str = "trace",
    symmetry: str = "scales",
    batch_norm: str = "keep",
    output: Any = None,
    batch_size: int | None = None,
    random_state: Any = None,
) -> tuple[nn.Module, BalanceReport]:
    """Go to the minimum on the orbit: the general function for any module.

    Parameters
    ----------
    model, X, y, loss, objective, symmetry, batch_norm, output, batch_size, random_state
        As for :func:`flattest.balance`.

    Returns
    -------
    model : torch.nn.Module
        A new module.
    report : BalanceReport
        What was done.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or the outputs would change.
    """
    if objective not in OBJECTIVES:
        allowed = ", ".join(map(repr, OBJECTIVES))
        raise ValueError(f"objective must be one of {allowed}, not {objective!r}.")
    if symmetry not in ("scales", "all"):
        raise ValueError(f"symmetry must be 'scales' or 'all', not {symmetry!r}.")
    found = measure_on_orbit(
        model,
        X,
        y,
        random_state=random_state,
        symmetry=symmetry,
        batch_norm=batch_norm,
        residual="none",
        loss=loss,
        output=output,
        batch_size=batch_size,
    )
    if found.position is None:
        raise ValueError(
            f"The orbit minimum is {found.flatness.provenance['orbit_minimum'].why}, so that no "
            "module attains it."
        )
    if objective == "trace":
        before = after = found.flatness.gauss_newton
        if not found.position.is_identity:
            after = math.fsum(layer.at_minimum for layer in found.flatness.layers)
        orbit = found.flatness.orbit
        assert orbit is not None
        goal = _Goal(found.position, before, after, gap=orbit.gap, n_left_alone=orbit.n_left_alone)
    else:
        goal = _against_rounding(found, objective)
    return _moved(found, goal, objective)


class _Goal(NamedTuple):
    """Where to go, and what is reached there."""

    position: Position
    before: float
    after: float
    equalised: float = math.nan
    gap: float = math.nan
    n_left_alone: int = 0
    noises: Mapping[str, tuple[float, float]] | None = None  # of each rounded tensor


def _against_rounding(found: Measurement, objective: str) -> _Goal:
    """Find the scales that make rounding least noisy, or equalise ranges."""
    assert found.symmetries is not None
    named = layers_of(found.symmetries, found.flatness.diagonal(), found.module)
    layers = list(named.values())
    channels = sparse.csr_array(found.symmetries.tensors[0].channels)
    origin = np.zeros(channels.shape[1])
    # What rounding the weights to the module's dtype undoes is no reason to move a second time.
    dtypes = {p.dtype for p in found.original.parameters() if p.is_floating_point()}
    eps = max(torch.finfo(dtype).eps for dtype in dtypes)
    if objective == "range":
        z, alone = equalise_others(layers, channels, max(1e-9, 0.5 * eps), _COSTS_NOTHING)
        before, after = (noise(layers, channels, each) for each in (origin, z))
        equalised, gap = after, math.nan
    else:
        best = minimise_noise(layers, channels, max(1e-7, 0.5 * eps))
        z, alone, equalised, gap = best.log_scales, best.left_alone, best.equalised, best.gap
        before, after = best.before, best.value
        if not best.converged:
            warnings.warn(
                f"The noise of rounding is {after:.6g}, but its minimum is only known to be at "
                f"least {after - gap:.6g}.",
                stacklevel=5,
            )
    noises = {
        name: (noise([layer], channels, origin), noise([layer], channels, z))
        for name, layer in named.items()
    }
    return _Goal(Position(z), before, after, equalised, gap, int(alone.sum()), noises)


def _moved(found: Measurement, goal: _Goal, objective: str) -> tuple[nn.Module, BalanceReport]:
    """Apply a position to the module, check the outputs, and report."""
    symmetries, flatness, position = found.symmetries, found.flatness, goal.position
    assert symmetries is not None
    assert found.example is not None
    change = largest_change(
        found.module,
        found.example,
        symmetries.output,
        symmetries.tensors,
        symmetries.groups,
        position.z,
        position.matrices,
        position.shifts,
    )
    module = symmetries.transformed(
        found.module, position.z, matrices=position.matrices, shifts=position.shifts
    )
    restore_dtypes(module, like=found.original)
    mixed = {
        factor.name
        for number in {*position.matrices, *position.shifts}
        for factor in (*symmetries.groups[number].forward, *symmetries.groups[number].backward)
    }
    layers = []
    scales = {tensor.name: tensor for tensor in symmetries.tensors}
    for layer in flatness.layers:
        logarithms = scales[layer.name].log_scales(position.z)
        low, high = float(logarithms.min().exp()), float(logarithms.max().exp())
        if layer.name in mixed:
            low = high = math.nan
        before, after = layer.gauss_newton, layer.at_minimum
        if goal.noises is not None:
            before, after = goal.noises.get(layer.name, (0.0, 0.0))
        elif position.is_identity:
            after = before
        layers.append(ScaledLayer(layer.name, low, high, before, after))
    report = BalanceReport(
        objective=objective,
        before=goal.before,
        after=goal.after,
        flatness=flatness,
        layers=tuple(layers),
        largest_change=change,
        rounding_change=_difference(found, module),
        equalised=goal.equalised,
        gap=goal.gap,
        n_left_alone=goal.n_left_alone,
    )
    return module, report


def _difference(found: Measurement, module: nn.Module) -> float:
    """Return the largest change of an output of the module as it is."""
    assert found.symmetries is not None
    assert found.example is not None
    # What was measured in float32 is compared in float32.
    module = copy.deepcopy(module)
    restore_dtypes(module, like=found.module)
    one, other = (
        outputs_of(each, found.example, found.symmetries.output) for each in (found.module, module)
    )
    largest = float(one.abs().max()) if one.numel() else 0.0
    return float((other - one).abs().max()) / largest if largest else 0.0


def rescale(model: nn.Module, scales: Any, X: Any) -> nn.Module:
    """Rescale a module: the general function.

    Parameters
    ----------
    model, scales, X
        As for :func:`flattest.rescale`.

    Returns
    -------
    torch.nn.Module
        A new module computing the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    batch = read_example(kind_of(unwrap(model)), _needed(X, "rescale"), "X")
    found = find_symmetries(model, batch)
    z = np.log(_checked_scales(scales, found))
    return _apply(found, unwrap(model), z, batch, "scales take")


def _checked_scales(scales: Any, found: Symmetries) -> np.ndarray:
    if isinstance(scales, Mapping):
        unknown = [name for name in scales if name not in found.scale_names]
        if unknown:
            raise ValueError(
                f"scales names {unknown[0]!r}, which is no free scale of the model; "
                "flattest.symmetries(model, X).scale_names lists them."
            )
        values = np.array([scales.get(name, 1.0) for name in found.scale_names], dtype=np.float64)
    elif isinstance(scales, (int, float, np.number)) and not isinstance(scales, bool):
        values = np.full(found.n_scales, float(scales))
    else:
        values = check_vector(scales, Argument("scales", "free scale")).double().cpu().numpy()
    if len(values) != found.n_scales:
        raise ValueError(
            f"scales must be one number or {found.n_scales} numbers, one per free scale, "
            f"not {len(values)}."
        )
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("scales must be positive and finite.")
    return values


def sharpen(model: nn.Module, factor: Any, X: Any, *, random_state: Any = None) -> nn.Module:
    """Multiply the trace: the general function.

    Parameters
    ----------
    model, factor, X, random_state
        As for :func:`flattest.sharpen`.

    Returns
    -------
    torch.nn.Module
        A new module computing the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, or no scale is free.
    """
    wanted = check_positive_float(factor, "factor", minimum=1, allow_minimum=True)
    batch = read_example(kind_of(unwrap(model)), _needed(X, "sharpen"), "X")
    targets = torch.zeros(batch.n_samples, dtype=torch.int64)
    inputs = batch.kwargs or (batch.args[0] if len(batch.args) == 1 else tuple(batch.args))
    found = measure_on_orbit(
        model,
        inputs,
        targets,
        symmetry="scales",
        residual="none",
        loss=_half_square,
    )
    symmetries = found.symmetries
    assert symmetries is not None
    terms = Terms(
        parts_of(symmetries, found.flatness.diagonal()),
        sparse.csr_array(symmetries.tensors[0].channels),
    )
    direction = check_random_state(random_state).standard_normal(symmetries.n_scales)
    trace = terms.at(np.zeros_like(direction)).value
    if not (direction.size and trace > 0):
        raise ValueError(
            "The model has no free scale by which it can be sharpened; flattest.symmetries says "
            "what freezes them."
        )
    # The trace is convex along the direction: one way or the other it grows, and does not turn.
    if _grows(terms, -direction) > _grows(terms, direction):
        direction = -direction
    length = _length(terms, direction, wanted * trace)
    return _apply(symmetries, found.original, length * direction, batch, f"factor {wanted:g} takes")


def _half_square(logits: Tensor, targets: Any) -> Tensor:
    return (logits**2).sum() / 2


def _grows(terms: Terms, direction: np.ndarray) -> float:
    flows = terms.at(np.zeros_like(direction))
    return float(2 * (flows.outward - flows.inward) @ direction)


def _length(terms: Terms, direction: np.ndarray, wanted: float) -> float:
    """Find by bisection how far to go."""
    low, high = 0.0, 1.0
    while terms.at(high * direction).value < wanted:
        low, high = high, 2 * high
        if high * np.abs(direction).max() > _FARTHEST:
            raise ValueError(
                "factor cannot be reached: what the trace is made of does not grow with any scale."
            )
    for _ in range(60):
        middle = 0.5 * (low + high)
        if terms.at(middle * direction).value < wanted:
            low = middle
        else:
            high = middle
    return high


def _apply(
    found: Symmetries, original: nn.Module, z: np.ndarray, batch: Batch, what: str
) -> nn.Module:
    """Apply log scales, if the module's dtype has room for them, and check the outputs."""
    module = found.transformed(found.module, z)
    restore_dtypes(module, like=original)
    before = dict(original.named_parameters())
    for name, parameter in module.named_parameters():
        lost = ((parameter == 0) & (before[name] != 0)).any()
        if lost or not torch.isfinite(parameter).all():
            raise ValueError(
                f"{what} the parameters out of the range of {parameter.dtype}; use values nearer "
                "1, or model.double()."
            )
    largest_change(found.module, batch, found.output, found.tensors, found.groups, z)
    return module


def _needed(X: Any, function: str) -> Any:
    if X is None:
        raise TypeError(f"X is missing: {function} needs example inputs of the model.")
    return X
