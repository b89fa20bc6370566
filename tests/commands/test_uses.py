"""`flattest uses`: the command runs the parts that are asked for, and says what it cannot."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner, Result

from flattest import uses
from flattest.commands.app import app
from flattest.figures import new_figure
from flattest.study import Claim, Design, Verdict, judge


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a trial that takes no time."""

    value: float = 1.0


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    return {"found": settings.value + seed}


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    return [judge("It is at most 5.", "value", records["found"], "at most", 5.0)]


def figure(records: pd.DataFrame) -> Figure:
    with new_figure(4.0, 3.0) as drawn:
        drawn.subplots().plot(records["seed"], records["found"], "o")
    return drawn


def table(records: pd.DataFrame) -> pd.DataFrame:
    return records[["seed", "found"]]


PARTS = tuple(uses.USES)


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Claim]:
    texts = dict.fromkeys(("title", "question", "method", "limits", "source", "caption"), "text")
    design, other = (Design((Settings(value),), 3) for value in (1.0, 2.0))
    claim = Claim(
        "one",
        trial=trial,
        quick=design,
        full=design,
        verdicts=verdicts,
        figure=figure,
        table=table,
        **texts,
    )
    fakes = {"one": claim, "two": dataclasses.replace(claim, name="two", quick=other)}
    monkeypatch.setattr(uses, "USES", fakes)
    return fakes


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["uses", *(str(argument) for argument in arguments)])


def test_it_writes_records_tables_figures_verdicts_and_a_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("one", "--executor", "serial", "--out", out)
    assert result.exit_code == 0, result.output
    assert "It is at most 5." in result.stdout
    files = {"one.parquet", "one.csv", "one.svg", "one.png", "verdicts.csv", "report.html"}
    assert files <= {path.name for path in out.iterdir()}
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["kind"] == "uses"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "What flatness is good for, measured" in page
    assert not (out / "two.parquet").exists()


def test_a_second_run_finds_what_the_first_has_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("one", "--executor", "serial", "--out", out)
    result = run("--executor", "serial", "--out", out)
    assert result.exit_code == 0, result.output
    assert "6 trials, 3 of them found" in " ".join(result.stdout.split())


def test_the_help_names_every_part() -> None:
    assert f"by default: {', '.join(PARTS)}." in " ".join(run("--help").stdout.split())


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    result = run("noise", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "There is no part 'noise'; choose among one, two." in result.output
