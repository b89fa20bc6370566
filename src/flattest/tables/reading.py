"""Tables: CSV and Parquet files are read, or refused in one clear sentence.

Text is read without pandas, so that what is wrong with it is said at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from flattest.errors import require
from flattest.tables.decoding import decode
from flattest.tables.delimited import parse_delimited, refuse_duplicates
from flattest.tables.faults import TableError as TableError, listed
from flattest.tables.texts import Table, TextTable

if TYPE_CHECKING:
    import pandas as pd

_READERS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}


class Reading(NamedTuple):
    """A table as it is in its file.

    Parameters
    ----------
    table : TextTable or DataFrame
        Text cells and None for missing values, from text; typed columns, from Parquet.
    separator : str
        What separates the cells of a text; a comma where there is no text.
    missing : dict of str to dict
        For the columns of a text with missing values, how often they were written how.
    """

    table: Table
    separator: str = ","
    missing: Mapping[str, Mapping[str, int]] = MappingProxyType({})

    @property
    def frame(self) -> pd.DataFrame:
        """The table as a frame, in any case."""
        return self.table.to_frame() if isinstance(self.table, TextTable) else self.table


def read_file(
    path: str | os.PathLike[str],
    *,
    na: Sequence[str] | None = None,
    encoding: str | None = None,
    usual: str | None = None,
) -> Reading:
    r"""Read a CSV or Parquet file, and say how it is written.

    Parameters
    ----------
    path : str or path
        A file whose name ends in ``.csv``, ``.tsv``, ``.txt``, ``.parquet`` or ``.pq``; text may be
        compressed, with ``.gz`` behind. It has a header; the separator (comma, semicolon, tab or
        bar) is found by trying.
    na : sequence of str, optional
        Words for missing values, in place of the usual ones.
    encoding : str, optional
        The character encoding. By default that of a byte-order mark, UTF-8 without one.
    usual : str, optional
        The encoding in place of UTF-8 where the text does not show that it is UTF-8: that of the
        table that a model was fitted to.

    Returns
    -------
    Reading
        The table, with at least one row, and column names that are different strings.

    Raises
    ------
    TableError
        If the file is missing, empty, unreadable or irregular.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.tables.reading import read_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "table.csv"
    ...     _ = file.write_text("height;colour\n1,5;\n")
    ...     read_file(file).missing
    {'colour': {'': 1}}
    """
    source = Path(path)
    kind = _READERS.get(Path(source.name.lower().removesuffix(".gz")).suffix)
    if source.is_dir():
        raise TableError(f"{_quoted(source)} is a folder; give a CSV or Parquet file.")
    if not source.exists():
        raise TableError(f"There is no file {_quoted(source)}{_nearby(source)}")
    if kind is None:
        raise TableError(
            f"{_quoted(source)} is not a table that flattest reads; its name must end in "
            f"{', '.join(_READERS)}."
        )
    try:
        content = source.read_bytes()
    except OSError as error:
        raise TableError(f"{_quoted(source)} cannot be read: {error.strerror}.") from error
    if not content.strip():
        raise TableError(f"{_quoted(source)} is empty.")
    if kind == "csv":
        text = decode(content, source, encoding, usual=usual)
        if not text.strip():
            raise TableError(f"{_quoted(source)} is empty.")
        reading = Reading(*parse_delimited(text, source, na))
    else:
        reading = Reading(_parse_parquet(content, source))
    if len(reading.table) == 0:
        raise TableError(f"{_quoted(source)} has a header but no rows.")
    return reading


def read_table(
    path: str | os.PathLike[str],
    *,
    na: Sequence[str] | None = None,
    encoding: str | None = None,
    usual: str | None = None,
) -> pd.DataFrame:
    r"""Read a CSV or Parquet file.

    Parameters
    ----------
    path, na, encoding, usual : object
        As for :func:`read_file`.

    Returns
    -------
    pandas.DataFrame
        The frame of a :class:`Reading`: cells of text stay text, since what they mean is learnt by
        :func:`flattest.tables.learning.learn_encoding`.

    Raises
    ------
    TableError
        If the file is missing, empty, unreadable or irregular.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.tables.reading import read_table
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "table.csv"
    ...     _ = file.write_text("height;colour\n1.5;red\n")
    ...     read_table(file).to_dict("records")
    [{'height': '1.5', 'colour': 'red'}]
    """
    return read_file(path, na=na, encoding=encoding, usual=usual).frame


def require_columns(table: Table, names: Sequence[str], option: str = "") -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    table : TextTable or DataFrame
        The table.
    names : sequence of str
        The columns it must have.
    option : str
        The option of the command line that named them.

    Raises
    ------
    TableError
        If one is not there; the message suggests columns of similar names.

    Examples
    --------
    >>> from flattest.tables.reading import require_columns
    >>> from flattest.tables.texts import TextTable
    >>> require_columns(TextTable({"price": ["1"]}), ["Prize"])
    Traceback (most recent call last):
    flattest.tables.faults.TableError: The table has no column 'Prize'; did you mean 'price'?
    """
    known = {str(name).casefold(): str(name) for name in table.columns}
    missing = [name for name in names if name not in table.columns]
    if not missing:
        return
    close = _close(missing[0].casefold(), known)
    suggested = " or ".join(repr(known[name]) for name in close)
    advice = f"did you mean {suggested}?" if close else f"it has {listed(known.values())}."
    named = f" ({option})" if option else ""
    noun = "columns" if len(missing) > 1 else "column"
    raise TableError(f"The table has no {noun} {listed(missing)}{named}; {advice}")


def _close(name: str, known: Iterable[str]) -> list[str]:
    """Return the most similar name, and another one that is nearly as similar."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    ratios = [difflib.SequenceMatcher(None, each, name).ratio() for each in close]
    return [each for each, ratio in zip(close, ratios, strict=True) if ratio > ratios[0] - 0.1]


def _parse_parquet(content: bytes, source: Path) -> pd.DataFrame:
    require("pyarrow", extra="cli", purpose="Reading a Parquet file")
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        refuse_duplicates([str(name) for name in table.column_names], source)
        frame = table.to_pandas()
        for entry in (table.schema.pandas_metadata or {}).get("columns", ()):
            # Parquet itself keeps categories of text only.
            if entry["pandas_type"] == "categorical" and entry["name"] in frame.columns:
                frame[entry["name"]] = frame[entry["name"]].astype("category")
    except pyarrow.ArrowException as error:
        raise TableError(
            f"{_quoted(source)} is not a readable Parquet file; it may be truncated."
        ) from error
    frame.columns = pd.Index([str(name) for name in frame.columns], dtype=object)
    return frame.reset_index(drop=True)


def _quoted(path: Path) -> str:
    return repr(str(path))


def _nearby(path: Path) -> str:
    """Suggest a file of a similar name in the same folder."""
    if not path.parent.is_dir():
        return f": there is no folder {_quoted(path.parent)}."
    found = [
        other.name
        for other in path.parent.iterdir()
        if Path(other.name.removesuffix(".gz")).suffix.lower() in _READERS
    ]
    close = difflib.get_close_matches(path.name, found, n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else "."
