"""The application: `flattest demo`, `fit`, `predict`, `measure`, `symmetries` and the others."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from flattest._version import __version__
from flattest.commands.balance import balance
from flattest.commands.bits import bits
from flattest.commands.demo import demo
from flattest.commands.errors import INTERRUPTED
from flattest.commands.fit import fit
from flattest.commands.measure import measure
from flattest.commands.predict import predict
from flattest.commands.reproduce import reproduce
from flattest.commands.sweep import app as sweep_app
from flattest.commands.symmetries import symmetries
from flattest.commands.uses import uses
from flattest.commands.versions import versions

app = typer.Typer(
    name="flattest",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich's help takes twice as long as all the rest
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Flatness modulo symmetry: measure it, certify it, minimise it, and learn with it.",
)
for command in (demo, fit, predict, measure, symmetries, balance, bits, reproduce, uses):
    app.command()(command)
app.add_typer(sweep_app, name="sweep")


def run() -> None:
    """Run the application and leave the program."""
    code: Any = INTERRUPTED
    try:
        app()
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        pass
    if code == INTERRUPTED:
        # Threads may still be at work in torch, and an orderly exit would wait for them or abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)
    sys.exit(code)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"flattest {__version__}")
        raise typer.Exit
    return wanted


def _show_versions(wanted: bool) -> bool:
    if wanted:
        found = versions()
        width = max(map(len, found))
        typer.echo("\n".join(f"{name:<{width}}  {version}" for name, version in found.items()))
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    all_versions: Annotated[
        bool,
        typer.Option(
            "--versions",
            callback=_show_versions,
            is_eager=True,
            help="Show the versions of all that matters, for reports of problems, and exit.",
        ),
    ] = False,
) -> None:
    pass
