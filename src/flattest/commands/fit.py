"""`flattest fit`: a regression fitted to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    cv: Annotated[
        bool,
        typer.Option(
            "--cv",
            help="Fit to all rows, and judge by 5-fold cross-validation, twice, instead of by a "
            "test part: for few rows; takes ten more fits.",
        ),
    ] = False,
    formula: Annotated[
        bool,
        typer.Option(
            "--formula",
            help="Write a function of one or two directions as a table of a spline too: text, and "
            "Python that needs NumPy and SciPy only.",
        ),
    ] = False,
    force: Force = False,
) -> None:
    """Fit a few directions of the features to a table.

    Says first what it makes of the columns, then how well the fit predicts beside ridge regression
    and boosted trees, and what it is. Writes the model, a report (HTML, JSON) and figures (PNG,
    SVG) into --out, all or nothing.
    """
    from flattest.files import check_output_folder, output_folder
    from flattest.tables.learning import Rules
    from flattest.tables.preparing import prepare
    from flattest.tables.reading import read_file

    if decimal not in (None, ".", ","):
        fail(f"--decimal must be . or , and not {decimal!r}.")
    # What can be wrong with the files is said before torch or pandas is loaded.
    check_output_folder(out, force=force)
    reading = read_file(table, na=na, encoding=encoding)
    prepared = prepare(
        reading.table,
        target,
        ignore=ignore or (),
        rules=Rules(tuple(categorical or ()), decimal, reading.separator, reading.missing),
        missing=missing_policy(missing, drop_missing) or "fill",
        na=na,
        text_encoding=encoding,
    )
    for line in prepared.lines:
        typer.echo(line, err=True)
    for warning in prepared.warnings:
        say(f"Warning: {warning}")

    from rich.console import Console

    from flattest.commands.fit_summary import fit_summary
    from flattest.commands.terminal import standard_error
    from flattest.tables.fit import fit_prepared
    from flattest.threads import one_thread

    with one_thread():  # the cores work on folds, and many small products gain nothing from them
        result = fit_prepared(
            prepared,
            test_size=test_size,
            random_state=random_state,
            width=width,
            cv=cv,
            formula=formula,
            verbose=standard_error().is_terminal,
        )
    with output_folder(out, force=force) as folder:
        result.write(folder)
    console = Console()
    console.print(fit_summary(result))
    if result.formula is not None:
        if len(result.formula.directions) == 1:
            console.print(result.formula.text(), markup=False, highlight=False)
        console.print(
            f"Table of the spline: [bold]{out / 'formula.txt'}[/], [bold]{out / 'formula.py'}[/]"
        )
    console.print(f"Model, report.html and figures: [bold]{out}[/]")
