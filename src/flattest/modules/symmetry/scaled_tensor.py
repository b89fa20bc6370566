r"""How one parameter tensor scales: every entry by the scales of the two channels it joins.

Each channel c of an activation has a log scale :math:`y_c`, and :math:`y = B z` with the free log
scales z. A weight that leads from channel i to channel o is multiplied by
:math:`e^{y_o - y_i}`, a bias of channel o by :math:`e^{y_o}`: channel 0 is that of everything that
must not scale. The two channels of an entry are stored as integer tensors that broadcast to the
tensor's shape, so that a convolution's kernel positions cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_matrix
from torch import Tensor

_RANGE = 200.0
"""Log scales whose exponentials are far from overflow, and so are their products."""


@dataclass(frozen=True, eq=False, repr=False)
class ScaledTensor:
    r"""The scales of one parameter tensor.

    Parameters
    ----------
    name : str
        As in ``named_parameters()``.
    shape : tuple of int
        Its shape.
    out : Tensor
        For each entry the channel that it leads to; integers that broadcast to `shape`.
    into : Tensor
        The channel that it comes from, likewise.
    channels : csr_matrix of shape (n_channels, n_scales)
        The matrix B, common to all tensors of a module. Row 0 is zero.

    Notes
    -----
    In terms of the free log scales z, entry e becomes
    :math:`\theta_e \exp(\sum_v (B_{out(e), v} - B_{into(e), v}) z_v)`.
    """

    name: str
    shape: tuple[int, ...]
    out: Tensor
    into: Tensor
    channels: csr_matrix

    @property
    def block_shape(self) -> tuple[int, ...]:
        """The shape in which the blocks broadcast to the tensor: 1 where nothing depends on it."""
        return tuple(torch.broadcast_shapes(self.out.shape, self.into.shape))

    @cached_property
    def is_frozen(self) -> bool:
        """Whether no entry scales."""
        # Generic scales show every exponent that is not zero.
        ends, starts = self._logs(np.random.default_rng(0).standard_normal(self.channels.shape[1]))
        if not (ends.numel() and starts.numel()):
            return True
        if any(a > 1 and b > 1 for a, b in zip(ends.shape, starts.shape, strict=True)):
            return not (ends - starts).any()
        # Every end meets every start.
        return bool((ends == starts.flatten()[0]).all() and (starts == ends.flatten()[0]).all())

    @property
    def blocks(self) -> Tensor:
        """The number of the block of each entry; integers that broadcast to `shape`."""
        ends, starts = self._distinct
        return ends[1] * len(starts[0]) + starts[1]

    @property
    def exponents(self) -> csr_matrix:
        """The exponents of each block: of shape (n_blocks, n_scales), with a zero row if frozen."""
        (ends, _), (starts, _) = self._distinct
        first = np.repeat(ends.numpy(), len(starts))
        second = np.tile(starts.numpy(), len(ends))
        rows = (self.channels[first] - self.channels[second]).tocsr()
        rows.eliminate_zeros()
        return rows

    @property
    def _distinct(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return the distinct channels at both ends, and which of them each entry has."""
        return (
            torch.unique(self.out, return_inverse=True),
            torch.unique(self.into, return_inverse=True),
        )

    def log_scales(self, z: Any) -> Float[Tensor, "..."]:
        """Return the logarithm of what each entry is multiplied by.

        Parameters
        ----------
        z : array_like of shape (n_scales,)
            The free log scales.

        Returns
        -------
        Tensor
            In float64, and broadcasting to `shape`.
        """
        ends, starts = self._logs(z)
        return ends - starts

    def scaled(self, values: Tensor, z: Any) -> Tensor:
        """Return a tensor of this shape times what the parameter is multiplied by.

        Parameters
        ----------
        values : Tensor of shape `shape`
            Such as the parameter.
        z : array_like of shape (n_scales,)
            The free log scales.

        Returns
        -------
        Tensor
            In float64, on the device of `values`.
        """
        ends, starts = self._logs(z)
        if max(float(ends.abs().max()), float(starts.abs().max())) < _RANGE:
            # Two small factors in place of one that is as large as the tensor. They are not shifted
            # by one another: what does not scale is multiplied by exactly 1.
            factors = ends.exp(), (-starts).exp()
            result = values.double() * factors[0].to(values.device)
            return result.mul_(factors[1].to(values.device))
        return values.double() * (ends - starts).exp().to(values.device)

    def _logs(self, z: Any) -> tuple[Tensor, Tensor]:
        """Return the log scales of the channels at both ends."""
        y = torch.from_numpy(np.asarray(self.channels @ np.asarray(z, dtype=np.float64)))
        return y[self.out], y[self.into]

    def sums(self, values: Tensor) -> Float[np.ndarray, " blocks"]:
        """Sum a tensor of this shape over the entries of each block.

        Parameters
        ----------
        values : Tensor of shape `shape`
            Such as the diagonal of a Gauss-Newton matrix.

        Returns
        -------
        ndarray of shape (n_blocks,)
            The sums, in float64.
        """
        shape = self.block_shape
        over = [axis for axis, size in enumerate(shape) if size == 1 and self.shape[axis] != 1]
        summed = values.detach().cpu().double()
        if over:
            summed = summed.sum(over, keepdim=True)
        (ends, _), (starts, _) = self._distinct
        blocks = self.blocks.expand(shape).flatten().numpy()
        size = len(ends) * len(starts)
        return np.bincount(blocks, summed.expand(shape).flatten().numpy(), minlength=size)

    def __repr__(self) -> str:
        """Say name, shape and number of blocks."""
        return f"ScaledTensor({self.name}, {self.shape}, {math.prod(self.block_shape)} blocks)"
