"""Outliers among the targets: who is suspected, and how likely each target is.

Everything here takes arrays and returns arrays; `robust_fit` decides what is fitted.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from flattest.regression.tuning import (
    EXTREME_IN_QUARTILE_RANGES,
    FAR_IN_DEVIATIONS,
    FAR_IN_ERRORS,
    OUTLIER_SHARE,
    VERY_FAR_IN_DEVIATIONS,
    VERY_FAR_IN_RESIDUALS,
)


def extreme(values: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Suspect values far from their median, whatever a fit says of them: it may follow them."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return np.abs(values - middle) > EXTREME_IN_QUARTILE_RANGES * (high - low)


def suspects(
    residual: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    others: Float[np.ndarray, " m"],
) -> Bool[np.ndarray, " n"]:
    """Suspect targets far from what the other rows predict.

    Parameters
    ----------
    residual, error : ndarray of shape (n,)
        Residuals of a fit without the row itself, and their standard errors.
    others : ndarray of shape (m,)
        The targets that the fit has seen, in the same units.

    Returns
    -------
    ndarray of bool, of shape (n,)
        Those that are far in units of their own error, or very far in units of what is usual: a
        process that follows an outlier becomes rough there, and unsure.
    """
    size, spread = np.abs(residual), others.std()
    far = beyond(FAR_IN_ERRORS, size / error) & (size > FAR_IN_DEVIATIONS * spread)
    very_far = beyond(VERY_FAR_IN_RESIDUALS, size) & (size > VERY_FAR_IN_DEVIATIONS * spread)
    return far | very_far


def still_odd(
    left_out: Bool[np.ndarray, " n"],
    residual: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    normal: Float[np.ndarray, " n"],
    outlier: float,
) -> Bool[np.ndarray, " n"]:
    """Tell which rows left out are outliers to the fit that has not seen them.

    That fit is not unsure because it followed them, so standard errors count here, and a target has
    to be less likely than an outlier would be.

    Parameters
    ----------
    left_out : ndarray of bool, of shape (n,)
        The rows left out.
    residual, error : ndarray of shape (n,)
        As for :func:`suspects`.
    normal, outlier : ndarray of shape (n,), float
        As `log_densities` returns them.

    Returns
    -------
    ndarray of bool, of shape (n,)
        The others are to be put back.
    """
    return left_out & beyond(FAR_IN_ERRORS, np.abs(residual) / error) & (outlier > normal)


def beyond(factor: float, sizes: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Tell which sizes exceed a number of robust standard deviations, 1.4826 medians."""
    return sizes > factor * 1.4826 * np.median(sizes)


def log_densities(
    y: Float[np.ndarray, " n"],
    residual: Float[np.ndarray, " n"],
    error: Float[np.ndarray, " n"],
    log_slope: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], float]:
    r"""Return the logarithm of each target's density, and that of an outlier's.

    .. math::
        \log\big((1 - \epsilon) \, N(r_i; 0, s_i^2) \, u'(y_i)\big)
        \quad\text{and}\quad \log(\epsilon / \text{range}(y))

    Parameters
    ----------
    y : ndarray of shape (n,)
        The targets.
    residual, error : ndarray of shape (n,)
        ``r`` and ``s``, in the units ``u`` of a fit.
    log_slope : ndarray of shape (n,)
        The logarithms of ``u'(y_i)``.

    Returns
    -------
    normal : ndarray of shape (n,)
        The first.
    outlier : float
        The second, minus infinity for a single value of all targets.
    """
    span = np.ptp(y)
    normal = -0.5 * np.square(residual / error) - np.log(error) - 0.5 * np.log(2 * np.pi)
    outlier = float(np.log(OUTLIER_SHARE / span)) if span else -np.inf
    return np.log1p(-OUTLIER_SHARE) + normal + log_slope, outlier
