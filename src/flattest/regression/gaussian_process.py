"""Gaussian processes of a few linear combinations of the features, and the rows they are fitted to.

The combinations are parameters of the kernel, like the noise (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, chapter 5). `evidence` has the marginal likelihood, `occam`
what fitted combinations cost, `process_fit` maximises, and `posterior` conditions on rows.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.kernels import kernel


class Process(NamedTuple):
    r"""A Gaussian process of ``z = B^T x`` with noise.

    .. math::
        k(x, x') = v \, \kappa(|z - z'|^2) \quad\text{or, additive,}\quad
        \sum_l v_l \, \kappa\big((z_l - z'_l)^2\big);

    the shape ``"linear"`` stands for ``v z . z'``, which may also be added to another one, a trend.

    Parameters
    ----------
    shape : str
        The kernel.
    projection : Tensor of shape (d, k)
        ``B``.
    variances : Tensor of shape (q,)
        One per term of the kernel.
    noise : float
        The variance of the noise of a row that counts once.
    additive : bool
        Whether it is a sum of functions of one column each.
    free : {"projection", "lengths", "scale"}
        What of the projection is fitted: all of it, its columns' lengths, or one common factor.
    trend : bool
        Whether a linear function is added; its variance is the last one.
    evidence : float
        The log marginal likelihood of the data that it was fitted to.
    spent : float
        The degrees of freedom that its directions had taken where its last fit began.
    score : float
        The evidence less the price of the parameters (see `occam`), and corrected.
    correction : float
        What rows held out changed of the score (see `refits`).
    inflation : float
        How much larger the squares of the errors of such rows were than expected; all variances
        are that much larger.
    converged : bool
        Whether the fit came to a maximum.
    """

    shape: str
    projection: Float[Tensor, "d k"]
    variances: Float[Tensor, " q"]
    noise: float
    additive: bool = False
    free: Literal["projection", "lengths", "scale"] = "projection"
    trend: bool = False
    evidence: float = -math.inf
    spent: float = 0.0
    score: float = -math.inf
    correction: float = 0.0
    inflation: float = 1.0
    converged: bool = False

    @property
    def n_directions(self) -> int:
        """The number of combinations."""
        return self.projection.shape[1]

    @property
    def n_parameters(self) -> int:
        """The number of parameters fitted, less the turns of the projection that change nothing."""
        d, k = self.projection.shape
        turns = 0 if self.additive else k * (k - 1) // 2
        free = {"projection": d * k - turns, "lengths": k, "scale": 1}[self.free]
        return free + len(self.variances) + 1

    @property
    def terms(self) -> list[tuple[str, slice]]:
        """The kernels that are added, and the coordinates of ``z`` on which each depends."""
        each = [slice(i, i + 1) for i in range(self.n_directions)]
        parts = each if self.additive else [slice(None)]
        return [(self.shape, part) for part in parts] + [("linear", slice(None))] * self.trend

    def covariance(self, z: Tensor, others: Tensor) -> Tensor:
        """Return the kernel between projected points."""
        total = z.new_zeros(*z.shape[:-1], others.shape[-2])
        for v, (shape, part) in zip(self.variances, self.terms, strict=True):
            here = z[..., part]
            there = here if others is z else others[..., part]
            total.addcmul_(kernel(shape, here, there)[0], v)
        return total

    def prior(self, z: Tensor) -> Tensor:
        """Return the prior variance at projected points."""
        total = z.new_zeros(z.shape[:-1])
        for v, (shape, _) in zip(self.variances, self.terms, strict=True):
            total += v * z.square().sum(-1) if shape == "linear" else v
        return total

    @property
    def variance(self) -> float:
        """The sum of the variances."""
        return float(self.variances.sum())

    @property
    def restricted(self) -> float:
        """The evidence with the noise corrected for the degrees of freedom of the directions."""
        return self.evidence + self.spent / 2 * math.log(self.noise)


class Data(NamedTuple):
    """Inputs, targets, and how noisy each row is beside one that counts once.

    A row that counts ``w`` times has the noise variance of a mean of ``w``: its `spread` is
    ``1 / w``. Leading dimensions are blocks.
    """

    X: Float[Tensor, "*b n d"]
    y: Float[Tensor, "*b n 1"]
    spread: Float[Tensor, "*b n"]

    @classmethod
    def of(
        cls, X: Float[Tensor, "n d"], y: Float[Tensor, " n"], weight: Float[Tensor, " n"]
    ) -> Data:
        """Make a single block of rows with their weights."""
        return cls(X, y[:, None], 1 / weight)

    def to(self, dtype: torch.dtype) -> Data:
        """Return the same rows in another precision."""
        return Data(*(values.to(dtype) for values in self))

    def take(self, rows: Tensor) -> Data:
        """Return some of the rows."""
        return Data(self.X[rows], self.y[rows], self.spread[rows])

    def blocks(self, size: int) -> Data:
        """Cut into as few equal blocks as are needed, none larger than the size.

        The few rows that do not fill a block of their own are left over.
        """
        n = len(self.y)
        b = -(-n // size)
        m = n // b
        return Data(
            self.X[: b * m].reshape(b, m, -1),
            self.y[: b * m].reshape(b, m, 1),
            self.spread[: b * m].reshape(b, m),
        )

    def cut(self, least: int) -> Data:
        """Cut each block into as many equal parts as can have that many rows.

        The few rows that do not fill a part are left out.
        """
        n = self.y.shape[1]
        parts = max(n // least, 1)
        m = n // parts
        return Data(
            *(values[:, : parts * m].unflatten(1, (parts, m)).flatten(0, 1) for values in self)
        )
