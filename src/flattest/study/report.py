"""The report: findings as one web page that needs nothing else, no network and no script."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from flattest import pages
from flattest._version import __version__
from flattest.study.cover import CLAIMS_COVER, Cover
from flattest.study.findings import Finding
from flattest.study.verdict import Verdict
from flattest.sweeps import StoredResult

_MOST_ERRORS, _MOST_PLACES = 20, 8
_OUTCOMES = ("holds", "fails", "undecided")


def render(
    findings: Sequence[Finding],
    svgs: Mapping[str, str],
    size: str,
    cover: Cover = CLAIMS_COVER,
) -> str:
    """Write the page.

    Parameters
    ----------
    findings : sequence of Finding
        The claims in the order of the page.
    svgs : mapping of str to str
        By the name of a claim its figure, as the content of an SVG file.
    size : str
        ``"quick"`` or ``"full"``.
    cover : Cover
        The texts that are not the claims'.

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
    results = [result for finding in findings for result in finding.results]
    outcomes = [verdict.outcome for finding in findings for verdict in finding.verdicts]
    return pages.render(
        *("flattest.study", "report.html.j2"),
        cover=cover,
        findings=findings,
        figures={name: pages.inline(svg, name) for name, svg in svgs.items()},
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
        value=_value,
    )


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
        return pages.exact(value)
    if isinstance(value, dict | list | tuple):
        return escape(json.dumps(value, default=str, ensure_ascii=False))
    return escape("none" if value is None else str(value))
