r"""Drawn columns in place of all: for many outputs, with a standard error.

For every sample one component of its output Hessian ``H_i = sum_c sigma_c s_c s_c^T`` is drawn with
probability proportional to ``||s_c||**2`` and divided by the root of that probability, so that the
squared gradient is right on average. Where a sample has several positions, each draws a component
of its own with a random sign. Samples and draws are independent: the variance of the mean follows
from the spread of the draws within samples.

Drawing labels from the model's own probabilities, as estimates of the Fisher matrix do, has the
same mean, but for a fitted network nearly always draws the label whose gradient is zero.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest.modules.output_hessian import OutputHessian

_DEGREES = 30  # of freedom that the spread of a pilot needs, so that its size can be relied upon
_MARGIN = 1.2  # by which more is drawn than the pilot's spread asks for


class Draws(OutputHessian):
    """Drawn columns of an output Hessian.

    Parameters
    ----------
    hessian : OutputHessian
        All columns.
    n_draws : int
        How many to draw per sample.
    generator : torch.Generator
        On the CPU.
    """

    def __init__(self, hessian: OutputHessian, n_draws: int, generator: torch.Generator) -> None:
        super().__init__(hessian.shape)
        self._hessian, self._n_draws, self._generator = hessian, n_draws, generator
        weights = hessian.weights()
        # Curvature of either sign is drawn apart: one cotangent has one sign.
        self.signs = [sign for sign in (1, -1) if bool((sign * weights > 0).any())]

    @property
    def n_columns(self) -> int:
        """One per draw, or two where there is curvature of either sign."""
        return self._n_draws * len(self.signs)

    def weights(self) -> Tensor:
        """Return those of what is drawn from."""
        return self._hessian.weights()

    def units(self, chosen: Tensor, samples: slice) -> Tensor:
        """Return components of what is drawn from."""
        return self._hessian.units(chosen, samples)

    def columns(self, which: range, samples: slice) -> tuple[Tensor, Tensor]:
        """Draw afresh, whichever columns are asked for."""
        columns, signs = [], []
        weights = self.weights()[samples]
        n, positions, _ = weights.shape
        for index in which:
            sign = self.signs[index % len(self.signs)]
            sizes = (sign * weights).clamp(min=0)
            total = sizes.sum(dim=-1)
            lots = torch.where(total[..., None] > 0, sizes, 1).flatten(0, 1).cpu()
            chosen = torch.multinomial(lots, 1, generator=self._generator).to(weights.device)
            coins = torch.randint(0, 2, (n, positions), generator=self._generator) * 2 - 1
            factors = (total.sqrt() * coins.to(weights)).reshape(n, positions)
            units = self.units(chosen.reshape(n, positions), samples)
            columns.append(self.spread(factors[..., None] * units, n))
            signs.append(torch.full_like(total[:, 0], sign))
        return torch.stack(columns), torch.stack(signs)

    def spread(self, values: Float[Tensor, "n positions k"], n_samples: int) -> Tensor:
        """Put values by position back into the shape of the logits."""
        return self._hessian.spread(values, n_samples)


class Spread(NamedTuple):
    """Mean and variance of draws, for each tensor and for their sum, which comes last.

    Parameters
    ----------
    mean : Tensor of shape (tensors + 1,)
        Sums over samples of the means over draws.
    variance : Tensor of shape (tensors + 1,)
        Of these sums.
    degrees : float
        Of freedom of the last variance. Where a few samples have nearly all of it, as those that a
        network has not fitted, they are few (Welch 1947, Satterthwaite 1946).
    """

    mean: Float[Tensor, " t"]
    variance: Float[Tensor, " t"]
    degrees: float = math.inf


def spread(values: Float[Tensor, "t draws n"]) -> Spread:
    """Return the mean and the variance of draws that are independent between samples.

    Parameters
    ----------
    values : Tensor of shape (tensors, draws, n)
        The squared gradients of each draw.

    Returns
    -------
    Spread
        Of the sums over samples.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.sampling import spread
    >>> spread(torch.tensor([[[1.0, 4.0], [3.0, 4.0]]])).variance
    tensor([1., 1.])
    """
    values = torch.cat([values, values.sum(dim=0, keepdim=True)])
    n_draws = values.shape[1]
    single = values.var(dim=1)
    # The square of a variance from few draws is too large on average, by (D + 1) / (D - 1).
    squares = float((single[-1] ** 2).sum()) / (n_draws + 1)
    degrees = float(single[-1].sum()) ** 2 / squares if squares > 0 else math.inf
    return Spread(values.mean(dim=1).sum(dim=1), single.sum(dim=1) / n_draws, degrees)


def pilot_draws(n_samples: int) -> int:
    """Return how many draws per sample show the spread well enough: at least two."""
    return 1 + max(1, math.ceil(_DEGREES / n_samples))


def draws_needed(pilot: Spread, n_draws: int, allowed: float) -> int:
    """Return how many draws per sample bring the variance of the sum down to what is allowed.

    As many at the least as it takes for the variance itself to be known well enough.

    Parameters
    ----------
    pilot : Spread
        Of the first draws.
    n_draws : int
        How many these were.
    allowed : float
        The variance of the sum over tensors.

    Returns
    -------
    int
        At least `n_draws`.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.sampling import Spread, draws_needed
    >>> draws_needed(Spread(torch.tensor([10.0]), torch.tensor([1.0])), 2, 0.25)
    10
    """
    least = 1 + math.ceil((n_draws - 1) * max(1.0, _DEGREES / pilot.degrees))
    variance = float(pilot.variance[-1])
    if variance <= allowed or allowed <= 0:
        return least
    return max(least, math.ceil(_MARGIN * n_draws * variance / allowed))
