"""From a table to numbers: rows without a target, missing values, what is to be said beforehand.

All of it works without torch, and text without pandas, so that what is wrong with a file is said at
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.tables.cells import Cells
from flattest.tables.columns import Column, NumberColumn
from flattest.tables.encoding import Encoding, check_varies, learn
from flattest.tables.faults import TableError
from flattest.tables.learning import Rules
from flattest.tables.missing import complete_rows
from flattest.tables.suspicions import giving_away, identifier_warning, looks_like_names
from flattest.tables.texts import Table
from flattest.wording import count

FEWEST_ROWS = 10
"""Rows that a fit needs."""
MISSING = ("fill", "refuse", "drop")
"""What can be done with missing values in features."""


class Prepared(NamedTuple):
    """A training table as numbers.

    Parameters
    ----------
    encoding : Encoding
        What the columns mean.
    features, target : ndarray of shape (n, d) and (n,)
        The numbers.
    unused : tuple of str
        Columns left out.
    n_dropped : int
        Rows left out.
    lines : tuple of str
        One sentence for each column with which something was done that is not plain.
    warnings : tuple of str
        What the user should look at.
    """

    encoding: Encoding
    features: Float[np.ndarray, "n d"]
    target: Float[np.ndarray, " n"]
    unused: tuple[str, ...]
    n_dropped: int
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(
    table: Table,
    target: str,
    *,
    ignore: Sequence[str] = (),
    rules: Rules | None = None,
    missing: str = "fill",
    na: Sequence[str] | None = None,
    text_encoding: str | None = None,
) -> Prepared:
    """Turn a training table into numbers.

    Parameters
    ----------
    table : TextTable or DataFrame
        The table: text cells or typed columns.
    target : str
        The column to predict. Rows without it are left out.
    ignore : sequence of str
        Columns not to be used.
    rules : Rules, optional
        What is said of the columns.
    missing : {"fill", "refuse", "drop"}
        Whether missing values in features are filled in (with the median or the most frequent
        level, and an indicator where there are enough of them), refused, or their rows left out.
    na : sequence of str, optional
        The words for missing values with which the file was read, to be remembered.
    text_encoding : str, optional
        The character encoding with which it was read, to be remembered.

    Returns
    -------
    Prepared
        The numbers.

    Raises
    ------
    TableError
        If the table does not suit.

    Examples
    --------
    >>> from flattest.tables.preparing import prepare
    >>> from flattest.tables.texts import TextTable
    >>> table = TextTable({"x": [f"{i},5" for i in range(12)], "y": [str(i) for i in range(12)]})
    >>> prepared = prepare(table, "y")
    >>> prepared.features[:3].ravel().tolist(), prepared.lines
    ([0.5, 1.5, 2.5], ("Column 'x': '0,5' is read as 0.5.",))
    """
    rules = rules or Rules()
    policy = "fill" if missing == "drop" else missing
    _check_rows(table)
    encoding, chosen, cells = learn(table, target, ignore, rules, policy)
    kept = table[~np.isnan(encoding.target_values(table))]
    said = []
    if without := len(table) - len(kept):
        said.append(f"{count(without, 'row')} without a value of {target!r} left out.")
    _check_rows(kept, f" with a value of {target!r}")
    complete = kept
    if missing == "drop":
        gaps = {c.name: c.encode_cells(cells[c.name]).gaps for c in encoding.columns}
        complete = kept[complete_rows(gaps)]
    if without := len(kept) - len(complete):
        said.append(f"{count(without, 'row')} with missing values left out.")
        _check_rows(complete, " without a missing value")
        # Levels, formats and medians of the rows left out are not remembered.
        encoding, chosen, cells = learn(complete, target, ignore, rules, policy)
    y = encoding.response.read_cells(cells[target])
    check_varies(y, target)
    features = [column.encode_cells(cells[column.name]).matrix for column in encoding.columns]
    return Prepared(
        encoding=replace(
            encoding, na=None if na is None else tuple(na), text_encoding=text_encoding
        ),
        features=np.hstack(features),
        target=y,
        unused=tuple(ignore) + chosen.left_out,
        n_dropped=len(table) - len(complete),
        lines=(*chosen.lines, *said),
        warnings=(*chosen.doubts, *_warnings(encoding.columns, cells, features, y)),
    )


def _check_rows(table: Table, which: str = "") -> None:
    if len(table) < FEWEST_ROWS:
        rows = f"{count(len(table), 'row')}{which}"
        raise TableError(f"The table has {rows}, but a fit needs at least {FEWEST_ROWS}.")


def _warnings(
    columns: Sequence[Column],
    cells: Mapping[str, Cells],
    features: Sequence[Float[np.ndarray, "n _"]],
    y: Float[np.ndarray, " n"],
) -> tuple[str, ...]:
    found = []
    for column, matrix in zip(columns, features, strict=True):
        found.append(giving_away(column, matrix, y))
        if isinstance(column, NumberColumn):
            found.append(identifier_warning(cells[column.name]))
    found.append(looks_like_names(columns, cells))
    return tuple(warning for warning in found if warning)
