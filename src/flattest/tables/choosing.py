"""Which columns of a training table serve as features, and what is to be said of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from flattest.tables.cells import Cells
from flattest.tables.columns import (
    CategoryColumn,
    Column,
    DateColumn,
    MeasuredColumn,
    NumberColumn,
)
from flattest.tables.dates import CLOCK
from flattest.tables.decimals import Marks
from flattest.tables.faults import Faults, TableError, listed
from flattest.tables.learning import Rules, has_leading_zeros, learn_column
from flattest.tables.missing import gaps_message
from flattest.tables.suspicions import is_index, names_rows
from flattest.wording import count

FEWEST_GAPS = 5
"""Gaps from which on it may tell something that a value is missing."""

FEWEST_NAMES = 10
"""Rows from which on texts that all differ are names of the rows."""


class Chosen(NamedTuple):
    """The columns that serve as features, and what was done with each.

    Parameters
    ----------
    columns : tuple of Column
        In the order of the table.
    left_out : tuple of str
        The columns without use.
    lines : tuple of str
        One sentence for each column with which something was done that is not plain.
    doubts : tuple of str
        One sentence for each column that may be meant otherwise than it is read.
    """

    columns: tuple[Column, ...]
    left_out: tuple[str, ...]
    lines: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def choose_columns(
    names: Sequence[str],
    cells: Mapping[str, Cells],
    rules: Rules,
    marks: Marks,
    missing: str,
) -> Chosen:
    """Choose the columns that serve as features, and learn what they mean.

    Parameters
    ----------
    names : sequence of str
        The names of all columns of the table.
    cells : dict of str to Cells
        The columns to choose from.
    rules : Rules
        What the user says of them.
    marks : Marks
        What is known of the table's decimal marks.
    missing : {"fill", "refuse"}
        What is to be done with missing values.

    Returns
    -------
    Chosen
        The columns.

    Raises
    ------
    TableError
        If columns cannot be read, or have missing values that are to be refused; all in one
        message.
    """
    faults = Faults()
    columns: list[Column] = []
    left_out: list[str] = []
    lines: list[str] = []
    doubts: list[str] = []
    plain: list[str] = []  # columns of categories of which there is nothing more to say
    gaps: dict[str, Bool[np.ndarray, " n"]] = {}
    patterns: set[bytes] = set()  # a gap that another column's tells already tells nothing
    for name, column_cells in cells.items():
        if reason := _useless(column_cells, names, rules):
            left_out.append(name)
            lines.append(f"Column {name!r} {reason}: left out.")
            continue
        with faults.collected():
            column, line = learn_column(column_cells, rules, marks)
            empty = column.encode_cells(column_cells).gaps
            n_gaps, n = int(empty.sum()), len(empty)
            pattern = np.packbits(empty).tobytes()
            telling = FEWEST_GAPS <= n_gaps and pattern not in patterns
            if _is_constant(column) and not (telling and missing == "fill"):
                left_out.append(name)
                why = "has rare texts only" if line else "is the same in all rows"
                lines.append(f"Column {name!r} {why}: left out.")
                continue
            if n_gaps:
                gaps[name] = empty
                patterns.add(pattern)
                column = replace(column, indicator=telling and missing == "fill")
            columns.append(column)
            if isinstance(column, DateColumn):
                line = _dated(column)
            doubtful = isinstance(column, NumberColumn) and marks.is_doubtful(column_cells)
            (doubts if doubtful else lines).extend([line] if line else [])
            if isinstance(column, CategoryColumn) and not line:
                plain.append(f"{name!r} ({len(column.levels)})")
            if n_gaps and missing == "fill":
                lines.append(_filled(column, n_gaps, n, (rules.missing or {}).get(name, {})))
    if gaps and missing == "refuse":
        with faults.collected():
            raise TableError(gaps_message(gaps))
    if plain:
        shown = listed(plain, quote=False)
        lines.append(f"Categories become features of 0 and 1, of two the rarer only: {shown}.")
    faults.raise_any()
    return Chosen(tuple(columns), tuple(left_out), tuple(lines), tuple(doubts))


def _useless(cells: Cells, columns: Sequence[str], rules: Rules) -> str:
    """Say why a column can be of no use, if so."""
    if not cells.present.any():
        return "has no values"
    if cells.name in rules.categorical:
        return ""
    names = len(cells.rows) >= FEWEST_NAMES and names_rows(cells) and _is_categories(cells, rules)
    if is_index(cells, columns, names=names):
        return "only counts or names the rows"
    if names:
        return "is text that differs from row to row, an identifier"
    return ""


def _is_categories(cells: Cells, rules: Rules) -> bool:
    if cells.marks and not has_leading_zeros(cells.different):
        return False
    try:
        return isinstance(learn_column(cells, rules, Marks())[0], CategoryColumn)
    except TableError:
        return False  # said when the column is learnt


def _is_constant(column: Column) -> bool:
    if isinstance(column, MeasuredColumn):
        return column.low == column.high
    assert isinstance(column, CategoryColumn)
    return len(column.levels) + bool(column.rare) < 2


def _dated(column: DateColumn) -> str:
    """Say what becomes of dates."""
    if column.form in CLOCK:
        return f"Column {column.name!r} holds times of day: they count as shares of a day."
    places = f", and their place in the {' and the '.join(column.cycles)}" if column.cycles else ""
    return f"Column {column.name!r} holds dates: their number of days counts{places}."


def _filled(column: Column, n_gaps: int, n: int, written: Mapping[str, int]) -> str:
    """Say what is done with missing values."""
    words = [word or "empty cells" for word in written]
    shown = f" ({', '.join(words)})" if words else ""
    if isinstance(column, CategoryColumn):
        value = f"the most frequent level, {column.usual!r}"
    elif isinstance(column, DateColumn):
        date = datetime(1970, 1, 1) + timedelta(days=column.fill)
        value = f"the median, {date.date()}"
    else:
        assert isinstance(column, MeasuredColumn)
        value = f"the median, {column.fill:.6g}"
    marked = ", and a feature tells where" if column.indicator else ""
    return (
        f"Column {column.name!r}: {count(n_gaps, 'missing value')} of {n:,}{shown} filled in with "
        f"{value}{marked}."
    )
