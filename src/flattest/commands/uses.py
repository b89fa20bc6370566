"""`flattest uses`: what flatness is good for on trained networks, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.options import Executor, NumberOfWorkers, RetryFailed
from flattest.commands.studies import choose, run_study


@one_sentence_errors
def uses(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PART]...",
            # Written out: to import the parts takes longer than all other help together.
            help="All of them by default: noise, rounding, bits, ranking, transformers, training.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick/--full", help="Minutes on two cores, or hours.")
    ] = True,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results go; those there are kept.")
    ] = Path("flattest-uses"),
    executor: Executor = "processes",
    workers: NumberOfWorkers = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Measure what flatness foretells of trained networks.

    Noise on weights, rounding to few bits, bits by layer, the ranking of networks by how they
    generalise, and training. Writes records, tables, figures, verdicts with their intervals, and
    report.html. Trials that are finished are kept: the same command continues after any
    interruption. The exit code is 0 if all trials succeeded, whatever the verdicts; 1 if some did
    not; 130 after Ctrl-C.
    """
    from flattest.uses import COVER, USES

    run_study(
        choose(USES, parts or (), "part"),
        "quick" if quick else "full",
        out,
        (executor, workers),
        cover=COVER,
        retry_failed=retry_failed,
    )
