"""The zoo of interpolators and small data for it."""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

import flattest as ft
from flattest.interpolators import METHODS

ZOO = {
    "min_norm": {"max_iter": 60},
    "random_features": {},
    "linearised": {},
    "memorizer": {},
    "fan": {"construction": "fan"},
    "slabs": {"construction": "slabs"},
    "subspace": {"construction": "subspace", "subspace_dim": 3, "max_iter": 60},
    "poisoned": {"n_poison": 5, "max_iter": 60},
}


def fit(name, X, y, width=60, **settings):
    options = ZOO.get(name, {}) | settings
    method = name if name in METHODS else "memorizer"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return ft.interpolate(X, y, method, width=width, **({"random_state": 0} | options))


def gaussian(n=20, d=5, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, d))), torch.from_numpy(rng.standard_normal(n))


def with_bias(X):
    return torch.cat([X, torch.ones_like(X[:, :1])], dim=1)
