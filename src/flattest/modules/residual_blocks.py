r"""Probing one block of a Hessian: draws whose mean is its trace, or the trace itself.

Everything rests on one gradient computed with a graph of its own: differentiating it again along a
tangent is one Hessian-vector product, here called a double backward. A block is either a use (see
`residual_uses`), probed in its result with signs per sample, or a parameter tensor, probed in its
own entries with signs for all samples together (Hutchinson 1989).
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge

from flattest.modules.residual_known import Known
from flattest.modules.residual_uses import Layout, LinearUse, Use, random_signs

_AT_ONCE = 1 << 22  # entries of tangents differentiated together, ...
_MOST_AT_ONCE = 32  # ... since what lies between may be larger than what is differentiated
_MAX_GROUPS = 4
_LARGEST_POWER = 8  # of 2, by which the layout test scales samples


class Block(ABC):
    """A part of the parameters whose block of the Hessian is probed by itself.

    Parameters
    ----------
    names : tuple of str
        The parameter tensors.
    point : Tensor or GradientEdge
        Where the Hessian is taken.
    gradient : Tensor or None
        The gradient there, with its graph; None where nothing depends on it.
    """

    quiet = False
    """Whether samples are probed independently, so that two draws already tell the variance."""

    def __init__(
        self, names: tuple[str, ...], point: Tensor | GradientEdge, gradient: Tensor | None
    ) -> None:
        self.names = names
        self.point = point
        self.gradient = gradient if gradient is not None and gradient.requires_grad else None

    @property
    def vanishes(self) -> bool:
        """Whether autograd sees that the block is 0."""
        return self.gradient is None

    @property
    @abstractmethod
    def exact_cost(self) -> float | int:
        """Double backwards that the exact trace takes; infinite where there is no way."""

    @abstractmethod
    def draw(self, generator: torch.Generator) -> Float[Tensor, "units names"]:
        """Draw the traces once, as sums over independent units."""

    @abstractmethod
    def exact(self) -> Float[Tensor, "names"]:
        """Return the traces."""

    def product(self, tangent: Tensor) -> Tensor:
        """Return the Hessian times a tangent: one double backward."""
        assert self.gradient is not None
        (product,) = torch.autograd.grad(
            self.gradient, self.point, tangent, retain_graph=True, allow_unused=True
        )
        return torch.zeros_like(tangent) if product is None else product

    def products(self, tangents: Float[Tensor, "k ..."]) -> Float[Tensor, "k ..."]:
        """Return the Hessian times several tangents, in one batched double backward if right.

        PyTorch's batching is not right for every operation, so one column is done by itself and
        compared; where it differs, or batching is refused, all are.
        """
        assert self.gradient is not None
        last = self.product(tangents[-1])
        if len(tangents) == 1:
            return last[None]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an operation without a batching rule is looped
                (batched,) = torch.autograd.grad(
                    self.gradient,
                    self.point,
                    tangents,
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
        except RuntimeError:
            batched = None
        if batched is not None:
            tolerance = 1e4 * torch.finfo(last.dtype).eps
            if (batched[-1] - last).norm() <= tolerance * last.norm():
                return batched
        return torch.stack([*(self.product(tangent) for tangent in tangents[:-1]), last])


class TensorBlock(Block):
    """The diagonal block of one parameter tensor, probed in its entries."""

    def __init__(self, name: str, tensor: Tensor, gradient: Tensor | None) -> None:
        super().__init__((name,), tensor, gradient)
        self._like = tensor.detach()

    @property
    def exact_cost(self) -> float | int:
        """One per entry."""
        return self._like.numel()

    def draw(self, generator: torch.Generator) -> Float[Tensor, "1 1"]:
        """Draw one sign per entry."""
        signs = random_signs(self._like.shape, self._like, generator)
        return (signs.double() * self.product(signs)).sum().reshape(1, 1)

    def exact(self) -> Float[Tensor, "1"]:
        """Differentiate along every unit vector."""
        size = self._like.numel()
        total = self._like.new_zeros(1, dtype=torch.float64)
        at_once = _at_once(size)
        for first in range(0, size, at_once):
            entries = torch.arange(first, min(first + at_once, size), device=self._like.device)
            rows = torch.arange(len(entries), device=self._like.device)
            units = self._like.new_zeros(len(entries), size)
            units[rows, entries] = 1
            products = self.products(units.reshape(-1, *self._like.shape))
            products = products.reshape(len(entries), size)
            total += products[rows, entries].double().sum()
        return total


class UseBlock(Block):
    """The diagonal blocks of the tensors that enter an operation, probed in its result.

    Of what is known of the second derivative there (see `residual_known`) only the mean is taken.
    """

    quiet = True

    def __init__(
        self, use: Use, layout: Layout, gradient: Tensor | None, known: Known | None = None
    ) -> None:
        super().__init__(use.names, use.edge, gradient)
        self._use = use
        self._layout = layout
        self._known = known
        self._means: list[Float[Tensor, "n"]] = []
        if known is not None:
            rows = known_rows(use, known)
            self._means = [layout.by_sample(row).flatten(1).sum(dim=1) for row in rows]

    @property
    def _like(self) -> Float[Tensor, "n rows ..."]:
        assert self.gradient is not None
        return self._layout.by_sample(self.gradient.detach())

    @property
    def exact_cost(self) -> float | int:
        """One per column and unit of a linear layer."""
        if isinstance(self._use, LinearUse):
            return self._use.n_columns(self._layout)
        return math.inf

    def draw(self, generator: torch.Generator) -> Float[Tensor, "n names"]:
        """Draw signs for each sample by itself."""
        return UseGroup([self]).draw(generator)

    def tangents(self, generator: torch.Generator) -> list[Tensor]:
        """Draw a tangent per tensor, by samples."""
        return self._use.tangents(self._layout, self._like, generator)

    def seed(self, tangents: Sequence[Tensor]) -> Tensor:
        """Return the tangent of the result: their sum, as the result lies."""
        return self._layout.restore(_total(tangents))

    def traces(
        self, tangents: Sequence[Tensor], product: Tensor | None
    ) -> list[Float[Tensor, "n"]]:
        """Return what each tensor's tangent and a Hessian-vector product say of its trace."""
        seed = self.seed(tangents)
        product = torch.zeros_like(seed) if product is None else product
        if self._known is not None:
            product = product - self._known.product(seed)
        by_sample = self._layout.by_sample(product)
        found = [_inner(tangent, by_sample) for tangent in tangents]
        if self._known is None:
            return found
        return [trace + mean for trace, mean in zip(found, self._means, strict=True)]

    def exact(self) -> Float[Tensor, "names"]:
        """Differentiate along every column and unit, all samples together."""
        assert isinstance(self._use, LinearUse)
        like = self._like
        total = like.new_zeros(len(self.names), dtype=torch.float64)
        columns = iter(self._use.columns(self._layout, like))
        at_once = _at_once(like.numel())
        while chunk := list(islice(columns, at_once)):
            tangents = torch.stack([self._layout.restore(_total(shares)) for shares in chunk])
            for shares, product in zip(chunk, self.products(tangents), strict=True):
                by_sample = self._layout.by_sample(product)
                total += torch.stack([_inner(share, by_sample).sum() for share in shares])
        return total


class KnownBlock(Block):
    """The diagonal blocks of a linear layer behind which all curvature is known: nothing to probe.

    Parameters
    ----------
    use : Use
        The layer.
    known : Known
        The second derivative in its result, of which the whole diagonal is known.
    """

    def __init__(self, use: Use, known: Known) -> None:
        super().__init__(use.names, use.edge, None)
        self._rows = known_rows(use, known)

    @property
    def exact_cost(self) -> float | int:
        """No double backward."""
        return 0

    def draw(self, generator: torch.Generator) -> Float[Tensor, "1 names"]:
        """Return the traces, which do not vary."""
        return self.exact()[None]

    def exact(self) -> Float[Tensor, "names"]:
        """Add the rows."""
        return torch.stack([rows.sum() for rows in self._rows])


class UseGroup(Block):
    r"""Several uses probed in one double backward.

    With independent tangents :math:`v_l` at the results :math:`u_l`, the mean of
    :math:`v_l^\top \sum_m H_{lm} v_m` is that of :math:`v_l^\top H_{ll} v_l`. The other terms are
    noise, and the less the further apart the operations are; one double backward through the whole
    network costs little more than one to its first operation.
    """

    quiet = True

    def __init__(self, blocks: Sequence[UseBlock]) -> None:
        names = tuple(name for block in blocks for name in block.names)
        super().__init__(names, blocks[0].point, blocks[0].gradient)
        self._blocks = blocks

    @property
    def exact_cost(self) -> float | int:
        """Exact traces are taken use by use."""
        return math.inf

    def draw(self, generator: torch.Generator) -> Float[Tensor, "n names"]:
        """Draw signs for each sample and use by itself."""
        tangents = [block.tangents(generator) for block in self._blocks]
        points: list[Any] = [block.point for block in self._blocks]
        gradients: list[Any] = [block.gradient for block in self._blocks]
        products = torch.autograd.grad(
            gradients,
            points,
            [block.seed(parts) for block, parts in zip(self._blocks, tangents, strict=True)],
            retain_graph=True,
            allow_unused=True,
        )
        found = zip(self._blocks, tangents, products, strict=True)
        traces = [trace for block, parts, hv in found for trace in block.traces(parts, hv)]
        return torch.stack(traces, dim=1)

    def exact(self) -> Float[Tensor, "names"]:
        """Return the exact traces of all uses."""
        return torch.cat([block.exact() for block in self._blocks])


def groups_of(blocks: Sequence[UseBlock]) -> list[UseGroup]:
    """Divide uses, in the order of the network, into at most four groups of distant ones.

    Four lose little against a double backward for every use, and cost 4 however deep the network.

    Parameters
    ----------
    blocks : sequence of UseBlock
        The uses.

    Returns
    -------
    list of UseGroup
        The groups.

    Examples
    --------
    >>> from flattest.modules.residual_blocks import groups_of
    >>> groups_of([])
    []
    """
    count = min(len(blocks), _MAX_GROUPS)
    return [UseGroup(blocks[first::count]) for first in range(count)]


def find_layouts(
    outputs: Tensor, uses: Sequence[Use], generator: torch.Generator
) -> list[Layout | None]:
    """Find how the samples lie in the results of operations, by a few backward passes.

    Scaling the samples' outputs by powers of 2 scales exactly those rows of a gradient that belong
    to them. A layout is accepted if all rows agree, in passes in which any two samples differ once.
    That fails too where samples influence each other; these keep their ordinary probes.

    Parameters
    ----------
    outputs : Tensor
        The model's outputs, samples first.
    uses : sequence of Use
        The operations.
    generator : torch.Generator
        Where the outputs' weights come from.

    Returns
    -------
    list of Layout or None
        One per use; None where no layout fits.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_blocks import find_layouts
    >>> from flattest.modules.residual_graph import find_uses
    >>> layer = torch.nn.Linear(2, 3)
    >>> outputs = layer(torch.ones(5, 2))
    >>> uses = find_uses(outputs, dict(layer.named_parameters()))
    >>> find_layouts(outputs, uses, torch.Generator())
    [Layout(n_samples=5, time_major=False, split=False)]
    """
    if not uses or outputs.ndim == 0:
        return [None] * len(uses)
    edges = [use.edge for use in uses]
    seed = torch.randn(
        outputs.shape, generator=generator, dtype=outputs.dtype, device=outputs.device
    )
    plain = torch.autograd.grad(outputs, edges, seed, retain_graph=True, allow_unused=True)
    n = len(outputs)
    layouts = [Layout(n), Layout(n, time_major=True), Layout(n, split=True)]
    left = [
        [] if gradient is None else [layout for layout in layouts if use.fits(layout)]
        for use, gradient in zip(uses, plain, strict=True)
    ]
    for scales in _scales(n, outputs):
        weights = scales.reshape(n, *(1,) * (outputs.ndim - 1))
        scaled = torch.autograd.grad(
            outputs, edges, seed * weights, retain_graph=True, allow_unused=True
        )
        left = [
            [layout for layout in candidates if _agrees(layout, one, two, scales)]
            for candidates, one, two in zip(left, plain, scaled, strict=True)
        ]
    # Several are left where gradients vanish, and then nothing is known; of one sample, all are
    # the same.
    return [
        candidates[0] if len(candidates) == 1 or (candidates and n == 1) else None
        for candidates in left
    ]


def _scales(n: int, like: Tensor) -> Iterator[Float[Tensor, "n"]]:
    """Yield powers of 2 for the samples, by the digits of their numbers: any two differ once."""
    numbers = torch.arange(n, device=like.device)
    base = 2 * _LARGEST_POWER + 1
    while True:
        powers = numbers % base - _LARGEST_POWER
        yield torch.ldexp(torch.ones(n, dtype=like.dtype, device=like.device), powers)
        numbers = numbers // base
        if not numbers.any():
            return


def _agrees(layout: Layout, plain: Tensor, scaled: Tensor, scales: Float[Tensor, "n"]) -> bool:
    """Tell whether every row was scaled like its sample."""
    one = layout.by_sample(plain)
    one = one.reshape(*one.shape[:2], -1)
    expected = one * scales[:, None, None]
    difference = layout.by_sample(scaled).reshape(one.shape) - expected
    # Scaling by powers of 2 is exact; what is allowed for is sums in another order.
    tolerance = 4 * torch.finfo(plain.dtype).eps ** 0.5
    return bool((difference.norm(dim=-1) <= tolerance * expected.norm(dim=-1)).all())


def known_rows(use: Use, known: Known) -> list[Float[Tensor, " rows"]]:
    """Return what a known second derivative adds to the trace of each tensor of a linear layer.

    Parameters
    ----------
    use : LinearUse
        The layer.
    known : Known
        The second derivative in its result.

    Returns
    -------
    list of Tensor of shape (rows,)
        One per tensor, row by row.
    """
    assert isinstance(use, LinearUse)
    diagonal = (known.diagonal() if known.whole is None else known.whole).sum(dim=1)
    return [size * diagonal for size in use.sizes()]


def _at_once(size: int) -> int:
    """Return how many tangents of a size are differentiated together."""
    return max(1, min(_MOST_AT_ONCE, _AT_ONCE // size))


def _total(tangents: Sequence[Tensor]) -> Tensor:
    """Add the tangents of the tensors that enter one operation."""
    return torch.stack(list(tangents)).sum(dim=0)


def _inner(one: Float[Tensor, "n ..."], other: Float[Tensor, "n ..."]) -> Float[Tensor, "n"]:
    """Return the scalar product per sample, summed in float64."""
    return (one.double() * other).flatten(1).sum(dim=1)
