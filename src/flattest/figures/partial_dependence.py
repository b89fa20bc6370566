"""What a regressor predicts along each direction, averaged over rows (partial dependence).

A row keeps all its coordinates but the one along the direction, in the standardised features; so
the average says what the direction does for the data as they are, and not for a row of averages
(J. H. Friedman, Annals of Statistics 29, 2001, for single features).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from flattest.figures.predictions import Curve
from flattest.regression.regressor import MultiIndexRegressor

LEVEL = 0.9
"""The probability of the intervals that are drawn."""
LEAST_IMPORTANCE, MOST_SHOWN = 0.01, 4
"""Directions are shown from this importance on, and no more of them."""
_POINTS, _ROWS = 61, 60  # so many predictions are made: they take a second at 1,000 rows


def n_shown(importances: Float[np.ndarray, " k"]) -> int:
    """Return how many directions are worth to be shown: at least one, where there is any.

    Parameters
    ----------
    importances : ndarray of shape (k,)
        Their shares, the largest first.

    Returns
    -------
    int
        The number.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.figures.partial_dependence import n_shown
    >>> n_shown(np.array([0.98, 0.015, 0.005])), n_shown(np.zeros(0))
    (2, 0)
    """
    many = int((importances >= LEAST_IMPORTANCE).sum())
    return min(max(many, 1), MOST_SHOWN, len(importances))


def partial_dependence(
    regressor: MultiIndexRegressor, X: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "n k"], list[Curve]]:
    """Return projections on the directions worth to be shown, and average predictions along them.

    Parameters
    ----------
    regressor : MultiIndexRegressor
        Fitted, with a direction.
    X : ndarray of shape (n, d)
        Rows.

    Returns
    -------
    projections : ndarray of shape (n, k)
        Of all rows.
    curves : list of Curve
        From the least to the largest projection, averaged over at most 60 rows, whose predictions
        are evenly spread among all.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> from flattest.figures.partial_dependence import partial_dependence
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> y = 2 * X[:, 0] + X[:, 1] + 3
    >>> model = ft.MultiIndexRegressor(width=20, cv=2, random_state=0).fit(X, y)
    >>> _, (curve,) = partial_dependence(model, X)
    >>> bool(np.abs(curve.mean - curve.at * 5**0.5 - 3).max() < 1e-3)
    True
    """
    k = n_shown(regressor.direction_importances_)
    directions = regressor.directions_
    projections = X @ directions[:k].T
    predictor, scale = regressor.predictor_, regressor.predictor_.standardise.scale
    # Moves along these change one projection by 1, and are the shortest in standard units.
    back = scale[:, None] * np.linalg.pinv(directions * scale)
    order = np.argsort(predictor(X), kind="stable")
    chosen = order[np.linspace(0, len(X) - 1, min(_ROWS, len(X))).round().astype(int)]
    curves = []
    for index, z in enumerate(projections.T):
        at = np.linspace(float(z.min()), float(z.max()), _POINTS)
        steps = at[:, None] - z[chosen]
        moved = X[chosen] + steps[..., None] * back[:, index]
        rows, shape = moved.reshape(-1, X.shape[1]), steps.shape
        if predictor.link is None:
            predicted, band = predictor(rows), None
        else:
            law = predictor.law(rows)
            predicted = law.moments()[0]
            low, high = (end.reshape(shape).mean(axis=1) for end in law.interval(LEVEL))
            band = low, high
        mean = predicted.reshape(shape).mean(axis=1)
        curves.append(Curve(at, mean, band))
    return projections, curves
