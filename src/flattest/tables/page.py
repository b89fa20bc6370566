"""The report of a fit as one web page that needs nothing else, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flattest import pages
from flattest._version import __version__
from flattest.tables.comparison import INTERVAL_LEVEL, OWN, RIDGE
from flattest.tables.description import KERNELS
from flattest.wording import number

if TYPE_CHECKING:
    import pandas as pd

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
        headline=headline(fit),
        ridge=ridge_sentence(fit),
        coverage=coverage_sentence(fit),
        hidden=hidden_sentence(fit),
        directions=[_heaviest(fit, index) for index in range(fit.n_shown)],
        importances=[(names[i], f"{importances[i]:.1%}") for i in order[:_MOST_FEATURES]],
        unused=", ".join(repr(name) for name in fit.unused),
        compared_for=fit.description.noises[0]["target"] if fit.description.noises else "",
        candidates=shown_candidates(fit.candidates),
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


def headline(fit: TableFit) -> str:
    """Say how well a fit predicts, in one sentence.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    str
        Its R squared beside those of the others.
    """
    own, *others = fit.judged.items()
    interval = interval_text(own[1].scores["test"])
    shown = f" (95 % interval {interval})" if interval else ""
    beside = [f"{r2_text(judged.scores['test'].r2)} for {name}" for name, judged in others]
    return (
        f"R² is {r2_text(own[1].scores['test'].r2)}{shown} on {fit.judged_on}, beside "
        f"{' and '.join(beside)}."
    )


def ridge_sentence(fit: TableFit) -> str:
    """Say whether a linear model would do.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    str
        A sentence; empty where a linear model is clearly worse, or too few values differ to tell.
    """
    if fit.over_ridge is None or fit.over_ridge[0] > 0:
        return ""
    low, high = fit.over_ridge
    less = fit.judged[OWN].scores["test"].r2 - fit.judged[RIDGE].scores["test"].r2
    if high < 0:
        told = "A linear model (ridge) predicts better here"
    elif less <= (high - low) / 4:  # about a standard error
        told = "A linear model (ridge) predicts as well here, as far as these rows tell"
    else:
        told = "The rows do not tell for sure whether a linear model (ridge) predicts as well"
    return (
        f"{told}: its R² is {_rounded(abs(less), 3)} {'less' if less > 0 else 'greater'} (95 % "
        f"interval of what flattest gains: {_rounded(low, 3)} to {_rounded(high, 3)})."
    )


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


def hidden_sentence(fit: TableFit) -> str:
    """Say what is not shown of the directions.

    Parameters
    ----------
    fit : TableFit
        The fit.

    Returns
    -------
    str
        A sentence, empty where all are shown.
    """
    if not fit.n_hidden:
        return ""
    share = float(fit.model.importances[fit.n_shown :].sum())
    text = f"{share:.1%}" if share >= 0.0005 else "less than 0.1%"
    if fit.n_hidden == 1:
        return f"1 more direction, with {text} of the importance, is not shown."
    return f"{fit.n_hidden} more directions, with {text} of the importance, are not shown."


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


def shown_candidates(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Write the processes that were compared, each kind once.

    Some are fitted several times, first roughly and then to the end: of these the best is shown.

    Parameters
    ----------
    table : DataFrame
        `MultiIndexRegressor.candidates_`.

    Returns
    -------
    list of dict
        The one that counts most, then the others by their scores.
    """
    records = table.to_dict("records")
    shown: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records[-1:] + sorted(records[:-1], key=lambda record: -record["score"]):
        row = _candidate(record)
        shown.setdefault(_kind(row), row)
    return list(shown.values())


def _kind(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("directions", "kernel", "form", "fitted"))


def _candidate(row: dict[Any, Any]) -> dict[str, Any]:
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
