"""Single cells: numbers as people write them, words for true and false, names of categories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from flattest.tables.dates import days
from flattest.tables.delimited import MISSING_WORDS
from flattest.tables.faults import TableError
from flattest.tables.texts import TextColumn, Values

if TYPE_CHECKING:
    import pandas as pd

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


def plain_numbers(cells: Sequence[str | None]) -> Float[np.ndarray, " n"]:
    """Read numbers with a decimal point and nothing else, many at a time; NaN for other text.

    Parameters
    ----------
    cells : sequence of str or None
        The cells, None where missing.

    Returns
    -------
    ndarray of shape (n,)
        The numbers.

    Examples
    --------
    >>> from flattest.tables.cells import plain_numbers
    >>> plain_numbers(["1.5", "1,5", None]).tolist()
    [1.5, nan, nan]
    """
    return np.array([_plain_number(cell) for cell in cells], dtype=np.float64)


def _plain_number(cell: str | None) -> float:
    # Python's own numbers may have underscores and digits of other scripts.
    if cell is None or not cell.isascii() or "_" in cell:
        return np.nan
    try:
        return float(cell)
    except ValueError:
        return np.nan


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
    if not np.isnan(plain_numbers(texts)).any():
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


@dataclass(frozen=True, eq=False)
class Cells:
    """The values of a column in one of few forms, whatever type they came in.

    Parameters
    ----------
    kind : {"number", "boolean", "date", "text", "name"}
        What `values` holds: float64; float64 with 0 and 1; days; str or None, to be interpreted;
        the same, but categories for sure.
    name : str
        The name of the column.
    values : ndarray of shape (n,) or list of str or None
        The values; NaN or None where they are missing.
    rows : ndarray of shape (n,)
        The numbers of the rows in the file, counted from 1 below the header.
    """

    kind: str
    name: str
    values: Float[np.ndarray, " n"] | list[str | None]
    rows: Int[np.ndarray, " n"]

    @property
    def is_text(self) -> bool:
        """Whether the values are texts."""
        return self.kind in ("text", "name")

    @property
    def texts(self) -> list[str | None]:
        """The values, which must be texts."""
        assert isinstance(self.values, list)
        return self.values

    @property
    def numbers(self) -> Float[np.ndarray, " n"]:
        """The values, which must not be texts."""
        assert isinstance(self.values, np.ndarray)
        return self.values

    @cached_property
    def present(self) -> Bool[np.ndarray, " n"]:
        """Tell the rows with a value."""
        if self.is_text:
            return np.array([text is not None for text in self.texts], dtype=bool)
        return ~np.isnan(self.numbers)

    @cached_property
    def different(self) -> list[str]:
        """The different texts that may mean something, in order."""
        return [t for t in dict.fromkeys(self.texts) if t is not None and t not in NO_NUMBER]

    @cached_property
    def plain(self) -> Float[np.ndarray, " n"]:
        """The numbers with a decimal point and nothing else, NaN for other texts."""
        return plain_numbers(self.texts)

    @cached_property
    def marks(self) -> dict[str, str]:
        """The decimal marks with which all texts are numbers, and the unit beside them."""
        return number_marks(self.different)

    def read(self, mark: str, unit: str = "") -> Float[np.ndarray, " n"]:
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
        >>> from flattest.tables.cells import Cells
        >>> from flattest.tables.texts import TextTable
        >>> Cells.of(TextTable({"x": ["1 234,5", "2", "3 kg"]})["x"]).read(",").tolist()
        [1234.5, 2.0, nan]
        """
        plain = self.plain if mark == "." else np.full(len(self.texts), np.nan)
        left = np.flatnonzero(np.isnan(plain) & self.present).tolist()
        if not left:
            return plain
        found = plain.copy()
        known: dict[str | None, float] = {}
        for text in dict.fromkeys(self.texts[i] for i in left):
            number = parse_number(text or "", mark)
            known[text] = (
                number.value if number is not None and number.unit in ("", unit) else np.nan
            )
        found[left] = [known[self.texts[i]] for i in left]
        return found

    @classmethod
    def of(cls, values: Values) -> Cells:
        """Convert a column of a table.

        Raises
        ------
        TableError
            If its values are neither numbers, truth values, dates nor text.
        """
        if isinstance(values, TextColumn):
            stripped = [None if cell is None else cell.strip() for cell in values.cells]
            return cls("text", values.name, stripped, values.rows + 1)
        return cls(*_typed(values), _row_numbers(values))


def _typed(values: pd.Series) -> tuple[str, str, Float[np.ndarray, " n"] | list[str | None]]:
    """Return what a typed column holds, its name, and its values."""
    import pandas as pd

    kind, api, name = values.dtype, pd.api.types, str(values.name)
    if isinstance(kind, pd.CategoricalDtype):
        return "name", name, _names(values.astype(object))
    if api.is_bool_dtype(kind):
        return "boolean", name, _floats(values)
    if api.is_complex_dtype(kind):
        raise TableError(f"Column {name!r} holds complex numbers; split them first.")
    if api.is_numeric_dtype(kind):
        return "number", name, _floats(values)
    if api.is_datetime64_any_dtype(kind):
        return "date", name, days(values)
    if api.is_timedelta64_dtype(kind):
        return "number", name, _floats(values.dt.total_seconds() / 86400)
    if not (api.is_string_dtype(kind) or api.is_object_dtype(kind)):
        raise TableError(_other_type(name, kind))
    types = set(values.dropna().map(type))
    if types <= {str}:
        stripped = values.map(str.strip, na_action="ignore")
        return "text", name, stripped.astype(object).where(values.notna(), None).tolist()
    if types <= {bool, np.bool_}:
        return "boolean", name, _floats(values)
    if all(issubclass(each, bool | int | float | Decimal | np.number) for each in types):
        return "number", name, _floats(values)
    try:
        return "date", name, days(values)
    except (ValueError, TypeError):
        pass
    if all(issubclass(each, str | bool | int | float) for each in types):
        return "text", name, _names(values)
    raise TableError(_other_type(name, next(iter(types - {str})).__name__))


def _row_numbers(values: pd.Series) -> Int[np.ndarray, " n"]:
    """Return the numbers of rows in their file, which the labels of a frame tell if whole."""
    numbers = [
        int(label) + 1 if isinstance(label, int | np.integer) else position
        for position, label in enumerate(values.index, 1)
    ]
    return np.array(numbers, dtype=np.int64)


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


def _names(values: pd.Series) -> list[str | None]:
    pairs = zip(values, values.isna(), strict=True)
    return [None if missing else name_of(value) for value, missing in pairs]


def _floats(values: pd.Series) -> Float[np.ndarray, " n"]:
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _other_type(name: str, kind: object) -> str:
    return (
        f"Column {name!r} holds values of type {kind}; turn them into numbers first, or leave it "
        f'out with --ignore "{name}".'
    )
