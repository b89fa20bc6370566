"""`flattest predict`: predictions for the rows of a table."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import fail, one_sentence_errors, say
from flattest.commands.options import (
    DropMissing,
    Missing,
    ModelFile,
    TableFile,
    TextEncoding,
    missing_policy,
)

if TYPE_CHECKING:
    import numpy as np

    from flattest.tables.encoding import Encoded
    from flattest.tables.texts import Table

_USUAL_LEVEL = 0.9


@one_sentence_errors
def predict(
    model: ModelFile,
    table: TableFile,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="A new file; by default the terminal.")
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Write 90 % intervals too: lower and upper.")
    ] = False,
    level: Annotated[
        float | None,
        typer.Option(min=0.01, max=0.9999, help="Write intervals of this level, such as 0.5."),
    ] = None,
    identifier: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="COLUMN", help="A column to repeat; may be repeated itself."),
    ] = None,
    input_columns: Annotated[
        bool, typer.Option("--input-columns", help="Repeat all columns of the table.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse categories and gaps that the fit has not seen."),
    ] = False,
    missing: Annotated[
        Missing | None,
        typer.Option(
            help="Missing values in features: fill them in, refuse them, or leave the prediction "
            "empty (drop); by default as in the fit, or fill."
        ),
    ] = None,
    drop_missing: DropMissing = False,
    encoding: TextEncoding = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it exists.")] = False,
) -> None:
    """Predict the target for every row of a table.

    Writes CSV, in the order of the rows; the column extrapolation tells the rows of which a value
    lies outside the range of the training table.
    """
    from flattest.files import check_output_file, write_file
    from flattest.tables.model_file import load_encoding
    from flattest.tables.reading import read_file, require_columns
    from flattest.wording import count

    # What can be wrong with the table is said before the model or pandas is loaded.
    check_output_file(out, option="--out", force=force)
    learnt = load_encoding(model)
    policy = missing_policy(missing, drop_missing) or learnt.missing
    learnt = replace(learnt, missing="refuse" if policy == "refuse" else "fill")
    rows = read_file(table, na=learnt.na, encoding=encoding, usual=learnt.text_encoding).table
    require_columns(rows, identifier or (), option="--id")
    repeated = list(rows.columns) if input_columns else list(dict.fromkeys(identifier or ()))
    level = _USUAL_LEVEL if intervals and level is None else level
    names = ["prediction", *(["lower", "upper"] if level else []), "extrapolation"]
    for name in repeated:
        if name in names:
            fail(f"The column {name!r} cannot be repeated beside a result of that name.")
    encoded = learnt.encode(rows, strict=strict)
    _warn(encoded)
    left_out = encoded.incomplete & (policy == "drop")
    columns = [
        ["" if empty else value for value, empty in zip(values, left_out, strict=True)]
        for values in _predictions(model, encoded, level)
    ]
    text = _csv([*repeated, *names], [*_texts(rows, repeated), *columns])
    if out is None:
        sys.stdout.write(text)
    else:
        write_file(out, text)
        made = count(int((~left_out).sum()), "prediction")
        typer.echo(f"{made}: {typer.style(str(out), bold=True)}", err=True)


def _warn(encoded: Encoded) -> None:
    """Say what is odd about the rows."""
    from flattest.wording import count

    for remark in encoded.remarks:
        say(f"Warning: {remark}")
    if encoded.beyond.any():
        rows = count(int(encoded.beyond.sum()), "row")
        total = len(encoded.beyond)
        say(f"Warning: {rows} of {total:,} outside the range of the training table.")


def _predictions(model: Path, encoded: Encoded, level: float | None) -> list[list[float | bool]]:
    """Predict, with intervals where a level is given, and tell extrapolation."""
    from threadpoolctl import threadpool_limits

    from flattest.tables.saved_model import SavedModel

    with threadpool_limits(1):  # to start the others takes longer than to condition on the rows
        loaded = SavedModel.load(model)
    results: tuple[np.ndarray, ...] = (
        loaded.predict_interval(encoded.features, level)
        if level
        else (loaded.predictor(encoded.features),)
    )
    return [values.tolist() for values in (*results, encoded.beyond)]


def _texts(rows: Table, names: list[str]) -> list[Sequence[str | None]]:
    """Return columns as they are written to a file."""
    from flattest.tables.texts import TextTable

    if isinstance(rows, TextTable):
        return [rows[name].cells for name in names]
    written = (io.StringIO(rows[name].to_csv(index=False), newline="") for name in names)
    return [[cell for (cell,) in list(csv.reader(text))[1:]] for text in written]


def _csv(header: list[str], columns: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
