"""`flattest reproduce`: the claims measured on this machine, and their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import INTERRUPTED, SOME_FAILED, one_sentence_errors, say
from flattest.commands.options import Executor, NumberOfWorkers, RetryFailed
from flattest.errors import FlattestError

if TYPE_CHECKING:
    from rich.table import Table

    from flattest.study.claim import Claim, Size
    from flattest.study.findings import Finding

_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}
_MARKS = {"holds": "✓", "fails": "✗", "undecided": "?"}


@one_sentence_errors
def reproduce(
    claims: Annotated[
        list[str] | None, typer.Argument(metavar="[CLAIM]...", help="All of them by default.")
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

    Writes records, figures, verdicts with their intervals, and report.html. Trials that are
    finished are kept: the same command continues after any interruption. The exit code is 0 if all
    trials succeeded, whatever the verdicts; 1 if some did not; 130 after Ctrl-C.
    """
    from rich.console import Console

    from flattest.commands.terminal import trials_progress
    from flattest.study.reproduce import check_folder, n_trials, reproduce as reproduce_claims
    from flattest.sweeps import workers as choose_workers

    chosen = _choose(claims or ())
    size: Size = "quick" if quick else "full"
    check_folder(out)
    available = choose_workers(executor, workers)
    with trials_progress(f"{size} reproduction", n_trials(chosen, size)) as progress:
        found = reproduce_claims(
            chosen, size, out, available, retry_failed=retry_failed, progress=progress
        )
    summary = found.summary
    if summary.interrupted:
        say(
            f"Interrupted; {summary.finished:,} finished trials are kept in {out}. "
            "The same command continues."
        )
        raise typer.Exit(INTERRUPTED)
    console = Console()
    console.print(verdicts_table(found.findings))
    console.print(
        f"{summary.finished:,} trials, {summary.found:,} of them found in {out}.", highlight=False
    )
    console.print(f"Report, figures and records: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    if not found.complete:
        for finding in found.findings:
            for sentence in _shortfalls(finding):
                say(f"{finding.claim.name}: {sentence}")
        raise typer.Exit(SOME_FAILED)


def verdicts_table(findings: Sequence[Finding]) -> Table:
    """Tabulate verdicts.

    Parameters
    ----------
    findings : sequence of Finding
        The claims after their trials.

    Returns
    -------
    Table
        One row per verdict, under the title of its claim.

    Examples
    --------
    >>> from flattest.commands.reproduce import verdicts_table
    >>> verdicts_table([]).row_count
    0
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from flattest.wording import number

    table = Table(
        title="Verdicts, with 95 % intervals over the seeds",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        header_style="",
    )
    table.add_column("outcome", no_wrap=True)
    table.add_column("statement", overflow="fold")
    table.add_column("estimate\ninterval", justify="right", no_wrap=True)
    table.add_column("seeds", justify="right")
    for index, finding in enumerate(findings):
        if index:
            table.add_row()
        table.add_row("", Text(finding.claim.title, style="bold"))
        for verdict in finding.verdicts:
            outcome = verdict.outcome
            table.add_row(
                Text(f"{_MARKS[outcome]} {outcome}", style=_STYLES[outcome]),
                Text(verdict.statement),
                f"{number(verdict.estimate)}\n{number(verdict.low)} to {number(verdict.high)}",
                f"{verdict.n_seeds}",
            )
    return table


def _choose(names: Sequence[str]) -> list[Claim]:
    """Return the claims of these names in the order of the report; all if there is no name."""
    from flattest.study import CLAIMS

    for name in names:
        if name not in CLAIMS:
            raise FlattestError(f"There is no claim {name!r}; choose among {', '.join(CLAIMS)}.")
    return [claim for name, claim in CLAIMS.items() if not names or name in names]


def _shortfalls(finding: Finding) -> list[str]:
    missing = finding.n_trials - finding.n_done
    failed = f"{missing:,} of {finding.n_trials:,} trials gave no result; see the report."
    return [*([failed] if missing else []), *finding.problems]
