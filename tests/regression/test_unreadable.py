"""Text and missing values among the features, and what the regressor says of them."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import flattest as ft

Y = np.array([1.0, 2.0, 4.0, 3.0])
TABLE = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0], "sex": ["M", "F", "F", "M"]})
SPARSE = scipy.sparse.csr_array(np.array([[1.0, np.nan], [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (TABLE, Y, r"Column 'sex' of X holds text \(such as 'M'\).*ft\.TableEncoder\(\)"),
        (TABLE.astype("category"), Y, r"Column 'sex' of X holds text \(such as 'M'\)"),
        (TABLE.to_numpy(), Y, r"Column 1 of X holds text \(such as 'M'\)"),
        (TABLE.to_numpy().tolist(), Y, r"Column 1 of X holds text \(such as 'M'\)"),
        (TABLE.to_numpy().astype(str), Y, r"Column 1 of X holds text \(such as 'M'\)"),
        (
            TABLE.assign(sex=pd.date_range("2020-01-31", periods=4).astype(object)),
            *(Y, r"Column 'sex' of X holds dates \(such as '2020-01-31 00:00:00'\)"),
        ),
        (TABLE.assign(sex=[1, None, 0, 1]), Y, r"Column 'sex' of X has missing values \(NaN\)"),
        (TABLE.assign(sex=["1", "nan", "0", "1"]), Y, r"X has missing values \(NaN\)"),
        (
            TABLE.assign(sex=pd.Series([1, pd.NA, 0, 1], dtype=object)),
            *(Y, r"Column 'sex' of X has missing values \(NaN\).*ft\.TableEncoder\(\)"),
        ),
        (SPARSE, Y, r"X has missing values \(NaN\).*ft\.TableEncoder\(\)"),
        (TABLE[["age"]], ["1", "two", "3", "4"], r"y holds text \(such as 'two'\)"),
    ],
)
def test_one_sentence_says_what_to_do(X: object, y: object, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        ft.MultiIndexRegressor().fit(X, y)
    assert "\n" not in str(caught.value)
    assert "HistGradient" not in str(caught.value)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (TABLE[["age"]] * np.inf, Y, ValueError, "infinity"),
        (TABLE[["age"]], Y * np.nan, ValueError, "Input y contains NaN"),
        (np.array([[{}], [1], [2], [3]]), Y, TypeError, r"float\(\) argument"),
        (TABLE["age"], Y, ValueError, "Expected a 2-dimensional container"),
        (TABLE[["age"]], Y[:2], ValueError, "inconsistent numbers of samples"),
    ],
)
def test_other_faults_keep_their_messages(X: object, y: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        ft.MultiIndexRegressor().fit(X, y)


def test_predictions_say_it_too() -> None:
    x = np.linspace(0, 1, 12)
    model = ft.MultiIndexRegressor(width=5, random_state=0).fit(x[:, None], x)
    with pytest.raises(ValueError, match=r"Column 0 of X holds text.*ft\.TableEncoder\(\)"):
        model.predict(np.array([["a"], ["b"]]))
    with pytest.raises(ValueError, match=r"Column 0 of X has missing values"):
        model.predict([[np.nan]])
