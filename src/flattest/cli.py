"""The command line: `flattest demo`, `fit`, `predict`, `measure`, `reproduce` and `sweep`.

Modules that take long to import are imported by the commands that need them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console

from flattest._version import __version__
from flattest.command_errors import INTERRUPTED, one_sentence_errors, standard_error
from flattest.reproduce_command import reproduce
from flattest.sweep_command import app as sweep_app

if TYPE_CHECKING:
    import pandas as pd

    from flattest.demo import Record
    from flattest.tables.fit import TableFit

P = ParamSpec("P")
R = TypeVar("R")

_EXPECTED_SECONDS = {"gradient descent": 3.0, "flattest": 1.0, "fit": 6.0}

app = typer.Typer(
    name="flattest",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Flatness modulo symmetry: measure it, certify it, minimise it, and learn with it.",
)

app.add_typer(sweep_app, name="sweep")

_Table = Annotated[Path, typer.Argument(metavar="TABLE", help="A CSV or Parquet file.")]
_Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The --out folder of a fit, or its model file.")
]
_Target = Annotated[str, typer.Option(metavar="COLUMN", help="The numeric column to predict.")]
_Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all random choices.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace earlier results in --out.")]
_DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")
]


def main() -> None:
    """Run the command line; the entry point of the `flattest` script."""
    code: Any = INTERRUPTED
    try:
        app()
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        pass
    if code == INTERRUPTED:
        # Threads may still be at work in torch, and an orderly exit would wait for them or abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(code)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"flattest {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
@one_sentence_errors
def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path(
        "flattest-demo"
    ),
    random_state: _Seed = 0,
) -> None:
    """Show the main job, on synthetic and on real data, in under a minute.

    Fits one synthetic training set exactly in several ways, and shows that the trace of the
    Hessian says nothing about the population loss while its minimum over rescalings does. Then
    fits the diabetes table of scikit-learn. Tables and figures go to --out, in place of those of
    an earlier demo.
    """
    from flattest.demo import compare_interpolators, interpolator_names, real_table
    from flattest.figures import loss_against_flatness, save_figure
    from flattest.output_folder import check_output_folder, output_folder, write_report
    from flattest.terminal import Steps, correlations_line, fit_summary, networks_table

    check_output_folder(out, force=True)
    _leave_cores_to_the_folds()
    started = time.perf_counter()
    names = interpolator_names()
    steps = {
        name: _EXPECTED_SECONDS["flattest" if name == "flattest" else "gradient descent"]
        for name in names
    }
    fit_step = "diabetes table"
    steps[fit_step] = _EXPECTED_SECONDS["fit"]
    records: list[Record] = []
    fit: TableFit | None = None
    with output_folder(out, force=True) as folder:
        try:
            with Steps(standard_error(), steps).shown() as progress:
                for group in compare_interpolators(random_state=random_state):
                    records += group
                    progress.finish(group[0].network)
                table, target = real_table()
                table.to_csv(folder / "diabetes.csv", index=False)
                fit = _fit_file(folder / "diabetes.csv", target, random_state=random_state)
                progress.finish(fit_step)
        except KeyboardInterrupt:
            if not records:
                raise
        rows = [record.to_dict() for record in records]
        _data_frame(rows).to_csv(folder / "networks.csv", index=False)
        save_figure(loss_against_flatness(_data_frame(rows)), folder / "loss-against-flatness")
        if fit is not None:
            (folder / "diabetes").mkdir()
            fit.write(folder / "diabetes")
        report = {"kind": "demo", "random_state": random_state, "complete": fit is not None}
        seconds = time.perf_counter() - started
        write_report(
            folder, {**report, "seconds": seconds, "flattest": __version__, "networks": rows}
        )
    console = Console()
    console.print(networks_table(records))
    console.print(correlations_line(records))
    if fit is None:
        standard_error().print(f"Interrupted; what was finished is in {out}.", style="yellow")
        raise typer.Exit(INTERRUPTED)
    console.print(fit_summary(fit))
    console.print(f"{seconds:.0f} s in all. Figures, tables and the model: [bold]{out}[/]")


@app.command()
@one_sentence_errors
def fit(
    table: _Table,
    target: _Target,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path(
        "flattest-fit"
    ),
    test_size: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the rows kept for the test.")
    ] = 0.2,
    random_state: _Seed = 0,
    width: Annotated[int, typer.Option(min=1, max=100_000, help="Neurons at the start.")] = 100,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column not to use; may be repeated."),
    ] = None,
    drop_missing: _DropMissing = False,
    force: _Force = False,
) -> None:
    """Fit a few directions of the features and a flat network to a table.

    Writes the model, a report (JSON) and figures (PNG, SVG) into --out, all or nothing.
    """
    from flattest.output_folder import check_output_folder, output_folder
    from flattest.terminal import fit_summary

    check_output_folder(out, force=force)
    _leave_cores_to_the_folds()
    result = _fit_file(
        table,
        target,
        test_size=test_size,
        random_state=random_state,
        width=width,
        ignore=ignore or (),
        drop_incomplete=drop_missing,
        verbose=standard_error().is_terminal,
    )
    with output_folder(out, force=force) as folder:
        result.write(folder)
    console = Console()
    console.print(fit_summary(result))
    console.print(f"Model, report and figures: [bold]{out}[/]")


@app.command()
@one_sentence_errors
def predict(
    model: _Model,
    table: _Table,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="A new file; by default the terminal.")
    ] = None,
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="Leave the prediction empty where values are missing."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")] = False,
) -> None:
    """Predict the target for every row of a table, as CSV in the order of the rows."""
    from flattest.output_folder import OutputError, write_file
    from flattest.tables.reading import drop_missing as complete_rows, read_table
    from flattest.tables.saved_model import SavedModel

    if out is not None and out.exists() and not force:
        raise OutputError(f"{str(out)!r} exists; pass --force to replace it.")
    loaded = SavedModel.load(model)
    frame = read_table(table)
    used = [column.name for column in loaded.encoding.columns]
    rows = complete_rows(frame, used) if drop_missing else frame
    predictions = _data_frame({"prediction": loaded.predict(rows)}, index=rows.index)
    text = predictions.reindex(frame.index).to_csv(index=False)
    if out is None:
        sys.stdout.write(text)
    else:
        write_file(out, text)
        standard_error().print(f"{len(rows):,} predictions: [bold]{out}[/]")


@app.command()
@one_sentence_errors
def measure(
    model: _Model,
    table: _Table,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column predicted; by default that of the fit."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE.json", help="Write the measurements there as well."),
    ] = None,
    drop_missing: _DropMissing = False,
    force: Annotated[bool, typer.Option("--force", help="Replace --json if it exists.")] = False,
) -> None:
    """Measure the flatness of a fitted network on the rows of a table."""
    from flattest.output_folder import OutputError, write_file
    from flattest.tables.reading import drop_missing as complete_rows, read_table
    from flattest.tables.saved_model import SavedModel
    from flattest.terminal import flatness_table

    if json_file is not None and json_file.exists() and not force:
        raise OutputError(f"{str(json_file)!r} exists; pass --force to replace it.")
    loaded = SavedModel.load(model).with_target(target)
    frame = read_table(table)
    used = [*(column.name for column in loaded.encoding.columns), loaded.encoding.target]
    rows = complete_rows(frame, used) if drop_missing else frame
    flatness = loaded.measure(rows)
    if json_file is not None:
        write_file(json_file, json.dumps(flatness.to_dict(), indent=2, allow_nan=False) + "\n")
    caption = f"{len(rows):,} rows, {flatness.width} neurons, features standardised as in the fit"
    Console().print(flatness_table(flatness, caption))


app.command()(reproduce)


def _fit_file(path: Path, target: str, **options: Any) -> TableFit:
    from flattest.tables.fit import fit_table
    from flattest.tables.reading import read_table

    return fit_table(read_table(path), target, **options)


def _leave_cores_to_the_folds() -> None:
    """Give torch one thread: the cores work on folds, and many small products gain nothing."""
    import torch

    torch.set_num_threads(1)


def _data_frame(*args: Any, **kwargs: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(*args, **kwargs)
