"""Model files without the model: where they are, and the encoding in them, read without torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from flattest.errors import FlattestError
from flattest.tables.encoding import Encoding

MODEL_FILE = "model.safetensors"
"""The name of a model file in the folder of a fit."""
FORMAT = "flattest.SavedModel/7"
"""What a model file calls itself; to be counted on where the stored form changes."""


class SavedModelError(FlattestError):
    """A file that is no readable model; the message says why."""


def find_model(path: str | os.PathLike[str]) -> Path:
    """Return the model file that a path means.

    Parameters
    ----------
    path : str or path
        The file, or the folder of a fit that holds it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    SavedModelError
        If there is none.
    """
    source = Path(path)
    if source.is_dir():
        if not (source / MODEL_FILE).exists():
            raise SavedModelError(
                f"The folder {str(source)!r} holds no {MODEL_FILE}; give the --out folder of "
                "'flattest fit', or its model file."
            )
        source /= MODEL_FILE
    if not source.exists():
        raise SavedModelError(f"There is no model {str(source)!r}; 'flattest fit' makes one.")
    return source


@contextmanager
def readable(source: Path) -> Iterator[None]:
    """Turn what fails when a damaged file is read into one sentence.

    Parameters
    ----------
    source : Path
        The file.

    Raises
    ------
    SavedModelError
        If the block finds it damaged or of another kind.
    """
    try:
        yield
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        missing = isinstance(error, KeyError)
        reason = f"it has no entry {error}" if missing else str(error).rstrip(".").split("\n")[0]
        raise SavedModelError(
            f"{str(source)!r} is not a model written by 'flattest fit', or it is damaged "
            f"({reason}); fit it again."
        ) from error


def stored_encoding(metadata: Mapping[str, str]) -> Encoding:
    """Rebuild the encoding from the text stored in a model file.

    Parameters
    ----------
    metadata : dict of str to str
        The texts in the file.

    Returns
    -------
    Encoding
        The encoding.

    Raises
    ------
    KeyError, TypeError, ValueError
        If the file is of another kind.
    """
    found = metadata.get("format")
    if found != FORMAT:
        raise ValueError(f"its format is {found!r}, not {FORMAT!r}")
    return Encoding.from_dict(json.loads(metadata["encoding"]))


def load_encoding(path: str | os.PathLike[str]) -> Encoding:
    """Read the encoding of a model, before all else that it takes to predict.

    Parameters
    ----------
    path : str or path
        As for :func:`find_model`.

    Returns
    -------
    Encoding
        The encoding.

    Raises
    ------
    SavedModelError
        If there is no such file, or it is truncated, damaged or of another kind.
    """
    source = find_model(path)
    with readable(source), safe_open(source, framework="np") as file:
        return stored_encoding(file.metadata() or {})
