"""Missing values: rows without them, and the sentences for those that are there."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
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


def complete_rows(frame: pd.DataFrame, gaps: Mapping[str, Bool[np.ndarray, " n"]]) -> pd.DataFrame:
    """Return the rows without a missing value.

    Parameters
    ----------
    frame : DataFrame
        The table.
    gaps : dict of str to ndarray of shape (n,)
        For each column with missing values, the rows where one is missing.

    Returns
    -------
    DataFrame
        The other rows, with their labels.

    Raises
    ------
    TableError
        If fewer than half of the rows are left.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from flattest.tables.missing import complete_rows
    >>> frame = pd.DataFrame({"x": [1.0, None, 3.0]})
    >>> len(complete_rows(frame, {"x": frame["x"].isna().to_numpy()}))
    2
    """
    if not gaps:
        return frame
    incomplete = np.any(list(gaps.values()), axis=0)
    left = len(frame) - int(incomplete.sum())
    if left < LEAST_SHARE_LEFT * len(frame):
        worst = max(gaps, key=lambda name: gaps[name].sum())
        raise TableError(
            f"Leaving out rows with missing values would leave {left:,} of {len(frame):,}, too few "
            f"to stand for all; most are missing in {worst!r} ({gaps[worst].sum():,}), so leave "
            f'that out with --ignore "{worst}", or fill in with --missing fill.'
        )
    return frame[~incomplete]
