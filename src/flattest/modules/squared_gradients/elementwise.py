"""Rules for sums, products and repetitions, with what broadcasting repeats summed per sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flattest.modules.squared_gradients.contributions import Contribution, Dense
from flattest.modules.squared_gradients.layouts import Layout, Unsupported


def add(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``a + alpha b``."""
    if slot == 1:
        cotangents = cotangents * node._saved_alpha
    return Dense(layout.reduced(cotangents, shape))


def sub(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``a - alpha b``."""
    if slot == 1:
        cotangents = cotangents * -node._saved_alpha
    return Dense(layout.reduced(cotangents, shape))


def mul(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``a b``."""
    other = node._saved_other if slot == 0 else node._saved_self
    if other is None:
        raise Unsupported
    return Dense(layout.reduced(cotangents * other, shape))


def div(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate ``a / b`` by the numerator."""
    if slot != 0:
        raise Unsupported
    return Dense(layout.reduced(cotangents / node._saved_other, shape))


def prelu(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Differentiate by a learned slope on the negative side."""
    if slot != 1:
        raise Unsupported
    return Dense(layout.reduced(cotangents * node._saved_self.clamp(max=0), shape))


def expand(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Add up what a tensor is repeated along, such as a class token for every sample."""
    return Dense(layout.reduced(cotangents, shape))


def repeat(
    node: Any, slot: int, cotangents: Tensor, layout: Layout, shape: tuple[int, ...]
) -> Contribution:
    """Add up the tiles of a tensor, of which every sample has some."""
    times, sizes = list(node._saved_repeats), list(shape)
    sizes = [1] * (len(times) - len(sizes)) + sizes
    if len(sizes) != cotangents.ndim - 1:
        raise Unsupported
    whole = [size for pair in zip(times, sizes, strict=True) for size in pair]
    tiles = cotangents.reshape(len(cotangents), *whole)
    if times[0] % layout.n_samples:
        raise Unsupported
    ones = [size for size in sizes for size in (1, size)]
    reduced = Layout(layout.n_samples, layout.order).reduced(tiles, tuple(ones))
    return Dense(reduced.reshape(*reduced.shape[:2], *shape))


RULES = {
    "AddBackward0": add,
    "DivBackward0": div,
    "ExpandBackward0": expand,
    "MulBackward0": mul,
    "PreluKernelBackward0": prelu,
    "RepeatBackward0": repeat,
    "SubBackward0": sub,
}
