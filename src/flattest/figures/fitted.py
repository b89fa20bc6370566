"""The fitted regressor inside what a caller has: itself, the end of a pipeline, or a search's."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from flattest.regression.regressor import MultiIndexRegressor


class FittedRegressor(NamedTuple):
    """A regressor, what stands before it, and the names of its features.

    Parameters
    ----------
    regressor : MultiIndexRegressor
        The regressor.
    before : tuple of Pipeline
        Transformers of its inputs, in their order.
    names : list of str
        Its features.
    """

    regressor: MultiIndexRegressor
    before: tuple[Any, ...]
    names: list[str]

    def features(self, X: Any) -> Float[np.ndarray, "n d"]:
        """Return the features of the regressor for inputs of the whole.

        Parameters
        ----------
        X : array_like
            The inputs.

        Returns
        -------
        ndarray of shape (n, d)
            The features, checked.
        """
        for transformer in self.before:
            X = transformer.transform(X)
        return self.regressor._checked(X)


def fitted_regressor(estimator: Any, *, with_direction: bool = True) -> FittedRegressor:
    """Find the fitted regressor.

    Parameters
    ----------
    estimator : MultiIndexRegressor, Pipeline or search
        A regressor, a pipeline that ends in one, or a search with such a ``best_estimator_``.
    with_direction : bool
        Whether it is to have a direction.

    Returns
    -------
    FittedRegressor
        What was found.

    Raises
    ------
    TypeError
        If there is none.
    ValueError
        If it has no direction.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> import flattest as ft
    >>> from flattest.figures.fitted import fitted_regressor
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> regressor = ft.MultiIndexRegressor(link="network", width=10, cv=2, random_state=0)
    >>> fitted = fitted_regressor(make_pipeline(StandardScaler(), regressor).fit(X, X[:, 0]))
    >>> fitted.names, len(fitted.before)
    (['x0', 'x1', 'x2'], 1)
    """
    before: list[Any] = []
    while not isinstance(estimator, MultiIndexRegressor):
        if isinstance(estimator, Pipeline):
            check_is_fitted(estimator)
            if len(estimator) > 1:
                before.append(estimator[:-1])
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            raise TypeError(
                "estimator must be a MultiIndexRegressor, a Pipeline that ends in one, or a fitted "
                f"search for one, not {type(estimator).__name__}."
            )
    check_is_fitted(estimator)
    if with_direction and not estimator.n_directions_:
        raise ValueError("The fitted function is constant: it has no direction to show.")
    return FittedRegressor(estimator, tuple(before), _names(estimator, before))


def _names(regressor: MultiIndexRegressor, before: list[Any]) -> list[str]:
    """Return the names of a regressor's features, as it or what stands before it knows them."""
    names = getattr(regressor, "feature_names_in_", None)
    if names is None and before:
        try:
            names = before[-1].get_feature_names_out()
        except (AttributeError, ValueError):  # some transformer knows of no names
            names = None
    d = regressor.n_features_in_
    return [f"x{i}" for i in range(d)] if names is None else [str(name) for name in names]
