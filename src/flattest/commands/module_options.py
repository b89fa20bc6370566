"""Arguments of the commands for any PyTorch module, and what they load."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from flattest.commands.errors import fail, say

if TYPE_CHECKING:
    from torch import nn

ModuleName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A function that makes a module, as package.module:function or file.py:function; or "
        "a .pt2 file of torch.export.",
    ),
]
ModuleData = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="An .npz or .safetensors file with the targets under y and the inputs beside them, or "
        "a function that returns batches, or one pair (X, y).",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The weights: safetensors, or a state dict of torch.save."),
]
Loss = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="mse, cross_entropy, bce_with_logits, or a function or class as torch.nn:HuberLoss.",
    ),
]
OutputName = Annotated[
    str | None,
    typer.Option("--output", metavar="NAME", help="Where the logits are in what it returns."),
]
BatchNorm = Annotated[
    str, typer.Option(metavar="HOW", help="keep batch normalisation, or fold it.")
]
Results = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="The folder for the results.")
]


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn what a function for any module refuses into a sentence and exit code 2."""
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        fail(str(error))


@contextlib.contextmanager
def said_in_lines(*instead: tuple[str, str]) -> Iterator[None]:
    """Do the same, and say warnings in a line each once it is done.

    Parameters
    ----------
    *instead : tuple of (str, str)
        What is said for people who write Python, and for those at the command line.
    """
    with warnings.catch_warnings(record=True) as caught, one_sentence():
        warnings.simplefilter("always", UserWarning)
        yield
    for entry in caught:
        if issubclass(entry.category, UserWarning):
            text = str(entry.message)
            for python, command in instead:
                text = text.replace(python, command)
            say(f"Warning: {text}")


class Loaded(NamedTuple):
    """A module with its data.

    Parameters
    ----------
    module : torch.nn.Module
        The module in evaluation mode.
    X, y : object
        The data, as :func:`flattest.measure` takes them.
    """

    module: nn.Module
    X: Any
    y: Any


def load(model: str, data: str, weights: Path | None) -> Loaded:
    """Load a module and its data.

    Parameters
    ----------
    model, data : str
        As on the command line.
    weights : Path or None
        A checkpoint.

    Returns
    -------
    Loaded
        Both.

    Raises
    ------
    ModelFileError
        If there is no such module, file or function.
    """
    from flattest.commands.model_files import ModelFileError, load_data, load_module, names_module

    if not names_module(model):
        raise ModelFileError(
            f"MODEL is {model!r}; give a function that makes a module, as package.module:function, "
            "or a .pt2 file of torch.export."
        )
    module = load_module(model, weights)
    found = load_data(data, module)
    return Loaded(module, found.X, found.y)


def say_whose_weights(model: str, weights: Path | None) -> None:
    """Say it where a module was taken with the weights that it is made with.

    Parameters
    ----------
    model : str
        As on the command line.
    weights : Path or None
        A checkpoint.
    """
    if weights is None and ":" in model:
        say(f"No --weights: the weights are those that {model} gives, which may be random.")
