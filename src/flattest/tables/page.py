"""The report of a fit as one web page that needs nothing else, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flattest import pages
from flattest._version import __version__
from flattest.tables.comparison import INTERVAL_LEVEL
from flattest.tables.description import KERNELS
from flattest.wording import number

if TYPE_CHECKING:
    from flattest.tables.result import TableFit
    from flattest.tables.scores import Score

_MOST_FEATURES, _MOST_WEIGHTS = 30, 8
_LEAST_WEIGHT = 0.01
_CLOSE = 0.99  # a score from which on more digits are shown
_FITTED = {
    "directions": "directions",
    "lengths": "a length for each feature",
    "scale": "one length",
}


def page(fit: TableFit, svgs: Mapping[str, str]) -> str:
    """Write the page.

    Parameters
    ----------
    fit : TableFit
        The fit.
    svgs : mapping of str to str
        Its figures by name, as the contents of SVG files.

    Returns
    -------
    str
        HTML, with figures and style inside.
    """
    names, importances = fit.feature_names, fit.feature_importances
    order = sorted(range(len(names)), key=lambda i: -importances[i])
    return pages.render(
        *("flattest.tables", "report.html.j2"),
        fit=fit,
        words=fit.description,
        figures={name: pages.inline(svg, name) for name, svg in svgs.items()},
        coverage=coverage_sentence(fit),
        directions=[_heaviest(fit, index) for index in range(fit.n_shown)],
        importances=[(names[i], f"{importances[i]:.1%}") for i in order[:_MOST_FEATURES]],
        candidates=[_candidate(row) for row in fit.candidates.to_dict("records")],
        interval=interval_text,
        number=number,
        r2=r2_text,
        percent=lambda share: f"{share:.0%}",
        written=datetime.now(UTC),
        version=__version__,
    )


def r2_text(r2: float | int) -> str:
    """Write a coefficient of determination.

    Parameters
    ----------
    r2 : float
        The value.

    Returns
    -------
    str
        With three decimals, or four where it is close to 1.

    Examples
    --------
    >>> from flattest.tables.page import r2_text
    >>> r2_text(0.7123), r2_text(0.99876), r2_text(-1e-5), r2_text(float("nan"))
    ('0.712', '0.9988', '0.000', 'undefined')
    """
    if r2 != r2:
        return "undefined"
    return _rounded(r2, 4 if r2 >= _CLOSE else 3)


def interval_text(score: Score) -> str:
    """Write the interval of a score.

    Parameters
    ----------
    score : Score
        The score.

    Returns
    -------
    str
        Such as ``"0.71 to 0.83"``; empty where there is none.

    Examples
    --------
    >>> from flattest.tables.page import interval_text
    >>> from flattest.tables.scores import Score
    >>> interval_text(Score(0.99, 1.0, (0.9841, 0.9953)))
    '0.984 to 0.995'
    """
    if score.interval is None:
        return ""
    # Beside a score near 1 more digits tell the ends apart.
    digits = 4 if score.interval[0] >= _CLOSE else 3 if score.interval[0] >= 0.9 else 2
    low, high = (_rounded(end, digits) for end in score.interval)
    return f"{low} to {high}"


def coverage_sentence(fit: TableFit) -> str:
    """Say how many rows that the fit had not seen lie in their intervals.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    str
        A sentence, empty where there are no intervals.
    """
    if fit.coverage is None:
        return ""
    return f"{INTERVAL_LEVEL:.0%} intervals cover {fit.coverage:.0%} of {fit.judged_on}."


def _heaviest(fit: TableFit, index: int) -> dict[str, Any]:
    """Return a direction's features of the largest weights."""
    loading, direction = fit.model.loadings[index], fit.model.directions[index]
    order = sorted(range(len(loading)), key=lambda i: -abs(loading[i]))[:_MOST_WEIGHTS]
    order = [i for i in order if abs(loading[i]) >= _LEAST_WEIGHT]
    return {
        "importance": f"{fit.model.importances[index]:.0%}",
        "weights": [
            (fit.feature_names[i], _signed(f"{loading[i]:+.2f}"), _signed(f"{direction[i]:+.4g}"))
            for i in order
        ],
        "more": len(loading) - len(order),
    }


def _candidate(row: dict[Any, Any]) -> dict[str, Any]:
    """Write a process that was compared, for people."""
    kernel = KERNELS.get(row["kernel"], row["kernel"])
    form = "sum of functions of one direction each" if row["additive"] else "function"
    return {
        "directions": row["n_directions"],
        "kernel": kernel + " plus a linear trend" * bool(row["trend"]),
        "form": "linear function" if row["kernel"] == "linear" else form,
        "fitted": _FITTED[row["fitted"]],
        "evidence": _signed(f"{row['log_evidence']:,.1f}"),
        "score": _signed(f"{row['score']:,.1f}"),
    }


def _rounded(value: float | int, digits: int) -> str:
    """Round, with a minus sign where anything but zeros is left."""
    return _signed(f"{round(float(value), digits) + 0.0:.{digits}f}")


def _signed(text: str) -> str:
    return text.replace("-", "−")
