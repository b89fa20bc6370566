"""`flattest balance`: a checkpoint of the flattest module that computes the same."""

from __future__ import annotations

from typing import Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.module_options import (
    BatchNorm,
    Loss,
    ModuleData,
    ModuleName,
    OutputName,
    Results,
    Weights,
)
from flattest.commands.options import Force, Seed


@one_sentence_errors
def balance(
    model: ModuleName,
    data: ModuleData,
    out: Results,
    weights: Weights = None,
    loss: Loss = "mse",
    output: OutputName = None,
    objective: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="trace, for noise of one size on all weights; quantisation, before rounding with "
            "one step size per tensor; or range.",
        ),
    ] = "trace",
    symmetry: Annotated[
        str, typer.Option(metavar="WHICH", help="scales, or all: linear groups as well.")
    ] = "scales",
    batch_norm: BatchNorm = "keep",
    bits: Annotated[
        int | None,
        typer.Option(min=2, max=16, help="Round the weights of the result to so many bits."),
    ] = None,
    per_channel: Annotated[
        bool,
        typer.Option(
            "--per-channel/--per-tensor", help="One step size per output channel, or per weight."
        ),
    ] = False,
    random_state: Seed = 0,
    force: Force = False,
) -> None:
    """Go to the flattest module that computes the same, or to one that is easy to round."""
    import json

    from flattest.files import check_output_folder, output_folder, write_report

    check_output_folder(out, force=force)

    from safetensors.torch import save_model

    from flattest.commands.model_files import load_loss
    from flattest.commands.module_options import load, one_sentence, say_whose_weights
    from flattest.flatness import plain
    from flattest.modules import moving
    from flattest.quantisation.rounding import quantise

    loaded = load(model, data, weights)
    with one_sentence():
        balanced, report = moving.balance(
            loaded.module,
            loaded.X,
            loaded.y,
            loss=load_loss(loss),
            objective=objective,
            symmetry=symmetry,
            batch_norm=batch_norm,
            output=output,
            random_state=random_state,
        )
    if bits is not None:
        balanced = quantise(balanced, bits, per_channel=per_channel)
    typer.echo(repr(report))
    orbit = report.flatness.orbit
    with output_folder(out, force=force) as folder:
        save_model(balanced, str(folder / "model.safetensors"))
        report.to_frame().to_csv(folder / "layers.csv", index=False)
        _draw(report, folder)
        write_report(
            folder,
            {
                "objective": objective,
                "before": plain(report.before),
                "after": plain(report.after),
                "bits_gained": plain(report.bits_gained),
                "n_left_alone": report.n_left_alone,
                "bits": bits,
                "largest_change": report.largest_change,
                "rounding_change": report.rounding_change,
                "orbit": None if orbit is None else plain(orbit._asdict()),
                "flatness": json.loads(json.dumps(report.flatness.to_dict())),
            },
        )
    say_whose_weights(model, weights)
    typer.echo(f"Written to {out}: model.safetensors, layers.csv, report.json and a figure.")


def _draw(report: object, folder: object) -> None:
    from flattest.figures import save_figure, traces_by_layer

    save_figure(traces_by_layer(report), f"{folder}/traces")  # type: ignore[arg-type]
