"""Encoding: the columns of a table become numeric features and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from flattest.tables.reading import TableError, listed, refuse_missing, require_columns

MOST_CATEGORIES = 50
"""A text column with more distinct values than this is taken for an identifier."""
_LARGEST = 1e100  # squares of larger numbers leave the range of float64


@dataclass(frozen=True)
class Column:
    """A column of the table that serves as a feature.

    Parameters
    ----------
    name : str
        Its name in the table.
    categories : tuple of str
        The values of a text column, sorted; empty for a numeric one.

    Examples
    --------
    >>> from flattest.tables.encoding import Column
    >>> Column("size", ("large", "medium", "small")).feature_names
    ('size=large', 'size=medium', 'size=small')
    >>> Column("paid", ("no", "yes")).feature_names
    ('paid=yes',)
    """

    name: str
    categories: tuple[str, ...] = ()

    @property
    def coded(self) -> tuple[str, ...]:
        """The categories with an indicator of their own: of two, the first is told by a zero."""
        return self.categories[1:] if len(self.categories) == 2 else self.categories

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features it gives: its own, or one ``name=category`` per indicator."""
        return tuple(f"{self.name}={value}" for value in self.coded) or (self.name,)


@dataclass(frozen=True)
class Encoding:
    """How the columns of a table become the columns of a matrix.

    Numeric columns are taken as they are, text columns as one indicator (0 or 1) per category;
    where there are only two categories, as one indicator for the second.

    Parameters
    ----------
    columns : tuple of Column
        The columns used, in the order of the features.
    target : str
        The column to be predicted.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import learn_encoding
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["b", "a", "b"], "y": [1.0, 2.0, 4.0]})
    >>> encoding = learn_encoding(frame, "y")
    >>> encoding.feature_names, encoding.features(frame).tolist()
    (('x', 'c=b'), [[1.0, 1.0], [2.0, 0.0], [3.0, 1.0]])
    """

    columns: tuple[Column, ...]
    target: str

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def features(self, frame: pd.DataFrame) -> Float[np.ndarray, "n d"]:
        """Return the matrix of features.

        Parameters
        ----------
        frame : DataFrame
            A table with at least the columns of the encoding; others are left alone.

        Returns
        -------
        ndarray of shape (n, d)
            The features, in float64.

        Raises
        ------
        TableError
            If a column is missing, has missing values, or values of another kind than the
            table the encoding was learned from.
        """
        names = [column.name for column in self.columns]
        require_columns(frame, names)
        refuse_missing(frame, names)
        return np.hstack([_encode(frame[column.name], column) for column in self.columns])

    def target_values(self, frame: pd.DataFrame) -> Float[np.ndarray, " n"]:
        """Return the column to be predicted.

        Parameters
        ----------
        frame : DataFrame
            A table with that column.

        Returns
        -------
        ndarray of shape (n,)
            Its values, in float64.

        Raises
        ------
        TableError
            If it is not there, is not numeric, or has missing values.
        """
        return target_values(frame, self.target)

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding in types that JSON can hold."""
        columns = [{"name": c.name, "categories": list(c.categories)} for c in self.columns]
        return {"columns": columns, "target": self.target}

    @classmethod
    def from_dict(cls, values: Any) -> Encoding:
        """Rebuild what :meth:`to_dict` returned.

        Parameters
        ----------
        values : dict
            The dictionary.

        Returns
        -------
        Encoding
            An equal encoding.

        Raises
        ------
        KeyError, TypeError
            If it is another dictionary.
        """
        columns = tuple(Column(str(c["name"]), tuple(c["categories"])) for c in values["columns"])
        return cls(columns, str(values["target"]))


def learn_encoding(frame: pd.DataFrame, target: str, ignore: Sequence[str] = ()) -> Encoding:
    """Choose how each column of a table becomes features.

    Parameters
    ----------
    frame : DataFrame
        The table.
    target : str
        The column to be predicted.
    ignore : sequence of str
        Columns to leave out. Columns with one value only are left out as well.

    Returns
    -------
    Encoding
        One `Column` for every column left.

    Raises
    ------
    TableError
        If a column is missing, has missing values, no name, dates, infinities, a mixture of
        numbers and text, or text that looks like an identifier; or if none is left.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import learn_encoding
    >>> learn_encoding(pd.DataFrame({"x": [1, 2], "one": [1, 1], "y": [3, 4]}), "y").columns
    (Column(name='x', categories=()),)
    """
    require_columns(frame, [target], option="--target")
    require_columns(frame, ignore, option="--ignore")
    names = [name for name in frame.columns if name != target and name not in set(ignore)]
    for name in names:
        if _is_unnamed(frame, name):
            raise TableError(
                f"{name.capitalize()} has no name in the header; name it, or leave it out with "
                f'--ignore "{name}".'
            )
    refuse_missing(frame, names)
    kinds = [_is_text(frame[name]) for name in names]  # refuses what is neither text nor number
    columns = tuple(
        _learn_column(frame[name], text)
        for name, text in zip(names, kinds, strict=True)
        if frame[name].nunique() > 1
    )
    if not columns:
        raise TableError(
            f"No column beside the target {target!r} varies, so there is nothing to learn from."
        )
    return Encoding(columns, target)


def target_values(frame: pd.DataFrame, target: str) -> Float[np.ndarray, " n"]:
    """Return the column to be predicted.

    Parameters
    ----------
    frame : DataFrame
        The table.
    target : str
        The name of the column.

    Returns
    -------
    ndarray of shape (n,)
        Its values, in float64.

    Raises
    ------
    TableError
        If it is not there, is not numeric, or has missing values.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import target_values
    >>> target_values(pd.DataFrame({"y": [1, 2]}), "y")
    array([1., 2.])
    """
    require_columns(frame, [target], option="--target")
    refuse_missing(frame, [target], what="The target")
    values = frame[target]
    if _is_text(values):
        _refuse_mixture(values)
        raise TableError(
            f"The target {target!r} holds text (such as {str(values.iloc[0])!r}), but flattest "
            "predicts numbers; choose a numeric column or code it as numbers first."
        )
    return _numbers(values)


def check_varies(values: Float[np.ndarray, " n"], target: str) -> None:
    """Refuse a target that is the same in all rows.

    Parameters
    ----------
    values : ndarray of shape (n,)
        The values.
    target : str
        Its name.

    Raises
    ------
    TableError
        If the values are all equal.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.encoding import check_varies
    >>> check_varies(np.array([1.0, 2.0]), "y")
    """
    if values.min() == values.max():
        raise TableError(
            f"The target {target!r} is {values[0]:g} in all {len(values)} rows, so there is "
            "nothing to learn; choose another column."
        )


def _learn_column(values: pd.Series, text: bool) -> Column:
    name = str(values.name)
    if not text:
        _numbers(values)
        return Column(name)
    _refuse_mixture(values)
    categories = sorted({str(value) for value in values})
    if len(categories) > MOST_CATEGORIES:
        raise TableError(
            f"Column {name!r} holds text with {len(categories):,} different values, more than "
            f'{MOST_CATEGORIES}; group them, or leave it out with --ignore "{name}".'
        )
    return Column(name, tuple(categories))


def _encode(values: pd.Series, column: Column) -> Float[np.ndarray, "n k"]:
    if not column.categories:
        if _is_text(values):
            _refuse_mixture(values)
            raise TableError(
                f"Column {column.name!r} holds text (such as {str(values.iloc[0])!r}), but the "
                "model was fitted with numbers in it."
            )
        return _numbers(values)[:, None]
    text = values.astype(str).to_numpy(dtype=object)
    unknown = sorted(set(text) - set(column.categories))
    if unknown:
        raise TableError(
            f"Column {column.name!r} holds {listed(unknown)}, which the model has not seen; it "
            f"knows {listed(column.categories)}."
        )
    return (text[:, None] == np.array(column.coded, dtype=object)).astype(np.float64)


def _is_text(values: pd.Series) -> bool:
    """Tell text from numbers, and refuse what is neither."""
    kind = values.dtype
    if pd.api.types.is_bool_dtype(kind) or pd.api.types.is_numeric_dtype(kind):
        if pd.api.types.is_complex_dtype(kind):
            raise TableError(f"Column {values.name!r} holds complex numbers; split them first.")
        return False
    if pd.api.types.is_object_dtype(kind):
        try:
            values.astype(np.float64)  # decimals, or numbers that pandas kept as objects
        except (TypeError, ValueError):
            present = values.dropna()
            if present.map(lambda value: isinstance(value, str | bool | int | float)).all():
                return True
        else:
            return False
    elif isinstance(kind, pd.CategoricalDtype) or pd.api.types.is_string_dtype(kind):
        return True
    raise TableError(
        f"Column {values.name!r} holds values of type {kind}; turn them into numbers first, or "
        f'leave it out with --ignore "{values.name}".'
    )


def _refuse_mixture(values: pd.Series) -> None:
    """Refuse a text column that is mostly numbers: some entries failed to be read."""
    text = values.astype(str).str.strip()
    parsed = pd.to_numeric(text, errors="coerce").notna()
    if parsed.mean() >= 0.5 and not parsed.all():
        row = int(np.flatnonzero(~parsed.to_numpy())[0])
        raise TableError(
            f"Column {values.name!r} mixes numbers with text such as {text.iloc[row]!r} "
            f"(row {_row_number(values, row)}); correct those entries, or leave them empty."
        )
    with_points = pd.to_numeric(text.str.replace(",", ".", n=1), errors="coerce").notna()
    if with_points.mean() >= 0.5 and not parsed.any():
        raise TableError(
            f"Column {values.name!r} holds numbers with a decimal comma, such as "
            f"{text.iloc[0]!r}; write them with a decimal point."
        )


def _numbers(values: pd.Series) -> Float[np.ndarray, " n"]:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = ~(np.abs(numbers) <= _LARGEST)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise TableError(
            f"Column {values.name!r} is {numbers[row]:g} in row {_row_number(values, row)}; "
            "correct or remove that row, or rescale the column."
        )
    return numbers


def _row_number(values: pd.Series, position: int) -> int:
    """Return the number of a row in the file, counted from 1 below the header."""
    return int(values.index[position]) + 1


def _is_unnamed(frame: pd.DataFrame, name: str) -> bool:
    return name == f"column {list(frame.columns).index(name) + 1}"
