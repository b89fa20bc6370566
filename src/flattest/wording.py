"""How numbers are written for people: a figure to a few digits, a number with its noun."""

from __future__ import annotations

import math
from collections.abc import Sequence


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


def floor(value: float | int) -> str:
    """Format a positive number to three digits, none of them rounded up.

    Parameters
    ----------
    value : float
        The number.

    Returns
    -------
    str
        A number that `value` is not below.

    Examples
    --------
    >>> import math
    >>> from flattest.wording import floor
    >>> [floor(value) for value in (2.379, 25.17, 489091.6, 0.99999, math.inf)]
    ['2.37', '25.1', '489,000', '0.999', 'infinitely many']
    """
    if math.isinf(value):
        return "infinitely many"
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    lower = math.floor(value / unit * (1 + 1e-12)) * unit
    return f"{lower:,.0f}" if lower >= 100 else f"{lower:.3g}"


def listed(items: Sequence[str]) -> str:
    """Join what is listed in a sentence.

    Parameters
    ----------
    items : sequence of str
        What there is.

    Returns
    -------
    str
        With "and" before the last one.

    Examples
    --------
    >>> from flattest.wording import listed
    >>> listed(["d = 10", "d = 20", "d = 40"])
    'd = 10, d = 20 and d = 40'
    """
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last
