"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="A CSV or Parquet file.")]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The --out folder of a fit, or its model file.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random choices.")]
Force = Annotated[bool, typer.Option("--force", help="Replace earlier results in --out.")]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")
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
