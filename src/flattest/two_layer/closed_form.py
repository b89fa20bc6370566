r"""The trace of a two-layer network's Hessian, summed exactly in one pass over the data.

With ``z = X W^T`` and the loss ``(1/n) sum_i (f(x_i) - y_i)**2``, neuron ``j`` contributes to the
trace ``2 (A_j + B_j + R_j)``, where

.. math::
    A_j = \tfrac1n \sum_i s(z_{ij})^2, \quad
    B_j = \tfrac1n \sum_i a_j^2 s'(z_{ij})^2 \|x_i\|^2, \quad
    R_j = \tfrac1n \sum_i (f(x_i) - y_i)\, a_j s''(z_{ij}) \|x_i\|^2 .

One matrix product and elementwise work give all of it, block of rows by block of rows. Powers of
two are split off weights, coefficients and data beforehand: this costs no rounding, and it keeps
every intermediate sum in range however badly the network is scaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.two_layer.networks import TwoLayerNet

_ENTRIES_CPU = 1 << 18  # pre-activations per block: a few buffers of this size stay in cache
_ENTRIES_ACCELERATOR = 1 << 25
_FEWEST_ROWS = 256  # below this the matrix product loses speed


def orbit_minimum(
    A: Float[Tensor, " m"], B: Float[Tensor, " m"], degree: float
) -> Float[Tensor, " m"]:
    r"""Minimum over ``c > 0`` of ``c**(2p) A_j + c**-2 B_j``, per neuron.

    .. math:: (1 + p) \, p^{-p/(p+1)} A_j^{1/(p+1)} B_j^{p/(p+1)}

    Parameters
    ----------
    A, B : Tensor of shape (m,)
        Mean squared gradients for the coefficients and for the weights.
    degree : float
        The degree ``p``.

    Returns
    -------
    Tensor of shape (m,)
        The minima; 0 where `A` or `B` is 0 (an infimum, not attained for finite ``c``).

    Examples
    --------
    >>> import torch
    >>> from flattest.two_layer.closed_form import orbit_minimum
    >>> orbit_minimum(torch.tensor([4.0]), torch.tensor([9.0]), 1.0)
    tensor([12.])
    """
    p = degree
    factor = (1 + p) * p ** (-p / (p + 1))
    return factor * A.pow(1 / (p + 1)) * B.pow(p / (p + 1))


def orbit_scales(
    A: Float[Tensor, " m"], B: Float[Tensor, " m"], degree: float
) -> Float[Tensor, " m"]:
    r"""Scales ``c_j`` that reach the orbit minimum, :math:`(B_j / (p A_j))^{1/(2p+2)}`.

    Parameters
    ----------
    A, B : Tensor of shape (m,)
        Mean squared gradients for the coefficients and for the weights.
    degree : float
        The degree ``p``.

    Returns
    -------
    Tensor of shape (m,)
        The scales; 1 where `A` or `B` is 0, since no scale is best there.

    Examples
    --------
    >>> import torch
    >>> from flattest.two_layer.closed_form import orbit_scales
    >>> orbit_scales(torch.tensor([1.0, 0.0]), torch.tensor([16.0, 1.0]), 1.0)
    tensor([2., 1.])
    """
    # Powers before the quotient: it may leave the floating-point range, its root does not.
    power = 1 / (2 * degree + 2)
    alive = (A > 0) & (B > 0)
    return torch.where(alive, B.pow(power) / (degree * A).pow(power), torch.ones_like(A))


@dataclass(frozen=True)
class NeuronSums:
    """Everything one pass over the data yields; per-neuron tensors are float64, of shape (m,).

    Parameters
    ----------
    outer, inner : Tensor of shape (m,)
        ``A_j`` and ``B_j``.
    residual : Tensor of shape (m,)
        ``R_j``.
    orbit_minimum, scale : Tensor of shape (m,)
        Minimum of ``2 (A_j + B_j)`` over the rescalings of the neuron, and where it is.
    reflected, reflected_orbit_minimum : Tensor of shape (m,)
        ``2 (A_j + B_j)`` averaged over the data and their negatives, and its orbit minimum.
    loss : float
        Mean squared error (0 where no targets were given).
    bound_sum : float
        ``sum_i (||x_i|| |f(x_i)|)**(2p/(p+1))``, which the lower bound needs.
    n_samples : int
        The number of samples ``n``.
    """

    outer: Float[Tensor, " m"]
    inner: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    orbit_minimum: Float[Tensor, " m"]
    scale: Float[Tensor, " m"]
    reflected: Float[Tensor, " m"]
    reflected_orbit_minimum: Float[Tensor, " m"]
    loss: float
    bound_sum: float
    n_samples: int


class Accumulator:
    """Sums over samples, fed batch by batch.

    Parameters
    ----------
    net : TwoLayerNet
        The network, in float32 or float64; it is not modified.
    chunk_size : int, optional
        Rows per block; by default as many as stay in the processor's cache.

    Examples
    --------
    >>> import torch
    >>> import flattest as ft
    >>> from flattest.two_layer.closed_form import Accumulator
    >>> sums = Accumulator(ft.TwoLayerNet([[2.0]], [1.0], "relu"))
    >>> sums.add(torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    >>> sums.result().outer
    tensor([2.], dtype=torch.float64)
    """

    @torch.no_grad()
    def __init__(self, net: TwoLayerNet, chunk_size: int | None = None) -> None:
        w, a = net.weights.detach(), net.coefficients.detach()
        p = net.degree
        self.activation = net.activation
        self._slopes = (net.activation.positive, net.activation.negative)
        self.width, self.n_features = net.width, net.n_features
        self.dtype, self.device = w.dtype, w.device
        self.chunk_size = chunk_size or self._default_chunk_size()

        # w_j = 2**k_j * unit weight and a_j = 2**l_j * mantissa, exactly.
        self._w_exponent = _exponent(w.abs().amax(dim=1))
        self._a_exponent = _exponent(a)
        self._unit_weights = _times_power_of_two(w, -self._w_exponent[:, None])
        self._mantissa = _times_power_of_two(a.double(), -self._a_exponent)
        # f(x) = 2**top * sum_j relative_j s(unit weight_j . x), the largest |relative| near 1.
        reach = self._a_exponent + p * self._w_exponent
        reach = torch.where((a == 0) | (w == 0).all(dim=1), -math.inf, reach)
        self._top = max(reach.max().item(), -1e6)
        self._relative = (self._mantissa * torch.exp2(reach - self._top)).to(self.dtype)

        self._data_exponent: int | None = None  # of the first block that is not all zero
        self._n_samples = 0
        self._loss = self._bound_sum = 0.0
        self._power_sums = self._zeros(2)  # sum_i |z|**(2p) where z > 0, and where z < 0
        self._slope_sums = self._zeros(2)  # sum_i |z|**(2p-2) ||x||**2, likewise
        self._kink_sum = self._zeros()  # sum_i ||x||**2 where z = 0
        # Or, for p = 1, by the side of the steeper slope, which is number `_steep`: its sums of
        # z**2, those over all samples, its sums of ||x||**2, and the sum of these over all samples.
        self._steep = int(abs(self._slopes[1]) > abs(self._slopes[0]))
        self._steep_sums = self._zeros(3)
        self._steep_weight = self._zeros()[0]
        self._curvature_sum = self._zeros()  # sum_i r_i s''(z) ||x||**2

    @torch.no_grad()
    def add(self, X: Float[Tensor, "n d"], y: Float[Tensor, " n"] | None = None) -> None:
        """Add samples, and the residuals of their targets where given.

        Parameters
        ----------
        X : Tensor of shape (n, d)
            Finite, of the network's dtype and device.
        y : Tensor of shape (n,), optional
            Finite targets. Without them the residual part and the loss stay 0.
        """
        rows = min(self.chunk_size, len(X))
        buffers = torch.empty(7, rows, self.width, dtype=self.dtype, device=self.device)
        found = []
        for start in range(0, len(X), rows):
            block = X[start : start + rows]
            targets = None if y is None else y[start : start + rows]
            found.append(self._add_block(block, targets, buffers[:, : len(block)]))
        f, norms = (torch.cat(parts) for parts in zip(*found, strict=True))
        p = self.activation.degree
        self._bound_sum += (norms * f.abs()).pow(2 * p / (p + 1)).sum().item()
        if y is not None:
            self._loss += (f - y).square().sum().item()
        self._n_samples += len(X)

    def _add_block(
        self, X: Float[Tensor, "n d"], y: Float[Tensor, " n"] | None, buffers: Tensor
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Add the sums of a block; return its outputs and the norms of its inputs, in float64."""
        p = self.activation.degree
        norms2 = _squared_norms(X)
        e = self._block_exponent(X, norms2)
        if e:
            X = _times_power_of_two(X, torch.tensor(-e, device=self.device))
            norms2 = _squared_norms(X)
        shift = _exp2(2 * p * (e - self._reference_exponent))
        weight = norms2.to(self.dtype)
        norms2 = norms2.double()

        z = buffers[0]
        torch.mm(X, self._unit_weights.T, out=z)
        output = self._add_one_side(X, z, buffers[1], weight, shift) if p == 1 else None
        if output is None:
            output = self._add_both_sides(z, buffers, weight, shift)

        f = output.double() * _exp2(self._top + p * e)
        if p > 1 and y is not None:
            self._add_curvature(z, buffers[1:3], buffers[3:5], f - y, norms2, e)
        return f, norms2.sqrt() * _exp2(e)

    def _add_one_side(
        self,
        X: Float[Tensor, "n d"],
        z: Float[Tensor, "n m"],
        scratch: Float[Tensor, "n m"],
        weight: Float[Tensor, " n"],
        shift: float,
    ) -> Tensor | None:
        """Add the sums for p = 1 and return the outputs, by one side of the kink.

        The other side's sums are what is left of those over all samples. The side worked on is that
        of the steeper slope, so that what the difference loses by rounding is small beside it. With
        a pre-activation of exactly 0, which is on neither side, nothing is done: None.
        """
        ones = torch.ones_like(weight)
        torch.mul(z, z, out=scratch)
        if scratch.amin() == 0:
            return None
        powers = scratch.T @ ones
        slope, other = self._slopes[self._steep], self._slopes[1 - self._steep]
        output = torch.zeros_like(weight)
        if other != 0:
            # s(z) = slope side + other (side - sign z), where side is max(sign z, 0).
            sign = -1 if self._steep else 1
            along = X @ (self._unit_weights.T @ self._relative)
            output.add_(along, alpha=-sign * other)
        side = torch.clamp(z, max=0, out=z).neg_() if self._steep else torch.clamp(z, min=0, out=z)
        output.add_(side @ self._relative, alpha=slope + other)
        gates = torch.sign(side, out=scratch).T @ weight
        own = torch.mul(side, side, out=side).T @ ones
        self._steep_sums += shift * torch.stack([own, powers, gates]).double()
        self._steep_weight += shift * weight.sum(dtype=torch.float64)
        return output

    def _add_both_sides(
        self, z: Float[Tensor, "n m"], buffers: Tensor, weight: Float[Tensor, " n"], shift: float
    ) -> Tensor:
        """Add the sums for any degree and return the outputs, by both sides of the kink at once."""
        p = self.activation.degree
        # `sides` holds max(z, 0) and max(-z, 0).
        sides, scratch, squares = buffers[1:3], buffers[3:5], buffers[5:]
        torch.clamp(z, min=0, out=sides[0])
        torch.sub(sides[0], z, out=sides[1])
        below = _power_into(sides, p - 1, scratch)
        squared = below if p == 1 else torch.mul(below, below, out=squares)
        self._slope_sums += shift * _weighted_sums(squared, weight)
        power = sides if p == 1 else torch.mul(below, sides, out=scratch)
        output = torch.zeros_like(weight)
        for side, slope in enumerate(self._slopes):
            if slope != 0:
                output.add_(power[side] @ self._relative, alpha=slope)
        squared = torch.mul(power, power, out=scratch if p == 1 else squares)
        self._power_sums += shift * _weighted_sums(squared, torch.ones_like(weight))
        if self.activation.slope_at_zero != 0:
            at_zero = torch.eq(z, 0, out=scratch[0])
            self._kink_sum += shift * (at_zero.T @ weight).double()
        return output

    def _add_curvature(
        self,
        z: Float[Tensor, "n m"],
        sides: Float[Tensor, "2 n m"],
        scratch: Float[Tensor, "2 n m"],
        r: Float[Tensor, " n"],
        norms2: Float[Tensor, " n"],
        e: int,
    ) -> None:
        """Add ``sum_i r_i s''(z_ij) ||x_i||**2`` with the residuals scaled into range."""
        p = self.activation.degree
        largest = r.abs().max().item()
        if largest == 0:
            return
        weight = (r / largest * norms2).to(self.dtype)
        block = self._zeros()
        for side, slope in enumerate(self._slopes):
            if slope != 0:
                power = _power_into(sides[side], p - 2, scratch[side])
                block += p * (p - 1) * slope * (power.T @ weight).double()
        if self.activation.curvature_at_zero != 0:
            at_zero = torch.eq(z, 0, out=scratch[0])
            block += self.activation.curvature_at_zero * (at_zero.T @ weight).double()
        self._curvature_sum += largest * _exp2(p * (e - self._reference_exponent)) * block

    @torch.no_grad()
    def result(self) -> NeuronSums:
        """Return the means over all samples added so far.

        Returns
        -------
        NeuronSums
            Per neuron and in total.
        """
        p, n = self.activation.degree, self._n_samples
        slopes2 = torch.tensor(self._slopes, dtype=torch.float64, device=self.device).square()
        mean2 = slopes2.mean()
        k, l, e = self._w_exponent, self._a_exponent, self._reference_exponent  # noqa: E741
        a2 = self._mantissa.square()

        # The sums of the network with unit weights and mantissas, then the powers of two.
        power_sums, slope_sums = self._power_sums.clone(), self._slope_sums.clone()
        own, powers, gates = self._steep_sums
        power_sums[self._steep] += own
        power_sums[1 - self._steep] += (powers - own).clamp(min=0)
        slope_sums[self._steep] += gates
        slope_sums[1 - self._steep] += (self._steep_weight - gates).clamp(min=0)
        kink = self.activation.slope_at_zero**2 * self._kink_sum
        A = slopes2 @ power_sums / n
        B = a2 * (p**2 * (slopes2 @ slope_sums) + kink) / n
        reflected_A = mean2 * power_sums.sum(0) / n
        reflected_B = a2 * (p**2 * mean2 * slope_sums.sum(0) + kink) / n
        to_A = 2 * p * (k + e)
        to_B = 2 * l + (2 * p - 2) * k + 2 * p * e
        to_minimum = 2 * p * (l + p * k) / (p + 1) + 2 * p * e
        minimum = 2 * orbit_minimum(A, B, p)
        scale = _times_power_of_two(orbit_scales(A, B, p), (l - k) / (p + 1))
        reflected_minimum = 2 * orbit_minimum(reflected_A, reflected_B, p)
        return NeuronSums(
            outer=_times_power_of_two(A, to_A),
            inner=_times_power_of_two(B, to_B),
            residual=_times_power_of_two(
                self._mantissa * self._curvature_sum / n, l + (p - 2) * k + p * e
            ),
            orbit_minimum=_times_power_of_two(minimum, to_minimum),
            scale=torch.where((A > 0) & (B > 0), scale, torch.ones_like(scale)),
            reflected=_times_power_of_two(2 * reflected_A, to_A)
            + _times_power_of_two(2 * reflected_B, to_B),
            reflected_orbit_minimum=_times_power_of_two(reflected_minimum, to_minimum),
            loss=self._loss / n,
            bound_sum=self._bound_sum,
            n_samples=n,
        )

    def _block_exponent(self, X: Float[Tensor, "n d"], norms2: Float[Tensor, " n"]) -> int:
        """Return the power of two to divide a block by: 0 unless its scale is unusual."""
        largest = norms2.max().item() ** 0.5
        if not 1e-15 < largest < 1e15:  # squares may have left the range
            largest = X.abs().max().item()
        if largest == 0:
            return self._reference_exponent
        exponent = math.frexp(largest)[1]
        exponent = exponent if abs(exponent) * self.activation.degree > 12 else 0
        if self._data_exponent is None:
            self._data_exponent = exponent
        return exponent

    @property
    def _reference_exponent(self) -> int:
        """The power of two in which the sums over the data are held."""
        return self._data_exponent or 0

    def _default_chunk_size(self) -> int:
        entries = _ENTRIES_CPU if self.device.type == "cpu" else _ENTRIES_ACCELERATOR
        return max(_FEWEST_ROWS, entries // max(self.width, self.n_features // 16))

    def _zeros(self, *leading: int) -> Tensor:
        return torch.zeros(*leading, self.width, dtype=torch.float64, device=self.device)


def _exponent(values: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return, in float64, the powers of two k with |value| in [2**(k-1), 2**k); 0 for 0."""
    return torch.frexp(values.double()).exponent.double()


def _times_power_of_two(values: Tensor, exponent: Tensor) -> Tensor:
    """Return values * 2**exponent, in two steps because 2**exponent itself may overflow."""
    bounded = exponent.double().clamp(-2000, 2000)  # beyond, any number but 0 leaves the range
    half = (bounded / 2).floor()
    scaled = values.double() * torch.exp2(half) * torch.exp2(bounded - half)
    return scaled.to(values.dtype)


def _exp2(exponent: float | int) -> float:
    """Return 2**exponent, infinity where that overflows."""
    return 2.0**exponent if exponent < 1024 else math.inf


def _squared_norms(X: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (X * X).sum(dim=1)


def _weighted_sums(
    values: Float[Tensor, "2 n m"], weight: Float[Tensor, " n"]
) -> Float[Tensor, "2 m"]:
    """Return the sums over samples, one matrix-vector product per side, in float64."""
    return torch.stack([side.T @ weight for side in values]).double()


def _power_into(base: Float[Tensor, "..."], power: float, out: Tensor) -> Tensor:
    """Return base**power for base >= 0, with 0 where base is 0; may return or overwrite `base`."""
    if power == 0:
        return torch.sign(base, out=out)
    if power == 1:
        return base
    if power == 2:
        return torch.mul(base, base, out=out)
    if power > 0:
        return torch.pow(base, power, out=out)
    # For p < 2 the curvature is infinite at 0 and counts as 0 there; arithmetic is much faster
    # than a mask.
    smallest = torch.finfo(base.dtype).tiny
    return torch.clamp(base, min=smallest, out=out).pow_(power).mul_(base.sign_())
