"""The report: findings as one web page that needs nothing else, no network and no script."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from flattest._version import __version__
from flattest.study.findings import Finding
from flattest.study.verdict import Verdict
from flattest.sweeps import StoredResult
from flattest.wording import count

_MOST_ERRORS, _MOST_PLACES = 20, 8
_LEAST_SCALE = 0.66  # of a figure's natural size; below that its text is too small, so it scrolls
_OUTCOMES = ("holds", "fails", "undecided")


def render(findings: Sequence[Finding], svgs: Mapping[str, str], size: str) -> str:
    """Write the page.

    Parameters
    ----------
    findings : sequence of Finding
        The claims in the order of the page.
    svgs : mapping of str to str
        By the name of a claim its figure, as the content of an SVG file.
    size : str
        ``"quick"`` or ``"full"``.

    Returns
    -------
    str
        HTML, with figures and style inside.

    Examples
    --------
    >>> from flattest.study.report import render
    >>> render([], {}, "quick").splitlines()[0]
    '<!DOCTYPE html>'
    """
    environment = Environment(
        loader=PackageLoader("flattest.study", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        estimate=estimate, exact=exact, powers=powers, seconds=duration, count=count, value=_value
    )
    results = [result for finding in findings for result in finding.results]
    outcomes = [verdict.outcome for finding in findings for verdict in finding.verdicts]
    return environment.get_template("report.html.j2").render(
        findings=findings,
        figures={name: inline(svg, name) for name, svg in svgs.items()},
        errors={finding.claim.name: list(_errors(finding)) for finding in findings},
        size=size,
        tally={name: sum(outcome == name for outcome in outcomes) for name in _OUTCOMES},
        n_trials=sum(finding.n_trials for finding in findings),
        n_done=sum(finding.n_done for finding in findings),
        seconds=sum(finding.seconds for finding in findings),
        written=datetime.now(UTC),
        span=_span(results),
        environment=_merged(result.environment for result in results),
        version=__version__,
        sign=_sign,
    )


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
    >>> from flattest.study.report import estimate
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
    >>> from flattest.study.report import exact
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
    >>> from flattest.study.report import powers
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
    >>> from flattest.study.report import duration
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


def inline(svg: str, prefix: str) -> Markup:
    """Turn an SVG file into an element of a page.

    Parameters
    ----------
    svg : str
        The content of the file, as matplotlib writes it.
    prefix : str
        Put before every identifier, so that those of several figures differ.

    Returns
    -------
    Markup
        The element; it fills its box as far as its text stays legible.

    Examples
    --------
    >>> from flattest.study.report import inline
    >>> svg = '<?xml version="1.0"?><svg width="72pt" height="9pt"><path id="a"/></svg>'
    >>> str(inline(svg, "one"))
    '<svg style="max-width: 96px; min-width: 63px" aria-hidden="true"><path id="one-a"/></svg>'
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    head, body = svg.split(">", 1)
    width = re.search(r'\bwidth="([\d.]+)pt"', head)
    assert width is not None, "matplotlib gives the width of a figure in points"
    natural = float(width[1]) * 96 / 72
    style = f"max-width: {natural:.0f}px; min-width: {_LEAST_SCALE * natural:.0f}px"
    head = re.sub(r'\s+(width|height|version)="[^"]*"', "", head)
    # The file is matplotlib's, with all text escaped.
    return Markup(f'{head} style="{style}" aria-hidden="true">{body}'.strip())


def _errors(finding: Finding) -> list[dict[str, Any]]:
    """Group the failed trials by what went wrong."""
    groups: dict[tuple[str, str], list[StoredResult]] = {}
    for failure in finding.failures:
        lines = (failure.error or "no reason is known").strip().splitlines()
        groups.setdefault((failure.status, lines[-1]), []).append(failure)
    distinct = [name for name, values in finding.settings.items() if len(values) > 1]
    grouped = []
    for (status, reason), failures in list(groups.items())[:_MOST_ERRORS]:
        places = [
            Markup(", ").join(
                Markup("{} {}").format(name, _value(value))
                for name, value in (
                    *((name, failure.settings[name]) for name in distinct),
                    ("seed", failure.seed),
                )
            )
            for failure in failures[:_MOST_PLACES]
        ]
        grouped.append(
            {
                "status": "ran out of time" if status == "timed_out" else "raised an error",
                "reason": reason,
                "count": len(failures),
                "places": places,
                "more": len(failures) - len(places),
                "traceback": failures[0].error,
            }
        )
    return grouped


def _span(results: Sequence[StoredResult]) -> tuple[datetime, datetime] | None:
    times = [datetime.fromisoformat(result.finished_at) for result in results]
    return (min(times), max(times)) if times else None


def _merged(environments: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return what each entry of the environments was, once where it was always the same."""
    values: dict[str, dict[str, None]] = {}
    for environment in environments:
        for name, value in environment.items():
            values.setdefault(name, {})[str(value)] = None
    return {name: ", ".join(seen) for name, seen in values.items()}


def _sign(verdict: Verdict) -> str:
    return "≥" if verdict.bound == "at least" else "≤"


def _value(value: Any) -> Markup:
    if isinstance(value, float):
        return exact(value)
    if isinstance(value, dict | list | tuple):
        return escape(json.dumps(value, default=str, ensure_ascii=False))
    return escape("none" if value is None else str(value))


def _power(exponent: int) -> Markup:
    return Markup("10<sup>{}</sup>").format(str(exponent).replace("-", "−"))


def _signed(text: str) -> Markup:
    return Markup(text.replace("-", "−"))
