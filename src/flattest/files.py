"""Output folders: results appear whole or not at all, and nobody's files are overwritten."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flattest.errors import FlattestError

REPORT_FILE = "report.json"
"""Each folder has one; it lists, under `files`, what flattest wrote into the folder."""


class OutputError(FlattestError):
    """Results that cannot be written; the message says why and what to do about it."""


def check_output_folder(target: Path, *, force: bool) -> None:
    """Refuse a folder that results cannot go to, before they are computed.

    Parameters
    ----------
    target : Path
        The folder.
    force : bool
        Whether earlier results there may be replaced. Other files never are.

    Raises
    ------
    OutputError
        If there is something in the way.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.files import check_output_folder
    >>> check_output_folder(Path("a-new-folder"), force=False)
    """
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{str(target)!r} cannot be made: {str(parent)!r} is not writable.")
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise OutputError(f"{str(target)!r} is not a folder; choose another --out.")
    present = {path.name for path in target.iterdir()}
    foreign = sorted(present - _written_before(target))
    if foreign:
        raise OutputError(
            f"The folder {str(target)!r} holds files that flattest did not write, such as "
            f"{foreign[0]!r}; choose another --out."
        )
    if present and not force:
        raise OutputError(
            f"The folder {str(target)!r} holds earlier results; pass --force to replace them, or "
            "choose another --out."
        )


def check_output_file(target: Path | None, *, option: str, force: bool) -> None:
    """Refuse a file that exists, before its content is computed.

    Parameters
    ----------
    target : Path or None
        The file; None where none is wanted.
    option : str
        The option that names it.
    force : bool
        Whether it may be replaced.

    Raises
    ------
    OutputError
        If it exists and may not be replaced.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.files import check_output_file
    >>> check_output_file(Path("a-new-file"), option="--out", force=False)
    """
    if target is not None and target.exists() and not force:
        raise OutputError(
            f"{str(target)!r} exists; pass --force to replace it, or choose another {option}."
        )


@contextmanager
def output_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write to, and put it in its place once all is written.

    Parameters
    ----------
    target : Path
        Where the results go.
    force : bool
        Whether earlier results there may be replaced.

    Yields
    ------
    Path
        A temporary folder beside `target`; it vanishes if the block fails.

    Raises
    ------
    OutputError
        If there is something in the way, or writing fails.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.files import output_folder, write_report
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with output_folder(Path(parent) / "results", force=False) as folder:
    ...         write_report(folder, {"answer": 42})
    ...     (Path(parent) / "results" / "report.json").exists()
    True
    """
    check_output_folder(target, force=force)
    parent = target.absolute().parent
    partial = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=parent))
        partial.chmod(0o755)
        yield partial
        _swap(partial, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{str(target)!r} cannot be written: {reason}.") from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json``, the last file of a folder, with the list of all of them.

    Parameters
    ----------
    folder : Path
        The folder.
    report : mapping
        The content, in types that JSON can hold.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.

    Examples
    --------
    See :func:`output_folder`.
    """
    names = sorted({path.name for path in folder.iterdir()} | {REPORT_FILE})
    text = json.dumps({**report, "files": names}, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, whole or not at all.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    content : str or bytes
        Its content.

    Raises
    ------
    OutputError
        If it cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.files import write_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_file(Path(folder) / "a.txt", "text")
    """
    if path.is_dir():
        raise OutputError(f"{str(path)!r} is a folder; give the name of a file.")
    try:
        replace_file(path, content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise OutputError(f"{str(path)!r} cannot be written: {error.strerror}.") from error


def replace_file(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Parameters
    ----------
    path : Path
        The file; an existing one is replaced.
    content : bytes
        Its content.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is still there.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.files import replace_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     replace_file(Path(folder) / "a.bin", b"content")
    """
    # A rename within one folder is atomic: readers see the old file or the new one.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _written_before(folder: Path) -> set[str]:
    """Return the names of the files that an earlier run left in the folder."""
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        return {str(name) for name in report["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _swap(partial: Path, target: Path) -> None:
    """Rename the new folder into place, keeping the old one until that has worked."""
    old = partial.with_name(partial.name.removesuffix(".partial") + ".old")
    if target.exists():
        target.rename(old)
    try:
        partial.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
