"""What the regressor is compared with, each as its documentation recommends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import catboost
import lightgbm
import numpy as np
import pandas as pd
import torch
import xrfm
from interpret.glassbox import ExplainableBoostingRegressor
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_GP_ROWS, _GP_STEPS = 500, 50
"""Rows and L-BFGS steps by which a Gaussian process's parameters are fitted, so that it ends within
a minute; it then predicts from all rows."""
_SLICES, _MOST_DIRECTIONS = 10, 5


class XRFM(RegressorMixin, BaseEstimator):
    """xRFM at its defaults, a fifth of the rows for its validation."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> XRFM:
        self.center_, self.scale_ = y.mean(), y.std() or 1.0
        z = ((y - self.center_) / self.scale_)[:, None]
        parts = train_test_split(X, z, test_size=0.2, random_state=0)
        X0, X1, z0, z1 = (torch.tensor(part, dtype=torch.float32) for part in parts)
        self.model_ = xrfm.xRFM(
            device=torch.device("cpu"), tuning_metric="mse", verbose=False, random_state=0
        )
        self.model_.fit(X0, z0, X1, z1)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        found = self.model_.predict(torch.tensor(X, dtype=torch.float32))
        return np.asarray(found, dtype=np.float64).ravel() * self.scale_ + self.center_


class LightGBM(RegressorMixin, BaseEstimator):
    """LightGBM with early stopping on a fifth of the rows, refitted with that many trees."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> LightGBM:
        options: dict[str, Any] = {"verbose": -1, "n_jobs": 1, "random_state": 0}
        X0, X1, y0, y1 = train_test_split(X, y, test_size=0.2, random_state=0)
        trial = lightgbm.LGBMRegressor(n_estimators=2000, learning_rate=0.05, **options)
        stop = lightgbm.early_stopping(50, verbose=False)
        trial.fit(X0, y0, eval_set=[(X1, y1)], callbacks=[stop])
        trees = max(int(trial.best_iteration_ or 0), 1)
        self.model_ = lightgbm.LGBMRegressor(n_estimators=trees, learning_rate=0.05, **options)
        self.model_.fit(X, y)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model_.predict(X)


class CatBoost(RegressorMixin, BaseEstimator):
    """CatBoost with early stopping on a fifth of the rows, refitted with that many trees."""

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> CatBoost:
        names = X.columns[X.dtypes == "category"].tolist()
        options: dict[str, Any] = {
            "cat_features": names,
            "thread_count": 1,
            "random_seed": 0,
            "verbose": False,
            "allow_writing_files": False,
        }
        X0, X1, y0, y1 = train_test_split(X, y, test_size=0.2, random_state=0)
        trial = catboost.CatBoostRegressor(**options)
        trial.fit(X0, y0, eval_set=(X1, y1), early_stopping_rounds=50)
        trees = max(int(trial.best_iteration_ or 0), 1)
        self.model_ = catboost.CatBoostRegressor(iterations=trees, **options).fit(X, y)
        return self

    def predict(self, X: pd.DataFrame) -> np.ndarray:
        return self.model_.predict(X)


class ARDProcess(RegressorMixin, BaseEstimator):
    """scikit-learn's Gaussian process with one length scale per feature."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> ARDProcess:
        kernel = ConstantKernel() * RBF(np.full(X.shape[1], X.shape[1] ** 0.5), (1e-2, 1e4))
        kernel += WhiteKernel(0.1, (1e-8, 1e2))
        some = np.random.default_rng(0).permutation(len(y))[:_GP_ROWS]
        process = GaussianProcessRegressor(kernel, optimizer=_few_steps, normalize_y=True)
        process.fit(X[some], y[some])
        if len(some) < len(y):
            process = GaussianProcessRegressor(process.kernel_, optimizer=None, normalize_y=True)
            process.fit(X, y)
        self.evidence_ = process.log_marginal_likelihood_value_
        self.model_ = process
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.concatenate([self.model_.predict(part) for part in np.array_split(X, 5)])


def _few_steps(objective: Any, start: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """Do what scikit-learn does by default, but for the number of steps."""
    options = {"maxiter": _GP_STEPS}
    end = minimize(objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options=options)
    return end.x, end.fun


class SlicedInverse(TransformerMixin, BaseEstimator):
    """Sliced inverse regression (K.-C. Li, JASA 86, 1991)."""

    def __init__(self, k: int = 1) -> None:
        self.k = k

    def fit(self, X: np.ndarray, y: np.ndarray) -> SlicedInverse:
        self.mean_ = X.mean(axis=0)
        U, S, Vh = np.linalg.svd(X - self.mean_, full_matrices=False)
        r = int((S > 1e-10 * S[0]).sum())
        white = U[:, :r] * len(X) ** 0.5
        slices = np.array_split(np.argsort(y, kind="stable"), min(_SLICES, len(y) // 2))
        means = np.array(
            [white[rows].mean(axis=0) * (len(rows) / len(y)) ** 0.5 for rows in slices]
        )
        top = np.linalg.svd(means, full_matrices=False)[2][: self.k]
        self.directions_ = (top / S[:r]) @ Vh[:r] * len(X) ** 0.5
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) @ self.directions_.T


class SlicedInverseProcess(RegressorMixin, BaseEstimator):
    """Sliced inverse regression, then a Gaussian process on the number of directions it prefers."""

    def fit(self, X: np.ndarray, y: np.ndarray) -> SlicedInverseProcess:
        counts = range(1, min(_MOST_DIRECTIONS, X.shape[1], len(y) - 1) + 1)
        fitted = [make_pipeline(SlicedInverse(k), ARDProcess()).fit(X, y) for k in counts]
        self.model_ = max(fitted, key=lambda pipeline: pipeline[-1].evidence_)
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.model_.predict(X)


def _standardised(regressor: Any) -> Any:
    return TransformedTargetRegressor(
        make_pipeline(StandardScaler(), regressor), transformer=StandardScaler()
    )


PEERS: dict[str, Callable[[], Any]] = {
    "ridge": lambda: _standardised(RidgeCV(np.logspace(-3, 4, 22))),
    "random forest": lambda: RandomForestRegressor(300, max_features=1 / 3, random_state=0),
    "LightGBM": LightGBM,
    "MLP": lambda: _standardised(
        MLPRegressor(
            hidden_layer_sizes=(100, 100), early_stopping=True, max_iter=2000, random_state=0
        )
    ),
    "GP, length scale per feature": lambda: _standardised(ARDProcess()),
    "SIR, then GP": lambda: _standardised(SlicedInverseProcess()),
    "xRFM": lambda: make_pipeline(StandardScaler(), XRFM()),
}
NATIVE: dict[str, Callable[[], Any]] = {
    "CatBoost": CatBoost,
    "EBM": lambda: ExplainableBoostingRegressor(random_state=0, n_jobs=1),
}
"""Peers that are given tables with their categories, and nothing but tables."""


def fit_peer(name: str, X: np.ndarray | pd.DataFrame, y: np.ndarray) -> Any:
    """Fit one of the peers; what it warns of is its own business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clone({**PEERS, **NATIVE}[name]()).fit(X, y)
