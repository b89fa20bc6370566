"""Missing values: rows without them, and the sentences for those that are there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from flattest.tables.faults import TableError, listed

LEAST_SHARE_LEFT = 0.5
"""The share of the rows that leaving out incomplete ones must leave."""


def gaps_message(gaps: Mapping[str, Bool[np.ndarray, " n"]]) -> str:
    """Say which columns have missing values.

    Parameters
    ----------
    gaps : dict of str to ndarray of shape (n,)
        For each of these columns, the rows where a value is missing.

    Returns
    -------
    str
        The sentence.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.missing import gaps_message
    >>> gaps_message({"x": np.array([True, False])})[:53]
    "Column 'x' (1) has missing values, in 1 of 2 rows; wi"
    """
    counts = [f"{name!r} ({rows.sum():,})" for name, rows in gaps.items()]
    columns = listed(counts, quote=False)
    subject = f"Column {columns} has" if len(gaps) == 1 else f"Columns {columns} have"
    some = np.any(list(gaps.values()), axis=0)
    return (
        f"{subject} missing values, in {some.sum():,} of {len(some):,} rows; with --missing fill "
        "they are filled in, with --missing drop those rows are left out."
    )


def complete_rows(gaps: Mapping[str, Bool[np.ndarray, " n"]]) -> Bool[np.ndarray, " n"]:
    """Tell the rows without a missing value.

    Parameters
    ----------
    gaps : dict of str to ndarray of shape (n,)
        For each column, at least one, the rows where a value is missing.

    Returns
    -------
    ndarray of bool, of shape (n,)
        The other rows.

    Raises
    ------
    TableError
        If fewer than half of the rows are left.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.missing import complete_rows
    >>> complete_rows({"x": np.array([False, True, False])}).tolist()
    [True, False, True]
    """
    complete = ~np.any(list(gaps.values()), axis=0)
    left = int(complete.sum())
    if left < LEAST_SHARE_LEFT * len(complete):
        worst = max(gaps, key=lambda name: gaps[name].sum())
        raise TableError(
            f"Leaving out rows with missing values would leave {left:,} of {len(complete):,}, too "
            f"few to stand for all; most are missing in {worst!r} ({gaps[worst].sum():,}), so "
            f'leave that out with --ignore "{worst}", or fill in with --missing fill.'
        )
    return complete
