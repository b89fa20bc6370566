"""Single cells: numbers as people write them, words for true and false, names of categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from flattest.tables.dates import days
from flattest.tables.delimited import MISSING_WORDS
from flattest.tables.faults import TableError

_SPACES = " \u00a0\u202f\u2009"
_SYMBOLS = "$€£¥₹₩₽₺₫฿"
_CODES = "EUR|USD|GBP|CHF|JPY|CNY|INR|CAD|AUD|NZD|SEK|NOK|DKK|PLN|CZK|BRL|MXN|ZAR|US\\$|R\\$"
_CURRENCY = rf"(?:[{_SYMBOLS}]|{_CODES})"
_UNIT = r"[^\W\d_]{1,8}[²³]?"


def _pattern(mark: str) -> re.Pattern[str]:
    """Return the grammar of a number with a decimal mark; groups of three are always allowed."""
    other, point = re.escape("," if mark == "." else "."), re.escape(mark)
    groups = rf"[1-9]\d{{0,2}}(?P<group>[{other}'’{_SPACES}])\d{{3}}(?:(?P=group)\d{{3}})*"
    lakhs = rf"[1-9]\d?(?:{other}\d\d)+{other}\d{{3}}"
    digits = rf"(?:(?:{groups}|{lakhs}|\d+)(?:{point}\d*)?|{point}\d+)(?:[eE][+-]?\d+)?"
    return re.compile(
        rf"(?P<open>\()?(?P<sign>[-+−])?(?P<before>{_CURRENCY})?[{_SPACES}]?(?P<sign2>[-+−])?"
        rf"(?P<digits>{digits}|inf|Inf|Infinity)"
        rf"[{_SPACES}]?(?P<after>%|{_CURRENCY}|{_UNIT})?(?(open)\))"
    )


_IN_THREES = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
_PATTERNS = {mark: _pattern(mark) for mark in ".,"}
TRUTH = {"true": True, "t": True, "yes": True, "y": True, "on": True} | {
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "off": False,
}
"""Words for true and false, in lower case."""
NO_NUMBER = frozenset(("", *MISSING_WORDS, "None", "none", "-nan"))
"""Texts that cannot but mean a missing value among numbers, truth values or dates."""


class Number(NamedTuple):
    """A number in a text cell.

    Parameters
    ----------
    value : float
        The number; a percentage is its hundredth.
    unit : str
        What stands beside it: a currency, a per cent sign, a unit; mostly nothing.
    """

    value: float
    unit: str


def parse_number(cell: str, mark: str) -> Number | None:
    """Read a number.

    Parameters
    ----------
    cell : str
        The text.
    mark : {".", ","}
        The decimal mark; the other one, spaces and apostrophes may separate groups of digits.

    Returns
    -------
    Number or None
        None for other text.

    Examples
    --------
    >>> from flattest.tables.cells import parse_number
    >>> parse_number("$1,234.50", "."), parse_number("12,5 %", ","), parse_number("1,5", ".")
    (Number(value=1234.5, unit='$'), Number(value=0.125, unit='%'), None)
    """
    found = _PATTERNS[mark].fullmatch(cell)
    if found is None or (found["sign"] and found["sign2"]):
        return None
    units = [unit for unit in (found["before"], found["after"]) if unit]
    if len(units) > 1:
        return None
    digits = found["digits"]
    if digits[0].isdigit() or digits[0] == mark:
        kept = re.sub(rf"[^\deE+\-{re.escape(mark)}]", "", digits).replace(mark, ".")
    else:
        kept = digits
    negative = bool(found["open"]) or "-" in (sign := (found["sign"] or found["sign2"] or ""))
    value = float(kept) * (-1 if negative or sign == "−" else 1)
    unit = units[0] if units else ""
    return Number(value / 100 if unit == "%" else value, unit)


def plain_numbers(cells: pd.Series) -> Float[np.ndarray, " n"]:
    """Read numbers with a decimal point and nothing else, many at a time; NaN for other text.

    Parameters
    ----------
    cells : Series of str
        The cells, None where missing.

    Returns
    -------
    ndarray of shape (n,)
        The numbers.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.cells import plain_numbers
    >>> plain_numbers(pd.Series(["1.5", "1,5", None])).tolist()
    [1.5, nan, nan]
    """
    return pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def number_marks(texts: Sequence[str]) -> dict[str, str]:
    """Return the decimal marks with which all texts are numbers, and the unit beside these.

    Parameters
    ----------
    texts : sequence of str
        The texts.

    Returns
    -------
    dict of str to str
        Empty if some text is no number, or units differ.

    Examples
    --------
    >>> from flattest.tables.cells import number_marks
    >>> number_marks(["1.5", "2"]), number_marks(["$1,234"]), number_marks(["1.5", "a"])
    ({'.': ''}, {'.': '$', ',': '$'}, {})
    """
    if not texts:
        return {}
    marks = {}
    if not np.isnan(plain_numbers(pd.Series(texts, dtype=object))).any():
        marks["."] = ""
        if all("." not in text or _IN_THREES.fullmatch(text) for text in texts):
            marks[","] = ""
        return marks
    for mark in _PATTERNS:
        units: set[str] = set()
        for text in texts:
            number = parse_number(text, mark)
            if number is None or len(units | {number.unit} - {""}) > 1:
                break
            units |= {number.unit} - {""}
        else:
            marks[mark] = units.pop() if units else ""
    return marks


@dataclass(frozen=True)
class Cells:
    """The values of a column in one of few forms, whatever type they came in.

    Parameters
    ----------
    kind : {"number", "boolean", "date", "text", "name"}
        What `values` holds: float64; float64 with 0 and 1; days; str or None, to be interpreted;
        the same, but categories for sure.
    values : Series
        The values, with missing ones.
    """

    kind: str
    values: pd.Series

    @cached_property
    def different(self) -> list[str]:
        """The different texts that may mean something, in order."""
        return [text for text in self.values.dropna().unique() if text not in NO_NUMBER]

    @cached_property
    def plain(self) -> Float[np.ndarray, " n"]:
        """The numbers with a decimal point and nothing else, NaN for other texts."""
        return plain_numbers(self.values)

    @cached_property
    def marks(self) -> dict[str, str]:
        """The decimal marks with which all texts are numbers, and the unit beside them."""
        return number_marks(self.different)

    def numbers(self, mark: str, unit: str = "") -> Float[np.ndarray, " n"]:
        """Read texts as numbers.

        Parameters
        ----------
        mark : {".", ","}
            The decimal mark.
        unit : str
            The unit that may stand beside the numbers.

        Returns
        -------
        ndarray of shape (n,)
            The numbers, NaN for missing values and for other text.

        Examples
        --------
        >>> import pandas as pd
        >>> from flattest.tables.cells import Cells
        >>> Cells.of(pd.Series(["1 234,5", "2", "3 kg"])).numbers(",").tolist()
        [1234.5, 2.0, nan]
        """
        read = self.plain if mark == "." else np.full(len(self.values), np.nan)
        left = np.isnan(read) & self.values.notna().to_numpy()
        if not left.any():
            return read
        known = {}
        for text in self.values[left].unique():
            number = parse_number(text, mark)
            if number is not None and number.unit in ("", unit):
                known[text] = number.value
        read = read.copy()
        read[left] = self.values[left].map(known).to_numpy(dtype=np.float64)
        return read

    @classmethod
    def of(cls, values: pd.Series) -> Cells:
        """Convert a column of a frame.

        Raises
        ------
        TableError
            If its values are neither numbers, truth values, dates nor text.
        """
        kind, api = values.dtype, pd.api.types
        if isinstance(kind, pd.CategoricalDtype):
            return cls("name", _map(values.astype(object), name_of))
        if api.is_bool_dtype(kind):
            return cls("boolean", _floats(values))
        if api.is_complex_dtype(kind):
            raise TableError(f"Column {values.name!r} holds complex numbers; split them first.")
        if api.is_numeric_dtype(kind):
            return cls("number", _floats(values))
        if api.is_datetime64_any_dtype(kind):
            return cls("date", pd.Series(days(values), index=values.index, name=values.name))
        if api.is_timedelta64_dtype(kind):
            return cls("number", values.dt.total_seconds() / 86400)
        if api.is_string_dtype(kind) or api.is_object_dtype(kind):
            return cls._of_objects(values)
        raise TableError(_other_type(values, kind))

    @classmethod
    def _of_objects(cls, values: pd.Series) -> Cells:
        present = values.dropna()
        types = set(present.map(type))
        if types <= {str}:
            return cls("text", _map(values, str.strip))
        if types <= {bool, np.bool_}:
            return cls("boolean", _floats(values))
        if all(issubclass(each, bool | int | float | Decimal | np.number) for each in types):
            return cls("number", _floats(values))
        try:
            return cls("date", pd.Series(days(values), index=values.index, name=values.name))
        except (ValueError, TypeError):
            pass
        if all(issubclass(each, str | bool | int | float) for each in types):
            return cls("text", _map(values, name_of))
        raise TableError(_other_type(values, next(iter(types - {str})).__name__))


def name_of(value: Any) -> str:
    """Return the text of a category: whole numbers look alike, whatever type they have.

    Parameters
    ----------
    value : object
        A scalar.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> from flattest.tables.cells import name_of
    >>> name_of(1), name_of(1.0), name_of("01"), name_of(2.5)
    ('1', '1', '01', '2.5')
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value).strip()


def _map(values: pd.Series, function: Callable[[Any], str]) -> pd.Series:
    cells = [
        None if missing else function(value)
        for value, missing in zip(values, values.isna(), strict=True)
    ]
    return pd.Series(cells, index=values.index, name=values.name, dtype=object)


def _floats(values: pd.Series) -> pd.Series:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return pd.Series(numbers, index=values.index, name=values.name)


def _other_type(values: pd.Series, kind: object) -> str:
    return (
        f"Column {values.name!r} holds values of type {kind}; turn them into numbers first, or "
        f'leave it out with --ignore "{values.name}".'
    )
