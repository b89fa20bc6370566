"""Learning what each column of a training table means.

Text is read as truth values, numbers or dates where all of a column can be, otherwise as
categories; a typed column keeps its type. A column that can be read in two ways that differ is
read as its neighbours are, and what was decided is said in one line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from flattest.tables.cells import TRUTH, Cells, parse_number
from flattest.tables.columns import (
    OTHER,
    PERIODS,
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    MeasuredColumn,
    NumberColumn,
)
from flattest.tables.dates import dates, format_of
from flattest.tables.decimals import OPTION, Marks
from flattest.tables.faults import TableError, listed

MOST_LEVELS = 50
"""Categories of one column that get a feature of their own, at most."""
FEWEST_ROWS_OF_A_LEVEL = 3
"""Rarer levels are not told apart where there are many."""
_FEW_MIXED = 20  # different cells that may be levels although some of them are numbers
_DASHES = ("-", "--", "–", "—", ".", "?")  # of people who have nothing to write
_SPANS = {"year": 730.0, "week": 28.0, "day": 2.0}  # days from which on a period counts


@dataclass(frozen=True)
class Rules:
    """What the user says of a table's columns.

    Parameters
    ----------
    categorical : tuple of str
        Columns that hold names, even if these look like numbers.
    decimal : {".", ","} or None
        The decimal mark where a column can be read with either; None to decide by what it holds,
        and by its neighbours.
    separator : str or None
        What separates the cells of the file; None where that is not known.
    missing : dict of str to dict
        How missing values were written in the file, by column; to be told of.
    decimal_option : str
        How the user says `decimal`, for messages.
    """

    categorical: tuple[str, ...] = ()
    decimal: str | None = None
    separator: str | None = None
    missing: Mapping[str, Mapping[str, int]] | None = None
    decimal_option: str = OPTION


def marks_of(cells: Mapping[str, Cells], rules: Rules) -> Marks:
    """Return what the columns of a table, and the user, tell of its decimal marks.

    Parameters
    ----------
    cells : dict of str to Cells
        The columns.
    rules : Rules
        What the user says.

    Returns
    -------
    Marks
        What is known.
    """
    return Marks.of_table(
        cells, decimal=rules.decimal, separator=rules.separator, option=rules.decimal_option
    )


def learn_measured(
    cells: Cells, rules: Rules, marks: Marks, *, codes: bool = False
) -> tuple[MeasuredColumn, str] | None:
    """Learn a column of numbers, truth values or dates.

    Parameters
    ----------
    cells : Cells
        The column.
    rules : Rules
        What the user says.
    marks : Marks
        What is known of the table's decimal marks.
    codes : bool
        Whether whole numbers with leading zeros are numbers all the same.

    Returns
    -------
    (MeasuredColumn, str) or None
        How to read it, and what is to be said of that, mostly nothing. None for a column of
        something else.

    Raises
    ------
    TableError
        If dates may be read in two ways.
    """
    name = cells.name
    texts = cells.different if cells.kind == "text" else []
    line = ""
    column: MeasuredColumn
    if cells.kind == "number":
        column = NumberColumn(name)
    elif cells.kind == "boolean":
        column = BooleanColumn(name)
    elif cells.kind == "date":
        column = DateColumn(name)
    elif not texts:
        return None
    elif all(text.casefold() in TRUTH for text in texts):
        true = next((text for text in texts if TRUTH[text.casefold()]), "True")
        column = BooleanColumn(name, true=true)
    elif has_leading_zeros(texts) and not codes:
        return None
    elif cells.marks:
        mark = marks.of_column(cells)
        column = NumberColumn(name, mark=mark, unit=cells.marks[mark])
        line = marks.said(cells, column.unit)
    elif form := format_of(texts, name):
        column = DateColumn(name, form=form)
    else:
        return None
    return _with_range(column, column.read_cells(cells)), line


def learn_column(cells: Cells, rules: Rules, marks: Marks) -> tuple[Column, str]:
    """Learn a column of any kind.

    Parameters
    ----------
    cells, rules, marks : object
        As for :func:`learn_measured`.

    Returns
    -------
    column : Column
        How to read it, and which features it gives.
    line : str
        What is to be said of that; mostly nothing.

    Raises
    ------
    TableError
        If it mixes numbers with text, or numbers in several currencies.
    """
    name = cells.name
    if name in rules.categorical or cells.kind == "name":
        return _learn_categories(cells, numeric=cells.kind != "name" and _are_numbers(cells))
    learnt = learn_measured(cells, rules, marks)
    if learnt is not None:
        return learnt
    _refuse_currencies(cells)
    texts = cells.different
    if len(texts) > min(_FEW_MIXED, len(cells.rows) // 3):
        refuse_mixture(cells)
    column, line = _learn_categories(cells, numeric=False)
    if not line and has_leading_zeros(texts):
        line = f"Column {name!r} has leading zeros (such as {texts[0]!r}): taken as categories."
    elif not line and any(_is_number(text) for text in texts):
        line = (
            f"Column {name!r} holds numbers and text ({listed(texts, most=4)}): taken as "
            f"{len(texts)} categories."
        )
    elif not line and (marks_of_gaps := [text for text in texts if text in _DASHES]):
        word = marks_of_gaps[0]
        line = (
            f"Column {name!r} has the category {word!r}; if that stands for missing values, say "
            f'--na "{word}".'
        )
    return column, line


def has_leading_zeros(texts: Sequence[str]) -> bool:
    """Tell codes: whole numbers of which some begin with a zero."""
    return (
        bool(texts)
        and all(text.isdigit() for text in texts)
        and any(text[0] == "0" and len(text) > 1 for text in texts)
    )


def _are_numbers(cells: Cells) -> bool:
    if cells.kind != "text":
        return cells.kind == "number"
    return "." in cells.marks and not has_leading_zeros(cells.different)


def _is_number(text: str) -> bool:
    """Tell numbers, alone or with the sign of a currency or a per cent, from other text."""
    found = (parse_number(text, mark) for mark in ".,")
    return any(number is not None and not number.unit.isalpha() for number in found)


def _with_range(column: MeasuredColumn, numbers: Float[np.ndarray, " n"]) -> MeasuredColumn:
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return replace(column, has_gaps=True)
    low, high = float(present.min()), float(present.max())
    fill = float(np.median(present))
    if isinstance(column, BooleanColumn):
        fill = float(fill > 0.5)
    if isinstance(column, DateColumn):
        column = replace(column, cycles=_cycles(present))
    return replace(column, fill=fill, low=low, high=high, has_gaps=len(present) < len(numbers))


def _cycles(days: Float[np.ndarray, " n"]) -> tuple[str, ...]:
    """Choose the periods of which dates show several, and different parts."""
    span = np.ptp(days)
    shown = []
    for period, length in PERIODS.items():
        parts = np.unique(np.floor((days % length) / length * 12 + 1e-9))
        if span >= _SPANS[period] and len(parts) > 3:
            shown.append(period)
    return tuple(shown)


def _learn_categories(cells: Cells, *, numeric: bool) -> tuple[CategoryColumn, str]:
    """Learn the levels of a column, of which rare ones are not told apart."""
    name = cells.name
    column = CategoryColumn(name, False, False, (), numeric=numeric)
    texts = column.texts(cells)
    present = [text for text in texts if text is not None]
    counts = Counter(present)  # in the order of first rows
    order = sorted(counts, key=lambda level: -counts[level])
    has_gaps = len(present) < len(texts)
    most = min(MOST_LEVELS, max(10, len(present) // 5))
    if len(order) <= most:
        return replace(column, levels=tuple(order), has_gaps=has_gaps), ""
    kept = [
        level
        for level in order[: most - 1]
        if counts[level] >= FEWEST_ROWS_OF_A_LEVEL and level != OTHER
    ]
    rare = tuple(level for level in order if level not in set(kept))
    rows = sum(counts[level] for level in rare)
    line = (
        f"Column {name!r} has {len(order):,} categories: the {len(kept)} most frequent are told "
        f"apart, the others, in {rows:,} rows, are one level {OTHER!r}."
    )
    return replace(column, levels=tuple(kept), rare=rare, has_gaps=has_gaps), line


def _refuse_currencies(cells: Cells) -> None:
    """Refuse amounts in several currencies, and many numbers in several units."""
    units = set()
    for text in cells.different:
        number = parse_number(text, ".") or parse_number(text, ",")
        if number is None:
            return
        units.add(number.unit)
    money = sorted(unit for unit in units if (unit and not unit.isalpha()) or unit.isupper())
    many = sorted(units - {""}) if len(cells.different) > _FEW_MIXED else []
    if mixed := money if len(money) > 1 else many:
        raise TableError(
            f"Column {cells.name!r} mixes numbers with {listed(mixed)}; convert them to one unit."
        )


def refuse_mixture(cells: Cells) -> None:
    """Refuse a text column that is mostly numbers or dates: some entries failed to be read.

    Parameters
    ----------
    cells : Cells
        The column.

    Raises
    ------
    TableError
        If it is one.
    """
    texts = cells.different
    if not cells.is_text or not texts:
        return
    meant = set(texts)
    rows = [row for row, text in enumerate(cells.texts) if text in meant]
    for noun, known_of in (("numbers", _numbers), ("dates", dates)):
        known = known_of(texts)
        bad = [row for row in rows if cells.texts[row] not in known]
        if not bad or len(bad) > len(rows) / 2:
            continue
        word = cells.texts[bad[0]]
        raise TableError(
            f"Column {cells.name!r} mixes {noun} with text such as {word!r} (row "
            f"{cells.rows[bad[0]]}); correct those entries, or if they stand for missing values "
            f'say --na "{word}".'
        )


def _numbers(texts: Sequence[str]) -> set[str]:
    return {text for text in texts if _is_number(text)}
