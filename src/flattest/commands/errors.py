"""Errors at the command line: one sentence and an exit code."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import typer

from flattest.errors import FlattestError

P = ParamSpec("P")
R = TypeVar("R")

SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


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
        try:
            return command(*args, **kwargs)
        except FlattestError as error:
            fail(str(error))
        except KeyboardInterrupt as error:
            say("Interrupted.")
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
    typer.echo(f"{typer.style('Error:', fg='red', bold=True)} {message}", err=True)
    raise typer.Exit(BAD_INPUT)


def say(message: str) -> None:
    """Tell what the user should know, on the error stream.

    Parameters
    ----------
    message : str
        A sentence.
    """
    typer.secho(message, fg="yellow", err=True)
