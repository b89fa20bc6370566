"""Findings: what the trials of a claim have yielded, judged and drawn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from flattest.study.claim import Claim, Design
from flattest.study.verdict import Verdict
from flattest.sweeps import StoredResult, Trial, trial_function

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """A claim after its trials.

    Parameters
    ----------
    claim : Claim
        The claim.
    design : Design
        What was to be run.
    results : tuple of StoredResult
        The trials with a result, in the order of the design.
    verdicts : tuple of Verdict
        What the successful trials say; empty where that could not be computed.
    figure : Figure or None
        Their figure.
    problems : tuple of str
        Why verdicts, figure, summary or conclusion are missing.
    summary : DataFrame or None
        What the claim's table says of them, if it has one.
    conclusion : str
        What they come to in a sentence or two; empty if the claim has none.

    Examples
    --------
    >>> from flattest.study import CLAIMS
    >>> from flattest.study.findings import find
    >>> claim = CLAIMS["symmetry"]
    >>> finding = find(claim, claim.quick, {})
    >>> finding.verdicts, finding.problems
    ((), ('No trial succeeded: there is nothing to judge.',))
    """

    claim: Claim
    design: Design
    results: tuple[StoredResult, ...]
    verdicts: tuple[Verdict, ...]
    figure: Figure | None
    problems: tuple[str, ...]
    summary: pd.DataFrame | None = None
    conclusion: str = ""

    @property
    def n_trials(self) -> int:
        """The number of trials that were to be run."""
        return len(self.design.settings) * self.design.n_seeds

    @property
    def failures(self) -> list[StoredResult]:
        """The trials that raised or ran out of time."""
        return [result for result in self.results if result.status != "done"]

    @property
    def n_done(self) -> int:
        """The number of trials that succeeded."""
        return len(self.results) - len(self.failures)

    @property
    def seconds(self) -> float:
        """The time that the trials took, added up."""
        return sum((result.seconds for result in self.results), 0.0)

    @property
    def settings(self) -> dict[str, list[Any]]:
        """The different values that each setting takes, in order of appearance."""
        values: dict[str, list[Any]] = {}
        for cell in self.design.settings:
            for name, value in dataclasses.asdict(cell).items():
                seen = values.setdefault(name, [])
                if value not in seen:
                    seen.append(value)
        return values

    @property
    def table(self) -> pd.DataFrame:
        """All trials, failed ones too, with scalar columns that every file format can hold."""
        rows = [
            {
                **_record(result),
                "trial_status": result.status,
                "trial_error": result.error,
                "trial_seconds": result.seconds,
            }
            for result in self.results
        ]
        return pd.DataFrame(rows).apply(_scalars)


def trials(claim: Claim, design: Design) -> tuple[Trial, ...]:
    """List the trials of a claim: every settings, and each with every seed.

    Parameters
    ----------
    claim : Claim
        The claim.
    design : Design
        What to run.

    Returns
    -------
    tuple of Trial
        In the order of the settings, then of the seeds.

    Examples
    --------
    >>> from flattest.study import CLAIMS
    >>> from flattest.study.findings import trials
    >>> claim = CLAIMS["symmetry"]
    >>> len(trials(claim, claim.quick)) == len(claim.quick.settings) * claim.quick.n_seeds
    True
    """
    function = trial_function(claim.reference)
    return tuple(
        Trial(function, function.complete(dataclasses.asdict(settings)), seed)
        for settings in design.settings
        for seed in range(design.n_seeds)
    )


def find(claim: Claim, design: Design, results: Mapping[str, StoredResult]) -> Finding:
    """Judge and draw what the trials of a claim have yielded.

    Parameters
    ----------
    claim : Claim
        The claim.
    design : Design
        What was to be run.
    results : mapping of str to StoredResult
        Results by the keys of their trials; those of other trials are ignored.

    Returns
    -------
    Finding
        With verdicts from the trials that succeeded. An error in judging or drawing, which missing
        trials may cause, is a problem of the finding.

    Examples
    --------
    See :class:`Finding`.
    """
    cells = [dataclasses.asdict(cell) for cell in design.settings for _ in range(design.n_seeds)]
    present = tuple(
        results[trial.key]._replace(settings=cell)  # with tuples where JSON has lists
        for trial, cell in zip(trials(claim, design), cells, strict=True)
        if trial.key in results
    )
    records = pd.DataFrame([_record(result) for result in present if result.status == "done"])
    if records.empty:
        problem = "No trial succeeded: there is nothing to judge."
        return Finding(claim, design, present, (), None, (problem,))
    problems: list[str] = []
    verdicts = _attempt("verdicts", claim.verdicts, records, problems)
    figure = _attempt("figure", claim.figure, records, problems)
    summary = _attempt("table", claim.table, records, problems) if claim.table else None
    said = _attempt("conclusion", claim.conclusion, records, problems) if claim.conclusion else ""
    judged = tuple(verdicts or ())
    return Finding(claim, design, present, judged, figure, tuple(problems), summary, said or "")


def _record(result: StoredResult) -> dict[str, Any]:
    return {**result.settings, "seed": result.seed, **(result.record or {})}


def _attempt(
    what: str, compute: Callable[[pd.DataFrame], T], records: pd.DataFrame, problems: list[str]
) -> T | None:
    try:
        return compute(records.copy())
    except Exception as error:
        problems.append(f"No {what} could be made of these trials: {type(error).__name__}: {error}")
        return None


def _scalars(column: pd.Series) -> pd.Series:
    """Write values that are not scalars of one type as JSON."""
    kinds = {type(value) for value in column.dropna()}
    if column.dtype != object or (len(kinds) <= 1 and kinds <= {str, int, float, bool}):
        return column
    return column.map(json.dumps, na_action="ignore")
