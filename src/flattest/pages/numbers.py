"""Numbers in HTML: measured ones, chosen ones, powers of ten and time spans."""

from __future__ import annotations

import math
import re

from markupsafe import Markup, escape


def estimate(number: float | int) -> Markup:
    """Format a measured number to three digits, or as a power of ten where that is shorter.

    Parameters
    ----------
    number : float
        The number.

    Returns
    -------
    Markup
        HTML.

    Examples
    --------
    >>> from flattest.pages.numbers import estimate
    >>> [str(estimate(number)) for number in (7.1, 12345.6, 3e-30, float("nan"))]
    ['7.10', '12,346', '3.0 × 10<sup>−30</sup>', 'undefined']
    """
    size = abs(number)
    if math.isnan(number):
        return Markup("undefined")
    if math.isinf(number):
        return Markup("∞" if number > 0 else "−∞")
    if number == 0:
        return Markup("0")
    if size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{number:.1e}".split("e")
        return _signed(f"{mantissa} × ") + _power(int(exponent))
    return _signed(f"{number:,.0f}" if size >= 999.5 else f"{number:#.3g}".rstrip("."))


def exact(number: float | int) -> Markup:
    """Format a number that somebody chose, such as a threshold, with no more digits than it has.

    Parameters
    ----------
    number : float
        The number.

    Returns
    -------
    Markup
        HTML.

    Examples
    --------
    >>> from flattest.pages.numbers import exact
    >>> [str(exact(number)) for number in (6.0, 0.25, 2 / 3, 1e-8, 2.5e-9)]
    ['6', '0.25', '0.667', '10<sup>−8</sup>', '2.5 × 10<sup>−9</sup>']
    """
    if not 1e-3 <= abs(number) < 1e6 and math.isfinite(number) and number != 0:
        mantissa, exponent = f"{number:e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        power = _power(int(exponent))
        return power if mantissa == "1" else _signed(f"{mantissa} × ") + power
    if not math.isfinite(number):
        return estimate(number)
    text = f"{number:,.10g}"
    # A fraction that has no end is no choice of digits.
    return _signed(text if len(text) < 11 else f"{number:.3g}")


def powers(text: str) -> Markup:
    """Write the powers of ten in a text as such.

    Parameters
    ----------
    text : str
        Plain text.

    Returns
    -------
    Markup
        HTML.

    Examples
    --------
    >>> from flattest.pages.numbers import powers
    >>> str(powers("a < 1e-8"))
    'a &lt; 10<sup>−8</sup>'
    """
    return Markup(re.sub(r"\b1e(-?\d+)\b", lambda match: _power(int(match[1])), escape(text)))


def duration(seconds: float | int) -> str:
    """Format a time span.

    Parameters
    ----------
    seconds : float
        The seconds.

    Returns
    -------
    str
        Text.

    Examples
    --------
    >>> from flattest.pages.numbers import duration
    >>> [duration(seconds) for seconds in (0.3, 42.0, 754.0, 8000.0)]
    ['0.3 s', '42 s', '12 min 34 s', '2 h 13 min']
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


def _power(exponent: int) -> Markup:
    return Markup("10<sup>{}</sup>").format(str(exponent).replace("-", "−"))


def _signed(text: str) -> Markup:
    return Markup(text.replace("-", "−"))
