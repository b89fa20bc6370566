"""`flattest predict`: predictions for the rows of a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.options import ModelFile, TableFile


@one_sentence_errors
def predict(
    model: ModelFile,
    table: TableFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="A new file; by default the terminal.")
    ] = None,
    drop_missing: Annotated[
        bool,
        typer.Option("--drop-missing", help="Leave the prediction empty where values are missing."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")] = False,
) -> None:
    """Predict the target for every row of a table.

    Writes CSV, in the order of the rows.
    """
    import pandas as pd

    from flattest.files import check_output_file, write_file
    from flattest.tables.reading import complete_rows, read_table
    from flattest.tables.saved_model import SavedModel

    check_output_file(out, option="--out", force=force)
    loaded = SavedModel.load(model)
    frame = read_table(table)
    used = [column.name for column in loaded.encoding.columns]
    rows = complete_rows(frame, used) if drop_missing else frame
    predictions = pd.DataFrame({"prediction": loaded.predict(rows)}, index=rows.index)
    text = predictions.reindex(frame.index).to_csv(index=False)
    if out is None:
        sys.stdout.write(text)
    else:
        write_file(out, text)
        typer.echo(f"{len(rows):,} predictions: {typer.style(str(out), bold=True)}", err=True)
