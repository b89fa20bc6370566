"""`flattest bits`: how many bits each weight of a module gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flattest.commands.errors import one_sentence_errors
from flattest.commands.module_options import (
    Loss,
    ModuleData,
    ModuleName,
    OutputName,
    Results,
    Weights,
)
from flattest.commands.options import Force, Seed

if TYPE_CHECKING:
    from torch import nn


@one_sentence_errors
def bits(
    model: ModuleName,
    data: ModuleData,
    budget: Annotated[
        str,
        typer.Option(
            metavar="BITS",
            help="The average bits of an entry, as 4.5, or the size of all weights, as '1.5 MB'.",
        ),
    ],
    out: Results,
    weights: Weights = None,
    loss: Loss = "mse",
    output: OutputName = None,
    choices: Annotated[
        str, typer.Option(metavar="LIST", help="The numbers of bits to choose from.")
    ] = "2,3,4,5,6,7,8",
    weighed: Annotated[
        str,
        typer.Option(metavar="HOW", help="Weigh errors by the trace of a weight, or its diagonal."),
    ] = "trace",
    per_channel: Annotated[
        bool,
        typer.Option(
            "--per-channel/--per-tensor", help="One step size per output channel, or per weight."
        ),
    ] = True,
    measured: Annotated[
        bool,
        typer.Option(
            "--measured",
            help="Take the rise of the loss on the data, each weight rounded alone, in place of "
            "what its trace foretells.",
        ),
    ] = False,
    random_state: Seed = 0,
    force: Force = False,
) -> None:
    """Choose the bits of each weight so that rounding costs least, and round the module so."""
    from flattest.files import check_output_folder, output_folder, write_report

    check_output_folder(out, force=force)
    numbers = _numbers(choices)

    from safetensors.torch import save_model

    from flattest.commands.model_files import load_loss
    from flattest.commands.module_options import (
        load,
        one_sentence,
        said_in_lines,
        say_whose_weights,
    )
    from flattest.figures import bits_by_layer, save_figure
    from flattest.flatness import plain
    from flattest.modules.measuring import mean_loss, measure
    from flattest.quantisation.allocation import allocate_bits
    from flattest.quantisation.rounding import quantise

    loaded = load(model, data, weights)
    with one_sentence():
        criterion = load_loss(loss)
        flatness = measure(
            loaded.module,
            loaded.X,
            loaded.y,
            loss=criterion,
            output=output,
            residual="none",
            random_state=random_state,
        )

    def loss_of(module: nn.Module) -> float:
        return mean_loss(module, loaded.X, loaded.y, loss=criterion, output=output)

    with said_in_lines(("Give loss_of, a function from a module to its loss,", "Give --measured")):
        chosen = allocate_bits(
            flatness,
            loaded.module,
            budget=_budget(budget),
            bits=numbers,
            weighed=weighed,
            per_channel=per_channel,
            loss_of=loss_of if measured else None,
        )
    typer.echo(repr(chosen))
    rounded = quantise(loaded.module, chosen)
    before, after = flatness.loss, loss_of(rounded)
    typer.echo(f"The loss on these data is {before:.4g}, and with rounded weights {after:.4g}.")
    with output_folder(out, force=force) as folder:
        save_model(rounded, str(folder / "model.safetensors"))
        chosen.to_frame().to_csv(folder / "bits.csv", index=False)
        save_figure(bits_by_layer(chosen), folder / "bits")
        write_report(
            folder,
            {
                "bits": dict(chosen),
                "average": chosen.average,
                "cost": plain(chosen.cost),
                "uniform": chosen.uniform,
                "uniform_cost": plain(chosen.uniform_cost),
                "weighed": weighed,
                "per_channel": per_channel,
                "measured": measured,
                "loss": plain(before),
                "rounded_loss": plain(after),
            },
        )
    say_whose_weights(model, weights)
    typer.echo(f"Written to {out}: model.safetensors, bits.csv, report.json and a figure.")


def _numbers(choices: str) -> list[int]:
    try:
        return [int(number) for number in choices.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--choices must be numbers of bits with commas, as 4,6,8, not {choices!r}."
        ) from None


def _budget(budget: str) -> float | str:
    try:
        return float(budget)
    except ValueError:
        return budget
