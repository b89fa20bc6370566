"""Which part of what a module returns are its outputs, the logits that the loss takes.

Modules return a tensor, a tuple, a dictionary or an object of their own. `select` finds the one
tensor in it, `replace` puts another tensor into its place, so that a loss written for the whole
object can be differentiated by the logits alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Output = str | int | Callable[[Any], Tensor] | None
"""An attribute or key, a position, a function of what the module returns, or None to look."""


def check_output(output: Any) -> Output:
    """Refuse an `output` argument of another kind: TypeError."""
    if output is None or callable(output):
        return output
    if isinstance(output, bool) or not isinstance(output, (str, int)):
        raise TypeError(
            "output must be a name, a position or a function of what the model returns, not "
            f"{type(output).__name__}."
        )
    return output


def select(returned: Any, output: Output) -> Tensor:
    """Return the logits.

    Parameters
    ----------
    returned : object
        What the module returned.
    output : str, int, callable or None
        Where they are; None takes a tensor as it is, and ``logits`` of anything else.

    Returns
    -------
    Tensor
        The logits, in the autograd graph.

    Raises
    ------
    TypeError
        If there is no such part, or if it is no floating-point tensor.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.outputs import select
    >>> select({"logits": torch.ones(2), "cache": None}, None)
    tensor([1., 1.])
    """
    if callable(output):
        logits = output(returned)
    elif output is None and isinstance(returned, Tensor):
        logits = returned
    else:
        key = _place(returned, output)
        try:
            indexed = isinstance(returned, Mapping) or isinstance(key, int)
            logits = returned[key] if indexed else getattr(returned, str(key))
        except (LookupError, AttributeError, TypeError) as error:
            raise TypeError(
                f"output={output!r} is not a part of the {type(returned).__name__} that the model "
                "returns; give the name or the position of the logits in it."
            ) from error
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"The model's output is of type {type(logits).__name__}, not a tensor; say with "
            "output= where the logits are."
        )
    if not logits.is_floating_point():
        raise TypeError(
            f"The model's outputs have dtype {logits.dtype}; they must be floating-point numbers "
            "before a decision such as argmax is taken."
        )
    return logits


def replace(returned: Any, output: Output, logits: Tensor) -> Any:
    """Return what the module returned, with other logits.

    Parameters
    ----------
    returned : object
        What the module returned.
    output : str, int, callable or None
        Where the logits are in it.
    logits : Tensor
        What to put there.

    Returns
    -------
    object
        A shallow copy with the other logits.

    Raises
    ------
    TypeError
        If `output` is a function, which does not tell where its tensor goes.

    Examples
    --------
    >>> import torch
    >>> from flattest.modules.outputs import replace
    >>> replace((torch.zeros(1), "cache"), 0, torch.ones(1))
    (tensor([1.]), 'cache')
    """
    if callable(output):
        raise TypeError(
            "output= must be a name or a position where the loss takes the model: a function does "
            "not tell where its logits are."
        )
    if output is None and isinstance(returned, Tensor):
        return logits
    key = _place(returned, output)
    if isinstance(returned, tuple):
        entries = list(returned)
        entries[key] = logits  # type: ignore[index] # a position, for `select` found it
        return type(returned)(*entries) if hasattr(returned, "_fields") else tuple(entries)
    changed = copy.copy(returned)
    if isinstance(returned, (Mapping, list)):
        changed[key] = logits
        if isinstance(key, str) and hasattr(returned, key):
            setattr(changed, key, logits)  # dictionaries whose entries are attributes as well
    else:
        setattr(changed, str(key), logits)
    return changed


def _place(returned: Any, output: Output) -> str | int:
    """Say where the logits are: as told, else by the name that most libraries give them."""
    if output is not None:
        assert not callable(output)
        return output
    if isinstance(returned, Mapping) and "logits" in returned:
        return "logits"
    if isinstance(getattr(returned, "logits", None), Tensor):
        return "logits"
    if isinstance(returned, (tuple, list)) and len(returned) == 1:
        return 0
    raise TypeError(
        f"The model returns a {type(returned).__name__} without logits; say with output= which "
        "part of it the loss is of."
    )
