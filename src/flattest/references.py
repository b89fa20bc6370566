"""Functions that are named by a string, as in configuration files and on the command line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flattest.errors import FlattestError


def load(
    reference: str, *, what: str, error: type[FlattestError] = FlattestError
) -> Callable[..., Any]:
    """Import a function.

    Parameters
    ----------
    reference : str
        ``"package.module:function"`` or ``"path/to/file.py:function"``.
    what : str
        What it is called in messages: ``"trial"``.
    error : type
        What is raised.

    Returns
    -------
    callable
        The function.

    Raises
    ------
    FlattestError
        Of the type `error`, if there is no such function.

    Examples
    --------
    >>> from flattest.references import load
    >>> load("math:sqrt", what="function")(4)
    2.0
    """
    place, colon, attribute = reference.rpartition(":")
    if not colon or not place or not attribute:
        raise error(
            f"{what} is {reference!r}; write it as 'package.module:function' or 'file.py:function'."
        )
    try:
        module = (
            _load_file(Path(place), what, error)
            if place.endswith(".py")
            else importlib.import_module(place)
        )
    except error:
        raise
    except Exception as problem:
        why = f"{type(problem).__name__}: {problem}"
        raise error(f"{what} {reference!r} cannot be imported: {why}") from problem
    function = getattr(module, attribute, None)
    if not callable(function):
        raise error(f"{what} {reference!r}: there is no function {attribute!r} in {place}.")
    return typing.cast("Callable[..., Any]", function)


def _load_file(path: Path, what: str, error: type[FlattestError]) -> types.ModuleType:
    if not path.is_file():
        raise error(f"{what} names the file {str(path)!r}, which does not exist.")
    name = f"flattest_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        folder = str(path.resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)  # for its imports of its neighbours
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
