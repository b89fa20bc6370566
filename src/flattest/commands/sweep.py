"""`flattest sweep`: run a specification, see how it stands, export its records."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from flattest.commands.errors import INTERRUPTED, SOME_FAILED, one_sentence_errors, say
from flattest.commands.options import Executor, NumberOfWorkers, RetryFailed

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from flattest.sweeps import Spec, Store, StoredResult, Summary

_MOST_ERRORS = 5


class _RunByDefault(TyperGroup):
    """`flattest sweep SPEC.toml` means `flattest sweep run SPEC.toml`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = args[0] if args else "--help"
        if first not in self.commands and first not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Run thousands of trials without losing any.\n\nflattest sweep SPEC.toml --store FILE. "
        "What is finished is kept, so the same command continues after any interruption."
    ),
)

_Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="A TOML file: what to run.")]
_SomeSpec = Annotated[
    Path | None, typer.Argument(metavar="[SPEC]", help="Only the trials of this specification.")
]
_AnyCode = Annotated[
    bool, typer.Option("--any-code", help="Accept results made by other versions of the code.")
]
_Store = Annotated[Path, typer.Option("--store", metavar="FILE", help="The file of the results.")]


@app.command("run")
@one_sentence_errors
def run_sweep(
    spec: _Spec,
    store: _Store,
    executor: Executor = "processes",
    workers: NumberOfWorkers = None,
    time_limit: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds per trial, in place of the SPEC's.")
    ] = None,
    any_code: _AnyCode = False,
    retry_failed: RetryFailed = False,
) -> None:
    """Run the trials of a specification that have no result yet.

    The exit code is 0 if all succeeded, 1 if some failed or ran out of time, 130 after Ctrl-C.
    """
    from rich.console import Console

    from flattest.commands.trials import trials_progress
    from flattest.sweeps import Store, n_found, run, workers as choose_workers

    chosen = _read(spec)
    available = choose_workers(executor, workers)
    which = {"any_code": any_code, "retry_failed": retry_failed}
    with Store(store) as opened:
        found = n_found(chosen.trials(), opened, **which)
        with trials_progress(spec.stem, len(chosen), found) as progress:
            summary = run(
                chosen.trials(),
                opened,
                available,
                time_limit=time_limit or chosen.time_limit,
                progress=progress,
                **which,
            )
        # The results that count are all there; only now is it known what they are.
        console = Console()
        console.print(_summary_table(summary, len(chosen)))
        if summary.failed or summary.timed_out:
            console.print(_errors_table(_results(opened, chosen, any_code)))
    if summary.interrupted:
        say("Interrupted; what is finished is kept. The same command continues.")
        raise typer.Exit(INTERRUPTED)
    if summary.failed or summary.timed_out:
        raise typer.Exit(SOME_FAILED)


@app.command()
@one_sentence_errors
def status(store: _Store, spec: _SomeSpec = None, any_code: _AnyCode = False) -> None:
    """Show how many trials of a store, or of a specification, have which outcome."""
    from rich.console import Console
    from rich.table import Table

    from flattest.sweeps import Store

    chosen = None if spec is None else _read(spec)
    with Store(store, read_only=True) as opened:
        table = Table("trial function", "done", "failed", "timed out", title=store.name)
        counts: dict[str, collections.Counter[str]] = {}
        for result in _results(opened, chosen, any_code):
            counts.setdefault(result.function, collections.Counter())[result.status] += 1
        for function, count in counts.items():
            table.add_row(function, *(str(count[s]) for s in ("done", "failed", "timed_out")))
        console = Console()
        console.print(table)
        if chosen is not None:
            finished = sum(count.total() for count in counts.values())
            console.print(f"{len(chosen) - finished} of {len(chosen)} trials have no result yet.")
        if any(count["failed"] + count["timed_out"] for count in counts.values()):
            console.print(_errors_table(_results(opened, chosen, any_code)))


@app.command()
@one_sentence_errors
def export(
    store: _Store,
    out: Annotated[Path, typer.Option(metavar="TABLE", help="A .csv or .parquet file to write.")],
    spec: _SomeSpec = None,
    any_code: _AnyCode = False,
) -> None:
    """Write the results as a table: settings, seed, record, status, seconds."""
    from flattest.files import OutputError
    from flattest.sweeps import Store

    if out.suffix not in (".csv", ".parquet"):
        raise OutputError(f"--out is {str(out)!r}; give it the ending .csv or .parquet.")
    with Store(store, read_only=True) as opened:
        table = records_table(_results(opened, None if spec is None else _read(spec), any_code))
    try:
        table.to_csv(out, index=False) if out.suffix == ".csv" else table.to_parquet(out)
    except OSError as error:
        raise OutputError(f"{str(out)!r} cannot be written: {error.strerror or error}.") from error
    typer.echo(f"{len(table):,} results written to {out}.")


def records_table(results: Iterator[StoredResult]) -> pd.DataFrame:
    """Tabulate results: one row each, settings and record in columns of their own.

    Parameters
    ----------
    results : iterator of StoredResult
        The results; a name that is both a setting and in the record stands for the record's value.

    Returns
    -------
    DataFrame
        Columns: settings, `seed`, record, `status`, `seconds`, `error`, `function`, `code`,
        `finished_at`.
    """
    import pandas as pd

    return pd.DataFrame(
        {
            **result.settings,
            "seed": result.seed,
            **(result.record or {}),
            "status": result.status,
            "trial_seconds": result.seconds,
            "error": result.error,
            "warnings": result.warnings,
            "function": result.function,
            "code": result.code,
            "finished_at": result.finished_at,
        }
        for result in results
    )


def _read(path: Path) -> Spec:
    from flattest.study import CLAIMS
    from flattest.sweeps import read_spec

    return read_spec(path, {name: claim.reference for name, claim in CLAIMS.items()})


def _results(store: Store, spec: Spec | None, any_code: bool) -> Iterator[StoredResult]:
    return store.results(None if spec is None else spec.trials(), any_code=any_code)


def _summary_table(summary: Summary, total: int) -> Table:
    from rich.table import Table

    table = Table("outcome", "trials", title="Sweep", title_justify="left")
    rows: Sequence[tuple[str, int]] = (
        ("done", summary.done),
        ("failed", summary.failed),
        ("timed out", summary.timed_out),
        ("without result", total - summary.finished),
        ("of these found in the store", summary.found),
    )
    for name, count in rows:
        table.add_row(name, f"{count:,}")
    return table


def _errors_table(results: Iterator[StoredResult]) -> Table:
    """Group what went wrong by the last line of the error."""
    from rich.table import Table

    groups: dict[str, list[StoredResult]] = {}
    for result in results:
        if result.status != "done":
            line = (result.error or "").strip().rpartition("\n")[2]
            groups.setdefault(line, []).append(result)
    table = Table("trials", "what went wrong", "for example", title="Without a record")
    for line, group in sorted(groups.items(), key=lambda item: -len(item[1]))[:_MOST_ERRORS]:
        example = ", ".join(f"{name}={value}" for name, value in group[0].settings.items())
        table.add_row(str(len(group)), line, f"seed {group[0].seed}: {example}")
    return table
