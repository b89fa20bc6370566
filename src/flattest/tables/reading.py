"""Tables: CSV and Parquet files are read into data frames, or refused in one clear sentence."""

from __future__ import annotations

import csv
import difflib
import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from flattest.errors import FlattestError, require

_READERS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet", ".pq": "parquet"}
_SEPARATORS = ",;\t|"


class TableError(FlattestError):
    """A table that cannot be used; the message says why and what to do about it."""


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read a CSV or Parquet file.

    Parameters
    ----------
    path : str or path
        A file whose name ends in ``.csv``, ``.tsv``, ``.txt``, ``.parquet`` or ``.pq``. Text is
        UTF-8 with a header line; the separator (comma, semicolon, tab or bar) is read off it.

    Returns
    -------
    pandas.DataFrame
        The table, with at least one row, and column names that are different strings.

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
    [{'height': 1.5, 'colour': 'red'}]
    """
    source = Path(path)
    kind = _READERS.get(source.suffix.lower())
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
    frame = (_parse_csv if kind == "csv" else _parse_parquet)(content, source)
    if len(frame) == 0:
        raise TableError(f"{_quoted(source)} has a header but no rows.")
    return frame


def complete_rows(frame: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """Return the rows without a missing value in some columns.

    Parameters
    ----------
    frame : DataFrame
        The table.
    columns : iterable of str
        The columns that matter; names that the table does not have are passed over.

    Returns
    -------
    DataFrame
        The other rows.

    Raises
    ------
    TableError
        If no row is left.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.reading import complete_rows
    >>> len(complete_rows(pd.DataFrame({"x": [1.0, None], "z": [None, None]}), ["x"]))
    1
    """
    relevant = [name for name in columns if name in frame.columns]
    left = frame.dropna(subset=relevant)
    if len(left) == 0:
        empty = [name for name in relevant if frame[name].isna().all()]
        if empty:
            raise TableError(f"{_columns(empty)} no values at all; leave out with --ignore.")
        raise TableError("Every row has a missing value, so --drop-missing leaves none.")
    return left


def require_columns(frame: pd.DataFrame, names: Sequence[str], option: str = "") -> None:
    """Refuse a table that lacks a column.

    Parameters
    ----------
    frame : DataFrame
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
    >>> import pandas as pd
    >>> from flattest.tables.reading import require_columns
    >>> require_columns(pd.DataFrame({"price": [1.0]}), ["Prize"])
    Traceback (most recent call last):
    flattest.tables.reading.TableError: The table has no column 'Prize'; did you mean 'price'?
    """
    known = {str(name).casefold(): str(name) for name in frame.columns}
    missing = [name for name in names if name not in frame.columns]
    if not missing:
        return
    close = difflib.get_close_matches(missing[0].casefold(), known, n=2, cutoff=0.6)
    suggested = " or ".join(repr(known[name]) for name in close)
    advice = f"did you mean {suggested}?" if close else f"it has {listed(known.values())}."
    named = f" ({option})" if option else ""
    noun = "columns" if len(missing) > 1 else "column"
    raise TableError(f"The table has no {noun} {listed(missing)}{named}; {advice}")


def refuse_missing(frame: pd.DataFrame, names: Sequence[str], what: str = "Column") -> None:
    """Refuse columns with missing values.

    Parameters
    ----------
    frame : DataFrame
        The table.
    names : sequence of str
        The columns to look at.
    what : str
        What to call a single one in the message.

    Raises
    ------
    TableError
        If a value is missing; the message counts them column by column.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.reading import refuse_missing
    >>> refuse_missing(pd.DataFrame({"x": [1.0, 2.0]}), ["x"])
    """
    counts = {name: int(frame[name].isna().sum()) for name in names}
    gaps = {name: count for name, count in counts.items() if count}
    if not gaps:
        return
    rows = int(frame[list(gaps)].isna().any(axis=1).sum())
    columns = listed([f"{name!r} ({count:,})" for name, count in gaps.items()], quote=False)
    subject = f"{what} {columns} has" if len(gaps) == 1 else f"Columns {columns} have"
    raise TableError(
        f"{subject} missing values, in {rows:,} of {len(frame):,} rows; fill them in, or leave "
        "those rows out with --drop-missing."
    )


def listed(names: Iterable[str], quote: bool = True, most: int = 6) -> str:
    """Join names with commas, leaving out the rest of a long list.

    Parameters
    ----------
    names : iterable of str
        The names.
    quote : bool
        Whether to put them between quotation marks.
    most : int
        How many to show.

    Returns
    -------
    str
        The list.

    Examples
    --------
    >>> from flattest.tables.reading import listed
    >>> listed("abcd", most=2)
    "'a', 'b' and 2 more"
    """
    shown = [repr(name) if quote else name for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def _parse_csv(content: bytes, source: Path) -> pd.DataFrame:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{_quoted(source)} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV."
        ) from error
    if "\0" in text:
        raise TableError(f"{_quoted(source)} is not a text file; save it as UTF-8 CSV.")
    first_line = text.lstrip().splitlines()[0]
    separator = max(_SEPARATORS, key=first_line.count)
    header = [name.strip() for name in next(csv.reader([first_line], delimiter=separator))]
    header = [name or f"column {i}" for i, name in enumerate(header, start=1)]
    _refuse_duplicates(header, source)
    try:
        with warnings.catch_warnings():
            # pandas would cut rows that are longer than the header.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                io.StringIO(text),
                sep=separator,
                header=0,
                names=header,
                index_col=False,
                skipinitialspace=True,
                low_memory=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise TableError(
            f"{_quoted(source)} is not a regular table: a row has more fields than the header's "
            f"{len(header)}, or a quotation mark is not closed."
        ) from error
    return frame


def _parse_parquet(content: bytes, source: Path) -> pd.DataFrame:
    require("pyarrow", extra="cli", purpose="Reading a Parquet file")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
        _refuse_duplicates([str(name) for name in table.column_names], source)
        frame = table.to_pandas()
    except pyarrow.ArrowException as error:
        raise TableError(
            f"{_quoted(source)} is not a readable Parquet file; it may be truncated."
        ) from error
    frame.columns = pd.Index([str(name) for name in frame.columns], dtype=object)
    return frame.reset_index(drop=True)


def _refuse_duplicates(names: list[str], source: Path) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TableError(
            f"{_quoted(source)} has more than one column named {listed(repeated)}; rename them."
        )


def _columns(names: list[str]) -> str:
    return f"Column {names[0]!r} has" if len(names) == 1 else f"Columns {listed(names)} have"


def _quoted(path: Path) -> str:
    return repr(str(path))


def _nearby(path: Path) -> str:
    """Suggest a file of a similar name in the same folder."""
    if not path.parent.is_dir():
        return f": there is no folder {_quoted(path.parent)}."
    found = [other.name for other in path.parent.iterdir() if other.suffix.lower() in _READERS]
    close = difflib.get_close_matches(path.name, found, n=1, cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else "."
