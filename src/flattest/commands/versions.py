"""`flattest --versions`: what a report of a problem has to say, without loading any of it."""

from __future__ import annotations

import importlib.metadata
import platform

from flattest._version import __version__

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "pandas")


def versions() -> dict[str, str]:
    """Look up the versions of flattest, of Python and of what figures depend on.

    Returns
    -------
    dict of str to str
        By name; the last one is the platform.

    Examples
    --------
    >>> from flattest.commands.versions import versions
    >>> list(versions())[:3]
    ['flattest', 'python', 'torch']
    """
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    found = {"flattest": __version__, "python": python}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | {"platform": platform.platform()}
