"""What flattest raises of its own: one base class, and the error for a package that is missing."""

from __future__ import annotations

import importlib.util


class FlattestError(ValueError):
    """What flattest refuses: a table, a file, a folder, a specification; the message says why.

    Arguments of a wrong type or value raise the usual `TypeError` and `ValueError`.

    Examples
    --------
    >>> from flattest.errors import FlattestError
    >>> from flattest.tables.reading import TableError
    >>> issubclass(TableError, FlattestError)
    True
    """


class MissingPackageError(FlattestError, ImportError):
    """A package that only some of flattest needs, and that is not installed."""


def require(package: str, *, extra: str, purpose: str) -> None:
    """Refuse to go on without an optional package.

    Parameters
    ----------
    package : str
        The package to be imported.
    extra : str
        The extra of flattest that installs it.
    purpose : str
        What needs it, the subject of a sentence.

    Raises
    ------
    MissingPackageError
        If it is not installed.

    Examples
    --------
    >>> from flattest.errors import require
    >>> require("json", extra="plots", purpose="This example")
    >>> require("no_such_package", extra="plots", purpose="This example")
    Traceback (most recent call last):
    ...
    flattest.errors.MissingPackageError: This example needs no_such_package, which is not \
installed; run: pip install 'flattest[plots]'
    """
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f"{purpose} needs {package}, which is not installed; "
            f"run: pip install 'flattest[{extra}]'"
        )
