r"""Bits for each weight, from what rounding it costs.

To second order, rounding weight ``l`` with bits ``b`` raises the loss by half the sum over its
entries of the diagonal times the squared rounding error, whose expectation is
:math:`\frac{1}{2} \operatorname{tr}_l \overline{(W - W_b)^2}`. The choice of bits that costs least
within a budget is an integer programme: one number of bits for each weight.

References
----------
Z. Dong, Z. Yao, A. Gholami, M. Mahoney, K. Keutzer, "HAWQ: Hessian AWare Quantization of Neural
Networks With Mixed-Precision", ICCV 2019.

Z. Dong, Z. Yao, D. Arfeen, A. Gholami, M. Mahoney, K. Keutzer, "HAWQ-V2: Hessian Aware
trace-Weighted Quantization of Neural Networks", NeurIPS 2020.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from scipy import optimize, sparse
from torch import Tensor, nn

from flattest.flatness import Flatness
from flattest.modules.parameters import unwrap
from flattest.quantisation.bit_allocation import BitAllocation, LayerBits
from flattest.quantisation.rounding import MOST_BITS, channel_axes, quantise, rounded, weights_of
from flattest.validation import check_positive_float, check_positive_int

LOWEST_TRUSTED = 4
"""Below so many bits, second order does not tell what rounding does."""
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "kib": 2**10, "mib": 2**20}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(b|kb|mb|kib|mib)\s*", re.IGNORECASE)


def allocate_bits(
    flatness: Flatness,
    module: nn.Module,
    *,
    budget: float | int | str,
    bits: Sequence[int] = (2, 3, 4, 5, 6, 7, 8),
    weighed: str = "trace",
    per_channel: bool = True,
    affine: bool = False,
    loss_of: Callable[[nn.Module], float] | None = None,
) -> BitAllocation:
    r"""Choose the bits of each weight so that rounding costs least within a budget.

    The cost of a choice is half the trace of a weight times its mean squared rounding error, or
    half the sum over its entries of the Gauss-Newton diagonal times the squared error; the sum of
    all costs is minimised exactly, by SciPy's mixed-integer programming.

    Parameters
    ----------
    flatness : Flatness
        The measurement of the module.
    module : torch.nn.Module
        The module that was measured.
    budget : float or str
        The largest average number of bits of an entry, or the size of all weights together, such as
        ``"1.5 MB"`` or ``"800 KiB"``.
    bits : sequence of int
        The numbers to choose from.
    weighed : {"trace", "diagonal"}
        Whether errors are weighed with the average of the diagonal over a weight, or entry by
        entry.
    per_channel, affine : bool
        How weights are to be rounded, as for :func:`flattest.quantise`, which takes both from what
        is returned.
    loss_of : callable, optional
        From a module to its loss. Where given, every weight is rounded alone with every number of
        bits, and the cost is the measured rise of the loss: as many evaluations as there are
        weights times numbers of bits.

    Returns
    -------
    BitAllocation
        A mapping from names to bits, with a table.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value, the measurement is of another module, or the
        budget allows no choice.

    Warns
    -----
    UserWarning
        If some weights get fewer than 4 bits on expected costs: there second order ends. Give
        `loss_of` to measure them.

    See Also
    --------
    flattest.quantise : Rounds a copy of the module accordingly.

    References
    ----------
    Z. Dong, Z. Yao, D. Arfeen, A. Gholami, M. Mahoney, K. Keutzer, "HAWQ-V2: Hessian Aware
    trace-Weighted Quantization of Neural Networks", NeurIPS 2020.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> X, y = torch.randn(20, 4), torch.zeros(20, 2)
    >>> chosen = ft.allocate_bits(ft.measure(net, X, y), net, budget=5)
    >>> sorted(chosen), chosen.average <= 5
    (['0.weight', '2.weight'], True)
    """
    weights, rows = _checked(flatness, module)
    choices = _checked_choices(bits)
    if weighed not in ("trace", "diagonal"):
        raise ValueError(f"weighed must be 'trace' or 'diagonal', not {weighed!r}.")
    sizes = np.array([weight.numel() for weight in weights.values()])
    limit = _limit(budget, int(sizes.sum()))
    if limit < choices[0] * sizes.sum():
        raise ValueError(
            f"budget {budget} is too small: with the fewest bits to choose from, {choices[0]} for "
            f"every entry, the weights take {choices[0] * int(sizes.sum()) / 8e3:,.1f} kB."
        )
    if loss_of is None:
        diagonals = flatness.diagonal() if weighed == "diagonal" else {}
        axes = channel_axes(unwrap(module))
        costs = np.array(
            [
                [
                    _cost(
                        weight,
                        rows[name],
                        diagonals.get(name),
                        rounded(
                            weight.detach().double(),
                            number,
                            per_channel=per_channel,
                            affine=affine,
                            axis=axes.get(name, 0),
                        ),
                    )
                    for number in choices
                ]
                for name, weight in weights.items()
            ]
        )
    else:
        costs = _measured(unwrap(module), weights, choices, per_channel, affine, loss_of)
    chosen = _programme(costs, sizes, np.array(choices), limit)
    uniform = max(number for number in choices if number * sizes.sum() <= limit)
    layers = tuple(
        LayerBits(name, int(size), choices[best], float(row[best]), float(row[equal]))
        for name, size, best, row, equal in zip(
            weights, sizes, chosen, costs, [choices.index(uniform)] * len(sizes), strict=True
        )
    )
    low = [layer for layer in layers if layer.bits < LOWEST_TRUSTED]
    if low and loss_of is None:
        warnings.warn(
            f"{len(low)} of {len(layers)} weights get fewer than {LOWEST_TRUSTED} bits, such as "
            f"{low[0].name} with {low[0].bits}: there the second order that costs are taken from "
            "ends. Give loss_of, a function from a module to its loss, to measure them directly.",
            stacklevel=2,
        )
    return BitAllocation(layers, uniform, weighed, loss_of is not None, per_channel, affine)


def _checked(flatness: Flatness, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the weights that were measured, and their traces."""
    if not isinstance(flatness, Flatness):
        raise TypeError(
            f"flatness must be what flattest.measure returned, not {type(flatness).__name__}."
        )
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, not {type(module).__name__}.")
    rows = {layer.name: layer for layer in flatness.layers}
    weights = {name: w for name, w in weights_of(unwrap(module)).items() if name in rows}
    if not weights:
        raise ValueError(
            "flatness has no weight of the module with two dimensions or more; measure this module."
        )
    for name, weight in weights.items():
        if tuple(weight.shape) != rows[name].shape:
            raise ValueError(
                f"flatness is of another module: {name} has shape {rows[name].shape} there, and "
                f"{tuple(weight.shape)} in module."
            )
    return weights, {name: max(0.0, rows[name].gauss_newton) for name in weights}


def _checked_choices(bits: Sequence[int]) -> list[int]:
    if isinstance(bits, (int, str)) or not len(bits):
        raise TypeError("bits must be a list of numbers of bits to choose from.")
    numbers = sorted({check_positive_int(number, "bits", minimum=2) for number in bits})
    if numbers[-1] > MOST_BITS:
        raise ValueError(f"bits must be at most {MOST_BITS}, not {numbers[-1]}.")
    return numbers


def _limit(budget: Any, n_entries: int) -> int:
    """Return the bits that all entries may have together."""
    if isinstance(budget, str):
        found = _SIZE.fullmatch(budget)
        if found is None:
            raise ValueError(
                f"budget must be an average number of bits, or a size such as '1.5 MB', not "
                f"{budget!r}."
            )
        return int(8 * float(found[1]) * _UNITS[found[2].lower()])
    return int(check_positive_float(budget, "budget") * n_entries * (1 + 1e-12))


def _cost(weight: Tensor, trace: float, diagonal: Tensor | None, rounded_to: Tensor) -> float:
    errors = (weight.detach().double() - rounded_to).square()
    if diagonal is not None:
        return 0.5 * float((diagonal.clamp(min=0) * errors.to(diagonal.device)).sum())
    return 0.5 * trace * float(errors.mean())


def _measured(
    module: nn.Module,
    weights: dict[str, Tensor],
    choices: list[int],
    per_channel: bool,
    affine: bool,
    loss_of: Callable[[nn.Module], float],
) -> np.ndarray:
    """Measure what rounding each weight alone does to the loss."""
    with torch.no_grad():
        before = float(loss_of(module))

        def rise(name: str, number: int) -> float:
            copied = quantise(module, {name: number}, per_channel=per_channel, affine=affine)
            return float(loss_of(copied)) - before

        costs = np.array([[rise(name, number) for number in choices] for name in weights])
    if not np.isfinite(costs).all():
        raise ValueError("loss_of returned NaN or infinity for a rounded module.")
    return costs


def _programme(costs: np.ndarray, sizes: np.ndarray, bits: np.ndarray, limit: int) -> np.ndarray:
    """Choose one number of bits for each weight, at the least cost within the limit."""
    n, k = costs.shape
    one_each = sparse.kron(sparse.eye_array(n), np.ones((1, k)))
    used = np.outer(sizes, bits).ravel()[None] / limit
    scale = np.abs(costs).max() or 1.0
    found = optimize.milp(
        costs.ravel() / scale,
        integrality=np.ones(n * k),
        bounds=optimize.Bounds(0, 1),
        constraints=[
            optimize.LinearConstraint(one_each, 1, 1),
            optimize.LinearConstraint(used, -np.inf, 1),
        ],
        options={"mip_rel_gap": 1e-9},
    )
    if found.x is None:
        raise RuntimeError(f"The integer programme was not solved: {found.message}")
    return found.x.reshape(n, k).argmax(axis=1)
