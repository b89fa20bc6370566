"""Where readings go: CSV files, TensorBoard, the loggers of other packages, or any function."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flattest.errors import FlattestError
from flattest.files import write_file

Log = Callable[[Mapping[str, float], int], None]
"""What takes the figures by name, and the number of the step."""

PREFIX = "flatness/"
"""Of the figures' names, where they stand among those of others."""
_STEP = "step"


def as_log(logger: Any) -> Log:
    """Make a function of what a caller gives as a logger.

    Parameters
    ----------
    logger : str, path or object
        A file whose name ends in ``.csv``; an object with ``add_scalar``, such as TensorBoard's
        ``SummaryWriter``, or with ``log_metrics``, as Lightning's loggers have; or a function of
        (figures, step).

    Returns
    -------
    callable
        Takes a dictionary of figures, and the step.

    Raises
    ------
    TypeError
        If it is none of these.
    FlattestError
        If the file holds something else.

    Examples
    --------
    >>> from flattest.integrations.logs import as_log
    >>> as_log(lambda figures, step: print(step, figures))({"trace": 2.0}, 10)
    10 {'trace': 2.0}
    """
    if isinstance(logger, (str, os.PathLike)):
        return CsvFile(Path(logger))
    if callable(getattr(logger, "add_scalar", None)):
        return lambda figures, step: _add_scalars(logger, figures, step)
    if callable(getattr(logger, "log_metrics", None)):
        return lambda figures, step: logger.log_metrics(prefixed(figures), step=step)
    if callable(logger) and not isinstance(logger, type):
        return lambda figures, step: logger(figures, step)
    raise TypeError(
        "loggers must hold names of .csv files, objects with add_scalar or log_metrics, and "
        f"functions of (figures, step), not {logger!r}."
    )


def prefixed(figures: Mapping[str, float]) -> dict[str, float]:
    """Return the figures under names that say what they are of.

    Parameters
    ----------
    figures : dict of str to float
        The figures.

    Returns
    -------
    dict of str to float
        The same.

    Examples
    --------
    >>> from flattest.integrations.logs import prefixed
    >>> prefixed({"trace": 2.0})
    {'flatness/trace': 2.0}
    """
    return {f"{PREFIX}{name}": value for name, value in figures.items()}


def _add_scalars(writer: Any, figures: Mapping[str, float], step: int) -> None:
    for name, value in prefixed(figures).items():
        writer.add_scalar(name, value, step)


class CsvFile:
    """A table with one row per reading, which is there as a whole after each.

    Parameters
    ----------
    path : Path
        The file. One that a monitor wrote before is continued, so that a run that is taken up
        again ends in one table.

    Raises
    ------
    FlattestError
        If the file is no table of a monitor, or cannot be read or written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.integrations.logs import CsvFile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "flatness.csv"
    ...     CsvFile(path)({"trace": 2.0}, 10)
    ...     CsvFile(path)({"trace": 1.5, "loss": 0.5}, 20)
    ...     print(path.read_text())
    step,trace,loss
    10,2.0,
    20,1.5,0.5
    <BLANKLINE>
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() != ".csv":
            raise FlattestError(
                f"The logger {str(path)!r} is no name that ends in .csv; for TensorBoard give a "
                "torch.utils.tensorboard.SummaryWriter."
            )
        self._path = path
        self._rows = _read(path) if path.exists() else []
        if not path.parent.is_dir():
            raise FlattestError(f"The folder of {str(path)!r} does not exist; make it first.")

    def __call__(self, figures: Mapping[str, float], step: int) -> None:
        """Add a row.

        Parameters
        ----------
        figures : dict of str to float
            The figures.
        step : int
            The number of the step.
        """
        self._rows.append({_STEP: str(step), **{n: repr(float(v)) for n, v in figures.items()}})
        names = dict.fromkeys(name for row in self._rows for name in row)
        text = io.StringIO()
        writer = csv.DictWriter(text, list(names), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_file(self._path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlattestError(f"{str(path)!r} cannot be read: {error}.") from error
    reader = csv.DictReader(io.StringIO(text))
    if text and (reader.fieldnames is None or reader.fieldnames[0] != _STEP):
        raise FlattestError(
            f"{str(path)!r} exists and is no table of a FlatnessMonitor; give another name."
        )
    return [{name: value for name, value in row.items() if value} for row in reader]
