"""Which way is right for each tensor: rules are compared with autograd on single samples.

A rule may misread which rows belong to which sample, and PyTorch's own batching of backward passes
may be wrong for an operation. So no way is trusted: with random cotangents on up to three samples
of the batch at hand, every tensor's squared gradients are compared with those that plain autograd
gives for these samples alone, one at a time. The first way that agrees is taken for graphs of the
same shape. The same comparison tells whether the outputs for one sample depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flattest.modules.squared_gradients.graph import Graph
from flattest.modules.squared_gradients.ways import (
    SLOW,
    Way,
    by_rules,
    ruled,
    sample_by_sample,
)

N_COLUMNS = 2
_TOLERANCES = {torch.float64: 1e-8, torch.float32: 2e-3}


class CoupledSamplesError(Exception):
    """The outputs for a sample alone are others than among the batch."""


class HiddenParameterError(Exception):
    """A parameter receives a gradient, but no edge of the graph leads to it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def tolerance(dtype: torch.dtype) -> float:
    """Return how far two ways may differ, relative to the values, and still be the same."""
    return _TOLERANCES.get(dtype, 1e-2)


def calibrate(
    graph: Graph, single: Callable[[int], Tensor], parameters: list[Tensor]
) -> dict[int, Way]:
    """Choose a way for every tensor that the outputs depend on.

    Parameters
    ----------
    graph : Graph
        Of the outputs for a batch.
    single : callable
        From the number of a sample to its outputs when it is alone, with their graph.
    parameters : list of Tensor
        The parameters.

    Returns
    -------
    dict of int to Way
        By the parameter's number.

    Raises
    ------
    CoupledSamplesError
        If the outputs for a sample depend on the other samples.
    HiddenParameterError
        If a parameter is not in the graph, but has a gradient.
    """
    outputs = graph.outputs
    n, limit = len(outputs), tolerance(outputs.dtype)
    samples = sorted({0, n // 2, n - 1})
    columns = _random_columns(outputs, samples)
    signs = columns.new_ones(N_COLUMNS, n)
    alone = {sample: single(sample) for sample in samples}
    scale = outputs.detach().abs().max()
    for sample, output in alone.items():
        same_shape = output.shape[1:] == outputs.shape[1:]
        if not same_shape or (output[0] - outputs[sample]).abs().max() > limit * scale:
            raise CoupledSamplesError
    reference = _by_plain_autograd(alone, columns, signs, parameters)
    reached = graph.reached()
    hidden = [n for n, value in reference.items() if n not in reached and value.any()]
    if hidden:
        raise HiddenParameterError(hidden[0])
    # Where a gradient is zero but for rounding, rounding is not compared.
    largest = max((float(value.abs().max()) for value in reference.values()), default=0.0)
    noise = (100 * torch.finfo(outputs.dtype).eps) ** 2 * largest
    ways: dict[int, Way] = {}
    remaining = set(reached)
    for way in ruled(graph):
        found = by_rules(graph, columns, signs, parameters, dict.fromkeys(sorted(remaining), way))
        for number, total in found.items():
            if _agree(total, reference.get(number), limit, noise):
                ways[number] = way
        remaining -= ways.keys()
        if not remaining:
            break
    _distrust_what_was_zero(graph, signs, parameters, reference, ways)
    slow = sorted(reached - ways.keys())
    chosen = _slow_ways(alone, columns, parameters, slow, noise)
    for number, way in zip(slow, chosen, strict=True):
        ways[number] = way
    return ways


def _random_columns(outputs: Tensor, samples: list[int]) -> Tensor:
    """Draw cotangents of some samples, the same ones on every device; 0 for the others."""
    generator = torch.Generator().manual_seed(0)
    columns = torch.zeros((N_COLUMNS, *outputs.shape), dtype=outputs.dtype, device=outputs.device)
    shape = (N_COLUMNS, *outputs.shape[1:])
    for sample in samples:
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        columns[:, sample] = drawn.to(columns)
    return columns


def _by_plain_autograd(
    alone: dict[int, Tensor], columns: Tensor, signs: Tensor, parameters: list[Tensor]
) -> dict[int, Tensor]:
    """Sum the squared gradients of the samples alone, by the parameter's number."""
    reference: dict[int, Tensor] = {}
    for sample, output in alone.items():
        values = sample_by_sample(
            output, columns[:, sample : sample + 1], signs[:, sample], parameters, batched=False
        )
        for number, value in enumerate(values):
            if value is not None:
                reference[number] = value + reference.get(number, 0.0)
    return reference


def _agree(values: Tensor, reference: Tensor | None, limit: float, noise: float) -> bool:
    """Compare entries: each relative to itself, and to a thousandth of the largest."""
    if reference is None:
        return not values.any()
    allowed = limit * (reference.abs() + 1e-3 * reference.abs().max()) + noise
    return bool(((values - reference).abs() <= allowed).all())


def _distrust_what_was_zero(
    graph: Graph,
    signs: Tensor,
    parameters: list[Tensor],
    reference: dict[int, Tensor],
    ways: dict[int, Way],
) -> None:
    """Drop the ways of tensors that had no gradient on the chosen samples but have one on others.

    Agreement on zeros says nothing. These tensors, such as those of rarely taken branches, are
    taken sample by sample.
    """
    silent = {
        number: way
        for number, way in ways.items()
        if number not in reference or not reference[number].any()
    }
    if not silent:
        return
    shape = (1, *graph.outputs.shape)
    generator = torch.Generator().manual_seed(1)
    column = torch.randn(shape, generator=generator, dtype=torch.float64).to(graph.outputs)
    found = by_rules(graph, column, signs[:1], parameters, silent)
    for number in silent:
        if number not in found or found[number].any():
            del ways[number]


def _slow_ways(
    alone: dict[int, Tensor],
    columns: Tensor,
    parameters: list[Tensor],
    numbers: list[int],
    noise: float,
) -> list[Way]:
    """Tell for each tensor whether batched columns are right when samples are taken one by one."""
    if not numbers:
        return []
    chosen = [parameters[number] for number in numbers]
    right = [True] * len(numbers)
    ones = columns.new_ones(N_COLUMNS)
    for sample, output in alone.items():
        own = columns[:, sample : sample + 1]
        one_by_one = sample_by_sample(output, own, ones, chosen, batched=False)
        try:
            together = sample_by_sample(output, own, ones, chosen, batched=True)
        except RuntimeError:  # an operation without a rule for batches
            return [SLOW[1]] * len(numbers)
        for position, (values, reference) in enumerate(zip(together, one_by_one, strict=True)):
            zero = torch.zeros_like(chosen[position])
            one = zero if values is None else values
            other = zero if reference is None else reference
            right[position] &= _agree(one, other, tolerance(columns.dtype), noise)
    return [SLOW[0] if good else SLOW[1] for good in right]
