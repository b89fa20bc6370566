"""Columns as they were in the training table: what a cell means, and which features it gives.

Each kind of column is one class. It reads the values of any table the way they were read in the
training table, never by guessing anew, so that a row gives the same features in whatever file it
stands. What can be stored is stored under the name of its field.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from flattest.tables.cells import NO_NUMBER, TRUTH, Cells, name_of
from flattest.tables.dates import ISO, parse
from flattest.tables.delimited import MISSING_WORDS
from flattest.tables.faults import TableError
from flattest.tables.texts import Values

OTHER = "other"
"""The level that stands for rare ones, and for levels that the training table did not have."""
LARGEST = 1e100
"""Squares of larger numbers leave the range of float64."""
PERIODS = {"year": 365.2425, "week": 7.0, "day": 1.0}
"""The periods of dates, in days."""


class Features(NamedTuple):
    """What a column of a table gives.

    Parameters
    ----------
    matrix : ndarray of shape (n, k)
        The features, without gaps.
    gaps : ndarray of shape (n,)
        Tells the rows where the value was missing.
    beyond : ndarray of shape (n,)
        Tells the rows whose value lies outside the range, or is no level, of the training table.
    unseen : tuple of str
        The levels that the training table did not have, each as often as it occurs.
    """

    matrix: Float[np.ndarray, "n k"]
    gaps: Bool[np.ndarray, " n"]
    beyond: Bool[np.ndarray, " n"]
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of the training table that serves as features.

    Parameters
    ----------
    name : str
        Its name.
    has_gaps : bool
        Whether values were missing.
    indicator : bool
        Whether a feature tells where a value is missing.
    """

    kind: ClassVar[str]
    name: str
    has_gaps: bool = False
    indicator: bool = False

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of its features."""
        return (*self._names(), *((f"{self.name} is missing",) if self.indicator else ()))

    def encode(self, values: Values) -> Features:
        """Return the features of a column of any table.

        Raises
        ------
        TableError
            If the values are not of the kind of the training table.
        """
        return self.encode_cells(Cells.of(values))

    def encode_cells(self, cells: Cells) -> Features:
        """Do the same for cells."""
        features = self._encode(cells)
        if not self.indicator:
            return features
        flags = features.gaps[:, None].astype(np.float64)
        return features._replace(matrix=np.hstack([features.matrix, flags]))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, in types that JSON can hold."""
        return {"kind": self.kind, **dataclasses.asdict(self)}

    def _names(self) -> tuple[str, ...]:
        return (self.name,)

    def _encode(self, cells: Cells) -> Features:
        raise NotImplementedError


@dataclass(frozen=True)
class MeasuredColumn(Column):
    """A column whose values are points on a line.

    Parameters
    ----------
    fill : float
        What stands for missing values: the median.
    low, high : float
        The range in the training table.
    """

    fill: float = 0.0
    low: float = 0.0
    high: float = 0.0

    def read(self, values: Values) -> Float[np.ndarray, " n"]:
        """Return the numbers that the values stand for, NaN where they are missing.

        Raises
        ------
        TableError
            If a value is of another kind than in the training table, infinite or too large.
        """
        return self.read_cells(Cells.of(values))

    def read_cells(self, cells: Cells) -> Float[np.ndarray, " n"]:
        """Do the same for cells."""
        numbers = self._numbers(cells)
        bad = np.abs(numbers) > LARGEST
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise TableError(
                f"Column {self.name!r} is {numbers[row]:g} in row {cells.rows[row]}; "
                "correct or remove that row, or rescale the column."
            )
        return numbers

    def _encode(self, cells: Cells) -> Features:
        numbers = self.read_cells(cells)
        gaps = np.isnan(numbers)
        beyond = (numbers < self.low) | (numbers > self.high)
        return Features(self._expand(np.where(gaps, self.fill, numbers)), gaps, beyond)

    def _expand(self, numbers: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n k"]:
        return numbers[:, None]

    def _numbers(self, cells: Cells) -> Float[np.ndarray, " n"]:
        """Return numbers, NaN where missing, or refuse cells of another kind."""
        raise NotImplementedError

    def _checked(self, cells: Cells, numbers: Float[np.ndarray, " n"], noun: str) -> np.ndarray:
        """Refuse text that could not be read."""
        for row in np.flatnonzero(np.isnan(numbers) & cells.present).tolist():
            if cells.texts[row] not in NO_NUMBER:
                raise TableError(
                    f"Column {self.name!r} holds text (such as {cells.texts[row]!r} in row "
                    f"{cells.rows[row]}), but the model was fitted with {noun} in it."
                )
        return numbers

    def _refuse(self, cells: Cells, noun: str) -> TableError:
        found = {"date": "dates", "number": "numbers", "boolean": "truth values"}
        return TableError(
            f"Column {self.name!r} holds {found.get(cells.kind, 'categories')}, but the model was "
            f"fitted with {noun} in it."
        )


@dataclass(frozen=True)
class NumberColumn(MeasuredColumn):
    """Numbers.

    Parameters
    ----------
    mark : {".", ","}
        The decimal mark.
    unit : str
        A currency, a per cent sign or a unit beside the numbers; mostly nothing.

    Examples
    --------
    >>> from flattest.tables.columns import NumberColumn
    >>> from flattest.tables.texts import TextTable
    >>> price = NumberColumn(
    ...     "price", False, False, fill=10.0, low=1.0, high=99.0, mark=",", unit="€"
    ... )
    >>> price.read(TextTable({"price": ["1.234,50 €", "7", None]})["price"]).tolist()
    [1234.5, 7.0, nan]
    """

    kind: ClassVar[str] = "number"
    mark: str = "."
    unit: str = ""

    def _numbers(self, cells: Cells) -> Float[np.ndarray, " n"]:
        if cells.kind in ("number", "boolean"):
            return cells.numbers
        if cells.kind == "date":
            raise self._refuse(cells, "numbers")
        return self._checked(cells, cells.read(self.mark, self.unit), "numbers")


@dataclass(frozen=True)
class BooleanColumn(MeasuredColumn):
    """Truth values, in any of their spellings.

    Parameters
    ----------
    true : str
        How the training table writes what counts 1.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.columns import BooleanColumn
    >>> paid = BooleanColumn("paid", False, False, fill=0.0, low=0.0, high=1.0, true="yes")
    >>> paid.feature_names, paid.read(pd.Series(["Yes", "no", "TRUE"])).tolist()
    (('paid=yes',), [1.0, 0.0, 1.0])
    """

    kind: ClassVar[str] = "boolean"
    true: str = "True"

    def _names(self) -> tuple[str, ...]:
        return (self.name if self.true.casefold() in ("true", "t") else f"{self.name}={self.true}",)

    def _numbers(self, cells: Cells) -> Float[np.ndarray, " n"]:
        if (
            cells.kind in ("number", "boolean")
            and np.isin(cells.numbers[cells.present], (0.0, 1.0)).all()
        ):
            return cells.numbers
        if not cells.is_text:
            raise self._refuse(cells, "truth values")
        known = {**TRUTH, "0": False, "1": True}
        folded = ("" if text is None else text.casefold() for text in cells.texts)
        numbers = np.array([known.get(text, np.nan) for text in folded], dtype=np.float64)
        return self._checked(cells, numbers, "truth values")


@dataclass(frozen=True)
class DateColumn(MeasuredColumn):
    """Dates: days since 1970, and where the dates span enough of it, the place in a period.

    Parameters
    ----------
    form : str
        How the training table writes them; see `flattest.tables.dates`.
    cycles : tuple of str
        Periods, each of which gives a sine and a cosine.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.columns import DateColumn
    >>> sold = DateColumn("sold", False, False, 0.0, 0.0, 9.0, form="%d.%m.%Y")
    >>> sold.read(pd.Series(["05.01.1970", "1970-01-09"])).tolist()
    [4.0, 8.0]
    """

    kind: ClassVar[str] = "date"
    form: str = ISO
    cycles: tuple[str, ...] = ()

    def _names(self) -> tuple[str, ...]:
        waves = [f"{self.name}: {w} of the {c}" for c in self.cycles for w in ("sine", "cosine")]
        return (self.name, *waves)

    def _expand(self, numbers: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n k"]:
        angles = [2 * np.pi * numbers / PERIODS[cycle] for cycle in self.cycles]
        return np.column_stack([numbers, *(wave(a) for a in angles for wave in (np.sin, np.cos))])

    def _numbers(self, cells: Cells) -> Float[np.ndarray, " n"]:
        if cells.kind == "date":
            return cells.numbers
        if not cells.is_text:
            raise self._refuse(cells, "dates")
        numbers = parse(cells.texts, self.form)
        if self.form != ISO and np.isnan(numbers).any():
            numbers = np.where(np.isnan(numbers), parse(cells.texts, ISO), numbers)
        return self._checked(cells, numbers, "dates")


@dataclass(frozen=True)
class CategoryColumn(Column):
    """Categories: one indicator per level; of two levels, one for the rarer.

    The levels are in the order of how frequent they are, then of their first row, so that neither
    their names nor these names' order matter. Missing values count as the most frequent level.

    Parameters
    ----------
    levels : tuple of str
        The levels, the most frequent first.
    rare : tuple of str
        Levels too rare to be told apart: they share the level "other", and so does any new one.
    numeric : bool
        Whether the names are numbers, so that 1 and 1.0 are the same.

    Examples
    --------
    >>> from flattest.tables.columns import CategoryColumn
    >>> CategoryColumn("size", False, False, ("small", "large"), ("huge",)).feature_names
    ('size=small', 'size=large', 'size=other')
    >>> CategoryColumn("sex", False, False, ("f", "m")).feature_names
    ('sex=m',)
    """

    kind: ClassVar[str] = "category"
    levels: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    numeric: bool = False

    @property
    def coded(self) -> tuple[str, ...]:
        """The levels with an indicator of their own."""
        levels = (*self.levels, OTHER) if self.rare else self.levels
        return levels[1:] if len(levels) == 2 else levels

    @property
    def usual(self) -> str:
        """The most frequent level, which stands for missing values."""
        return self.levels[0] if self.levels else OTHER

    def texts(self, cells: Cells) -> list[str | None]:
        """Return the names of the levels, None where they are missing."""
        if cells.kind == "boolean":
            known = {1.0: "True", 0.0: "False"}
            return [known.get(number) for number in cells.numbers.tolist()]
        if not cells.is_text:
            pairs = zip(cells.numbers.tolist(), cells.present, strict=True)
            return [name_of(number) if present else None for number, present in pairs]
        if not self.numeric:
            return cells.texts
        return [
            text if np.isnan(number) else name_of(number)
            for text, number in zip(cells.texts, cells.plain.tolist(), strict=True)
        ]

    def _names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={level}" for level in self.coded)

    def _encode(self, cells: Cells) -> Features:
        texts = self.texts(cells)
        words = [level for level in self.levels if level in (*MISSING_WORDS, "")]
        if not self.has_gaps and len(words) == 1:
            # Where nothing was missing and a level has such a name, it is the level that is meant.
            texts = [words[0] if text is None else text for text in texts]
        gaps = np.array([text is None for text in texts], dtype=bool)
        named = [self.usual if text is None else text for text in texts]
        told_apart, known = set(self.levels), {*self.levels, *self.rare}
        unseen = np.array([text not in known for text in named], dtype=bool)
        other = OTHER if self.rare else ""
        places = {level: place for place, level in enumerate(self.coded)}
        found = [places.get(text if text in told_apart else other, -1) for text in named]
        matrix = np.array(found)[:, None] == np.arange(len(places))
        new = tuple(text for text in named if text not in known)
        return Features(matrix.astype(np.float64), gaps, unseen, new)


def column_of(values: dict[str, Any]) -> Column:
    """Rebuild what `Column.to_dict` returned.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is something else.
    """
    kinds = {c.kind: c for c in (NumberColumn, BooleanColumn, DateColumn, CategoryColumn)}
    if values["kind"] not in kinds:
        raise ValueError(f"there is no kind of column {values['kind']!r}")
    kind: Any = kinds[values["kind"]]
    stored = {field.name: values[field.name] for field in dataclasses.fields(kind)}
    column: Column = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()})
    return column
