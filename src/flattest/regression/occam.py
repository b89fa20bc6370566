r"""What fitted directions cost: degrees of freedom, a price, and certainty.

The projection ``B`` of a process is fitted to the rows that it explains. To first order in its
error ``delta``, the targets are

.. math::
    y = f(B^T x) + J \delta + \text{noise}, \qquad J_{i,al} = x_{ia} \, \partial_l f(B^T x_i),
    \qquad \delta \sim N(0, S),

a Gaussian process with explicit basis functions (Rasmussen and Williams, 2006, section 2.7), where
``S`` says how large the entries of ``B`` are in the first place. Everything here follows from that
linear model: how many degrees of freedom the directions take, by how much the evidence of the rows
shrinks if all directions are averaged over and not only the best ones counted (MacKay's Occam
factor: sharp maxima, as of directions that follow noise, are worth less than flat ones), and by how
much predictions are less sure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.cholesky import solve
from flattest.regression.evidence import IMPOSSIBLE, Factored, factorise, slopes_of_mean
from flattest.regression.gaussian_process import Data, Process


def design(
    process: Process,
    X: Float[Tensor, "*b n d"],
    z: Float[Tensor, "*b n k"],
    points: Float[Tensor, "*b m k"],
    weights: Float[Tensor, "*b m 1"],
) -> Float[Tensor, "*b n p"]:
    """Return ``J S^(1/2)`` for the posterior mean ``k(z, points) weights``.

    Parameters
    ----------
    process : Process
        The process. One column per entry of the projection, whose prior is as large as the others
        of its column; where only lengths were fitted, one per logarithm of a length, of prior size
        1; where only the scale was, one.
    X : Tensor of shape (..., n, d)
        Rows.
    z : Tensor of shape (..., n, k)
        Their projections.
    points, weights : Tensor of shape (..., m, k) and (..., m, 1)
        The mean.

    Returns
    -------
    Tensor of shape (..., n, p)
        The columns.
    """
    slopes = slopes_of_mean(process, z, points, weights)
    if process.free == "scale":
        return (slopes * z).sum(-1, keepdim=True)
    if process.free == "lengths":
        return slopes * z
    sizes = process.projection.square().mean().sqrt()
    return (X[..., :, None] * (slopes * sizes)[..., None, :]).flatten(-2)


class Linearised(NamedTuple):
    """The linear model of the directions' errors on data.

    Parameters
    ----------
    columns : Tensor of shape (b, n, p)
        ``J S^(1/2)``.
    solved : Tensor of shape (b, n, p)
        ``K^-1 J S^(1/2)``.
    factor : Tensor of shape (p, p)
        The Cholesky factor of ``I + S^(1/2) J^T K^-1 J S^(1/2)``, summed over the blocks.
    """

    columns: Float[Tensor, "b n p"]
    solved: Float[Tensor, "b n p"]
    factor: Float[Tensor, "p p"]

    @classmethod
    def of(cls, process: Process, data: Data, factored: Factored) -> Linearised:
        """Linearise about a process with a factorised covariance."""
        columns = design(process, data.X, factored.z, factored.z, factored.weights)
        solved = solve(factored.factor, columns)
        inner = (columns.mT @ solved).sum(0)
        inner.diagonal().add_(1)
        return cls(columns, solved, torch.linalg.cholesky(inner))

    @property
    def log_shrinkage(self) -> float:
        """Half the log determinant: by how much the evidence shrinks."""
        return float(self.factor.diagonal().log().sum())


def degrees_of_freedom(data: Data, process: Process) -> float:
    r"""Return how many rows' worth of noise the directions of a process have followed.

    .. math::
        \nu = \operatorname{tr}\big[(S^{-1} + J^T K^{-1} J)^{-1} J^T K^{-1} N K^{-1} J\big],

    ``N`` being the covariance of the noise: twice the slope of the log shrinkage in minus the
    logarithm of the noise variance.

    Parameters
    ----------
    data : Data
        The rows.
    process : Process
        The process; 0 unless all of its projection is fitted.

    Returns
    -------
    float
        Between 0 and the number of entries.
    """
    if process.free != "projection":
        return 0.0
    factored = factorise(data, process)
    if factored is None:
        return float(process.projection.numel())
    linear = Linearised.of(process, data, factored)
    noisy = linear.solved * (process.noise * data.spread)[..., None]
    return float(torch.cholesky_solve((linear.solved.mT @ noisy).sum(0), linear.factor).trace())


def scored(data: Data, process: Process, factored: Factored | None = None) -> Process:
    r"""Return a process with its evidence and its score.

    .. math::
        \text{score} = \log p(y) - \tfrac12 \log\det(I + S J^T K^{-1} J) - \tfrac p2
        - \tfrac{q + 1}2 \log n

    The second term averages over the ``p`` parameters of the projection (turns that change nothing
    apart) instead of counting the best ones alone, the third is what entries of the usual size cost
    under their prior, the last is Schwarz's price of the ``q`` variances and the noise. Lengths at
    given directions have Schwarz's price as well. With fewer than two rows per parameter the linear
    model says nothing, and the score is minus infinity. What rows held out say is added (`refits`).

    Parameters
    ----------
    data : Data
        The rows.
    process : Process
        The process.
    factored : Factored, optional
        Its covariance, where that is factorised already.

    Returns
    -------
    Process
        The same with `evidence` and `score`.
    """
    factored = factored or factorise(data, process)
    if factored is None:
        return process._replace(evidence=IMPOSSIBLE, score=-math.inf)
    n, p, rest = data.y.numel(), process.n_parameters, len(process.variances) + 1
    if 2 * p > n:
        return process._replace(evidence=factored.evidence, score=-math.inf)
    if process.free == "projection":
        shrinkage = Linearised.of(process, data, factored).log_shrinkage
        price = shrinkage + (p - rest) / 2 + rest * math.log(n) / 2
    else:
        price = p * math.log(n) / 2
    score = factored.evidence - price + process.correction
    return process._replace(evidence=factored.evidence, score=score)
