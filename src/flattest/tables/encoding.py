"""Encoding: the columns of a table become numeric features and a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from flattest.tables.cells import Cells
from flattest.tables.choosing import Chosen, choose_columns
from flattest.tables.columns import Column, MeasuredColumn, NumberColumn, column_of
from flattest.tables.decimals import Marks
from flattest.tables.faults import Faults, TableError, listed
from flattest.tables.learning import Rules, learn_measured, marks_of, refuse_mixture
from flattest.tables.missing import gaps_message
from flattest.tables.reading import require_columns
from flattest.tables.texts import Table
from flattest.wording import count


class Encoded(NamedTuple):
    """What a table gives under an encoding.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        The features, without gaps.
    incomplete : ndarray of shape (n,)
        Tells the rows with missing values.
    beyond : ndarray of shape (n,)
        Tells the rows with a value that lies outside the range of the training table.
    remarks : tuple of str
        One sentence for each column with something that the training table did not have.
    """

    features: Float[np.ndarray, "n d"]
    incomplete: Bool[np.ndarray, " n"]
    beyond: Bool[np.ndarray, " n"]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Encoding:
    """How the columns of a table become the columns of a matrix.

    Parameters
    ----------
    columns : tuple of Column
        The columns used, in the order of the features.
    response : MeasuredColumn
        The column to be predicted.
    missing : {"fill", "refuse"}
        What is done with missing values in features.
    na : tuple of str or None
        The words for missing values in text files, where they are not the usual ones.
    text_encoding : str or None
        The character encoding of the training table, where the user named one.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import learn_encoding
    >>> frame = pd.DataFrame({"x": [1.0, 2.0, 3.0], "c": ["b", "a", "b"], "y": [1.0, 2.0, 4.0]})
    >>> encoding = learn_encoding(frame, "y")
    >>> encoding.feature_names, encoding.features(frame).tolist()
    (('x', 'c=a'), [[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    """

    columns: tuple[Column, ...]
    response: MeasuredColumn
    missing: str = "fill"
    na: tuple[str, ...] | None = None
    text_encoding: str | None = None

    @property
    def target(self) -> str:
        """The name of the column to be predicted."""
        return self.response.name

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features."""
        return tuple(name for column in self.columns for name in column.feature_names)

    def encode(self, table: Table, *, strict: bool = False) -> Encoded:
        """Return the features, and what is to be said of them.

        Parameters
        ----------
        table : TextTable or DataFrame
            A table with at least the columns of the encoding; others are left alone.
        strict : bool
            Whether to refuse levels, and gaps in columns, that the training table did not have.

        Returns
        -------
        Encoded
            The features.

        Raises
        ------
        TableError
            If a column is missing, or has values of another kind than the training table; all
            that is wrong in one message.
        """
        return encode(self.columns, table, strict=strict, missing=self.missing)

    def features(self, table: Table) -> Float[np.ndarray, "n d"]:
        """Return the matrix of features.

        Parameters
        ----------
        table : TextTable or DataFrame
            As for :meth:`encode`.

        Returns
        -------
        ndarray of shape (n, d)
            The features, in float64.

        Raises
        ------
        TableError
            As for :meth:`encode`.
        """
        return self.encode(table).features

    def target_values(self, table: Table) -> Float[np.ndarray, " n"]:
        """Return the column to be predicted.

        Parameters
        ----------
        table : TextTable or DataFrame
            A table with that column.

        Returns
        -------
        ndarray of shape (n,)
            Its values, in float64, NaN where they are missing.

        Raises
        ------
        TableError
            If it is not there, or is not numeric.
        """
        require_columns(table, [self.target], option="--target")
        return self.response.read(table[self.target])

    def with_target(self, target: str) -> Encoding:
        """Return the same encoding with the target in another column."""
        return replace(self, response=replace(self.response, name=target))

    def to_dict(self) -> dict[str, Any]:
        """Return the encoding in types that JSON can hold."""
        return {
            "columns": [column.to_dict() for column in self.columns],
            "response": self.response.to_dict(),
            "missing": self.missing,
            "na": self.na,
            "text_encoding": self.text_encoding,
        }

    @classmethod
    def from_dict(cls, values: Any) -> Encoding:
        """Rebuild what :meth:`to_dict` returned.

        Parameters
        ----------
        values : dict
            The dictionary.

        Returns
        -------
        Encoding
            An equal encoding.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is another dictionary.
        """
        columns = tuple(column_of(column) for column in values["columns"])
        response, na = column_of(values["response"]), values["na"]
        if not isinstance(response, MeasuredColumn):
            raise ValueError("the target is no number")
        return cls(
            *(columns, response, str(values["missing"])),
            na=None if na is None else tuple(na),
            text_encoding=values.get("text_encoding"),  # older files have none
        )


def encode(columns: Sequence[Column], table: Table, *, strict: bool, missing: str) -> Encoded:
    """Return the features that columns give.

    Parameters
    ----------
    columns : sequence of Column
        The columns, at least one.
    table : TextTable or DataFrame
        A table that has them.
    strict, missing : object
        As for :class:`Encoding`.

    Returns
    -------
    Encoded
        The features.

    Raises
    ------
    TableError
        As for :meth:`Encoding.encode`.
    """
    faults, remarks = Faults(), []
    parts, gaps = [], {}
    with faults.collected():
        require_columns(table, [column.name for column in columns])
    for column in columns:
        if column.name not in table.columns:
            continue
        with faults.collected():
            part = column.encode(table[column.name])
            parts.append(part)
            if part.gaps.any():
                gaps[column.name] = part.gaps
                if not column.has_gaps:
                    remarks.append(
                        f"Column {column.name!r} has {count(int(part.gaps.sum()), 'missing value')}"
                        ", filled in; the training table had none there."
                    )
            if part.unseen:
                remarks.append(_unseen(column, part.unseen))
    if gaps and missing == "refuse":
        with faults.collected():
            raise TableError(gaps_message(gaps))
    if strict:
        for remark in remarks:
            with faults.collected():
                raise TableError(f"{remark.removesuffix('.')} (--strict).")
    faults.raise_any()
    return Encoded(
        features=np.hstack([part.matrix for part in parts]),
        incomplete=np.any([part.gaps for part in parts], axis=0),
        beyond=np.any([part.beyond for part in parts], axis=0),
        remarks=tuple(remarks),
    )


def learn_encoding(
    table: Table,
    target: str,
    ignore: Sequence[str] = (),
    *,
    rules: Rules | None = None,
    missing: str = "fill",
) -> Encoding:
    """Choose how each column of a table becomes features.

    Parameters
    ----------
    table : TextTable or DataFrame
        The table.
    target : str
        The column to be predicted.
    ignore : sequence of str
        Columns to leave out. Columns without use, such as constant ones, are left out as well.
    rules : Rules, optional
        What is said of the columns.
    missing : {"fill", "refuse"}
        What is to be done with missing values in features.

    Returns
    -------
    Encoding
        One `Column` for every column left.

    Raises
    ------
    TableError
        If a column is missing, or mixes numbers with text, and the like; all that is wrong in one
        message.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.tables.encoding import learn_encoding
    >>> encoding = learn_encoding(pd.DataFrame({"x": [1, 2], "one": [1, 1], "y": [3, 4]}), "y")
    >>> [column.name for column in encoding.columns]
    ['x']
    """
    return learn(table, target, ignore, rules or Rules(), missing)[0]


def learn(
    table: Table, target: str, ignore: Sequence[str], rules: Rules, missing: str
) -> tuple[Encoding, Chosen, dict[str, Cells]]:
    """Do the same as :func:`learn_encoding`, and return what was done with the columns too.

    Returns
    -------
    encoding : Encoding
        The encoding.
    chosen : Chosen
        What was done with the columns.
    cells : dict of str to Cells
        The columns, in the rows that have a target.

    Raises
    ------
    TableError
        As there.
    """
    faults = Faults()
    for wanted, option in (
        ([target], "--target"),
        (ignore, "--ignore"),
        (rules.categorical, "--categorical"),
    ):
        with faults.collected():
            require_columns(table, wanted, option=option)
    names = [name for name in table.columns if name != target and name not in set(ignore)]
    cells: dict[str, Cells] = {}
    for name in table.columns:
        if name not in set(ignore) or name == target:
            with faults.collected():
                cells[name] = Cells.of(table[name])
    marks = marks_of(cells, rules)
    response: MeasuredColumn | None = None
    chosen = Chosen((), (), ())
    line = ""
    if target in cells:
        with faults.collected():
            response, line = _learn_response(cells[target], rules, marks)
    if response is not None:
        present = ~np.isnan(response.read_cells(cells[target]))
        if not present.all():
            table = table[present]
            cells = {name: Cells.of(table[name]) for name in cells}
    with faults.collected():
        features = {name: cells[name] for name in names if name in cells}
        chosen = choose_columns(list(table.columns), features, rules, marks, missing)
    faults.raise_any()
    assert response is not None
    if not chosen.columns:
        why = "; ".join(f"c{line[1:].removesuffix('.')}" for line in chosen.lines[:3])
        raise TableError(
            f"No column beside the target {target!r} varies, so there is nothing to learn from"
            f"{': ' if why else ''}{why}."
        )
    if line and isinstance(response, NumberColumn) and marks.is_doubtful(cells[target]):
        chosen = chosen._replace(doubts=(line, *chosen.doubts))
    elif line:
        chosen = chosen._replace(lines=(line, *chosen.lines))
    return Encoding(chosen.columns, response, missing), chosen, cells


def _learn_response(cells: Cells, rules: Rules, marks: Marks) -> tuple[MeasuredColumn, str]:
    """Learn how to read the column to be predicted, and what is to be said of it."""
    target = cells.name
    if not cells.present.any():
        raise TableError(f"The target {target!r} has no values.")
    learnt = None if cells.kind == "name" else learn_measured(cells, rules, marks, codes=True)
    if learnt is None:
        refuse_mixture(cells)
        shown = next(text for text in cells.texts if text is not None)
        raise TableError(
            f"The target {target!r} holds text (such as {shown!r}), but flattest predicts numbers; "
            "choose a numeric column or code it as numbers first."
        )
    if learnt[0].kind == "date":
        raise TableError(
            f"The target {target!r} holds dates, but flattest predicts numbers; turn them into "
            "numbers of days first."
        )
    return learnt


def check_varies(values: Float[np.ndarray, " n"], target: str) -> None:
    """Refuse a target that is the same in all rows.

    Parameters
    ----------
    values : ndarray of shape (n,)
        The values.
    target : str
        Its name.

    Raises
    ------
    TableError
        If the values are all equal.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.encoding import check_varies
    >>> check_varies(np.array([1.0, 2.0]), "y")
    """
    if values.min() == values.max():
        raise TableError(
            f"The target {target!r} is {values[0]:g} in all {len(values)} rows, so there is "
            "nothing to learn; choose another column."
        )


def _unseen(column: Column, levels: Sequence[str]) -> str:
    counts = Counter(levels)
    where = "counted as 'other'" if any("=other" in n for n in column.feature_names) else "unknown"
    rows = "1 row" if len(levels) == 1 else f"{len(levels):,} rows"
    return (
        f"Column {column.name!r} holds {listed(counts)} in {rows}, which the training table did "
        f"not have: {where}."
    )
