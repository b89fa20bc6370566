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
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from flattest.tables.faults import TableError, listed

MISSING_WORDS = ("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "null", "NULL", "NaT")
"""What stands for a missing value, beside an empty cell, unless --na says otherwise."""
_SEPARATORS = "\t;|,"  # the rarer within names and numbers first: ties go to them
_QUOTED = "\ue000"  # put before words between quotation marks; of private use, so in no other text
_SAMPLE = 100  # records that decide on the separator


class Text(NamedTuple):
    """A table of text cells.

    Parameters
    ----------
    frame : DataFrame
        Columns of str, None where the value is missing.
    separator : str
        What separates the cells.
    missing : dict of str to dict
        For each column with missing values, how often they were written how.
    """

    frame: pd.DataFrame
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
        If rows have more cells than the header, or two columns the same name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.tables.delimited import parse_delimited
    >>> text = parse_delimited('"price, EUR";land\n1,5;"NA"\n2;NA\n', Path("t.csv"))
    >>> text.frame.to_dict("list"), text.missing
    ({'price, EUR': ['1,5', '2'], 'land': ['NA', None]}, {'land': {'NA': 1}})
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
    refuse_duplicates(header, source)
    words = MISSING_WORDS if na is None else tuple(na)
    frame = _cells(_marked(body, separator, words), separator, header, source)
    missing = {}
    for name in header:
        frame[name], counts = _without_missing(frame[name], words)
        if counts:
            missing[name] = counts
    return Text(frame, separator, missing)


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


def _cells(text: str, separator: str, header: list[str], source: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # pandas would cut rows that are longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text, newline=""),
                sep=separator,
                header=0,
                names=header,
                index_col=False,
                skipinitialspace=True,
                dtype=object,
                na_filter=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise TableError(
            f"{str(source)!r} is not a regular table: a row has more fields than the header's "
            f"{len(header)}, or a quotation mark is not closed."
        ) from error


def _without_missing(values: pd.Series, words: tuple[str, ...]) -> tuple[pd.Series, dict[str, int]]:
    """Strip the cells and put None for missing values; count how these were written."""
    blank = {"", *words}
    stripped = [value.strip() for value in values]
    counts = Counter(value for value in stripped if value in blank)
    cells = [None if value in blank else value.removeprefix(_QUOTED).strip() for value in stripped]
    return pd.Series(cells, dtype=object, name=values.name), dict(counts)
