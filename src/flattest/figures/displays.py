"""Displays of a fitted `MultiIndexRegressor`, made in scikit-learn's manner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from flattest.figures.fitted import fitted_regressor
from flattest.figures.names import heaviest
from flattest.figures.partial_dependence import n_shown, partial_dependence
from flattest.figures.predictions import Curve, links
from flattest.figures.regression import directions_composition, regularisation_path

_AnyDisplay = TypeVar("_AnyDisplay", bound="_Display")


class _Display:
    """What the displays share: a figure, kept as scikit-learn's displays keep theirs."""

    figure_: Figure
    axes_: np.ndarray

    def plot(self: _AnyDisplay, ax: Any = None) -> _AnyDisplay:
        """Draw the figure.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            As many axes as there are panels, or one, whose place they share. By default a figure
            is made.

        Returns
        -------
        _Display
            This display, with `figure_` and `axes_`.
        """
        before = set() if ax is None else {id(axes) for axes in np.ravel(ax)[0].figure.axes}
        self.figure_ = self._draw(ax)
        new = [axes for axes in self.figure_.axes if id(axes) not in before]
        self.axes_ = np.array(new or list(np.ravel(ax)))
        return self

    def _draw(self, ax: Any) -> Figure:
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
        cls, estimator: Any, *, feature_names: Sequence[str] | None = None, ax: Any = None
    ) -> DirectionsDisplay:
        """Draw the directions of a fitted estimator, those of an importance of at least 1 %.

        Parameters
        ----------
        estimator : MultiIndexRegressor, Pipeline or search
            The estimator, or what ends in one.
        feature_names : sequence of str, optional
            By default the names it was fitted with, or ``x0``, ``x1``, ...
        ax : Axes or sequence of Axes, optional
            Where to draw, as for `plot`.

        Returns
        -------
        DirectionsDisplay
            With `figure_` and `axes_`.

        Raises
        ------
        TypeError
            If there is no such estimator.
        ValueError
            If there is no direction, or the number of names is wrong.
        """
        fitted = fitted_regressor(estimator)
        names = fitted.names if feature_names is None else list(feature_names)
        if len(names) != (d := fitted.regressor.n_features_in_):
            raise ValueError(f"feature_names has {len(names)} names for {d} features.")
        importances = fitted.regressor.direction_importances_
        k = n_shown(importances)
        return cls(fitted.regressor.loadings_[:k], importances[:k], names).plot(ax)

    def _draw(self, ax: Any) -> Figure:
        return directions_composition(self.loadings, self.importances, self.feature_names, place=ax)


class LinkDisplay(_Display):
    """What is predicted along each direction, averaged over data that keep the other coordinates.

    Points are the rows' residuals, added to the curve where each row lies; with a single direction
    these are the targets themselves.

    Parameters
    ----------
    projections : ndarray of shape (n, k)
        The data's projections on the directions.
    residuals : ndarray of shape (n,)
        True less predicted targets.
    curves : list of (ndarray, ndarray, (ndarray, ndarray) or None)
        For each direction positions, average predictions there, and the average ends of 90 %
        intervals.
    importances : ndarray of shape (k,)
        The shares of the directions.
    target_name : str
        The name of the target.
    labels : sequence of str
        What each direction is made of.

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
    >>> display = ft.LinkDisplay.from_estimator(model, X, y, target_name="height in m")
    >>> display.axes_[0].get_ylabel()
    'height in m'
    """

    def __init__(
        self,
        projections: Float[np.ndarray, "n k"],
        residuals: Float[np.ndarray, " n"],
        curves: list[Curve],
        importances: Float[np.ndarray, " k"],
        *,
        target_name: str = "target",
        labels: Sequence[str] = (),
    ) -> None:
        self.projections, self.residuals, self.curves = projections, residuals, curves
        self.importances, self.target_name, self.labels = importances, target_name, labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        target_name: str | None = None,
        feature_names: Sequence[str] | None = None,
        ax: Any = None,
    ) -> LinkDisplay:
        """Draw the link of a fitted estimator beside data.

        Directions of an importance of at least 1 % are drawn, four at most.

        Parameters
        ----------
        estimator : MultiIndexRegressor, Pipeline or search
            The estimator, or what ends in one.
        X : array_like of shape (n, d)
            Features, as the estimator takes them.
        y : array_like of shape (n,)
            Targets.
        target_name : str, optional
            The name of the target with its unit; by default that of `y`, or ``"target"``.
        feature_names : sequence of str, optional
            By default the names it was fitted with, or ``x0``, ``x1``, ...
        ax : Axes or sequence of Axes, optional
            Where to draw, as for `plot`.

        Returns
        -------
        LinkDisplay
            With `figure_` and `axes_`.

        Raises
        ------
        TypeError
            If there is no such estimator.
        ValueError
            If there is no direction, or `X` and `y` do not fit.
        """
        fitted = fitted_regressor(estimator)
        regressor, features = fitted.regressor, fitted.features(X)
        target, n = np.asarray(y, dtype=np.float64), len(features)
        if target.shape != (n,):
            raise ValueError(
                f"y.shape == {target.shape}, but X has {n} rows; give one target each."
            )
        projections, curves = partial_dependence(regressor, features)
        residuals = target - regressor.predictor_(features)
        name = target_name if target_name is not None else getattr(y, "name", None)
        names = fitted.names if feature_names is None else list(feature_names)
        k = len(curves)
        return cls(
            projections,
            residuals,
            curves,
            regressor.direction_importances_[:k],
            target_name="target" if name is None else str(name),
            labels=[heaviest(loading, names) for loading in regressor.loadings_[:k]],
        ).plot(ax)

    def _draw(self, ax: Any) -> Figure:
        return links(
            self.projections,
            self.residuals,
            self.curves,
            self.importances,
            target=self.target_name,
            labels=self.labels,
            place=ax,
        )


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
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> PathDisplay:
        """Draw the path of a fitted estimator.

        Parameters
        ----------
        estimator : MultiIndexRegressor, Pipeline or search
            The estimator, or what ends in one.
        ax : Axes or sequence of Axes, optional
            Where to draw, as for `plot`.

        Returns
        -------
        PathDisplay
            With `figure_` and `axes_`.

        Raises
        ------
        TypeError
            If there is no such estimator.
        """
        regressor = fitted_regressor(estimator, with_direction=False).regressor
        return cls(
            regressor.path_,
            regressor.strength_,
            regressor.n_directions_,
            directions_given=regressor.link_ == "gaussian_process",
        ).plot(ax)

    def _draw(self, ax: Any) -> Figure:
        return regularisation_path(
            self.path,
            self.strength,
            self.n_directions,
            directions_given=self.directions_given,
            place=ax,
        )
