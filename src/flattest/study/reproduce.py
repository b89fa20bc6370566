"""Reproduction: all trials of the chosen claims, their records, figures and verdicts, one report.

Trials go through the engine of the sweeps, into a store in the output folder; whatever is there
already is not run again.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flattest.figures import save_figure
from flattest.files import OutputError, check_output_folder, write_file
from flattest.study.claim import Claim, Size
from flattest.study.cover import CLAIMS_COVER, Cover
from flattest.study.findings import Finding, find, trials
from flattest.study.report import render
from flattest.study.verdict import Verdict
from flattest.sweeps import Store, Summary, Trial, Workers, n_found, run

STORE_FILE = "records.sqlite"
"""The store in the output folder; a folder with one is taken for an earlier reproduction."""


@dataclass(frozen=True)
class Reproduction:
    """What came of a reproduction.

    Parameters
    ----------
    summary : Summary
        The count of trials.
    findings : tuple of Finding
        One per claim; empty after an interruption.

    Examples
    --------
    >>> from flattest.study.reproduce import Reproduction
    >>> from flattest.sweeps import Summary
    >>> Reproduction(Summary(done=2), ()).complete
    True
    """

    summary: Summary
    findings: tuple[Finding, ...]

    @property
    def complete(self) -> bool:
        """Whether every trial succeeded, and every claim was judged and drawn."""
        summary = self.summary
        unsuccessful = summary.failed + summary.timed_out + summary.interrupted
        return not unsuccessful and not any(finding.problems for finding in self.findings)


def n_trials(claims: Sequence[Claim], size: Size) -> int:
    """Count the trials of a reproduction.

    Parameters
    ----------
    claims : sequence of Claim
        The claims.
    size : {"quick", "full"}
        Which of their designs.

    Returns
    -------
    int
        The number of trials.

    Examples
    --------
    >>> from flattest.study import CLAIMS
    >>> from flattest.study.reproduce import n_trials
    >>> n_trials([CLAIMS["symmetry"]], "quick")
    40
    """
    designs = [claim.design(size) for claim in claims]
    return sum(len(design.settings) * design.n_seeds for design in designs)


def n_stored(claims: Sequence[Claim], size: Size, out: Path, *, retry_failed: bool = False) -> int:
    """Count the trials of a reproduction that an earlier one has left in its folder.

    Parameters
    ----------
    claims : sequence of Claim
        The claims.
    size : {"quick", "full"}
        Which of their designs.
    out : Path
        The folder; it need not exist.
    retry_failed : bool
        Whether trials that failed or ran out of time do not count.

    Returns
    -------
    int
        The number of trials that `reproduce` would not run.

    Raises
    ------
    StoreError
        If the store cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.study import CLAIMS
    >>> from flattest.study.reproduce import n_stored
    >>> n_stored([CLAIMS["symmetry"]], "quick", Path("a-new-folder"))
    0
    """
    if not (out / STORE_FILE).is_file():
        return 0
    with Store(out / STORE_FILE, read_only=True) as store:
        return sum(
            n_found(trials(claim, claim.design(size)), store, retry_failed=retry_failed)
            for claim in claims
        )


def reproduce(
    claims: Sequence[Claim],
    size: Size,
    out: Path,
    workers: Workers,
    *,
    cover: Cover = CLAIMS_COVER,
    retry_failed: bool = False,
    progress: Callable[[Summary], None] = lambda summary: None,
) -> Reproduction:
    """Run the trials of claims and write down what they yield.

    The folder receives the store; for each claim its records (Parquet), its figure (SVG, PNG) and
    its table if it has one (CSV); ``verdicts.csv``, ``run.json`` with versions and counts, and
    ``report.html``. Trials with a result in the store are not run again, so an interrupted
    reproduction goes on where it stopped.

    Parameters
    ----------
    claims : sequence of Claim
        What to reproduce.
    size : {"quick", "full"}
        Which of their designs.
    out : Path
        A new folder, an empty one, or that of an earlier reproduction.
    workers : Workers
        Where the trials run.
    cover : Cover
        The texts of the report that are not the claims'.
    retry_failed : bool
        Run trials again that failed or ran out of time earlier.
    progress : callable
        Called with the `Summary` after each trial.

    Returns
    -------
    Reproduction
        Without findings if it was interrupted by Ctrl-C; then only the store is written.

    Raises
    ------
    OutputError
        If the folder is somebody else's or cannot be written.
    StoreError
        If the store cannot be read or written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from dataclasses import replace
    >>> from flattest.study import CLAIMS
    >>> from flattest.study.claims.symmetry import Settings
    >>> from flattest.study.reproduce import reproduce
    >>> from flattest.sweeps import workers
    >>> cells = tuple(Settings("relu", factor, 40, 3, 2, 10) for factor in (1.0, 1e6))
    >>> claim = replace(CLAIMS["symmetry"], quick=replace(CLAIMS["symmetry"].quick, settings=cells))
    >>> with tempfile.TemporaryDirectory() as out:
    ...     found = reproduce([claim], "quick", Path(out), workers("serial"))
    >>> found.summary.done, [verdict.outcome for verdict in found.findings[0].verdicts]
    (10, ['holds', 'holds', 'holds'])
    """
    check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Store(out / STORE_FILE) as store:
            summary = Summary()
            for time_limit, group in _groups(claims, size):
                part = run(
                    group,
                    store,
                    workers,
                    time_limit=time_limit,
                    retry_failed=retry_failed,
                    progress=_adding(summary, progress),
                )
                summary = _sum(summary, part)
                if summary.interrupted:
                    return Reproduction(summary, ())
            designs = [(claim, claim.design(size)) for claim in claims]
            findings = tuple(
                find(claim, design, {r.key: r for r in store.results(trials(claim, design))})
                for claim, design in designs
            )
        _write(findings, size, out, cover)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{str(out)!r} cannot be written: {reason}.") from error
    return Reproduction(summary, findings)


def check_folder(out: Path) -> None:
    """Refuse a folder that a reproduction cannot go to.

    Parameters
    ----------
    out : Path
        The folder.

    Raises
    ------
    OutputError
        If it holds files, but no store.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flattest.study.reproduce import check_folder
    >>> check_folder(Path("a-new-folder"))
    """
    if not (out / STORE_FILE).is_file():
        check_output_folder(out, force=True)
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(
                f"The folder {str(out)!r} holds other results of flattest; choose another --out."
            )


def _groups(claims: Sequence[Claim], size: Size) -> Iterator[tuple[float, list[Trial]]]:
    """Yield the trials by their time limits, the longest first.

    They are mixed, so that at any time about the same share of every experiment is done: the time
    left can be foretold, and an interrupted reproduction has something of everything.
    """
    mixed: dict[float, list[tuple[float, Trial]]] = defaultdict(list)
    for claim in claims:
        design = claim.design(size)
        cells = len(design.settings)
        for index, trial in enumerate(trials(claim, design)):
            cell, seed = divmod(index, design.n_seeds)
            share = (seed + (cell + 0.5) / cells) / design.n_seeds
            mixed[design.time_limit].append((share, trial))
    for time_limit, group in sorted(mixed.items(), reverse=True):
        yield time_limit, [trial for _, trial in sorted(group, key=lambda pair: pair[0])]


def _adding(before: Summary, progress: Callable[[Summary], None]) -> Callable[[Summary], None]:
    return lambda now: progress(_sum(before, now))


def _sum(first: Summary, second: Summary) -> Summary:
    return Summary(
        done=first.done + second.done,
        failed=first.failed + second.failed,
        timed_out=first.timed_out + second.timed_out,
        found=first.found + second.found,
        interrupted=first.interrupted or second.interrupted,
    )


def _write(findings: Sequence[Finding], size: Size, out: Path, cover: Cover) -> None:
    """Write everything but the store."""
    svgs = {}
    for finding in findings:
        name = finding.claim.name
        finding.table.to_parquet(out / f"{name}.parquet")
        if finding.summary is not None:
            write_file(out / f"{name}.csv", finding.summary.to_csv(index=False))
        if finding.figure is not None:
            _, svg = save_figure(finding.figure, out / name)
            svgs[name] = svg.read_text(encoding="utf-8")
    verdicts = [
        {"claim": finding.claim.name, **asdict(verdict), "outcome": verdict.outcome}
        for finding in findings
        for verdict in finding.verdicts
    ]
    columns = ["claim", *Verdict.__dataclass_fields__, "outcome"]
    write_file(out / "verdicts.csv", pd.DataFrame(verdicts, columns=columns).to_csv(index=False))
    description: dict[str, Any] = {
        "kind": cover.command,
        "size": size,
        "dtype": "float64",
        "device": "cpu",
        "claims": {finding.claim.name: _description(finding) for finding in findings},
    }
    write_file(out / "run.json", json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    write_file(out / "report.html", render(findings, svgs, size, cover))


def _description(finding: Finding) -> dict[str, Any]:
    environments = {json.dumps(result.environment): None for result in finding.results}
    return {
        "trials": finding.n_trials,
        "succeeded": finding.n_done,
        "failed": len(finding.failures),
        "seeds": list(range(finding.design.n_seeds)),
        "time_limit": finding.design.time_limit,
        "seconds": finding.seconds,
        "code": sorted({result.code for result in finding.results}),
        "environments": [json.loads(text) for text in environments],
        "conclusion": finding.conclusion,
        "problems": list(finding.problems),
    }
