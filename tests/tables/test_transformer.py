"""`TableEncoder` in the company of scikit-learn."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

import flattest as ft

RNG = np.random.default_rng(0)
N = 80
TABLE = pd.DataFrame(
    {
        "price": [f"${value:,.0f}" for value in RNG.exponential(5000, N)],
        "kind": RNG.choice(["a", "b", "c"], N),
        "sold": pd.date_range("2020-01-01", periods=N).astype(str),
        "size": np.where(RNG.random(N) < 0.2, np.nan, RNG.standard_normal(N)),
    }
)
Y = TABLE["size"].fillna(0) + (TABLE["kind"] == "a")


def test_it_stands_before_an_estimator() -> None:
    model = make_pipeline(ft.TableEncoder(), Ridge())
    assert cross_val_score(model, TABLE, Y).mean() > 0.8
    assert np.isfinite(clone(model).fit(TABLE, Y).predict(TABLE.iloc[[5]])).all()


def test_every_row_alone_gives_the_same_features() -> None:
    encoder = ft.TableEncoder(strict=True).fit(TABLE)
    whole = encoder.transform(TABLE)
    assert np.isfinite(whole).all()
    for i in range(0, N, 7):
        np.testing.assert_array_equal(encoder.transform(TABLE.iloc[[i]]), whole[[i]])
    again = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(again.transform(TABLE), whole)


def test_frames_come_out_on_request() -> None:
    encoder = ft.TableEncoder().set_output(transform="pandas")
    features = encoder.fit_transform(TABLE)
    assert list(features) == list(encoder.get_feature_names_out())
    assert "size is missing" in features
    assert features.index.equals(TABLE.index)


def test_the_table_is_left_alone() -> None:
    before = TABLE.copy()
    ft.TableEncoder().fit(TABLE).transform(TABLE)
    pd.testing.assert_frame_equal(TABLE, before)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"missing": "drop"}, ValueError, "missing must be one of 'fill', 'refuse', not 'drop'"),
        ({"decimal": ";"}, ValueError, "decimal must be one of None"),
        ({"categorical": "kind"}, TypeError, "categorical must be a sequence"),
        ({"categorical": ["Kind"]}, ValueError, "did you mean 'kind'"),
        ({"missing": "refuse"}, ValueError, "Column 'size' .* has missing values"),
    ],
)
def test_wrong_parameters(options: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ft.TableEncoder(**options).fit(TABLE)


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (np.ones((3, 2)), TypeError, "X must be a pandas DataFrame, not ndarray"),
        (TABLE["kind"], TypeError, "not Series"),
        (TABLE.iloc[:0], ValueError, "X is empty"),
        (pd.DataFrame([[1, 2]] * 3, columns=["a", "a"]), ValueError, "columns of the same name"),
        (pd.DataFrame({"a": [1, 1]}), ValueError, "No column of X varies"),
    ],
)
def test_what_is_no_table(table: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ft.TableEncoder().fit(table)


def test_before_the_fit() -> None:
    with pytest.raises(NotFittedError):
        ft.TableEncoder().transform(TABLE)


def test_unknown_categories() -> None:
    new = TABLE.assign(kind="new")
    assert not ft.TableEncoder().fit(TABLE).transform(new)[:, 1:4].any()
    with pytest.raises(ValueError, match="'new'"):
        ft.TableEncoder(strict=True).fit(TABLE).transform(new)
