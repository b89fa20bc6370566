"""Arguments and options that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Missing(StrEnum):
    """What to do with missing values in features."""

    FILL = "fill"
    REFUSE = "refuse"
    DROP = "drop"


TableFile = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="A CSV or Parquet file; CSV may be compressed (.csv.gz)."),
]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The --out folder of a fit, or its model file.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random choices.")]
Force = Annotated[bool, typer.Option("--force", help="Replace earlier results in --out.")]
DropMissing = Annotated[bool, typer.Option("--drop-missing", help="The same as --missing drop.")]
TextEncoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        metavar="NAME",
        help="The encoding of a text file, such as cp1252; by default UTF-8, as its byte-order "
        "mark says, or for a fit's further tables as in the fit.",
    ),
]
Executor = Annotated[
    str, typer.Option(help="processes, serial, or a Dask scheduler's address (tcp://...).")
]
NumberOfWorkers = Annotated[
    int | None, typer.Option(min=1, help="Number of processes; one per core by default.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Run failed and timed-out trials again.")
]


def missing_policy(missing: Missing | None, drop: bool) -> str | None:
    """Return what two options say about missing values.

    Parameters
    ----------
    missing : Missing or None
        The value of ``--missing``.
    drop : bool
        Whether ``--drop-missing`` was given.

    Returns
    -------
    str or None
        None where nothing was said.

    Raises
    ------
    typer.BadParameter
        If they contradict each other.

    Examples
    --------
    >>> from flattest.commands.options import missing_policy
    >>> missing_policy(None, True)
    'drop'
    """
    if drop and missing not in (None, Missing.DROP):
        raise typer.BadParameter(f"--drop-missing contradicts --missing {missing}.")
    return Missing.DROP.value if drop else None if missing is None else missing.value
