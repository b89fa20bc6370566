"""`flattest measure`: the flatness of a fitted network on a table, or of any module on its data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flattest.commands.errors import INTERRUPTED, fail, one_sentence_errors, say
from flattest.commands.model_files import load_loss, names_module
from flattest.commands.module_options import load, said_in_lines, say_whose_weights
from flattest.commands.options import DropMissing, Seed, TextEncoding

if TYPE_CHECKING:
    from rich.table import Table

    from flattest.flatness import Flatness


@one_sentence_errors
def measure(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The --out folder of a fit, or its model file; a function that makes a module, as "
            "package.module:function or file.py:function; or a .pt2 file of torch.export.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="For a fit, a table as in `fit`. For a module, an .npz or .safetensors file with "
            "the targets under y and the inputs beside them, or a function that returns batches or "
            "one pair (X, y).",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column predicted; by default that of the fit.",
        ),
    ] = None,
    drop_missing: DropMissing = False,
    encoding: TextEncoding = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A module's weights: safetensors, or a state dict of torch.save."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A module's loss: mse (the default), cross_entropy, bce_with_logits, or a "
            "function or class as torch.nn:HuberLoss.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where the logits are in what a module returns."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Measure a module's parameters of such names, as layer4.*; may be repeated. By "
            "default those with gradient; all of them with --parameters '*'.",
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="A module's samples worked on together.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Or what that may hold, as '2 GiB'.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="exact, sampled or auto (the default).")
    ] = None,
    rtol: Annotated[
        float | None, typer.Option(help="Relative standard error of estimates; 0.01 by default.")
    ] = None,
    residual: Annotated[
        str | None,
        typer.Option(metavar="HOW", help="exact, estimate, none or auto (the default)."),
    ] = None,
    panel: Annotated[
        bool, typer.Option("--panel", help="Also the Fisher-Rao norm and relative flatness.")
    ] = False,
    largest_eigenvalue: Annotated[
        str | None, typer.Option(metavar="MATRIX", help="Of the hessian or the gauss_newton.")
    ] = None,
    symmetry: Annotated[
        str | None,
        typer.Option(
            metavar="WHICH", help="Also the least trace over scales, or over all symmetries."
        ),
    ] = None,
    batch_norm: Annotated[
        str | None, typer.Option(metavar="HOW", help="keep batch normalisation, or fold it.")
    ] = None,
    random_state: Seed = 0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE.json", help="Write the measurements there as well."),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option("--csv", metavar="FILE.csv", help="Write the table per layer there."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace --json and --csv if they exist.")
    ] = False,
) -> None:
    """Measure the flatness of a fitted network on a table, or of any PyTorch module on data."""
    from flattest.files import check_output_file

    # What can be wrong with files and options is said before torch is loaded.
    check_output_file(json_file, option="--json", force=force)
    check_output_file(csv_file, option="--csv", force=force)
    options: dict[str, Any] = {
        "weights": weights,
        "loss": loss,
        "output": output,
        "parameters": parameters or None,
        "batch_size": batch_size,
        "memory": memory,
        "mode": mode,
        "rtol": rtol,
        "residual": residual,
        "panel": panel or None,
        "largest_eigenvalue": largest_eigenvalue,
        "symmetry": symmetry,
        "batch_norm": batch_norm,
    }
    given = {name: value for name, value in options.items() if value is not None}
    of_tables = {"target": target, "drop_missing": drop_missing or None, "encoding": encoding}
    if names_module(model):
        _refuse_options({k: v for k, v in of_tables.items() if v is not None}, "tables", "module")
        flatness = _measure_module(model, data, given, random_state)
    else:
        if not Path(model).exists():
            fail(
                f"There is no folder {model!r} of a fit; a module is named by the function that "
                "makes it, as package.module:function."
            )
        _refuse_options(given, "modules", "fit")
        flatness = _measure_fit(Path(model), Path(data), target, drop_missing, encoding)
    _write(flatness, json_file, csv_file)
    if flatness.partial:
        raise typer.Exit(INTERRUPTED)


def _refuse_options(given: dict[str, Any], world: str, model: str) -> None:
    for name in given:
        fail(f"--{name.replace('_', '-')} is for {world}, and MODEL is a {model}; leave it out.")


def _measure_fit(
    model: Path, table: Path, target: str | None, drop_missing: bool, encoding: str | None
) -> Flatness:
    from rich.console import Console

    from flattest.tables.model_file import load_encoding
    from flattest.tables.reading import read_file

    learnt = load_encoding(model)
    learnt = learnt.with_target(target or learnt.target)
    rows = read_file(table, na=learnt.na, encoding=encoding, usual=learnt.text_encoding).table
    response = learnt.target_values(rows)
    encoded = learnt.encode(rows)
    for remark in encoded.remarks:
        say(f"Warning: {remark}")
    kept = ~encoded.incomplete if drop_missing else slice(None)

    from flattest.tables.saved_model import SavedModel
    from flattest.tables.saved_network import measure_saved

    loaded = SavedModel.load(model).with_target(target)
    flatness = measure_saved(loaded, encoded.features[kept], response[kept])
    rows_used = f"{flatness.n_samples:,} rows, {flatness.width} neurons"
    caption = f"{rows_used}, features standardised as in the fit"
    Console().print(flatness_table(flatness, caption))
    return flatness


def _measure_module(model: str, data: str, options: dict[str, Any], random_state: int) -> Flatness:
    from rich.console import Console

    from flattest.commands.terminal import standard_error
    from flattest.measuring import measure as measure_any

    weights = options.pop("weights", None)
    module, X, y = load(model, data, weights)
    loss = load_loss(options.pop("loss", "mse"))
    shown = standard_error().is_terminal
    with said_in_lines():
        flatness = measure_any(
            module, X, y, loss=loss, random_state=random_state, verbose=shown, **options
        )
    console = Console()
    console.print(layers_table(flatness))
    console.print(flatness_table(flatness, flatness.scope))
    say_whose_weights(model, weights)
    return flatness


def _write(flatness: Flatness, json_file: Path | None, csv_file: Path | None) -> None:
    import json

    from flattest.files import write_file

    if json_file is not None:
        write_file(json_file, json.dumps(flatness.to_dict(), indent=2, allow_nan=False) + "\n")
    if csv_file is not None:
        flatness.to_csv(csv_file)


def layers_table(flatness: Flatness) -> Table:
    """Tabulate the measurements layer by layer.

    Parameters
    ----------
    flatness : Flatness
        The measurements.

    Returns
    -------
    Table
        One row per parameter tensor.
    """
    import math

    from flattest.commands.terminal import new_table
    from flattest.wording import number

    known = not math.isnan(flatness.trace)
    figure = "trace" if known else "gauss_newton"
    total = getattr(flatness, figure)
    relative = any(not math.isnan(layer.relative_flatness) for layer in flatness.layers)
    table = new_table("Flatness by parameter tensor", "name")
    table.add_column("kind")
    headings = ["parameters", "trace" if known else "Gauss-Newton", "", "share"]
    for heading in [*headings, *(["relative flatness"] if relative else [])]:
        table.add_column(heading, justify="right")
    for layer in flatness.layers:
        value = getattr(layer, figure)
        error = layer.standard_error
        mark = "exact" if layer.exact else "estimate" if error is None else f"± {error:.2g}"
        cells = [f"{layer.n_parameters:,}", number(value), "unused" if layer.unused else mark]
        cells.append(f"{value / total:.1%}" if total else "")
        if relative:
            missing = math.isnan(layer.relative_flatness)
            cells.append("" if missing else number(layer.relative_flatness))
        table.add_row(layer.name, layer.kind, *cells)
    return table


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
