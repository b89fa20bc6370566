"""Errors at the command line: one sentence and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

P = ParamSpec("P")
R = TypeVar("R")

BAD_INPUT, INTERRUPTED = 2, 130


def one_sentence_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn bad input into a sentence and exit code 2; let unexpected errors through.

    Parameters
    ----------
    command : callable
        A command.

    Returns
    -------
    callable
        The same command with readable errors.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        from flattest.output_folder import OutputError
        from flattest.sweeps import SweepError
        from flattest.tables.reading import TableError
        from flattest.tables.saved_model import SavedModelError

        try:
            return command(*args, **kwargs)
        except (TableError, SavedModelError, OutputError, SweepError) as error:
            fail(str(error))
        except KeyboardInterrupt as error:
            standard_error().print("Interrupted.", style="yellow")
            raise typer.Exit(INTERRUPTED) from error

    return wrapped


def fail(message: str) -> NoReturn:
    """Say what is wrong with the input, and end with exit code 2.

    Parameters
    ----------
    message : str
        A sentence.

    Raises
    ------
    typer.Exit
        Always.
    """
    standard_error().print(
        f"[bold red]Error:[/] {escape(message)}", highlight=False, soft_wrap=True
    )
    raise typer.Exit(BAD_INPUT)


def standard_error() -> Console:
    """Return a console on the standard error stream.

    Returns
    -------
    Console
        The console.
    """
    return Console(stderr=True)
