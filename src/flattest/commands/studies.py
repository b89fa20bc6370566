"""What `flattest reproduce` and `flattest uses` share: a run with progress, and what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flattest.commands.errors import INTERRUPTED, SOME_FAILED, say
from flattest.errors import FlattestError

if TYPE_CHECKING:
    from rich.table import Table

    from flattest.study.claim import Claim, Size
    from flattest.study.cover import Cover
    from flattest.study.findings import Finding

_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}
_MARKS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def run_study(
    claims: Sequence[Claim],
    size: Size,
    out: Path,
    where: tuple[str, int | None],
    *,
    cover: Cover,
    retry_failed: bool,
) -> None:
    """Run the trials of claims, show the progress, and say what came out.

    Parameters
    ----------
    claims : sequence of Claim
        What to run.
    size : {"quick", "full"}
        Which of their designs.
    out : Path
        The folder of results.
    where : (str, int or None)
        The executor and the number of workers.
    cover : Cover
        The texts of the report.
    retry_failed : bool
        Whether failed trials run again.

    Raises
    ------
    typer.Exit
        After Ctrl-C, or if some trials gave no result.
    """
    from rich.console import Console

    from flattest.commands.trials import trials_progress
    from flattest.study.reproduce import check_folder, n_stored, n_trials, reproduce
    from flattest.sweeps import workers

    check_folder(out)
    available = workers(*where)
    total, stored = n_trials(claims, size), n_stored(claims, size, out, retry_failed=retry_failed)
    with trials_progress(f"{size} {cover.command}", total, stored) as progress:
        found = reproduce(
            claims,
            size,
            out,
            available,
            cover=cover,
            retry_failed=retry_failed,
            progress=progress,
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
    >>> from flattest.commands.studies import verdicts_table
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
        if finding.conclusion:
            table.add_row("", Text(finding.conclusion))
        for verdict in finding.verdicts:
            outcome = verdict.outcome
            table.add_row(
                Text(f"{_MARKS[outcome]} {outcome}", style=_STYLES[outcome]),
                Text(verdict.statement),
                f"{number(verdict.estimate)}\n{number(verdict.low)} to {number(verdict.high)}",
                f"{verdict.n_seeds}",
            )
    return table


def choose(claims: Mapping[str, Claim], names: Sequence[str], noun: str) -> list[Claim]:
    """Return the claims of these names in the order of the report; all if there is no name.

    Parameters
    ----------
    claims : mapping of str to Claim
        All that there are.
    names : sequence of str
        Those that are wanted.
    noun : str
        What they are called.

    Returns
    -------
    list of Claim
        In the order of `claims`.

    Raises
    ------
    FlattestError
        If there is none of a name.
    """
    for name in names:
        if name not in claims:
            raise FlattestError(f"There is no {noun} {name!r}; choose among {', '.join(claims)}.")
    return [claim for name, claim in claims.items() if not names or name in names]


def _shortfalls(finding: Finding) -> list[str]:
    missing = finding.n_trials - finding.n_done
    failed = f"{missing:,} of {finding.n_trials:,} trials gave no result; see the report."
    return [*([failed] if missing else []), *finding.problems]
