"""What to look at before a fit: identifiers, columns that give the target away, codes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from flattest.tables.cells import Cells
from flattest.tables.columns import Column, MeasuredColumn, NumberColumn
from flattest.tables.delimited import unnamed
from flattest.tables.faults import listed

_ROW_NAMES = re.compile(r"row[._ ]?names?|unnamed: 0(\.\d+)?|index|level_0", re.I)
_IDENTIFIER = re.compile(
    r"(?i:(.*[._ -])?(id|ids|identifier|uuid|guid|key|nr|no|number))|.*[a-z]I[Dd]"
)
_FEWEST_TARGETS = 5  # different targets from which on it is no accident that a column orders them
_MOST_CODES = 12


def is_index(cells: Cells, columns: Sequence[str], *, names: bool) -> bool:
    """Tell a column that only counts or names the rows, as data frames are written with.

    Parameters
    ----------
    cells : Cells
        The column.
    columns : sequence of str
        The names of all columns of the table.
    names : bool
        Whether its texts are categories that all differ.

    Returns
    -------
    bool
        True for one without a name, or with one that says so, whose whole numbers all differ; and
        for one without a name whose texts all differ.
    """
    nameless = cells.name == unnamed(list(columns).index(cells.name))
    if not (nameless or _ROW_NAMES.fullmatch(cells.name)) or len(cells.rows) < 2:
        return False
    numbers = _whole_numbers(cells)
    if numbers is not None:
        return len(np.unique(numbers)) == len(numbers)  # rows may have been shuffled, or left out
    return nameless and names


def counts_rows(cells: Cells) -> bool:
    """Tell whole numbers that rise from row to row, nearly always by 1.

    Parameters
    ----------
    cells : Cells
        The column.

    Returns
    -------
    bool
        True for 1, 2, 3 and the like.
    """
    numbers = _whole_numbers(cells)
    if numbers is None or len(numbers) < 2:
        return False
    rising = bool((np.diff(numbers) > 0).all())
    return rising and bool(numbers[-1] - numbers[0] < 1.25 * len(numbers))  # some were left out


def names_rows(cells: Cells) -> bool:
    """Tell texts that all differ.

    Parameters
    ----------
    cells : Cells
        The column.

    Returns
    -------
    bool
        True where each text is in one row only.
    """
    return cells.is_text and len(set(cells.texts)) == len(cells.rows)


def identifier_warning(cells: Cells) -> str:
    """Return a warning of numbers that look like an identifier, or nothing.

    Parameters
    ----------
    cells : Cells
        The column.

    Returns
    -------
    str
        The warning.
    """
    name, numbers = cells.name, _whole_numbers(cells)
    if numbers is None:
        return ""
    named = _IDENTIFIER.fullmatch(name)
    if counts_rows(cells) and (numbers[0] in (0, 1) or named):
        what = f"counts the rows from {numbers[0]:.0f}"
    elif named and len(np.unique(numbers)) == len(numbers):
        what = "is different in every row"
    else:
        return ""
    return f'Column {name!r} {what}: if it is an identifier, leave it out with --ignore "{name}".'


def giving_away(
    column: Column, features: Float[np.ndarray, "n k"], y: Float[np.ndarray, " n"]
) -> str:
    """Return a warning of a column of which the target is a monotone function, or nothing.

    Parameters
    ----------
    column : Column
        The column.
    features : ndarray of shape (n, k)
        What it gives.
    y : ndarray of shape (n,)
        The target.

    Returns
    -------
    str
        The warning.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.columns import NumberColumn
    >>> from flattest.tables.suspicions import giving_away
    >>> x = np.arange(1.0, 9.0)
    >>> column = NumberColumn("x", False, False, 0.0, 0.0, 9.0)
    >>> giving_away(column, x[:, None], x**2)[:56]
    "The target is an increasing function of column 'x' alone"
    """
    if not isinstance(column, MeasuredColumn) or len(np.unique(y)) < _FEWEST_TARGETS:
        return ""
    x = features[:, 0]
    order = np.lexsort([y, x])
    dx, dy = np.diff(x[order]), np.diff(y[order])
    if (dy[dx == 0] != 0).any():
        return ""
    word = "an increasing" if (dy >= 0).all() else "a decreasing" if (dy <= 0).all() else ""
    if not word:
        return ""
    return (
        f"The target is {word} function of column {column.name!r} alone: if that is known only "
        f'with the target, leave it out with --ignore "{column.name}".'
    )


def looks_like_names(columns: Sequence[Column], cells: Mapping[str, Cells]) -> str:
    """Suggest columns of few whole numbers in constant steps, which may be names.

    Parameters
    ----------
    columns : sequence of Column
        The columns used.
    cells : dict of str to Cells
        Their values.

    Returns
    -------
    str
        The suggestion, or nothing.
    """
    found = []
    for column in columns:
        if isinstance(column, NumberColumn) and not column.unit:
            numbers = column.read_cells(cells[column.name])
            levels = np.unique(numbers[~np.isnan(numbers)])
            steps = np.diff(levels)
            whole = bool((levels == np.floor(levels)).all())
            repeated = len(numbers) >= 5 * len(levels)
            if 3 <= len(levels) <= _MOST_CODES and whole and repeated and np.ptp(steps) == 0:
                found.append(column.name)
    if not found:
        return ""
    one = len(found) == 1
    subject = f"Column {found[0]!r} takes" if one else f"Columns {listed(found)} take"
    which = "these" if one else f"those of {found[0]!r}"
    return (
        f"{subject} few whole numbers in equal steps: if {which} are names, say "
        f'--categorical "{found[0]}".'
    )


def _whole_numbers(cells: Cells) -> np.ndarray | None:
    """Return the numbers of a column without gaps, if all are whole."""
    if cells.kind != "number" and not (cells.kind == "text" and "." in cells.marks):
        return None
    numbers = cells.plain if cells.is_text else cells.numbers
    return numbers if (numbers == np.floor(numbers)).all() else None
