"""`MultiIndexRegressor`: regression on a few unknown combinations of the features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    RegressorMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from flattest.regression import settings
from flattest.regression.fitting import Found, fit_gaussian_process, fit_network
from flattest.regression.formula import Formula, formula_of
from flattest.regression.handover import predictor_of
from flattest.regression.smooth_link import tabulated
from flattest.regression.training_data import Rows
from flattest.regression.unreadable import naming_the_encoder
from flattest.regression.variation import Variation
from flattest.two_layer.measuring import measure
from flattest.validation import (
    check_positive_float,
    check_positive_int,
    check_random_state,
    check_range,
)

_MOST_DENSE = 2**27  # entries of a dense copy of sparse features: 1 GiB
_LEVEL = 1e-6  # of its mean square: a slope so small on average is rounding


class MultiIndexRegressor(
    ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin, BaseEstimator
):
    r"""Regression on a few linear combinations of the features, which it finds.

    Gaussian processes of ``B^T x`` predict, with the directions ``B`` fitted like all other
    parameters by the marginal likelihood. A two-layer homogeneous network on the directions found
    explains the function, and helps beyond the data: the one of least flatness,

    .. math::
        \min_{a, W} \frac1n \sum_i (f(x_i) - y_i)^2 + \lambda \, Q(a, W), \qquad
        f(x) = \sum_j a_j \, s(w_j \cdot (x, 1)),

    on standardised features and targets, where ``2 Q`` is the trace of the Hessian (its
    Gauss-Newton part) averaged over the inputs and their reflections. The Notes say how all this is
    found.

    Parameters
    ----------
    width : int
        Number of neurons at the start; those that the penalty switches off are dropped.
    activation : str or Homogeneous
        The activation, or its name.
    fit_intercept : bool
        Whether the features and the target are centred, and the neurons have biases.
    n_directions : "auto" or int
        Number of directions ``k``. ``"auto"`` lets the data decide: for Gaussian processes by the
        score of the Notes, for networks by cross-validation, the smallest number whose error is
        within one standard error (of the difference over the folds) of the least. An integer is
        lowered to the number of linearly independent features where these are fewer.
    link : "auto", "gaussian_process" or "network"
        What finds the directions and predicts from them. ``"auto"``: the Gaussian process with
        `fit_intercept`, the network without, since only that is homogeneous.
    penalty : {"reflected_flatness", "flatness", "weight_decay"}
        What ``Q`` is: as above; without the reflections; or the sum of squares of all parameters.
    strengths : "auto" or sequence of float
        The strengths ``lambda``, relative to targets of unit variance. The one of least mean
        cross-validation error is taken. By default 8 from 1e-3 to 0.5 where a network predicts
        alone, and 4 from 2e-3 to 0.3 beside processes.
    max_rounds : int
        The most rounds in which a fit is repeated on what the one before it varies along: the
        eliminations of ``link="network"``, and the fits from which the search for a process starts.
    cv : int, splitter or iterable of splits
        Folds to choose the strength; equal rows fall into the same one of a number of folds. With
        ``link="network"`` each eliminates its own directions, fitted without its held-out rows;
        the strength is shared.
    max_iter : int
        Iterations per strength (four times as many at the first of each path).
    random_state : int, numpy.random.Generator or None
        Seed of the folds and of the first networks.
    n_jobs : int, optional
        Folds worked on at the same time, in threads.
    device : str or torch.device, optional
        Where to compute the fit, by default on the CPU; it needs double precision. The fitted
        estimator lies on the CPU.
    verbose : int
        Show the progress, with an estimate of the time left, if positive.

    Attributes
    ----------
    directions_ : ndarray of shape (n_directions_, n_features_in_)
        Unit vectors ``u`` in the units of the original features, the most important first:
        predictions depend on `X` through ``X @ directions_.T`` only, or nearly so where functions
        of all features count too. Predictions rise along each on average over the training rows;
        where they rise as much as they fall, its largest entry is positive. Directions of an
        importance below 1e-8 are left out.
    loadings_ : ndarray of shape (n_directions_, n_features_in_)
        The directions per standard deviation of each feature, as unit vectors.
    direction_importances_ : ndarray of shape (n_directions_,)
        Shares of the standardised features' average gradient outer product, about 1 in all.
    direction_ranges_ : ndarray of shape (n_directions_, 2)
        The least and the largest ``x @ u`` of the training rows that were not left out, for each
        direction ``u``.
    n_directions_ : int
        Number of directions ``k``, for processes that of the best; 0 if the function is constant.
    feature_importances_ : ndarray of shape (n_features_in_,)
        Shares of the standardised features in the average gradient outer product's diagonal.
    link_ : {"gaussian_process", "network"}
        What predicts.
    log_share_ : float
        How much processes of the targets' logarithms count in predictions, from 0 to 1.
    candidates_ : DataFrame
        The Gaussian processes compared: `n_directions`, `kernel`, `additive` (a sum of functions
        of one direction each), `trend` (a linear function is added), `fitted` (the directions; for
        functions of all features the `"lengths"`, one for each, or the `"scale"`, one for all),
        `log_evidence`, `score` (less the price of the parameters, what is compared) and
        `converged`; the last one, of the largest share, is fitted to more rows where there are
        many. No rows with ``link="network"``.
    outliers_ : ndarray of shape (n,)
        Tells the training rows whose targets were left out as outliers.
    predictor_ : Predictor
        What predicts, apart from the conventions of scikit-learn.
    network_ : TwoLayerNet
        The network, on the standardised features ``(X - mean_) * inverse_scale_``, followed by
        the bias coordinate 1 if `fit_intercept`.
    intercept_ : float
        Mean of the training targets (0 without `fit_intercept`): a network's predictions are
        `intercept_` plus its output.
    mean_, inverse_scale_ : ndarray of shape (n_features_in_,)
        The standardisation; `inverse_scale_` is 0 for constant features.
    flatness_ : TwoLayerFlatness
        The flatness of `network_` on the standardised training data.
    strength_ : float
        The strength chosen.
    n_iter_ : int
        Iterations of `network_` at that strength; 0 where there was nothing to fit.
    path_ : DataFrame
        One row per network tried (after a Gaussian process, all on its directions):
        `n_directions`, `strength`, `held_out_error` (mean squared error of the folds' held-out
        rows) with `held_out_standard_error`, and `flatness`, the reflected orbit minimum of the
        network on all rows, as a function of the directions of its round. Directions that a
        Gaussian process found are given: the held-out rows had their say in them, so that fresh
        rows are predicted less well. Those of ``link="network"`` had not seen these rows.
    n_features_in_, feature_names_in_ : int, ndarray of shape (n_features_in_,)
        The number of features, and their names where `X` has any.

    Notes
    -----
    1. Equal rows are merged; features and targets get standard units.
    2. Fits as in 3 to 5 are made to the targets and, where these are positive and less skewed as
       such, to their logarithms; and again without rows whose targets lie far from what the others
       predict. A row left out is put back where a fit without it predicts it. Only the first fit
       and the best one search from 3 on; the others start from what the best so far compared.
    3. The search starts from what small networks and coarse processes of all features vary along.
    4. From a few directions more than are needed, the one without which the evidence is highest is
       dropped and the rest fitted anew, one after the other. Each number of directions, other
       kernels, sums of functions of one direction each, a trend, linear functions and functions of
       all features compete. Fitted directions follow noise too. To first order in their errors
       ``e``, of prior variance ``s^2`` (the mean square of all entries), the targets are
       ``f(B^T x) + J e + noise``; from that linear model follow the degrees of freedom that the
       directions have taken, which the noise variance is given back; what the evidence is on
       average over all directions,

       .. math::
           \log p(y) - \tfrac12 \log\det(I + s^2 J^T K^{-1} J) - \tfrac p2
           - \tfrac{q + 1}2 \log n

       for ``p`` parameters of the directions, ``2 p <= n``, and ``q`` variances, by which
       candidates are compared; and by how much predictions are less sure. Up to 300 rows, if these
       are fewer than 5 per parameter, candidates are also fitted without a fifth of the rows
       each, from directions moved a little, and how well they predict these decides as well.
       More than 1,000 rows are worked on in blocks, at most 4,000 of them; on more than 2,000 a
       process is a function of its values at 1,000 rows.
    5. Processes that may be as good as the best one are averaged with it, on the same directions
       unless functions of all features may be as good too.
    6. The fit under which the rows are likeliest is kept, averaged with the best one in the other
       units unless one is clearly better. The directions are the eigenvectors of its average
       gradient outer product ``(1/n) sum_i grad f(x_i) grad f(x_i)^T``.
    7. Networks on these directions, or for ``link="network"`` on ever fewer directions, are fitted
       for all strengths, of which cross-validation chooses one. Beside processes a network counts
       as an observation of the function whose variance predicts held-out rows best.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press, 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import flattest as ft
    >>> X = np.random.default_rng(0).standard_normal((120, 4))
    >>> y = np.abs(X[:, 0] + X[:, 1])
    >>> model = ft.MultiIndexRegressor(random_state=0).fit(X, y)
    >>> model.n_directions_
    1
    >>> np.abs(model.directions_).round(1)
    array([[0.7, 0.7, 0. , 0. ]])
    >>> model.transform(X).shape
    (120, 1)
    """

    def __init__(
        self,
        *,
        width: Any = 100,
        activation: Any = "relu",
        fit_intercept: Any = True,
        n_directions: Any = "auto",
        link: Any = "auto",
        penalty: Any = "reflected_flatness",
        strengths: Any = "auto",
        max_rounds: Any = 8,
        cv: Any = 5,
        max_iter: Any = 50,
        random_state: Any = None,
        n_jobs: Any = None,
        device: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.width = width
        self.activation = activation
        self.fit_intercept = fit_intercept
        self.n_directions = n_directions
        self.link = link
        self.penalty = penalty
        self.strengths = strengths
        self.max_rounds = max_rounds
        self.cv = cv
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.device = device
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> MultiIndexRegressor:
        """Find the directions, and what predicts from them.

        Parameters
        ----------
        X : array_like or sparse matrix of shape (n, d)
            The features. Sparse ones are converted, up to 2**27 entries (1 GiB). Of a table with
            text or gaps, `TableEncoder` makes features.
        y : array_like of shape (n,)
            The targets.
        sample_weight : array_like of shape (n,), optional
            How much each row counts, relative to the others. Equal rows count together.

        Returns
        -------
        MultiIndexRegressor
            This estimator.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type, shape or value.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            If the penalised loss of the network chosen was still falling, or the marginal
            likelihood of the Gaussian process rising.
        UserWarning
            If targets were left out as outliers.
        """
        X, y, weight = self._check_data(X, y, sample_weight)
        checked = self._check_parameters(X, y)
        rows = Rows.of(X, y, weight)
        found = fit_gaussian_process(rows, checked) if checked.link == "gaussian_process" else None
        if found is None:
            found = fit_network(rows, checked)
        self._keep(found, X[~found.outliers])
        self._warn(found)
        return self

    def _check_parameters(self, X: np.ndarray, y: np.ndarray) -> settings.Settings:
        """Check the parameters, some of which mean something for these data only."""
        network = settings.network_settings(
            self.activation, self.width, self.max_iter, self.penalty, self.fit_intercept
        )
        link = settings.check_link(self.link, network.bias)
        return settings.Settings(
            network=network,
            strengths=settings.check_strengths(self.strengths, alone=link == "network"),
            rng=check_random_state(self.random_state),
            cv=settings.check_folds(self.cv, X, y),
            max_rounds=check_positive_int(self.max_rounds, "max_rounds"),
            link=link,
            n_jobs=settings.check_jobs(self.n_jobs),
            device=settings.check_device(self.device),
            verbose=bool(self.verbose),
            n_directions=settings.check_n_directions(self.n_directions, X.shape[1]),
        )

    def _check_data(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Check features, targets and weights as scikit-learn does, and their sizes."""
        X, y = _without_graph(X), _without_graph(y)
        with naming_the_encoder(X, y):
            X, y = validate_data(
                self,
                *(X, y),
                accept_sparse="csr",
                dtype=np.float64,
                y_numeric=True,
                ensure_min_samples=2,
            )
            y = y.astype(np.float64)
        X = _dense(X)
        check_range(X, "X")
        check_range(y, "y")
        return X, y, settings.check_weights(_without_graph(sample_weight), len(y))

    def _keep(self, found: Found, X: Float[np.ndarray, "n d"]) -> None:
        """Set the attributes."""
        data, link, fit, net = found.data, found.link, found.fit, found.network
        self.mean_, self.inverse_scale_ = data.standardise.mean, data.standardise.inverse_scale
        self.intercept_ = data.standardise.intercept
        self.strength_, self.n_iter_ = fit.strength, fit.iterations
        self.outliers_ = found.outliers
        weighted = data.weighted(data.inputs, bool(self.fit_intercept), net.degree)
        self.flatness_ = measure(net, *weighted)
        self.network_ = net.cpu()
        self.predictor_ = predictor_of(self.network_, data.standardise, link)
        self._keep_directions(found.variation.to("cpu"), found.n_directions)
        along = X @ self.directions_.T
        self.direction_ranges_ = np.stack([along.min(axis=0), along.max(axis=0)], axis=1)
        self.link_ = "gaussian_process" if link else "network"
        self.log_share_ = link.log_share if link else 0.0
        self.candidates_ = tabulated(link.candidates) if link else pd.DataFrame()
        self.path_ = found.path

    def _keep_directions(self, variation: Variation, k: int) -> None:
        """Set the attributes that describe the leading directions, in units of the features."""
        shares, slopes = variation.shares, variation.slopes.numpy()
        self.feature_importances_ = np.square(variation.vectors.numpy()) @ shares
        directions = variation.vectors[:, :k].T.numpy() * self.inverse_scale_
        # Entries may be as small or large as the units of the features: no overflow in the norm.
        largest = np.abs(directions).max(axis=1, keepdims=True, initial=0.0)
        directions = np.divide(directions, largest, out=directions, where=largest > 0)
        norms = np.linalg.norm(directions, axis=1, keepdims=True)
        directions = np.divide(directions, norms, out=directions, where=norms > 0)
        heaviest = directions[np.arange(k), np.abs(directions).argmax(axis=1)]
        level = np.abs(slopes[:k]) <= _LEVEL * np.sqrt(variation.values.numpy()[:k])
        directions[np.where(level, heaviest, slopes[:k]) < 0] *= -1
        self.n_directions_ = k
        self.directions_, self.direction_importances_ = directions, shares[:k]
        self.loadings_ = self.predictor_.loadings(directions)

    def _warn(self, found: Found) -> None:
        """Say what the user should know of the fit."""
        if found.outliers.any():
            warnings.warn(
                f"{found.outliers.sum()} of {len(found.outliers)} targets are so far from what the "
                "other rows predict that they were left out; outliers_ tells which. With "
                "link='network' all count.",
                UserWarning,
                stacklevel=3,
            )
        if found.link and not found.link.converged:
            warnings.warn(
                "The marginal likelihood of the Gaussian process was still rising; predictions "
                "may be a little worse than they could be.",
                ConvergenceWarning,
                stacklevel=3,
            )
        if not found.fit.settled:
            warnings.warn(
                "The penalised loss was still falling after max_iter iterations; raise max_iter "
                f"above {self.max_iter} for a better fit.",
                ConvergenceWarning,
                stacklevel=3,
            )

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Predict the target.

        A Gaussian process is followed along the most important direction to three quarters of the
        training rows' range beyond it, along others less, in proportion to its slopes along them;
        farther out it stays as it is there.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The features.
        return_std : bool
            Whether to return standard deviations too. They count the noise and what is left
            unknown of the link and, up to 2,000 training rows, of the directions.

        Returns
        -------
        mean : ndarray of shape (n,)
            The predictions, float64.
        std : ndarray of shape (n,)
            Their standard deviations, if asked for.

        Raises
        ------
        ValueError
            If standard deviations are asked where a network predicts.
        """
        X = self._checked(X)
        if not return_std:
            return self.predictor_(X)
        return self.predictor_.law(X).moments()

    def predict_interval(self, X: Any, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Predict intervals that hold new targets with a given probability.

        As probable a target lies below its interval as above. Where logarithms of the targets were
        fitted, intervals are longer upwards and stay positive.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The features.
        level : float
            The probability, between 0 and 1.

        Returns
        -------
        lower, upper : ndarray of shape (n,)
            The ends.

        Raises
        ------
        ValueError
            If `level` does not lie between 0 and 1, or if a network predicts.

        Examples
        --------
        >>> import numpy as np
        >>> import flattest as ft
        >>> rng = np.random.default_rng(0)
        >>> X = rng.standard_normal((200, 2))
        >>> y = np.exp(X[:, 0] + 0.1 * rng.standard_normal(200))
        >>> model = ft.MultiIndexRegressor(random_state=0).fit(X[:100], y[:100])
        >>> lower, upper = model.predict_interval(X[100:], level=0.9)
        >>> bool(0.8 < ((lower < y[100:]) & (y[100:] < upper)).mean() < 1), bool((lower > 0).all())
        (True, True)
        """
        return self.predictor_.law(self._checked(X)).interval(settings.check_level(level))

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draw targets from their predictive law, each row on its own.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The features.
        n_samples : int
            How many targets of each row.
        random_state : int, numpy.random.Generator or None
            The seed.

        Returns
        -------
        ndarray of shape (n, n_samples)
            The targets.

        Raises
        ------
        ValueError
            If `n_samples` is not positive, or if a network predicts.
        """
        X, n_samples = self._checked(X), check_positive_int(n_samples, "n_samples")
        return self.predictor_.law(X).sample(n_samples, check_random_state(random_state))

    def is_extrapolation(self, X: Any) -> np.ndarray:
        """Tell rows outside the range of the training rows along some direction.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The features.

        Returns
        -------
        ndarray of bool, of shape (n,)
            True where ``X @ directions_.T`` leaves `direction_ranges_`.
        """
        along = self._along(X)
        low, high = self.direction_ranges_.T
        return ((along < low) | (along > high)).any(axis=1)

    def transform(self, X: Any) -> np.ndarray:
        """Project on the directions.

        Parameters
        ----------
        X : array_like of shape (n, d)
            The features.

        Returns
        -------
        ndarray of shape (n, n_directions_)
            ``X @ directions_.T``.
        """
        return self._along(X)

    def export_formula(
        self,
        *,
        feature_names: Sequence[str] | None = None,
        target_name: str = "target",
        tolerance: float | int = 1e-3,
    ) -> Formula:
        """Write predictions from one or two directions as a formula: a spline of projections.

        Parameters
        ----------
        feature_names : sequence of str, optional
            By default the names it was fitted with, or ``x0``, ``x1``, ...
        target_name : str
            The name of the target.
        tolerance : float
            The largest difference that is allowed, relative to the range of the predictions, at
            rows whose projections lie between those of training rows.

        Returns
        -------
        Formula
            ``python()`` and ``text()`` write it out.

        Raises
        ------
        ValueError
            If more than two directions matter, the tolerance is not met, or the number of names is
            wrong.

        Examples
        --------
        >>> import numpy as np
        >>> import flattest as ft
        >>> X = np.random.default_rng(0).standard_normal((60, 3))
        >>> y = np.abs(X[:, 0] + X[:, 1])
        >>> model = ft.MultiIndexRegressor(link="network", width=20, cv=2, random_state=0).fit(X, y)
        >>> model.export_formula(tolerance=0.05).python().splitlines()[3]
        'import numpy as np'
        """
        check_is_fitted(self)
        d = self.n_features_in_
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(d)])
        names = list(names if feature_names is None else feature_names)
        if len(names) != d:
            raise ValueError(f"feature_names has {len(names)} names for {d} features.")
        return formula_of(
            self.predictor_,
            *(self.directions_, self.direction_importances_, self.direction_ranges_),
            feature_names=names,
            target_name=target_name,
            tolerance=check_positive_float(tolerance, "tolerance"),
        )

    def _along(self, X: Any) -> np.ndarray:
        """Project on the directions: an array, whatever `set_output` makes of `transform`."""
        return self._checked(X) @ self.directions_.T

    def _checked(self, X: Any) -> np.ndarray:
        """Check features to predict from."""
        check_is_fitted(self)
        X = _without_graph(X)
        with naming_the_encoder(X):
            X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return _dense(X)

    @property
    def _n_features_out(self) -> int:
        return self.n_directions_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        # An interrupted fit leaves n_features_in_, and nothing to predict with.
        return hasattr(self, "path_")


def _without_graph(values: Any) -> Any:
    """Turn tensors, on any device and with gradients or without, into arrays."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _dense(X: Any) -> np.ndarray:
    """Turn sparse features into an array, unless it would be too large."""
    if not issparse(X):
        return X
    if (entries := X.shape[0] * X.shape[1]) > _MOST_DENSE:
        raise ValueError(
            f"X is sparse, and its {X.shape[0]:,} x {X.shape[1]:,} entries would take "
            f"{8 * entries / 2**30:,.1f} GiB; give fewer columns, such as by max_categories of "
            "OneHotEncoder, or fewer rows."
        )
    return X.toarray()
