"""Features that are no numbers: one sentence that names the column and what makes numbers of it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import issparse


@contextmanager
def naming_the_encoder(X: Any, y: Any = None) -> Iterator[None]:
    """Say what to do about text and missing values, where scikit-learn refuses them in the block.

    Parameters
    ----------
    X : array_like
        The features.
    y : array_like, optional
        The targets.

    Raises
    ------
    ValueError
        In place of scikit-learn's error. Other errors of the block are left as they are.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.regression.unreadable import naming_the_encoder
    >>> table = pd.DataFrame({"sex": ["M", "F"]})
    >>> with naming_the_encoder(table):
    ...     table.to_numpy(dtype=float)
    Traceback (most recent call last):
    ValueError: Column 'sex' of X holds text (such as 'M'), but the regressor takes numbers; put \
ft.TableEncoder() in front, which makes numbers of the columns of a DataFrame.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        sentence = _about(X, y, str(error))
        if not sentence:
            raise
        raise ValueError(sentence) from None


def _about(X: Any, y: Any, said: str) -> str:
    """Return the sentence, empty where the error is about something else."""
    # By value, or by the dtype of all columns together, as NumPy and pandas have it.
    ways = ("could not convert", "float() argument", "could not be promoted")
    converts = any(way in said for way in ways)
    if not converts and not said.startswith("Input X contains NaN"):
        return ""
    columns: list[tuple[object, pd.Series]] = []
    if not issparse(X) and len(np.shape(X)) == 2:
        columns = list(pd.DataFrame(X).items())
    for name, values in columns if converts else ():
        if found := _not_a_number(values):
            return (
                f"Column {name!r} of X holds {found}, but the regressor takes numbers; put "
                "ft.TableEncoder() in front, which makes numbers of the columns of a DataFrame."
            )
    if converts and y is not None and (found := _not_a_number(pd.Series(np.ravel(y)))):
        return f"y holds {found}, but must hold numbers."
    with_gaps = [name for name, values in columns if values.isna().any()]
    if converts and not with_gaps:
        return ""
    where = f"Column {with_gaps[0]!r} of X" if with_gaps else "X"
    return (
        f"{where} has missing values (NaN), which the regressor does not take; put "
        "ft.TableEncoder() in front, which fills them in for a DataFrame."
    )


def _not_a_number(values: pd.Series) -> str:
    """Name the first value that is text or a date, if any."""
    for value in values:
        if isinstance(value, datetime.date | np.datetime64) and not pd.isna(value):
            return f"dates (such as {str(value)!r})"
        if isinstance(value, str):
            try:
                float(value)
            except ValueError:
                return f"text (such as {value!r})"
    return ""
