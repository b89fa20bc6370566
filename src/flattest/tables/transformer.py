"""`TableEncoder`: the encoding of tables as a transformer, to stand before any estimator."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from flattest.tables.cells import Cells
from flattest.tables.choosing import choose_columns
from flattest.tables.encoding import encode
from flattest.tables.faults import Faults, TableError
from flattest.tables.learning import Rules, marks_of
from flattest.tables.reading import require_columns


class TableEncoder(TransformerMixin, BaseEstimator):
    """Turn the columns of a table into numeric features, as `flattest fit` does.

    What each column means is learnt from the training table and remembered: a row gives the same
    features in whatever table it stands. Numbers stay as they are, also in text (``"$1,234"``,
    ``"12%"``, ``"1.234,5"``); truth values become 0 and 1; dates become days since 1970, with their
    place in the year, the week and the day where they span enough of them; of categories, each
    gets an indicator, of two the rarer one, and rare ones share one. Columns that are the same in
    all rows, that count the rows, or whose texts all differ are left out.

    Parameters
    ----------
    categorical : sequence of str
        Columns of names, even if these are numbers.
    missing : {"fill", "refuse"}
        Whether missing values are filled in, with the median or the most frequent category, and
        with an indicator of the gaps where at least five rows have one; or refused.
    decimal : {".", ","}, optional
        The decimal mark of numbers in text where it is not clear. By default the column itself
        decides (``"1,190"`` beside ``"660"`` is 1190), then the columns that can be read in one
        way only.
    strict : bool
        Whether to refuse categories, and gaps in columns, that the training table did not have.
        Otherwise unknown categories are the rare ones, or none.

    Attributes
    ----------
    columns_ : tuple of Column
        What each column used means.
    notes_ : tuple of str
        A sentence for each column with which something was done that is not plain.
    n_features_in_ : int
        The number of columns of the training table.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names.

    Examples
    --------
    >>> import pandas as pd
    >>> import flattest as ft
    >>> table = pd.DataFrame({"price": ["$5", "$1,200", None], "paid": ["yes", "no", "yes"]})
    >>> encoder = ft.TableEncoder().fit(table)
    >>> encoder.get_feature_names_out().tolist()
    ['price', 'paid=yes']
    >>> encoder.transform(table).tolist()
    [[5.0, 1.0], [1200.0, 0.0], [602.5, 1.0]]
    """

    def __init__(
        self,
        *,
        categorical: Any = (),
        missing: Any = "fill",
        decimal: Any = None,
        strict: Any = False,
    ) -> None:
        self.categorical = categorical
        self.missing = missing
        self.decimal = decimal
        self.strict = strict

    def fit(self, X: Any, y: Any = None) -> TableEncoder:
        """Learn what the columns mean.

        Parameters
        ----------
        X : DataFrame of shape (n, c)
            The training table.
        y : object, optional
            Not used.

        Returns
        -------
        TableEncoder
            This transformer.

        Raises
        ------
        TypeError
            If `X` is no table.
        ValueError
            If a parameter has a wrong value, or the table cannot be encoded; the message has all
            that is wrong with it.

        Warns
        -----
        UserWarning
            If numbers in text may be read with either decimal mark, and nothing in the table tells.
        """
        _check_option("missing", self.missing, ("fill", "refuse"))
        _check_option("decimal", self.decimal, (None, ".", ","))
        if isinstance(self.categorical, str):
            raise TypeError("categorical must be a sequence of column names, not one name.")
        rules = Rules(
            categorical=tuple(self.categorical),
            decimal=self.decimal,
            decimal_option='decimal="{}"',
        )
        frame = _checked(X)
        faults, cells = Faults(), {}
        with faults.collected():
            require_columns(frame, rules.categorical, option="categorical")
        for name in frame.columns:
            with faults.collected():
                cells[name] = Cells.of(frame[name])
        marks = marks_of(cells, rules)
        with faults.collected():
            chosen = choose_columns(list(frame.columns), cells, rules, marks, self.missing)
        faults.raise_any()
        if not chosen.columns:
            raise TableError("No column of X varies, so there is nothing to learn from.")
        self.columns_ = chosen.columns
        self.notes_ = chosen.doubts + chosen.lines
        for doubt in chosen.doubts:
            warnings.warn(doubt, UserWarning, stacklevel=2)
        self.feature_names_in_ = np.array(frame.columns, dtype=object)
        self.n_features_in_ = frame.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        """Return the features.

        Parameters
        ----------
        X : DataFrame of shape (n, c)
            A table with at least the columns used.

        Returns
        -------
        ndarray of shape (n, d)
            The features, in float64.

        Raises
        ------
        TypeError
            If `X` is no table.
        ValueError
            If a column is missing, or has values of another kind than in the training table.
        """
        check_is_fitted(self)
        options = {"strict": bool(self.strict), "missing": self.missing}
        return encode(self.columns_, _checked(X), **options).features

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features.

        Parameters
        ----------
        input_features : object, optional
            Not used.

        Returns
        -------
        ndarray of shape (d,)
            The names: a column's own, or ``column=category``.
        """
        check_is_fitted(self)
        names = [name for column in self.columns_ for name in column.feature_names]
        return np.array(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "columns_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        return tags


def _checked(X: Any) -> pd.DataFrame:
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a pandas DataFrame, not {type(X).__name__}.")
    if X.empty:
        raise ValueError(f"X is empty: it has {X.shape[0]} rows and {X.shape[1]} columns.")
    names = [str(name) for name in X.columns]
    if len(set(names)) < len(names):
        raise ValueError("X has columns of the same name.")
    return X.set_axis(names, axis=1)


def _check_option(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if not any(value is each or value == each for each in allowed):
        shown = ", ".join(repr(each) for each in allowed)
        raise ValueError(f"{name} must be one of {shown}, not {value!r}.")
