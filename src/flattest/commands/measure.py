"""`flattest measure`: the flatness of a fitted network on the rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.options import DropMissing, ModelFile, TableFile

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
    force: Annotated[bool, typer.Option("--force", help="Replace --json if it exists.")] = False,
) -> None:
    """Measure the flatness of a fitted network on a table."""
    import json

    from rich.console import Console

    from flattest.files import check_output_file, write_file
    from flattest.tables.reading import complete_rows, read_table
    from flattest.tables.saved_model import SavedModel

    check_output_file(json_file, option="--json", force=force)
    loaded = SavedModel.load(model).with_target(target)
    frame = read_table(table)
    used = [*(column.name for column in loaded.encoding.columns), loaded.encoding.target]
    rows = complete_rows(frame, used) if drop_missing else frame
    flatness = loaded.measure(rows)
    if json_file is not None:
        write_file(json_file, json.dumps(flatness.to_dict(), indent=2, allow_nan=False) + "\n")
    caption = f"{len(rows):,} rows, {flatness.width} neurons, features standardised as in the fit"
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
