"""Displays of a fitted `MultiIndexRegressor`, made in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure
from sklearn.utils.validation import check_is_fitted

from flattest.figures.regression import directions_composition, links, regularisation_path
from flattest.regression import MultiIndexRegressor

_AnyDisplay = TypeVar("_AnyDisplay", bound="_Display")


class _Display:
    """What the displays share: a figure, kept as scikit-learn's displays keep theirs."""

    figure_: Figure
    axes_: np.ndarray

    def plot(self: _AnyDisplay) -> _AnyDisplay:
        """Draw the figure.

        Returns
        -------
        _Display
            This display, with `figure_` and `axes_`.
        """
        self.figure_ = self._draw()
        self.axes_ = np.array(self.figure_.axes)
        return self

    def _draw(self) -> Figure:
        raise NotImplementedError


class DirectionsDisplay(_Display):
    """Which features make up each direction.

    Parameters
    ----------
    loadings : ndarray of shape (k, d)
        The directions as unit vectors, per standard deviation of each feature.
    importances : ndarray of shape (k,)
        Their shares.
    feature_names : sequence of str
        The names of the features.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once it is drawn.
    axes_ : ndarray of matplotlib.axes.Axes
        Its panels.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> model = ft.MultiIndexRegressor(random_state=0).fit(X, np.abs(X[:, 0] + X[:, 1]))
    >>> display = ft.DirectionsDisplay.from_estimator(model)
    >>> display.figure_.savefig("directions.png")  # doctest: +SKIP
    >>> display.loadings.shape
    (1, 3)
    """

    def __init__(
        self,
        loadings: Float[np.ndarray, "k d"],
        importances: Float[np.ndarray, " k"],
        feature_names: Sequence[str],
    ) -> None:
        self.loadings, self.importances = loadings, importances
        self.feature_names = feature_names

    @classmethod
    def from_estimator(
        cls, estimator: MultiIndexRegressor, *, feature_names: Sequence[str] | None = None
    ) -> DirectionsDisplay:
        """Draw the directions of a fitted estimator.

        Parameters
        ----------
        estimator : MultiIndexRegressor
            The estimator.
        feature_names : sequence of str, optional
            By default the names it was fitted with, or ``x0``, ``x1``, ...

        Returns
        -------
        DirectionsDisplay
            With `figure_` and `axes_`.

        Raises
        ------
        ValueError
            If there is no direction, or the number of names is wrong.
        """
        check_is_fitted(estimator)
        d = estimator.n_features_in_
        names = getattr(estimator, "feature_names_in_", [f"x{i}" for i in range(d)])
        names = list(names if feature_names is None else feature_names)
        if len(names) != d:
            raise ValueError(f"feature_names has {len(names)} names for {d} features.")
        if not estimator.n_directions_:
            raise ValueError("The fitted function is constant: it has no direction to show.")
        return cls(estimator.loadings_, estimator.direction_importances_, names).plot()

    def _draw(self) -> Figure:
        return directions_composition(self.loadings, self.importances, self.feature_names)


class LinkDisplay(_Display):
    """The fitted link along each direction, with the data and a band.

    Along one direction the projections on the others are held at their means over the data.

    Parameters
    ----------
    projections : ndarray of shape (n, k)
        The data's projections on the directions.
    target : ndarray of shape (n,)
        The targets.
    curves : list of (ndarray, ndarray, ndarray or None)
        For each direction positions, predictions there, and their standard deviations.
    importances : ndarray of shape (k,)
        The shares of the directions.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once it is drawn.
    axes_ : ndarray of matplotlib.axes.Axes
        Its panels.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> y = np.abs(X[:, 0] + X[:, 1])
    >>> model = ft.MultiIndexRegressor(width=20, cv=2, random_state=0).fit(X, y)
    >>> display = ft.LinkDisplay.from_estimator(model, X, y)
    >>> display.axes_[0].get_xlabel()
    'direction 1'
    """

    _POINTS = 200

    def __init__(
        self,
        projections: Float[np.ndarray, "n k"],
        target: Float[np.ndarray, " n"],
        curves: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]],
        importances: Float[np.ndarray, " k"],
    ) -> None:
        self.projections, self.target, self.curves = projections, target, curves
        self.importances = importances

    @classmethod
    def from_estimator(cls, estimator: MultiIndexRegressor, X: Any, y: Any) -> LinkDisplay:
        """Draw the link of a fitted estimator beside data.

        Parameters
        ----------
        estimator : MultiIndexRegressor
            The estimator.
        X : array_like of shape (n, d)
            Features.
        y : array_like of shape (n,)
            Targets.

        Returns
        -------
        LinkDisplay
            With `figure_` and `axes_`.

        Raises
        ------
        ValueError
            If there is no direction, or `X` and `y` do not fit.
        """
        projections = estimator.transform(X)
        target = np.asarray(y, dtype=np.float64)
        n, k = projections.shape
        if target.shape != (n,):
            raise ValueError(
                f"y.shape == {target.shape}, but X has {n} rows; give one target each."
            )
        if not k:
            raise ValueError("The fitted function is constant: it has no direction to show.")
        # The shortest inputs with given projections, in standard units about the training mean.
        units = estimator.predictor_.standardise
        back = units.scale[:, None] * np.linalg.pinv(estimator.directions_ * units.scale)
        centre, curves = projections.mean(axis=0), []
        for index, z in enumerate(projections.T):
            at = np.linspace(float(z.min()), float(z.max()), cls._POINTS)
            wanted = np.tile(centre, (cls._POINTS, 1))
            wanted[:, index] = at
            inputs = units.mean + (wanted - estimator.directions_ @ units.mean) @ back.T
            if estimator.link_ == "gaussian_process":
                curves.append((at, *estimator.predict(inputs, return_std=True)))
            else:
                curves.append((at, estimator.predict(inputs), None))
        return cls(projections, target, curves, estimator.direction_importances_).plot()

    def _draw(self) -> Figure:
        return links(self.projections, self.target, self.curves, self.importances)


class PathDisplay(_Display):
    """Error on held-out rows and flatness along the regularisation path.

    Parameters
    ----------
    path : DataFrame
        `MultiIndexRegressor.path_`.
    strength : float
        The strength chosen.
    n_directions : int
        The number of directions chosen.
    directions_given : bool
        Whether the directions were found with the held-out rows as well, by a Gaussian process.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure, once it is drawn.
    axes_ : ndarray of matplotlib.axes.Axes
        Its panels.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> X = np.random.default_rng(0).standard_normal((60, 3))
    >>> y = np.abs(X[:, 0] + X[:, 1])
    >>> model = ft.MultiIndexRegressor(width=20, cv=2, random_state=0).fit(X, y)
    >>> [axes.get_ylabel() for axes in ft.PathDisplay.from_estimator(model).axes_]
    ['mean squared error', 'orbit minimum (reflected)']
    """

    def __init__(
        self,
        path: pd.DataFrame,
        strength: float,
        n_directions: int,
        *,
        directions_given: bool = False,
    ) -> None:
        self.path, self.strength, self.n_directions = path, strength, n_directions
        self.directions_given = directions_given

    @classmethod
    def from_estimator(cls, estimator: MultiIndexRegressor) -> PathDisplay:
        """Draw the path of a fitted estimator.

        Parameters
        ----------
        estimator : MultiIndexRegressor
            The estimator.

        Returns
        -------
        PathDisplay
            With `figure_` and `axes_`.
        """
        check_is_fitted(estimator)
        return cls(
            estimator.path_,
            estimator.strength_,
            estimator.n_directions_,
            directions_given=estimator.link_ == "gaussian_process",
        ).plot()

    def _draw(self) -> Figure:
        return regularisation_path(
            self.path, self.strength, self.n_directions, directions_given=self.directions_given
        )
