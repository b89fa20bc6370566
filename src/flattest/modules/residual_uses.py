r"""How a parameter tensor enters a network: the uses for which probes are quiet.

A tensor that enters one operation only, as a weight of a linear map or as something added or
multiplied, moves that operation's result u by a fixed linear map J of the tensor's own movement.
Its diagonal block of a Hessian is then :math:`J^\top H_u J` with the second derivative :math:`H_u`
in u alone, and :math:`H_u` has one block per sample. So signs may be drawn per sample rather than
once for all, and for a linear layer the input side of J can be summed exactly. `find_uses` reads
such uses off the autograd graph; `residual_blocks` draws from them.

All tangents and gradients are seen as (n, rows, ...): n samples, then the rows that belong to a
sample, such as tokens. Which rows those are is not assumed but tested (`sample_layout`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.autograd.graph import GradientEdge

from flattest.modules.linearity import Node

_MAX_SIGNS = 1 << 24  # entries of per-sample signs held together


@dataclass(frozen=True)
class Layout:
    """How the samples lie in a tensor: (n * rows, ...), (rows * n, ...) or (rows, n, ...)."""

    n_samples: int
    time_major: bool = False
    split: bool = False  # rows and samples are axes of their own

    def fits(self, shape: Sequence[int]) -> bool:
        """Tell whether a tensor of this shape can be arranged so."""
        if self.split:
            return len(shape) > 1 and shape[1] == self.n_samples
        rows, rest = divmod(shape[0] if shape else 0, self.n_samples)
        return rows > 0 and rest == 0 and not (self.time_major and rows == 1)

    def by_sample(self, tensor: Tensor) -> Shaped[Tensor, "n rows ..."]:
        """Bring the samples to the front."""
        if self.split:
            return tensor.transpose(0, 1)
        rest, rows = tensor.shape[1:], tensor.shape[0] // self.n_samples
        if self.time_major:
            return tensor.reshape(rows, self.n_samples, *rest).transpose(0, 1)
        return tensor.reshape(self.n_samples, rows, *rest)

    def restore(self, tensor: Shaped[Tensor, "n rows ..."]) -> Tensor:
        """Undo `by_sample`."""
        if self.split:
            return tensor.transpose(0, 1)
        ordered = tensor.transpose(0, 1) if self.time_major else tensor
        return ordered.flatten(0, 1)


@dataclass(frozen=True)
class Use(ABC):
    """One operation into which one or two tensors enter, and nothing else of them.

    Parameters
    ----------
    node : torch.autograd.graph.Node
        The operation, whose only result is u.
    names : tuple of str
        The tensors.
    """

    node: Node
    names: tuple[str, ...]

    @property
    def shape_of_result(self) -> tuple[int, ...]:
        """Return the shape of u."""
        return tuple(self.node._input_metadata[0].shape)

    def fits(self, layout: Layout) -> bool:
        """Tell whether this use can be read in a layout."""
        return layout.fits(self.shape_of_result)

    @property
    def edge(self) -> GradientEdge:
        """Return u as something that autograd can differentiate in."""
        return GradientEdge(self.node, 0)

    @abstractmethod
    def tangents(self, layout: Layout, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw tangents of u, one per tensor: v_1, v_2, ... with v their sum.

        The mean of v_k^T H v, for any H that is block diagonal over samples, is the trace of
        J_k^T H J_k. All have the shape of `like`, by samples.
        """


@dataclass(frozen=True)
class LinearUse(Use):
    r"""A linear layer, u = h W^T + b: names are W, or W and b.

    With the rows h' = (h, 1) of a sample, J J^T = h' h'^T for each unit. Any factor L of it,
    L L^T = h' h'^T, turns one sign per column and unit into a tangent v = L s: the input side is
    summed exactly, down to min(rows, d + 1) signs per unit. For one row per sample this is
    :math:`v = \sqrt{\|h\|^2 + 1}\, s`. The share of b is 1 (w . s) with L w = 1.
    """

    inputs: Float[Tensor, "all_rows d"]

    def fits(self, layout: Layout) -> bool:
        """Tell whether the rows can be divided among the samples."""
        return not layout.split and super().fits(layout)

    def factor(
        self, layout: Layout
    ) -> tuple[Float[Tensor, "n rows r"], Float[Tensor, "n r 1"] | None]:
        """Return L per sample, and w where there is a bias."""
        return _factor(layout.by_sample(self.inputs), bias=len(self.names) > 1)

    def tangents(self, layout: Layout, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw one sign per column of L and unit."""
        factor, share = self.factor(layout)
        signs = random_signs((len(factor), factor.shape[2], like.shape[-1]), like, generator)
        return _shares(factor, share, signs)

    def sizes(self) -> list[Float[Tensor, " all_rows"]]:
        """Return per tensor the mean of v_k v in each row: what a unit's second derivative counts.

        These are ``||h||**2`` for the weights and 1 for the bias.
        """
        squares = (self.inputs.double() ** 2).sum(dim=1)
        return [squares, torch.ones_like(squares)][: len(self.names)]

    def columns(self, layout: Layout, like: Tensor) -> Iterator[list[Tensor]]:
        """Yield the tangents of unit vectors in place of signs: their sum is exact."""
        factor, share = self.factor(layout)
        n, _, columns = factor.shape
        for column in range(columns):
            for unit in range(like.shape[-1]):
                signs = like.new_zeros(n, columns, like.shape[-1])
                signs[:, column, unit] = 1
                yield _shares(factor, share, signs)

    def n_columns(self, layout: Layout) -> int:
        """Return how many there are."""
        rows, d = len(self.inputs) // layout.n_samples, self.inputs.shape[1]
        return min(rows, d + len(self.names) - 1) * self.shape_of_result[-1]


def _factor(
    h: Float[Tensor, "n rows d"], *, bias: bool
) -> tuple[Float[Tensor, "n rows r"], Float[Tensor, "n r 1"] | None]:
    """Return L with L L^T = h' h'^T and at most as many columns as rows, and w with L w = 1."""
    if not bias:
        return (torch.linalg.qr(h.mT, mode="r")[1].mT if h.shape[1] < h.shape[2] else h), None
    h = torch.cat([h, torch.ones_like(h[..., :1])], dim=-1)
    if h.shape[1] < h.shape[2]:
        # h' = R^T Q^T, so L = R^T, and Q^T of the last unit vector is its w.
        q, r = torch.linalg.qr(h.mT)
        return r.mT, q[:, -1:].mT
    last = torch.zeros_like(h[:, :1]).mT
    last[:, -1] = 1
    return h, last


def _shares(
    factor: Float[Tensor, "n rows r"],
    share: Float[Tensor, "n r 1"] | None,
    signs: Float[Tensor, "n r o"],
) -> list[Tensor]:
    """Split a tangent into what the weights and what the bias answer for."""
    tangent = factor @ signs
    if share is None:
        return [tangent]
    of_bias = (share.mT @ signs).expand_as(tangent)
    return [tangent - of_bias, of_bias]


@dataclass(frozen=True)
class ConvolutionUse(Use):
    """A convolution: v = convolution of the inputs with kernels of signs, one per sample.

    Where a two-dimensional one has fewer places than its kernel has entries, it is treated as a
    linear layer of the patches instead, which sums the input side exactly.
    """

    inputs: Float[Tensor, "n ..."]
    shape: tuple[int, ...]

    def fits(self, layout: Layout) -> bool:
        """Tell whether the images are the samples."""
        first = not (layout.split or layout.time_major)
        return first and self.shape_of_result[0] == layout.n_samples

    def tangents(self, layout: Layout, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw a kernel of signs per sample; samples take part as groups of one convolution."""
        if self._few_places:
            return self._of_patches(like, generator)
        node, parts = self.node, []
        at_once = max(1, _MAX_SIGNS // math.prod(self.shape))
        for inputs in self.inputs.split(at_once):
            n = len(inputs)
            signs = random_signs((n, *self.shape), like, generator)
            moved = torch.ops.aten.convolution(
                inputs.reshape(1, -1, *inputs.shape[2:]),
                signs.flatten(0, 1),
                None,
                node._saved_stride,
                node._saved_padding,
                node._saved_dilation,
                node._saved_transposed,
                node._saved_output_padding,
                n * node._saved_groups,
            )
            parts.append(moved.reshape(n, 1, *like.shape[2:]))
        tangents = [torch.cat(parts)]
        if len(self.names) > 1:
            spatial = (1,) * (like.ndim - 3)
            signs = random_signs((like.shape[0], 1, like.shape[2], *spatial), like, generator)
            tangents.append(signs.expand_as(like))
        return tangents

    @property
    def _few_places(self) -> bool:
        plain = self.node._saved_groups == 1 and not self.node._saved_transposed
        places = math.prod(self.shape_of_result[2:])
        return plain and len(self.shape) == 4 and places < math.prod(self.shape[1:])

    def _of_patches(self, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw as a linear layer does, whose rows are the patches."""
        node = self.node
        patches = torch.nn.functional.unfold(
            self.inputs,
            self.shape[2:],
            dilation=node._saved_dilation,
            padding=node._saved_padding,
            stride=node._saved_stride,
        )
        factor, share = _factor(patches.mT, bias=len(self.names) > 1)
        signs = random_signs((len(like), factor.shape[2], self.shape[0]), like, generator)
        return [part.mT.reshape(like.shape) for part in _shares(factor, share, signs)]


@dataclass(frozen=True)
class EntrywiseUse(Use):
    """Tensors that scale (by `factors`) or shift (None) the entries of u, by broadcasting.

    The shapes have as many axes as u; the axis of the samples must be broadcast.
    """

    factors: tuple[Tensor | None, ...]
    shapes: tuple[tuple[int, ...], ...]

    def fits(self, layout: Layout) -> bool:
        """Tell whether no tensor differs between samples."""
        axis = 1 if layout.split else 0
        return super().fits(layout) and all(shape[axis] == 1 for shape in self.shapes)

    def tangents(self, layout: Layout, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw a copy of each tensor with signs for each sample."""
        tangents = []
        for factor, shape in zip(self.factors, self.shapes, strict=True):
            rows = shape[0] if layout.split else 1
            rest = shape[2:] if layout.split else shape[1:]
            signs = random_signs((len(like), rows, *rest), like, generator).expand_as(like)
            tangents.append(signs if factor is None else signs * layout.by_sample(factor))
        return tangents


@dataclass(frozen=True)
class EmbeddingUse(Use):
    """Rows looked up: a sample's rows of the same token share their signs."""

    indices: Tensor
    padding: int

    def tangents(self, layout: Layout, like: Tensor, generator: torch.Generator) -> list[Tensor]:
        """Draw a sign per token of a sample and coordinate."""
        tokens = layout.by_sample(self.indices).reshape(like.shape[0], -1)
        first = (tokens[:, :, None] == tokens[:, None, :]).int().argmax(dim=-1)
        signs = random_signs((*tokens.shape, like.shape[-1]), like, generator)
        shared = signs.gather(1, first[..., None].expand_as(signs))
        shared = shared * (tokens != self.padding)[..., None]
        return [shared.reshape(like.shape)]


def random_signs(
    shape: Sequence[int], like: Tensor, generator: torch.Generator
) -> Float[Tensor, "..."]:
    """Draw independent signs, +1 or -1 with equal probability.

    Parameters
    ----------
    shape : sequence of int
        Their shape.
    like : Tensor
        Whose dtype and device they get.
    generator : torch.Generator
        Where they come from.

    Returns
    -------
    Tensor
        The signs.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.residual_uses import random_signs
    >>> random_signs((2, 3), torch.zeros(1), torch.Generator().manual_seed(0)).abs().sum()
    tensor(6.)
    """
    bits = torch.randint(0, 2, tuple(shape), generator=generator, device=like.device)
    return bits.to(like.dtype).mul_(2).sub_(1)
