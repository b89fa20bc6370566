"""Which decimal mark a column is written with, where its cells can be read with either.

``1,190`` may be a thousand and more, or a little more than one. The column itself decides first:
beside whole numbers below 1,000 it is the next thousand. Then the other columns vote, as far as
they can be read in one way only. What neither settles is said to be in doubt, and read in the
commoner way: a point as the decimal mark, but a comma in a file whose cells semicolons separate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flattest.tables.cells import Cells, parse_number

OPTION = '--decimal "{}"'
"""How the decimal mark is named on the command line."""


@dataclass(frozen=True)
class Marks:
    """What is known of a table's decimal marks.

    Parameters
    ----------
    points, commas : int
        How many columns can only be read with a point, and only with a comma, as decimal mark.
    decimal : {".", ","} or None
        The mark that the user names for what is not clear.
    separator : str or None
        What separates the cells of the file; None where it is not known.
    option : str
        How the user names a mark, with ``{}`` for it.

    Examples
    --------
    >>> from flattest.tables.cells import Cells
    >>> from flattest.tables.decimals import Marks
    >>> from flattest.tables.texts import TextTable
    >>> table = TextTable({"a": ["660", "1,190"], "b": ["3,250", "1,190"], "c": ["1,5", "2"]})
    >>> cells = {name: Cells.of(table[name]) for name in table.columns}
    >>> marks = Marks.of_table(cells)
    >>> [marks.of_column(cells[name]) for name in table.columns]
    ['.', ',', ',']
    """

    points: int = 0
    commas: int = 0
    decimal: str | None = None
    separator: str | None = None
    option: str = OPTION

    @classmethod
    def of_table(
        cls,
        cells: Mapping[str, Cells],
        *,
        decimal: str | None = None,
        separator: str | None = None,
        option: str = OPTION,
    ) -> Marks:
        """Count the votes of the columns.

        Parameters
        ----------
        cells : dict of str to Cells
            The columns.
        decimal, separator, option : object
            As for the class.

        Returns
        -------
        Marks
            What they tell.
        """
        votes = [_vote(column) for column in cells.values()]
        return cls(votes.count("."), votes.count(","), decimal, separator, option)

    def of_column(self, cells: Cells) -> str:
        """Return the decimal mark of a column of text that holds numbers.

        Parameters
        ----------
        cells : Cells
            The column.

        Returns
        -------
        str
            A point or a comma.
        """
        if len(cells.marks) == 1:
            return next(iter(cells.marks))
        if self.decimal is not None:
            return self.decimal
        if self.separator == "," and _is_plain(cells):
            return "."
        if (own := _own_mark(cells)) is not None:
            return own
        if self.commas != self.points:
            return "," if self.commas > self.points else "."
        # Spreadsheets separate by semicolons where the comma is the decimal mark.
        return "," if self.separator == ";" and not _is_plain(cells) else "."

    def is_doubtful(self, cells: Cells) -> bool:
        """Tell whether numbers in text may as well be meant otherwise.

        Parameters
        ----------
        cells : Cells
            A column of any kind.

        Returns
        -------
        bool
            Whether neither the column, nor the others in agreement, nor the user has settled it.
        """
        if cells.kind != "text" or len(cells.marks) < 2:
            return False
        if self.decimal is not None or _own_mark(cells) or _two_ways(cells) is None:
            return False
        if _is_plain(cells) and (self.separator == "," or not self.commas):
            return False
        return not (self.points or self.commas) or bool(self.points and self.commas)

    def said(self, cells: Cells, unit: str = "") -> str:
        """Say how the numbers of a column are read, where they are not written plainly.

        Parameters
        ----------
        cells : Cells
            The column.
        unit : str
            The unit beside the numbers.

        Returns
        -------
        str
            A sentence; empty where there is nothing to be said.
        """
        mark = self.of_column(cells)
        other = "," if mark == "." else "."
        name = cells.name
        if len(cells.marks) > 1 and (example := _two_ways(cells)) is not None:
            text, values = example
            read = f"Column {name!r}: {text!r} is read as {values[mark]:.10g}"
            named = self.option.format(other)
            if self.is_doubtful(cells):
                why = "the other columns disagree" if self.points else "nothing in the table tells"
                return f"{read}, but may mean {values[other]:.10g} ({why}); if so, say {named}."
            if mark == "." and _is_plain(cells):
                return ""
            return f"{read}; if that is wrong, say {named}."
        different = set(cells.different)
        read_otherwise = zip(cells.texts, cells.plain != cells.read(mark, unit), strict=True)
        for odd, differs in read_otherwise:
            if differs and odd in different and (number := parse_number(odd, mark)) is not None:
                return f"Column {name!r}: {odd!r} is read as {number.value:.10g}."
        return ""


def _vote(cells: Cells) -> str | None:
    """Return the mark of a column that can be read in one way only, and that shows a mark."""
    if cells.kind == "number":
        numbers = cells.numbers[np.isfinite(cells.numbers)]
        # Whoever read these from text took points for decimal marks, as the text alone would tell.
        return "." if (numbers % 1 != 0).any() else None
    if cells.kind != "text" or len(cells.marks) != 1:
        return None
    return next(iter(cells.marks)) if _has(cells, ",") or _has(cells, ".") else None


def _own_mark(cells: Cells) -> str | None:
    """Return the decimal mark where groups of three digits begin at 1,000, and not before.

    All other numbers of the column are whole and smaller. Decimals would not be three in some cells
    and none in the others, unless a program leaves zeros at the end out: these it writes plainly.
    """
    if _has(cells, ",") == _has(cells, ".") or _is_plain(cells):
        return None
    mark, group = (".", ",") if _has(cells, ",") else (",", ".")
    others = [parse_number(text, mark) for text in cells.different if group not in text]
    sizes = [abs(n.value) * (100 if n.unit == "%" else 1) for n in others if n is not None]
    return mark if any(sizes) and max(sizes) < 999.5 else None


def _is_plain(cells: Cells) -> bool:
    """Tell numbers as programs write them: with points alone, and nothing beside them."""
    return not _has(cells, ",") and set(cells.marks.values()) == {""}


def _two_ways(cells: Cells) -> tuple[str, dict[str, float]] | None:
    """Return the first text that means two different numbers, and these by their decimal mark."""
    for text in cells.different:
        if "," in text or "." in text:
            read = {mark: parse_number(text, mark) for mark in ".,"}
            values = {mark: number.value for mark, number in read.items() if number is not None}
            if len(set(values.values())) == 2:
                return text, values
    return None


def _has(cells: Cells, character: str) -> bool:
    return any(character in text for text in cells.different)
