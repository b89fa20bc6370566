"""The options of a measurement, checked."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from flattest.modules.losses import Loss, resolve
from flattest.modules.outputs import Output, check_output
from flattest.modules.residual_part import METHODS
from flattest.validation import check_positive_float, check_positive_int

MODES = ("auto", "exact", "sampled")
MATRICES = ("hessian", "gauss_newton")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmg]i?)?b?\s*", re.IGNORECASE)


class Settings(NamedTuple):
    """The options of :func:`flattest.measure`, see there.

    Parameters
    ----------
    loss : Loss
        The loss.
    output : str, int, callable or None
        Where the logits are.
    batch_size, memory : int or None
        Samples worked on together, or the bytes that this may take.
    mode, residual : str
        How the two parts are found.
    rtol : float
        The standard error at which estimates stop.
    panel : bool
        Whether the Fisher-Rao norm and relative flatness are wanted.
    largest_eigenvalue : str or None
        Of which matrix.
    """

    loss: Loss
    output: Output
    batch_size: int | None
    memory: int | None
    mode: str
    residual: str
    rtol: float
    panel: bool
    largest_eigenvalue: str | None


def check_settings(
    *,
    loss: Any = "mse",
    output: Any = None,
    batch_size: Any = None,
    memory: Any = None,
    mode: Any = "auto",
    residual: Any = "auto",
    rtol: Any = 0.01,
    panel: Any = False,
    largest_eigenvalue: Any = None,
) -> Settings:
    """Check all options.

    Parameters
    ----------
    loss, output, batch_size, memory, mode, residual, rtol, panel, largest_eigenvalue
        As for :func:`flattest.measure`.

    Returns
    -------
    Settings
        The same.

    Raises
    ------
    TypeError, ValueError
        If one is wrong.
    """
    resolved, place = resolve(loss), check_output(output)
    if batch_size is not None and memory is not None:
        raise ValueError("memory chooses batch_size; give one of the two.")
    return Settings(
        loss=resolved,
        output=place,
        batch_size=None if batch_size is None else check_positive_int(batch_size, "batch_size"),
        memory=None if memory is None else read_memory(memory),
        mode=_one_of(mode, "mode", MODES),
        residual=_one_of(residual, "residual", METHODS),
        rtol=check_positive_float(rtol, "rtol"),
        panel=bool(panel),
        largest_eigenvalue=None
        if largest_eigenvalue is None
        else _one_of(largest_eigenvalue, "largest_eigenvalue", MATRICES),
    )


def read_memory(memory: Any) -> int:
    """Return a number of bytes.

    Parameters
    ----------
    memory : int or str
        The number, or a text with a unit.

    Returns
    -------
    int
        The bytes.

    Raises
    ------
    TypeError, ValueError
        If it is something else.

    Examples
    --------
    >>> from flattest.modules.settings import read_memory
    >>> read_memory("2 GiB"), read_memory("500 MB")
    (2147483648, 500000000)
    """
    if isinstance(memory, str):
        found = _SIZE.fullmatch(memory)
        if found is None:
            raise ValueError(f"memory must be a size such as '2 GiB' or '500 MB', not {memory!r}.")
        memory = int(float(found[1]) * _UNITS[(found[2] or "").lower()])
    return check_positive_int(memory, "memory")


def _one_of(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}.")
    return str(value)
