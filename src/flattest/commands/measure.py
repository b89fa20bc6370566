"""`flattest measure`: the flatness of a fitted network on the rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import one_sentence_errors, say
from flattest.commands.options import DropMissing, ModelFile, TableFile, TextEncoding

if TYPE_CHECKING:
    from rich.table import Table

    from flattest.flatness import Flatness


@one_sentence_errors
def measure(
    model: ModelFile,
    table: TableFile,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The column predicted; by default that of the fit."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE.json", help="Write the measurements there as well."),
    ] = None,
    drop_missing: DropMissing = False,
    encoding: TextEncoding = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --json if it exists.")] = False,
) -> None:
    """Measure the flatness of a fitted network on a table."""
    import json

    from rich.console import Console

    from flattest.files import check_output_file, write_file
    from flattest.tables.model_file import load_encoding
    from flattest.tables.reading import read_table

    # What can be wrong with the table is said before torch is loaded.
    check_output_file(json_file, option="--json", force=force)
    learnt = load_encoding(model)
    learnt = learnt.with_target(target or learnt.target)
    rows = read_table(table, na=learnt.na, encoding=encoding)
    response = learnt.target_values(rows)
    encoded = learnt.encode(rows)
    for remark in encoded.remarks:
        say(f"Warning: {remark}")
    kept = ~encoded.incomplete if drop_missing else slice(None)

    from flattest.tables.saved_model import SavedModel

    loaded = SavedModel.load(model).with_target(target)
    flatness = loaded.measure_encoded(encoded.features[kept], response[kept])
    if json_file is not None:
        write_file(json_file, json.dumps(flatness.to_dict(), indent=2, allow_nan=False) + "\n")
    rows_used = f"{flatness.n_samples:,} rows, {flatness.width} neurons"
    caption = f"{rows_used}, features standardised as in the fit"
    Console().print(flatness_table(flatness, caption))


def flatness_table(flatness: Flatness, caption: str) -> Table:
    """Tabulate the measurements of one network.

    Parameters
    ----------
    flatness : Flatness
        The measurements.
    caption : str
        What they are of.

    Returns
    -------
    Table
        One row per number.
    """
    from flattest.commands.terminal import new_table
    from flattest.wording import number

    table = new_table("Flatness", "quantity", caption=caption)
    table.add_column("value", justify="right")
    table.add_column("", style="dim")
    for label, level, value, mark in flatness.rows():
        table.add_row("  " * level + label, number(value), mark)
    return table
