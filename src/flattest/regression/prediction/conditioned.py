"""A process conditioned on rows, as arrays: what it predicts, and how surely."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.prior import Prior
from flattest.regression.tuning import JITTER

_MANY = 500  # rows for which to invert a matrix with LAPACK takes less time than to load SciPy


class Seen(NamedTuple):
    """The rows that processes are conditioned on: inputs, targets, and how noisy each row is.

    Parameters
    ----------
    X, y : ndarray of shape (n, h) and (n, 1)
        The rows.
    spread : ndarray of shape (n,)
        The variance of each row's noise beside that of a row that counts once.
    """

    X: Float[np.ndarray, "n h"]
    y: Float[np.ndarray, "n 1"]
    spread: Float[np.ndarray, " n"]


class Moments(NamedTuple):
    """The mean and the variance of a function at some points, in two parts.

    Parameters
    ----------
    mean : ndarray of shape (n,)
        The mean.
    variance : ndarray of shape (n,)
        The variance of the function of known directions.
    doubt : ndarray of shape (n,)
        What is added because the directions are not quite known.
    """

    mean: Float[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    doubt: Float[np.ndarray, " n"]


class Conditioned(NamedTuple):
    """A process conditioned on rows: ``mean = k w`` and ``variance = k(x, x) - k C k^T``.

    Parameters
    ----------
    prior : Prior
        The process.
    points : ndarray of shape (m, k)
        The projections of the rows, or of the inducing points, on which ``k`` is evaluated.
    weights : ndarray of shape (m,)
        ``w``.
    explained : ndarray of shape (m, m)
        ``C``; the inverse of the targets' covariance where the conditioning is exact.
    turn, known : ndarray of shape (p, p) and (m, p)
        What is left unknown of the directions: with the columns ``c`` of `Prior.columns` at a new
        point, the squared length of ``c turn - k known`` adds to the variance. No columns where
        rows are so many that it does not count.
    """

    prior: Prior
    points: Float[np.ndarray, "m k"]
    weights: Float[np.ndarray, " m"]
    explained: Float[np.ndarray, "m m"]
    turn: Float[np.ndarray, "p p"]
    known: Float[np.ndarray, "m p"]

    @classmethod
    def exactly(cls, prior: Prior, seen: Seen) -> Conditioned:
        """Condition on rows.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the covariance of the targets is not positive definite.
        """
        z = seen.X @ prior.projection
        K = prior.covariance(z, z)
        jitter = JITTER * float(prior.variances.sum())
        K[np.diag_indices_from(K)] += prior.noise * seen.spread + jitter
        explained, weights = _inverted(K, seen.y[:, 0])
        columns = prior.columns(seen.X, z, z, weights)
        solved = explained @ columns
        inner = np.linalg.cholesky(columns.T @ solved + np.eye(columns.shape[1]))
        turn = np.linalg.inv(inner).T
        return cls(prior, z, weights, explained, turn, solved @ turn)

    def __call__(self, X: Float[np.ndarray, "n h"]) -> Moments:
        """Return the moments of the function, noise not included."""
        z = X @ self.prior.projection
        k = self.prior.covariance(z, self.points)
        explained = np.einsum("ij,ij->i", k @ self.explained, k)
        variance = np.maximum(self.prior.variance(z) - explained, 0)
        doubt = np.zeros_like(variance)
        if self.turn.size:
            columns = self.prior.columns(X, z, self.points, self.weights)
            doubt = np.square(columns @ self.turn - k @ self.known).sum(axis=1)
        inflation = self.prior.inflation
        return Moments(k @ self.weights, inflation * variance, inflation * doubt)


def _inverted(
    K: Float[np.ndarray, "n n"], y: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, " n"]]:
    """Invert a positive definite matrix, which is overwritten, and solve it for targets.

    The solution comes from the factor: where noise is small, the inverse has lost many digits.
    """
    if len(K) < _MANY:
        half = np.linalg.inv(np.linalg.cholesky(K))
        return half.T @ half, half.T @ (half @ y)
    from scipy.linalg import lapack

    # LAPACK counts along columns first: to it, our upper triangle is the lower one.
    factor, fault = lapack.dpotrf(K.T, lower=1, overwrite_a=1)
    if fault:
        raise np.linalg.LinAlgError("a covariance matrix is not positive definite")
    weights = lapack.dpotrs(factor, y, lower=1)[0]
    inverse = lapack.dpotri(factor, lower=1, overwrite_c=1)[0].T
    return np.triu(inverse) + np.triu(inverse, 1).T, weights
