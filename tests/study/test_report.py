"""The report: well-formed, self-contained, and as open about failures as about verdicts."""

import dataclasses
import itertools
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from flattest.figures import new_figure, save_figure
from flattest.pages import duration, estimate, exact, inline, powers
from flattest.study import Claim, Design, Verdict
from flattest.study.cover import Cover
from flattest.study.findings import Finding, find, trials
from flattest.study.report import render
from flattest.sweeps import StoredResult
from flattest.sweeps.trial import environment

VOID = {"br", "col", "hr", "img", "input", "link", "meta", "use"}


@dataclass(frozen=True)
class Settings:
    """Settings of a trial that is never run here; a tuple and a dict, as claims may have."""

    sizes: tuple[int, ...] = (1, 2)
    scale: float = 1.0
    options: tuple[tuple[str, float], ...] | None = None


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    raise AssertionError


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    values = records["value"]
    return [
        Verdict(
            "It is < 5 & <b>small</b>.", "value", float(values.mean()), 1.0, 3.0, "at most", 5.0, 2
        ),
        Verdict("It is large.", "value", math.nan, -math.inf, math.inf, "at least", 1e-8, 2),
    ]


def figure(records: pd.DataFrame) -> Figure:
    with new_figure(4.0, 3.0) as drawn:
        axes = drawn.subplots()
        axes.plot(records["scale"], records["value"], "o", label="<value>")
        axes.legend()
    return drawn


CLAIM = Claim(
    name="fake",
    title="Fakes & <tags>",
    question="Is 1e-8 small?",
    method="Nothing is run.",
    limits="It shows nothing.",
    source="Nobody, <i>Nowhere</i>.",
    trial=trial,
    quick=Design((Settings(), Settings(scale=2.0)), n_seeds=3),
    full=Design((Settings(),), n_seeds=1),
    verdicts=verdicts,
    figure=figure,
    caption='The "value", & nothing else.',
)


def results(claim: Claim = CLAIM) -> dict[str, StoredResult]:
    return {
        one.key: StoredResult(
            *(one.key, one.function.name, {}, one.seed, one.function.code),
            *("done", {"value": 1.0 + one.seed}, None, None, 0.5, 1),
            *("2026-01-01T00:00:00+00:00", environment()),
        )
        for one in trials(claim, claim.quick)
    }


def failed(result: StoredResult, error: str, status: str = "failed") -> StoredResult:
    return result._replace(status=status, record=None, error=error)


def page(*findings: Finding, tmp_path: Any) -> str:
    svgs = {}
    for finding in findings:
        if finding.figure is not None:
            _, path = save_figure(finding.figure, tmp_path / finding.claim.name)
            svgs[finding.claim.name] = path.read_text(encoding="utf-8")
    return render(findings, svgs, "quick")


class Checker(HTMLParser):
    """Checks nesting, and collects attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1] == "style"):
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def all(self, attribute: str) -> list[str]:
        return [value for _, found in self.tags if (value := found.get(attribute)) is not None]


@pytest.fixture
def both(tmp_path: Any) -> str:
    """Return a page of two claims, whose figures have the same identifiers inside."""
    other = dataclasses.replace(CLAIM, name="other")
    return page(
        find(CLAIM, CLAIM.quick, results()),
        find(other, other.quick, results(other)),
        tmp_path=tmp_path,
    )


def test_the_page_is_well_formed_and_every_reference_has_one_target(both: str) -> None:
    checked = Checker(both)
    identifiers = checked.all("id")
    assert len(identifiers) == len(set(identifiers))
    internal = [value[1:] for value in checked.all("href") + checked.all("xlink:href")]
    internal += re.findall(r"url\(#([^)]+)\)", both) + checked.all("aria-labelledby")
    assert len(internal) > 15
    assert set(internal) <= set(identifiers)


def test_the_page_loads_nothing(both: str) -> None:
    checked = Checker(both)
    assert not {"script", "link", "img", "iframe", "object", "image"} & {
        tag for tag, _ in checked.tags
    }
    assert not checked.all("src")
    assert all(value.startswith("#") for value in checked.all("href") + checked.all("xlink:href"))
    assert all(name.startswith("#") for name in re.findall(r"url\(([^)]*)\)", both))
    assert "@import" not in both


def test_figures_and_tables_are_described(both: str) -> None:
    checked = Checker(both)
    labels = [found.get("aria-label") for _, found in checked.tags if found.get("role") == "img"]
    assert labels == ['Figure: The "value", & nothing else.'] * 2
    assert all("scope" in found for tag, found in checked.tags if tag == "th")
    levels = [int(tag[1]) for tag, _ in checked.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_texts_are_escaped_and_numbers_readable(both: str) -> None:
    words = Checker(both).words
    for text in (
        "It is < 5 & <b>small</b>.",
        "Fakes & <tags>",
        "Nobody, <i>Nowhere</i>.",
        "<value>",
        "2 hold",
        "2 undecided",
        "≤ 5",
        "≥ 10−8",
        "2.00",
        "1.00 to 3.00",
        "−∞ to ∞",
        "2 settings with 3 seeds each, 6 trials; 6 succeeded.",
        "3.0 s of computing on one core",
        f"torch {environment()['torch']}",
    ):
        assert text in words, text
    assert "gave no result" not in words


def test_a_cover_has_the_first_and_the_last_word(tmp_path: Any) -> None:
    cover = Cover("uses", "part", "A <title>", "Asks & tells.", (("Term", "meaning"),))
    found = find(CLAIM, CLAIM.quick, results())
    words = Checker(render([found], {}, "quick", cover)).words
    for text in (
        "Report of flattest uses, quick size",
        "A <title>",
        "Asks & tells.",
        "1 part, 6 trials",
        "Part fake",
        "Termmeaning",
    ):
        assert text in words, text
    assert "Many neural networks" not in words


def test_the_conclusion_stands_above_the_verdicts_and_says_whose_thresholds_they_are() -> None:
    def conclusion(records: pd.DataFrame) -> str:
        return f"The mean is <{records['value'].mean():g}>, not 1e-8."

    claim = dataclasses.replace(CLAIM, conclusion=conclusion, thresholds="Ours & 1e-8.")
    words = Checker(render([find(claim, claim.quick, results(claim))], {}, "quick")).words
    said = "The mean is <2>, not 10−8."
    assert words.count(said) == 2
    assert words.index(f"Fakes & <tags>: {said}") < words.index("Each statement compares")
    assert words.index("Thresholds Ours & 10−8.") < words.rindex(said) < words.rindex("5 & <b>")
    assert "not that a theorem is false" in words
    plain = Checker(render([find(CLAIM, CLAIM.quick, results())], {}, "quick")).words
    assert "Thresholds" not in plain
    assert "not that a theorem" not in plain

    broken = dataclasses.replace(CLAIM, conclusion=lambda records: records["missing"])
    finding = find(broken, broken.quick, results(broken))
    assert finding.conclusion == ""
    assert len(finding.verdicts) == 2
    assert finding.problems == ("No conclusion could be made of these trials: KeyError: 'missing'",)


def test_a_table_of_figures_stands_under_its_claim() -> None:
    def table(records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"network": ["<small>", "large"], "value": [0.5, math.nan]})

    claim = dataclasses.replace(CLAIM, table=table)
    page = Checker(render([find(claim, claim.quick, results(claim))], {}, "quick"))
    assert "networkvalue <small>0.500 largeundefined" in page.words
    assert "the table in fake.csv" in page.words


def test_failed_trials_are_shown_with_their_errors(tmp_path: Any) -> None:
    stored = results()
    for key in list(stored)[:2]:
        stored[key] = failed(stored[key], "Traceback: <module>\nValueError: no <b>luck</b>")
    late = list(stored)[4]
    stored[late] = failed(stored[late], "The trial ran longer than 1 s.", "timed_out")
    finding = find(CLAIM, CLAIM.quick, stored)
    assert finding.n_done == 3
    words = Checker(page(finding, tmp_path=tmp_path)).words
    for text in (
        "3 trials of 6 gave no result.",
        "2 trials raised an error: ValueError: no <b>luck</b>",
        "1 trial ran out of time: The trial ran longer than 1 s.",
        "scale 1, seed 0",
        "scale 2, seed 1",
        "3 trials without a result",
        "Traceback: <module>",
    ):
        assert text in words, text


def test_a_claim_that_cannot_be_judged_says_why(tmp_path: Any) -> None:
    def broken(records: pd.DataFrame) -> Any:
        return records["missing"]

    empty = find(CLAIM, CLAIM.quick, {})
    claim = dataclasses.replace(CLAIM, name="broken", verdicts=broken, figure=broken)
    unjudged = find(claim, claim.quick, results(claim))
    assert [problem.split(":")[0] for problem in unjudged.problems] == [
        "No verdicts could be made of these trials",
        "No figure could be made of these trials",
    ]
    words = Checker(page(empty, unjudged, tmp_path=tmp_path)).words
    assert words.count("no verdict") == 2
    assert "No trial succeeded: there is nothing to judge." in words
    assert "KeyError: 'missing'" in words


def test_records_keep_the_settings_as_they_were_and_fit_into_parquet(tmp_path: Any) -> None:
    stored = results()
    first, second = list(stored)[:2]
    stored[first] = failed(stored[first], "boom")
    stored[second] = stored[second]._replace(record={"value": 1, "note": "odd", "flag": True})
    finding = find(CLAIM, CLAIM.quick, stored)
    assert finding.results[0].settings == dataclasses.asdict(Settings())
    finding.table.to_parquet(tmp_path / "table.parquet")
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert list(table["seed"]) == [0, 1, 2, 0, 1, 2]
    assert list(table["scale"]) == [1, 1, 1, 2, 2, 2]
    assert list(table["trial_status"]) == ["failed", *["done"] * 5]
    assert table["trial_error"][0] == "boom"
    assert set(table["sizes"]) == {"[1, 2]"}
    np.testing.assert_array_equal(table["value"], [np.nan, 1, 3, 1, 2, 3])


@pytest.mark.parametrize(
    ("number", "measured", "chosen"),
    [
        (0.0, "0", "0"),
        (-0.5, "−0.500", "−0.5"),
        (123.4, "123", "123.4"),
        (999.9, "1,000", "999.9"),
        (20_000, "20,000", "20,000"),
        (1e6, "1.0 × 10<sup>6</sup>", "10<sup>6</sup>"),
        (9.99e-4, "1.0 × 10<sup>−3</sup>", "9.99 × 10<sup>−4</sup>"),
        (math.inf, "∞", "∞"),
        (math.nan, "undefined", "undefined"),
    ],
)
def test_numbers(number: float, measured: str, chosen: str) -> None:
    assert estimate(number) == measured
    assert exact(number) == chosen


def test_durations_and_powers() -> None:
    assert [duration(s) for s in (0.0, 9.96, 59.6, 3600.0)] == [
        "0.0 s",
        "10 s",
        "1 min",
        "1 h 0 min",
    ]
    assert powers("1e-8, x1e5, 2e3") == "10<sup>−8</sup>, x1e5, 2e3"


def test_an_inlined_figure_has_no_metadata_and_its_own_identifiers() -> None:
    svg = (
        '<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg width="100pt" height="50pt" viewBox="0 0 1 1">'
        "<metadata>\nhttp://example.org</metadata>"
        '<path id="a"/><use xlink:href="#a" clip-path="url(#b)"/></svg>\n'
    )
    element = inline(svg, "x")
    assert element.startswith('<svg viewBox="0 0 1 1" style="max-width: 133px')
    assert 'id="x-a"/><use xlink:href="#x-a" clip-path="url(#x-b)"' in element
    assert "http" not in element
