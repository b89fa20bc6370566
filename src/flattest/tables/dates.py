"""Dates in text: the formats that are known, which one a column has, and days since 1970.

pandas, which reads them, takes a second to load: text without the shape of a date does without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from flattest.tables.faults import TableError

if TYPE_CHECKING:
    import pandas as pd

ISO = "iso"
"""The format of ISO 8601: year, month and day, with a time of day and a time zone or without."""
_ISO_PATTERN = (
    r"[12]\d{3}[-/]\d{2}(?:[-/]\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?"
    r"(?: ?(?:Z|UTC|[+-]\d{2}:?\d{2}))?)?)?"
)
_DAYS = ("%Y-%m-%d", "%Y/%m/%d", *(f"%d{s}%m{s}%{y}" for s in "./-" for y in "Yy"))
_MONTHS = tuple(f"%m{s}%d{s}%{y}" for s in "/-" for y in "Yy")
_WORDS = tuple(
    f"{form}"
    for month in ("%b", "%B")
    for form in (
        *(f"%d{s}{month}{s}%{y}" for s in ("-", " ", "") for y in "Yy"),
        *(f"{month} %d, %Y", f"{month} %d %Y", f"{month} %Y", f"{month}-%Y"),
    )
)
_TIMES = ("", " %H:%M", " %H:%M:%S")
CLOCK = ("%H:%M", "%H:%M:%S")
FORMATS = (
    *(date + time for date in (*_DAYS, *_MONTHS, *_WORDS) for time in _TIMES),
    *CLOCK,
)
"""The other formats, as of `datetime.strptime`; a time of day alone is a share of a day."""
_RUN = r"(?:\d{1,4}(?!\d)|[^\W\d_]{3,}(?![^\W\d_]))"
_SHAPE = re.compile(rf"{_ISO_PATTERN}|(?=.*\d)(?=.*\D){_RUN}(?:(?:[-/.:]|,?\s+)?{_RUN})+")
"""What all formats have in common: numbers and the names of months, in any order."""
_FIRST, _JUDGED = 20, 50  # cells that decide which formats are tried on all
_CLOCK_ORIGIN = -25567.0  # the day on which a time of day without a date is taken to be
_NANOSECONDS_PER_DAY = 86400 * 1e9


def days(values: pd.Series) -> Float[np.ndarray, " n"]:
    """Return days since the beginning of 1970 (UTC), NaN where there is no date.

    Parameters
    ----------
    values : Series
        Of a date type.

    Returns
    -------
    ndarray of shape (n,)
        The days.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.dates import days
    >>> days(pd.Series(pd.to_datetime(["1970-01-02 12:00"]))).tolist()
    [1.5]
    """
    import pandas as pd

    stamps = pd.to_datetime(values, utc=True)
    ticks = stamps.astype("datetime64[ns, UTC]").astype("int64").to_numpy(dtype=np.float64)
    return np.where(stamps.isna().to_numpy(), np.nan, ticks / _NANOSECONDS_PER_DAY)


def parse(cells: Sequence[str | None], form: str) -> Float[np.ndarray, " n"]:
    """Return the days that text cells name in one format, NaN where they do not.

    Parameters
    ----------
    cells : sequence of str or None
        The cells.
    form : str
        `ISO` or one of `FORMATS`.

    Returns
    -------
    ndarray of shape (n,)
        Days as of :func:`days`.

    Examples
    --------
    >>> from flattest.tables.dates import ISO, parse
    >>> parse(["1970-01-11", "soon"], ISO).tolist()
    [10.0, nan]
    """
    texts = [text for text in dict.fromkeys(cells) if text is not None and _SHAPE.fullmatch(text)]
    known: dict[str | None, float] = dict(zip(texts, _days(texts, form), strict=True))
    return np.array([known.get(cell, np.nan) for cell in cells], dtype=np.float64)


def format_of(cells: list[str], name: str) -> str | None:
    """Find the format of all cells of a column.

    Parameters
    ----------
    cells : list of str
        The different cells.
    name : str
        The name of the column, for messages.

    Returns
    -------
    str or None
        `ISO` or one of `FORMATS`; None if none suits.

    Raises
    ------
    TableError
        If day and month may be either way round, and the dates then differ.

    Examples
    --------
    >>> from flattest.tables.dates import format_of
    >>> format_of(["3/1/2024", "3/31/2024"], "day")
    '%m/%d/%Y'
    """
    if not all(_SHAPE.fullmatch(cell) for cell in cells):
        return None
    suiting = [form for form in (ISO, *FORMATS) if not np.isnan(_days(cells[:_FIRST], form)).any()]
    meanings = {form: _days(cells, form) for form in suiting}
    suiting = [form for form in suiting if not np.isnan(meanings[form]).any()]
    if not suiting:
        return None
    if any((meanings[form] != meanings[suiting[0]]).any() for form in suiting[1:]):
        raise TableError(
            f"Column {name!r} holds dates such as {cells[0]!r}, which may be read day or month "
            f'first; write them as year-month-day, or leave it out with --ignore "{name}".'
        )
    return suiting[0]


def dates(texts: list[str]) -> set[str]:
    """Return those of the texts that are dates in any format, judged by some of them.

    Examples
    --------
    >>> from flattest.tables.dates import dates
    >>> sorted(dates(["3 Jan 2024", "2024-01-05", "soon"]))
    ['2024-01-05', '3 Jan 2024']
    """
    shaped = [text for text in texts if _SHAPE.fullmatch(text)]
    found: set[str] = set()
    for form in (ISO, *FORMATS) if shaped else ():
        if not np.isnan(_days(shaped[:_JUDGED], form)).all():
            read = ~np.isnan(_days(shaped, form))
            found.update(text for text, good in zip(shaped, read, strict=True) if good)
    return found


def _days(different: Sequence[str], form: str) -> Float[np.ndarray, " n"]:
    """Return the days that different texts name in one format, NaN where they do not."""
    if not different:
        return np.empty(0)
    import pandas as pd

    texts = pd.Series(different, dtype=object)
    if form == ISO:
        texts = texts.where(texts.str.fullmatch(_ISO_PATTERN), None)
        texts = texts.str.replace("/", "-").str.replace(" ?UTC", "Z", regex=True)
        stamps = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce")
    else:
        stamps = pd.to_datetime(texts, format=form, utc=True, errors="coerce")
    return days(stamps) - (_CLOCK_ORIGIN if form in CLOCK else 0.0)
