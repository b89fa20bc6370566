"""Training data of a regression: distinct rows, how much each counts, and standard units.

A row that counts ``w`` times is one row with the weight ``w``: neither the order of the data nor
repetitions matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.regression.prediction.standardisation import Standardisation
from flattest.two_layer.networks import TwoLayerNet, append_bias_coordinate

_ROWS = 8192  # evaluated together, to bound the memory


class Rows(NamedTuple):
    """The distinct rows of a data set in sorted order, and how the rows given map to them.

    Parameters
    ----------
    X, y : ndarray of shape (n, d) and (n,)
        The distinct rows.
    weight : ndarray of shape (n,)
        How much each counts, of mean 1.
    position : ndarray of shape (g,)
        For each row given the distinct row that it is equal to; -1 where its weight is 0, or where
        it was left out.
    given : ndarray of shape (g,)
        The weights as they were given.
    place : ndarray of shape (n,) or None
        For a part, the positions of its rows among the distinct ones of the whole.
    """

    X: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    position: np.ndarray
    given: Float[np.ndarray, " g"]
    place: Int[np.ndarray, " n"] | None = None

    @classmethod
    def of(cls, X: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Rows:
        """Sort the rows and merge equal ones."""
        counted = np.flatnonzero(weight > 0)
        table = np.column_stack([X, y])[counted]
        order = np.lexsort(table.T)
        table = table[order]
        new = np.append(True, (table[1:] != table[:-1]).any(axis=1))
        position = np.cumsum(new) - 1
        total = np.bincount(position, weight[counted[order]])
        index = np.full(len(X), -1)
        index[counted[order]] = position
        distinct = table[new]
        X, y = np.ascontiguousarray(distinct[:, :-1]), distinct[:, -1].copy()
        return cls(X, y, total / total.mean(), index, weight)

    def without(self, left_out: np.ndarray) -> Rows:
        """Leave some of the distinct rows out."""
        if not left_out.any():
            return self
        kept = ~left_out
        index = np.where(kept, np.cumsum(kept) - 1, -1)
        weight = self.weight[kept]
        index = np.where(self.position < 0, -1, index[self.position])
        return Rows(self.X[kept], self.y[kept], weight / weight.mean(), index, self.given)

    def part(self, index: np.ndarray) -> Rows | None:
        """Take some of the rows given; None where none of them counts."""
        position = self.position[index]
        counted = index[position >= 0]
        total = np.bincount(self.position[counted], self.given[counted], minlength=len(self.y))
        chosen = total > 0
        if not chosen.any():
            return None
        renamed = np.where(chosen, np.cumsum(chosen) - 1, -1)
        return Rows(
            self.X[chosen],
            self.y[chosen],
            total[chosen] / total[chosen].mean(),
            np.where(position < 0, -1, renamed[position]),
            self.given[index],
            np.flatnonzero(chosen),
        )


class TrainingData(NamedTuple):
    """Rows in standard units, as tensors, and a basis of the features' span.

    Parameters
    ----------
    standardise : Standardisation
        The units.
    inputs, target, weight : Tensor of shape (n, d), (n,) and (n,)
        The rows.
    basis : Tensor of shape (d, r)
        The features themselves where they are linearly independent, otherwise an orthonormal basis
        of what they span.
    """

    standardise: Standardisation
    inputs: Float[Tensor, "n d"]
    target: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    basis: Float[Tensor, "d r"]

    @classmethod
    def of(cls, rows: Rows, *, bias: bool, device: torch.device) -> TrainingData:
        """Standardise rows, centred where there is a bias."""
        standardise = Standardisation.of(rows.X, rows.y, rows.weight, centred=bias)
        inputs, target, weight = _tensors(standardise, rows, device)
        _, S, Vh = torch.linalg.svd(inputs, full_matrices=False)
        rank = int((S > S[0] * max(inputs.shape) * torch.finfo(S.dtype).eps).sum())
        axes = torch.eye(inputs.shape[1]).to(inputs)[:, standardise.inverse_scale > 0]
        basis = axes if 0 < rank == axes.shape[1] else Vh[: max(rank, 1)].T
        return cls(standardise, inputs, target, weight, basis)

    def with_rows(self, rows: Rows) -> TrainingData:
        """Return other rows in the same units."""
        inputs, target, weight = _tensors(self.standardise, rows, self.inputs.device)
        return self._replace(inputs=inputs, target=target, weight=weight)

    def take(self, rows: Tensor) -> TrainingData:
        """Return some of the rows in the same units."""
        return self._replace(
            inputs=self.inputs[rows], target=self.target[rows], weight=self.weight[rows]
        )

    @property
    def has_axes(self) -> bool:
        """Whether the basis consists of the features themselves."""
        return bool((self.basis != 0).sum(0).max() <= 1)

    @property
    def varies(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.target.any()) and bool(self.inputs.any())

    def weighted(
        self, inputs: Float[Tensor, "n h"], bias: bool, degree: float
    ) -> tuple[Float[Tensor, "n h1"], Float[Tensor, " n"]]:
        """Return inputs and targets on which plain loss and flatness are the weighted ones.

        A homogeneous network of degree ``p`` has ``f(c x) = c^p f(x)``, and the squared norm of its
        gradient in the parameters grows by ``c^2p``: ``w^(1/2p) x`` with the target ``w^(1/2) y``
        counts ``w`` times.
        """
        factor = self.weight.pow(1 / (2 * degree))[:, None]
        return with_bias(inputs, bias) * factor, self.target * self.weight.sqrt()


def _tensors(standardise: Standardisation, rows: Rows, device: torch.device) -> list[Tensor]:
    """Return inputs, targets and weights, the first two standardised."""
    each = standardise(rows.X), rows.y - standardise.intercept, rows.weight
    return [torch.from_numpy(values).to(device) for values in each]


def with_bias(inputs: Float[Tensor, "n d"], bias: bool) -> Float[Tensor, "n d1"]:
    """Append the bias coordinate, if there is one."""
    return append_bias_coordinate(inputs) if bias else inputs


def evaluate(net: TwoLayerNet, inputs: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Evaluate a network on standardised inputs, with the bias coordinate if it has one."""
    bias = net.n_features > inputs.shape[1]
    with torch.no_grad():
        return torch.cat([net(with_bias(block, bias)) for block in inputs.split(_ROWS)])
