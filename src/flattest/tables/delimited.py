"""Separated text: the separator, the header, the cells, and which of them are missing values.

Cells stay text: what they mean depends on the whole column, and on the table that a model was
fitted to. Only here is known which cells stood between quotation marks, so it is decided here which
are missing: the empty ones, and words such as NA without quotation marks. Between quotation marks
these words are text, as R writes a level named NA.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flattest.tables.faults import Faults, TableError, listed
from flattest.tables.texts import TextTable

MISSING_WORDS = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "NaT")
"""What stands for a missing value, beside an empty cell, unless --na says otherwise."""
_SEPARATORS = "\t;|,"  # the rarer within names and numbers first: ties go to them
_QUOTED = "\ue000"  # put before words between quotation marks; of private use, so in no other text
_END = "\ue001"  # put behind the text, to tell whether its last quotation mark was closed
_SAMPLE = 100  # records that decide on the separator


class Text(NamedTuple):
    """A table of text cells, and how it was written.

    Parameters
    ----------
    table : TextTable
        The cells, None where the value is missing.
    separator : str
        What separates the cells.
    missing : dict of str to dict
        For each column with missing values, how often they were written how.
    """

    table: TextTable
    separator: str
    missing: dict[str, dict[str, int]]


def parse_delimited(text: str, source: Path, na: Sequence[str] | None = None) -> Text:
    r"""Read separated text with a header.

    Parameters
    ----------
    text : str
        The text. A first line such as ``sep=;``, which spreadsheets write, names the separator.
    source : Path
        The name of the file, for messages.
    na : sequence of str, optional
        Words for missing values, in place of `MISSING_WORDS`.

    Returns
    -------
    Text
        The table. A column without a name is called after its position.

    Raises
    ------
    TableError
        If rows have more cells than the header, a quotation mark is not closed, or two columns have
        the same name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.tables.delimited import parse_delimited
    >>> text = parse_delimited('"price, EUR";land\n1,5;"NA"\n2;NA\n', Path("t.csv"))
    >>> text.table["price, EUR"].cells, text.table["land"].cells, text.missing
    (['1,5', '2'], ['NA', None], {'land': {'NA': 1}})
    """
    declared = re.match(r'"?sep=(.)"?[ ,;\t|]*(?:\r\n|\r|\n)', text)
    body = text[declared.end() :] if declared else text
    body = re.sub(r"\A(?: *(?:\r\n|\r|\n))+", "", body)
    separator = declared.group(1) if declared else _separator(body)
    records = [record for record in _records(body, separator) if any(record)]
    if not records:
        raise TableError(f"{str(source)!r} is empty.")
    header = [" ".join(name.split()) for name in records[0]]
    if len(records) > 1 and all(len(record) == len(header) + 1 for record in records[1:]):
        header = ["", *header]  # R's write.table gives the column of row names no cell
    header = [name or unnamed(position) for position, name in enumerate(header)]
    words = MISSING_WORDS if na is None else tuple(na)
    faults = Faults()
    read: list[Sequence[str]] = []
    with faults.collected():
        refuse_duplicates(header, source)
    with faults.collected():
        read = _columns(_marked(body, separator, words), separator, len(header), source)
    faults.raise_any()
    columns, missing = {}, {}
    for name, cells in zip(header, read, strict=True):
        columns[name], counts = _without_missing(cells, words)
        if counts:
            missing[name] = counts
    return Text(TextTable(columns), separator, missing)


def unnamed(position: int) -> str:
    """Return what a column without a name is called, by its position counted from 0."""
    return f"column {position + 1}"


def refuse_duplicates(names: list[str], source: Path) -> None:
    """Refuse columns of the same name.

    Raises
    ------
    TableError
        If there are any.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TableError(
            f"{str(source)!r} has more than one column named {listed(repeated)}; rename them."
        )


def _separator(text: str) -> str:
    """Find the separator under which the first records are as long as the header, and long."""

    def fit(separator: str) -> tuple[float, int]:
        widths = [len(record) for record in _records(text, separator) if any(record)]
        if not widths or widths[0] == 1:
            return 0.0, int(all(width == 1 for width in widths))
        rows = widths[1:] or widths
        regular = sum(width == widths[0] for width in rows) / len(rows)
        with_row_names = sum(width == widths[0] + 1 for width in rows) / len(rows)
        return max(regular, 0.9 * with_row_names), widths[0]

    return max(_SEPARATORS, key=fit)


def _records(text: str, separator: str) -> Iterator[list[str]]:
    """Yield the first records, as far as they can be read."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        for _, record in zip(range(_SAMPLE), reader, strict=False):
            yield record
    except csv.Error:
        return


def _marked(text: str, separator: str, words: tuple[str, ...]) -> str:
    """Mark the words for missing values that stand between quotation marks.

    Within a cell between quotation marks these are doubled, so the pattern is never part of one.
    """
    spelled = "|".join(re.escape(word) for word in words if word)
    if '"' not in text or not spelled:
        return text
    apart = re.escape(separator) + r"\r\n"
    pattern = rf'(\A|[{apart}])( *)"( *(?:{spelled}) *)"(?= *(?:[{apart}]|\Z))'
    return re.sub(pattern, rf'\1\2"{_QUOTED}\3"', text)


def _columns(text: str, separator: str, width: int, source: Path) -> list[Sequence[str]]:
    """Return the cells below the header, column by column; short rows end with empty ones."""
    whole = io.StringIO(f"{text}\n{_END}", newline="")
    reader = csv.reader(whole, delimiter=separator, skipinitialspace=True)
    irregular = f"{str(source)!r} is not a regular table"
    try:
        read = [record for record in reader if any(record) or len(record) > (width > 1)]
    except csv.Error as error:  # such as a cell of more than 2**17 characters
        raise TableError(f"{irregular} ({error}); is a quotation mark not closed?") from error
    if read.pop() != [_END]:
        raise TableError(f"{irregular}: a quotation mark is not closed.")
    header = next(i for i, record in enumerate(read) if any(record))
    records = read[header + 1 :]
    if longer := [str(i) for i, record in enumerate(records, 1) if len(record) > width]:
        subject = "row {} has" if len(longer) == 1 else "rows {} have"
        raise TableError(
            f"{irregular}: {subject.format(listed(longer, quote=False))} more fields than the "
            f"header's {width}; put cells with {separator!r} in them between quotation marks."
        )
    padded = [record + [""] * (width - len(record)) for record in records]
    return list(zip(*padded, strict=True)) or [()] * width


def _without_missing(
    values: Sequence[str], words: tuple[str, ...]
) -> tuple[list[str | None], dict[str, int]]:
    """Strip the cells and put None for missing values; count how these were written."""
    blank = {"", *words}
    stripped = [value.strip() for value in values]
    counts = Counter(value for value in stripped if value in blank)
    cells = [None if value in blank else value.removeprefix(_QUOTED).strip() for value in stripped]
    return cells, dict(counts)
