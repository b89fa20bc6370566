"""Tables of text in plain lists: what is wrong with a file is found before pandas is loaded.

`TextTable` has what `encoding`, `learning` and `preparing` take from a table, so that they read a
text file and a frame of typed columns alike: a `Table` is either, `Values` a column of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

import numpy as np
from jaxtyping import Bool, Int

if TYPE_CHECKING:
    import pandas as pd

    Table: TypeAlias = "TextTable | pd.DataFrame"
    Values: TypeAlias = "TextColumn | pd.Series"
else:
    Table = Values = Any


class TextColumn(NamedTuple):
    """A column of text cells.

    Parameters
    ----------
    name : str
        Its name.
    cells : list of str or None
        The cells, None where the value is missing.
    rows : ndarray of shape (n,)
        The positions of its rows in the file, counted from 0 below the header.
    """

    name: str
    cells: list[str | None]
    rows: Int[np.ndarray, " n"]


class TextTable:
    """Named columns of text cells, all of the same length.

    Parameters
    ----------
    columns : dict of str to sequence of str or None
        The cells of each column, None where the value is missing.
    rows : ndarray of shape (n,), optional
        The positions of the rows in the file; by default one after the other.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.texts import TextTable
    >>> table = TextTable({"x": ["1", None], "y": ["3", "4"]})
    >>> table.columns, len(table), table[np.array([False, True])]["y"].cells
    (('x', 'y'), 2, ['4'])
    """

    def __init__(
        self,
        columns: Mapping[str, Sequence[str | None]],
        rows: Int[np.ndarray, " n"] | None = None,
    ) -> None:
        self._cells = {name: list(cells) for name, cells in columns.items()}
        n = len(next(iter(self._cells.values()), []))
        self._rows = np.arange(n) if rows is None else rows

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._cells)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._rows)

    @overload
    def __getitem__(self, which: str) -> TextColumn: ...
    @overload
    def __getitem__(self, which: Bool[np.ndarray, " n"]) -> TextTable: ...
    def __getitem__(self, which: str | Bool[np.ndarray, " n"]) -> TextColumn | TextTable:
        """Return the column of a name, or the rows that an array tells."""
        if isinstance(which, str):
            return TextColumn(which, self._cells[which], self._rows)
        kept = np.flatnonzero(which).tolist()
        chosen = {name: [cells[i] for i in kept] for name, cells in self._cells.items()}
        return TextTable(chosen, self._rows[kept])

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a frame of objects."""
        import pandas as pd

        return pd.DataFrame(
            {name: pd.Series(cells, dtype=object) for name, cells in self._cells.items()}
        ).set_axis(list(self._rows))
