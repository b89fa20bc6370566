"""`flattest symmetries`: what of a module can be changed without changing its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.module_options import BatchNorm, ModuleData, ModuleName, OutputName, Weights


@one_sentence_errors
def symmetries(
    model: ModuleName,
    data: ModuleData,
    weights: Weights = None,
    output: OutputName = None,
    batch_norm: BatchNorm = "keep",
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE.csv", help="Write the table there.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the chain of layers, as FILE.png and FILE.svg."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --csv if it exists.")] = False,
) -> None:
    """Find the symmetries of a PyTorch module: its free scales and linear groups."""
    from flattest.files import check_output_file, write_file

    check_output_file(csv_file, option="--csv", force=force)

    from flattest.commands.module_options import load, one_sentence
    from flattest.modules.measuring import first_batch
    from flattest.modules.symmetry.finding import symmetries as find

    loaded = load(model, data, weights)
    with one_sentence():
        example = first_batch(loaded.module, loaded.X, loaded.y)
        found = find(loaded.module, example, output=output, batch_norm=batch_norm)
    typer.echo(repr(found))
    if csv_file is not None:
        write_file(csv_file, found.to_frame().to_csv(index=False))
    if figure is not None:
        from flattest.figures import chain_of_layers, save_figure

        save_figure(chain_of_layers(found), figure.with_suffix(""))
