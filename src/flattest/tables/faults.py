"""What is wrong with a table: one kind of error, and all that is wrong in one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flattest.errors import FlattestError

_MOST_FAULTS = 20


class TableError(FlattestError):
    """A table that cannot be used; the message says why and what to do about it.

    Parameters
    ----------
    message : str
        The message.
    faults : tuple of str
        The sentences it consists of, where there are several.
    """

    def __init__(self, message: str, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults or (message,)


class Faults:
    """Collects errors, so that whoever corrects a file does it once.

    Examples
    --------
    >>> from flattest.tables.faults import Faults, TableError
    >>> faults = Faults()
    >>> for name in "ab":
    ...     with faults.collected():
    ...         raise TableError(f"Column {name!r} is empty.")
    >>> faults.raise_any()
    Traceback (most recent call last):
    flattest.tables.faults.TableError: The table has 2 faults:
    - Column 'a' is empty.
    - Column 'b' is empty.
    """

    def __init__(self) -> None:
        self._messages: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep a `TableError` of the block for later."""
        try:
            yield
        except TableError as error:
            self._messages += error.faults

    def raise_any(self) -> None:
        """Raise what was collected, one error as it is and several as a list.

        Raises
        ------
        TableError
            If there was an error.
        """
        messages = list(dict.fromkeys(self._messages))
        if len(messages) == 1:
            raise TableError(messages[0])
        if messages:
            lines = "\n".join(f"- {message}" for message in messages[:_MOST_FAULTS])
            rest = len(messages) - _MOST_FAULTS
            more = f"\n- And {rest} more." if rest > 0 else ""
            whole = f"The table has {len(messages)} faults:\n{lines}{more}"
            raise TableError(whole, tuple(messages))


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
    >>> from flattest.tables.faults import listed
    >>> listed("abcd", most=2)
    "'a', 'b' and 2 more"
    """
    shown = [repr(name) if quote else name for name in names]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")
