"""Reproduction: what it writes, what it does not run again, and what it says of bad input."""

import dataclasses
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner, Result

from flattest import study
from flattest.commands.app import app
from flattest.figures import new_figure
from flattest.files import OutputError
from flattest.study import Claim, Design, Verdict, judge
from flattest.study.reproduce import n_trials, reproduce
from flattest.sweeps import Store, Summary, workers

RUNS: list[tuple[str, float, int]] = []
"""Every call of a trial in this process."""


@dataclass(frozen=True)
class Settings:
    """Settings of a trial that takes no time."""

    name: str = "sum"
    offset: float = 0.0
    fails_at: int = -1
    interrupted_at: int = -1
    seconds: float = 0.0


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    RUNS.append((settings.name, settings.offset, seed))
    if seed == settings.interrupted_at:
        os.kill(os.getpid(), signal.SIGINT)
    time.sleep(settings.seconds)
    if seed == settings.fails_at:
        raise ValueError(f"no luck with [seed] {seed}")
    return {"value": settings.offset + seed, "pid": os.getpid()}


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    return [judge("It is at least 5.", "value", records["value"], "at least", 5.0)]


def figure(records: pd.DataFrame) -> Figure:
    with new_figure(4.0, 3.0) as drawn:
        drawn.subplots().plot(records["seed"], records["value"], "o")
    return drawn


def fake(name: str, *cells: Settings, n_seeds: int = 4, time_limit: float = 60.0) -> Claim:
    cells = cells or (Settings(name, 0.0), Settings(name, 10.0))
    design = Design(cells, n_seeds, time_limit)
    texts = dict.fromkeys(("title", "question", "method", "limits", "source", "caption"), name)
    full = dataclasses.replace(design, n_seeds=n_seeds + 2)
    return Claim(
        name=name, trial=trial, quick=design, full=full, verdicts=verdicts, figure=figure, **texts
    )


@pytest.fixture(autouse=True)
def _no_runs() -> None:
    RUNS.clear()


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> dict[str, Claim]:
    """Put fake claims in place of the real ones."""
    fakes = {claim.name: claim for claim in (fake("sums"), fake("more", Settings("more", 7.0)))}
    monkeypatch.setattr(study, "CLAIMS", fakes)
    return fakes


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["reproduce", *(str(argument) for argument in arguments)])


def serially(out: Path, *names: object, **options: object) -> Result:
    return run(*names, "--executor", "serial", "--out", out)


def test_it_writes_records_figures_verdicts_and_a_report(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "out"
    result = serially(out)
    assert result.exit_code == 0, result.output
    figures = {f"{name}.{end}" for name in claims for end in ("parquet", "svg", "png")}
    assert {path.name for path in out.iterdir()} == {
        *figures, "records.sqlite", "verdicts.csv", "run.json", "report.html",
    }  # fmt: skip
    records = pd.read_parquet(out / "sums.parquet")
    assert list(records["value"]) == [0, 1, 2, 3, 10, 11, 12, 13]
    table = pd.read_csv(out / "verdicts.csv").set_index("claim")
    assert table.loc["more", "outcome"] == "holds"
    assert (table.loc["more", "estimate"], table.loc["more", "n_seeds"]) == (8.5, 4)
    described = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert (described["size"], described["dtype"]) == ("quick", "float64")
    assert described["claims"]["sums"]["seeds"] == [0, 1, 2, 3]
    assert "torch" in described["claims"]["sums"]["environments"][0]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 2
    for text in ("holds", "It is at least 5.", "report.html"):
        assert text in result.stdout


def test_a_verdict_that_fails_is_no_error(tmp_path: Path, claims: dict[str, Claim]) -> None:
    claims["low"] = fake("low", Settings("low", -10.0))
    result = serially(tmp_path / "out", "low")
    assert result.exit_code == 0
    assert "fails" in result.stdout


def test_a_table_is_written_beside_and_one_that_fails_is_named(
    tmp_path: Path, claims: dict[str, Claim]
) -> None:
    def table(records: pd.DataFrame) -> pd.DataFrame:
        return records.groupby("offset", as_index=False)["value"].mean()

    def broken(records: pd.DataFrame) -> pd.DataFrame:
        raise KeyError("column")

    claims["sums"] = dataclasses.replace(claims["sums"], table=table)
    claims["more"] = dataclasses.replace(claims["more"], table=broken)
    result = serially(tmp_path / "out")
    assert result.exit_code == 1
    assert "more: No table could be made of these trials: KeyError: 'column'" in result.output
    assert list(pd.read_csv(tmp_path / "out" / "sums.csv")["value"]) == [1.5, 11.5]
    assert not (tmp_path / "out" / "more.csv").exists()


def test_nothing_is_run_twice(claims: dict[str, Claim], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = serially(out, "sums")
    assert first.exit_code == 0
    assert first.stderr.startswith("8 trials, 0 of them found, 8 to do.\n")
    assert len(RUNS) == 8
    second = serially(out)
    assert second.exit_code == 0
    assert second.stderr.startswith("12 trials, 8 of them found, 4 to do.\n")
    assert len(RUNS) == 12
    assert serially(out).exit_code == 0
    assert len(RUNS) == 12
    assert serially(out, "sums", "--full").exit_code == 0
    assert len(RUNS) == len(set(RUNS)) == 16


def test_trials_of_all_claims_advance_together(tmp_path: Path) -> None:
    long, short = fake("long", n_seeds=8), fake("short", Settings("short"), n_seeds=4)
    last = fake("last", Settings("last"), time_limit=30.0)
    assert n_trials([last, long, short], "quick") == 24
    reproduce([last, long, short], "quick", tmp_path, workers("serial"))
    names = [name for name, _, _ in RUNS]
    assert names[-4:] == ["last"] * 4  # the shortest limit
    assert names[:10].count("long") == 8
    assert names[:10].count("short") == 2


def test_failed_trials_are_reported_and_kept(claims: dict[str, Claim], tmp_path: Path) -> None:
    out = tmp_path / "out"
    claims["bad"] = fake("bad", Settings("bad", 9.0, fails_at=2), Settings("bad", 8.0))
    claims["slow"] = fake("slow", Settings("slow", seconds=9.0), n_seeds=1, time_limit=0.2)
    result = serially(out)
    assert result.exit_code == 1, result.output
    text = " ".join(result.stderr.split())
    assert "bad: 1 of 8 trials gave no result; see the report." in text
    assert "slow: No trial succeeded: there is nothing to judge." in text
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "no luck with [seed] 2" in page
    assert "ran out of time" in page
    assert not (out / "slow.svg").exists()
    assert set(pd.read_parquet(out / "slow.parquet")["trial_status"]) == {"timed_out"}
    n = len(RUNS)
    assert serially(out, "bad").exit_code == 1
    assert len(RUNS) == n
    again = serially(out, "bad", "--retry-failed")
    assert again.exit_code == 1
    assert again.stderr.startswith("8 trials, 7 of them found, 1 to do.\n")
    assert len(RUNS) == n + 1


def test_a_claim_that_cannot_be_judged_is_an_error_at_the_end(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    claims["odd"] = dataclasses.replace(fake("odd"), verdicts=lambda records: records["no"])
    result = serially(tmp_path / "out", "odd", "more")
    assert result.exit_code == 1
    assert "odd: No verdicts could be made of these trials: KeyError: 'no'" in " ".join(
        result.stderr.split()
    )
    assert (tmp_path / "out" / "more.svg").exists()


def test_ctrl_c_keeps_what_is_finished_and_the_same_command_continues(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    claims["long"] = fake("long", Settings("long", 6.0, interrupted_at=2), n_seeds=10)
    result = serially(out, "long")
    assert result.exit_code == 130, result.output
    assert "The same command continues." in " ".join(result.stderr.split())
    assert {path.name.partition("-")[0] for path in out.iterdir()} == {"records.sqlite"}
    with Store(out / "records.sqlite", read_only=True) as store:
        kept = {result.seed for result in store.results()}
    assert kept == {0, 1, 2}  # that which was under way is finished
    RUNS.clear()
    assert serially(out, "long").exit_code == 0
    assert {seed for _, _, seed in RUNS} == set(range(10)) - kept
    assert len(pd.read_parquet(out / "long.parquet")) == 10


def test_progress_counts_over_all_time_limits(tmp_path: Path) -> None:
    seen: list[Summary] = []
    both = [fake("one", Settings("one")), fake("two", Settings("two"), time_limit=30.0)]
    reproduce(both, "quick", tmp_path, workers("serial"), progress=seen.append)
    assert [summary.finished for summary in seen] == list(range(1, 9))


def test_processes_do_the_same(tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = reproduce([fake("sums")], "quick", out, workers("processes", 1))
    assert found.complete
    assert found.summary.done == 8
    records = pd.read_parquet(out / "sums.parquet")
    assert list(records["value"]) == [0, 1, 2, 3, 10, 11, 12, 13]
    assert os.getpid() not in set(records["pid"])


def sentence(result: Result) -> str:
    """Check that a command failed with one sentence and nothing else, and return it."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    text = " ".join(result.stderr.split())
    assert text.startswith("Error: ")
    assert text.endswith(".")
    assert RUNS == []
    return text


def test_the_help_names_every_claim_and_each_says_whose_its_thresholds_are() -> None:
    words = " ".join(run("--help").stdout.split())
    assert f"by default: {', '.join(study.CLAIMS)}." in words
    assert all(len(claim.thresholds) > 50 for claim in study.CLAIMS.values())


def test_the_conclusion_is_printed_and_stored(claims: dict[str, Claim], tmp_path: Path) -> None:
    said = "The mean is [not] small."
    claims["sums"] = dataclasses.replace(claims["sums"], conclusion=lambda records: said)
    result = serially(tmp_path / "out", "sums")
    assert said in " ".join(result.stdout.split())
    described = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert described["claims"]["sums"]["conclusion"] == said


def test_an_unknown_claim_is_named_beside_the_known_ones(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    text = sentence(serially(tmp_path / "out", "sums", "[b]wrong"))
    assert "no claim '[b]wrong'; choose among sums, more." in text
    assert not (tmp_path / "out").exists()


def test_an_unknown_executor_is_refused(claims: dict[str, Claim], tmp_path: Path) -> None:
    assert "'threads'" in sentence(run("--executor", "threads", "--out", tmp_path / "out"))


def test_folders_with_other_content_are_left_alone(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    assert "mine.txt" in sentence(serially(tmp_path))
    assert "not a folder" in sentence(serially(tmp_path / "mine.txt"))
    results = tmp_path / "fit"
    results.mkdir()
    (results / "report.json").write_text('{"files": ["report.json"]}', encoding="utf-8")
    assert "other results" in sentence(serially(results))
    with pytest.raises(OutputError, match="other results"):
        reproduce([fake("sums")], "quick", results, workers("serial"))


def test_a_file_that_cannot_be_written_is_one_sentence(
    claims: dict[str, Claim], tmp_path: Path
) -> None:
    assert serially(tmp_path / "out", "more").exit_code == 0
    RUNS.clear()
    (tmp_path / "out" / "more.parquet").unlink()
    (tmp_path / "out" / "more.parquet").mkdir()
    result = serially(tmp_path / "out", "more")
    assert result.exit_code == 2
    begun, error = " ".join(result.stderr.split()).split("Error: ")
    assert begun == "4 trials, 4 of them found, 0 to do. "
    assert "cannot be written" in error
