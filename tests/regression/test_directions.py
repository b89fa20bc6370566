"""Signs of directions, and features in other forms than dense arrays."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.preprocessing import OneHotEncoder

import flattest as ft
from flattest.regression.gaussian_process import Process
from flattest.regression.smooth_link import tabulated

NETWORK = {"link": "network", "width": 20, "strengths": [0.01], "cv": 2, "random_state": 0}
PROCESS = {"width": 5, "strengths": [0.01], "cv": 2, "random_state": 0}


def make_data(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2)) * [1.0, 100.0] + 7
    x = (X - 7) / [1.0, 100.0]
    # Falls along the features that weigh most.
    y = np.sin(x @ [-0.8, 0.6]) - 0.2 * x @ [0.6, 0.8]
    return X, y + 0.05 * rng.standard_normal(n)


@pytest.mark.parametrize("options", [NETWORK, PROCESS], ids=["network", "process"])
def test_predictions_rise_along_directions(options: dict[str, Any]) -> None:
    X, y = make_data()
    model = ft.MultiIndexRegressor(**options, n_directions=2).fit(X, y)
    assert model.n_directions_ == 2
    for u in model.directions_ / model.inverse_scale_**2:
        # Along this step, in the features' own units, the other projection stays the same.
        step = 1e-4 * u / np.linalg.norm(u * model.inverse_scale_)
        rise = model.predict(X + step) - model.predict(X - step)
        assert rise.mean() > 0


def test_candidates_tell_what_of_them_was_fitted() -> None:
    B, one = torch.eye(3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    kinds: list[Any] = ["projection", "lengths", "scale"]
    table = tabulated([Process("matern52", B, one, 0.1, free=kind) for kind in kinds])
    assert table["fitted"].tolist() == ["directions", "lengths", "scale"]


def test_even_functions_have_their_largest_entry_positive() -> None:
    half = np.random.default_rng(0).standard_normal((20, 2))
    X = np.concatenate([half, -half])
    model = ft.MultiIndexRegressor(**NETWORK).fit(X, np.abs(X @ [0.3, -0.9]))
    assert (model.directions_.max(axis=1) == np.abs(model.directions_).max(axis=1)).all()


def test_sparse_features_are_as_good_as_dense_ones() -> None:
    rng = np.random.default_rng(0)
    names = rng.choice(list("abc"), (60, 1))
    X = OneHotEncoder().fit_transform(names)
    y = (names[:, 0] == "a") + 0.1 * rng.standard_normal(60)
    model = ft.MultiIndexRegressor(**NETWORK).fit(X, y)
    dense = ft.MultiIndexRegressor(**NETWORK).fit(X.toarray(), y)
    for given in (X, coo_matrix(X), X.toarray()):
        np.testing.assert_allclose(model.predict(given), dense.predict(X.toarray()))
        np.testing.assert_allclose(model.transform(given), dense.transform(X.toarray()))
    assert model.__sklearn_tags__().input_tags.sparse


def test_sparse_features_too_large_for_memory_are_refused() -> None:
    X = csr_matrix(([1.0], ([0], [0])), shape=(1000, 10_000_000))
    with pytest.raises(ValueError, match=r"X is sparse, .* would take 74.5 GiB; give"):
        ft.MultiIndexRegressor().fit(X, np.arange(1000.0))


def test_pandas_output_changes_transform_alone() -> None:
    X, y = make_data()
    frame = pd.DataFrame(X, columns=["a", "b"])
    model = ft.MultiIndexRegressor(**NETWORK).fit(frame, y)
    expected = model.is_extrapolation(frame)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(model.transform(frame), pd.DataFrame)
        found = model.is_extrapolation(frame)
    assert type(found) is np.ndarray
    np.testing.assert_array_equal(found, expected)
