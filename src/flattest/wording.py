"""How numbers are written for people: a figure to a few digits, a number with its noun."""

from __future__ import annotations

import math


def number(value: float) -> str:
    """Format a number to four digits, or as a power of ten where that is shorter.

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    str
        The text.

    Examples
    --------
    >>> from flattest.wording import number
    >>> [number(value) for value in (0.0, 28.7, 12345.6, 3e-30, float("nan"))]
    ['0', '28.70', '12,346', '3.0e-30', 'undefined']
    """
    size = abs(value)
    if math.isnan(value):
        return "undefined"
    if value == 0:
        return "0"
    if size >= 1e6 or size < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if size >= 1e3 else f"{value:#.4g}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    number : int
        How many.
    noun : str
        Of what, in the singular.

    Returns
    -------
    str
        Such as ``"1,000 samples"``.

    Examples
    --------
    >>> from flattest.wording import count
    >>> count(1, "sample"), count(1000, "sample")
    ('1 sample', '1,000 samples')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
