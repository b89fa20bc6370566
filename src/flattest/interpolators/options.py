"""The options of an interpolator: its keyword-only arguments, checked by their annotations."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from flattest.two_layer.networks import TwoLayerNet
from flattest.validation import check_positive_float, check_positive_int

NonNegative = Annotated[float, "at least 0"]
"""The annotation of an option that may be 0; those that are `float` must be positive."""


def check_options(
    solve: Callable[..., Any], method: str, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the options that a caller gave for an interpolator, checked.

    ``float`` means positive, ``NonNegative`` at least 0, ``int`` at least 1, ``Literal`` one of
    its members, ``TwoLayerNet`` a network; ``None`` is accepted where the annotation says so.

    Parameters
    ----------
    solve : callable
        The interpolator.
    method : str
        Its name.
    options : dict
        Names and values.

    Returns
    -------
    dict
        The same, numbers as built-in ints and floats.

    Raises
    ------
    TypeError, ValueError
        If there is no such option, or a value has a wrong type or is out of its range.

    Examples
    --------
    >>> from flattest.interpolators.flattest import flattest
    >>> from flattest.interpolators.options import check_options
    >>> check_options(flattest, "flattest", {"trace_tol": 0})
    {'trace_tol': 0.0}
    """
    known = [
        parameter.name
        for parameter in inspect.signature(solve).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise TypeError(f"method {method!r} has no option {name!r}; {has}.")
    hints = get_type_hints(solve, include_extras=True)
    return {name: _check(name, value, hints[name]) for name, value in options.items()}


def _check(name: str, value: Any, annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        if value is None:
            return None
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    if get_origin(annotation) is Literal:
        choices = get_args(annotation)
        if value not in choices:
            raise ValueError(
                f"There is no {name} {value!r}; choose one of {', '.join(map(str, choices))}."
            )
        return value
    if annotation is bool:
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {value!r}.")
        return value
    if annotation is int:
        return check_positive_int(value, name)
    if annotation is TwoLayerNet:
        if not isinstance(value, TwoLayerNet):
            raise TypeError(f"{name} must be a TwoLayerNet, not {type(value).__name__}.")
        return value
    return check_positive_float(value, name, allow_minimum=annotation == NonNegative)
