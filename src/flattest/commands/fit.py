"""`flattest fit`: a regression fitted to a table, and what is printed of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import fail, one_sentence_errors, say
from flattest.commands.options import (
    DropMissing,
    Force,
    Missing,
    Seed,
    TableFile,
    TextEncoding,
    missing_policy,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from flattest.tables.fit import TableFit

_MOST_FEATURES = 5
_RATIO = (
    "Orbit minimum: least trace among all rescalings of the network. Lower bound: on the trace of "
    "every network of this width with the same outputs. Ratio: their quotient. All on standardised "
    "features."
)


@one_sentence_errors
def fit(
    table: TableFile,
    target: Annotated[str, typer.Option(metavar="COLUMN", help="The numeric column to predict.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the results go.")] = Path(
        "flattest-fit"
    ),
    test_size: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share of the rows kept for the test.")
    ] = 0.2,
    random_state: Seed = 0,
    width: Annotated[int, typer.Option(min=1, max=100_000, help="Neurons at the start.")] = 100,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="A column not to use; may be repeated."),
    ] = None,
    categorical: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="A column of names, even if they are numbers; may be repeated."
        ),
    ] = None,
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="Missing values in features: fill them in (the default; with the median or the "
            "most frequent level), refuse them, or drop their rows."
        ),
    ] = None,
    drop_missing: DropMissing = False,
    na: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            help="What stands for a missing value in a text file, beside empty cells, in place of "
            "NA, NaN, null and the like; may be repeated.",
        ),
    ] = None,
    decimal: Annotated[
        str | None,
        typer.Option(metavar="MARK", help="The decimal mark, . or , where it is not clear."),
    ] = None,
    encoding: TextEncoding = None,
    force: Force = False,
) -> None:
    """Fit a few directions of the features to a table.

    Says first what it makes of the columns. Writes the model, a report (JSON) and figures (PNG,
    SVG) into --out, all or nothing.
    """
    from flattest.files import check_output_folder, output_folder
    from flattest.tables.learning import Rules
    from flattest.tables.preparing import prepare
    from flattest.tables.reading import read_file

    if decimal not in (None, ".", ","):
        fail(f"--decimal must be . or , and not {decimal!r}.")
    # What can be wrong with the files is said before torch is loaded.
    check_output_folder(out, force=force)
    reading = read_file(table, na=na, encoding=encoding)
    prepared = prepare(
        reading.frame,
        target,
        ignore=ignore or (),
        rules=Rules(tuple(categorical or ()), decimal, reading.separator, reading.missing),
        missing=missing_policy(missing, drop_missing) or "fill",
        na=na,
    )
    for line in prepared.lines:
        typer.echo(line, err=True)
    for warning in prepared.warnings:
        say(f"Warning: {warning}")

    from rich.console import Console

    from flattest.commands.terminal import standard_error
    from flattest.tables.fit import fit_prepared
    from flattest.threads import one_thread

    with one_thread():  # the cores work on folds, and many small products gain nothing from them
        result = fit_prepared(
            prepared,
            test_size=test_size,
            random_state=random_state,
            width=width,
            verbose=standard_error().is_terminal,
        )
    with output_folder(out, force=force) as folder:
        result.write(folder)
    console = Console()
    console.print(fit_summary(result))
    console.print(f"Model, report and figures: [bold]{out}[/]")


def fit_summary(fit: TableFit) -> RenderableType:
    """Present a fitted table: quality beside ridge, directions by feature name, flatness.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    RenderableType
        To be printed on a console.
    """
    from rich.console import Group
    from rich.text import Text

    from flattest.commands.terminal import new_table
    from flattest.wording import count, number

    quality = new_table(f"Prediction of {fit.model.encoding.target}", "")
    for part, rows in fit.n_rows.items():
        quality.add_column(f"{part}\n{rows:,} rows: R²", justify="right")
        quality.add_column("\nRMSE", justify="right")
    for name, scores in (("flattest", fit.scores), ("ridge regression", fit.ridge)):
        cells = [number(v) for score in scores.values() for v in (score.r2, score.rmse)]
        quality.add_row(name, *cells)

    names = fit.model.encoding.feature_names
    k, d = len(fit.model.directions), len(names)
    title = f"{count(k, 'direction')} of {d} features"
    directions = new_table(title, "")
    directions.add_column("importance", justify="right")
    directions.add_column("weights per standard deviation", ratio=1)
    for index, (importance, loading) in enumerate(
        zip(fit.model.importances, fit.model.loadings, strict=True), start=1
    ):
        order = sorted(range(d), key=lambda i: -abs(loading[i]))[:_MOST_FEATURES]
        terms = Text("  ").join(
            Text(f"{loading[i]:+.2f}\u00a0{names[i]}", no_wrap=False) for i in order
        )
        directions.add_row(f"{index}", f"{importance:.0%}", terms)

    parts: list[RenderableType] = [quality, directions if k else _constant(), _certificate(fit)]
    if fit.n_dropped:
        parts.append(Text(f"{count(fit.n_dropped, 'row')} without all values left out."))
    if fit.unused:
        parts.append(Text(f"Columns not used: {', '.join(fit.unused)}."))
    parts += [Text(f"Note: {note}", style="yellow") for note in fit.notes]
    return Group(*parts)


def _certificate(fit: TableFit) -> Table:
    from flattest.commands.terminal import new_table
    from flattest.wording import number

    flatness = fit.flatness
    table = new_table("Flatness of the network on the training rows", "trace", caption=_RATIO)
    table.columns[0].justify = "right"
    for heading in ("orbit minimum", "lower bound", "ratio", "neurons", "penalty", "seconds"):
        table.add_column(heading, justify="right")
    table.add_row(
        number(flatness.trace),
        number(flatness.orbit_minimum),
        number(flatness.lower_bound),
        number(flatness.ratio),
        str(flatness.width),
        number(fit.strength),
        f"{fit.seconds:.1f}",
    )
    return table


def _constant() -> RenderableType:
    from rich.padding import Padding
    from rich.text import Text

    return Padding(Text("No direction was found: the prediction is constant.", style="yellow"), 1)
