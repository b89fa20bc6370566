"""`flattest reproduce`: the claims measured on this machine, and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.options import Executor, NumberOfWorkers, RetryFailed
from flattest.commands.studies import choose, run_study


@one_sentence_errors
def reproduce(
    claims: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLAIM]...",
            # Written out: to import the claims takes longer than all other help together.
            help="All of them by default: symmetry, claim1, claim2, robustness, activations, "
            "inputs, phase, bias, shattering, algorithms.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick/--full", help="Minutes on two cores, or hours to days.")
    ] = True,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results go; those there are kept.")
    ] = Path("flattest-reproduce"),
    executor: Executor = "processes",
    workers: NumberOfWorkers = None,
    retry_failed: RetryFailed = False,
) -> None:
    """Measure the claims about flatness, and their limits.

    claim1: interpolators that do not generalise stay sharp. claim2: the flattest one is the model.
    What each of the others asks stands in its report, and on the page "The theory" of the site.

    Writes records, figures, verdicts with their intervals, and report.html. Trials that are
    finished are kept: the same command continues after any interruption. The exit code is 0 if all
    trials succeeded, whatever the verdicts; 1 if some did not; 130 after Ctrl-C.
    """
    from flattest.study import CLAIMS
    from flattest.study.cover import CLAIMS_COVER

    run_study(
        choose(CLAIMS, claims or (), "claim"),
        "quick" if quick else "full",
        out,
        (executor, workers),
        cover=CLAIMS_COVER,
        retry_failed=retry_failed,
    )
