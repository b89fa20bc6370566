"""The report of a fit: numbers, figures and a page that needs nothing else."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flattest.figures.partial_dependence import n_shown
from flattest.tables.comparison import OWN, RIDGE, Judged
from flattest.tables.fit import fit_table
from flattest.tables.page import (
    headline,
    hidden_sentence,
    interval_text,
    r2_text,
    ridge_sentence,
    shown_candidates,
)
from flattest.tables.result import TableFit
from flattest.tables.scores import Score

VOID = {"br", "link", "meta", "use", "path", "image", "rect", "stop"}
TARGET = "<b>price</b> & $1"


@pytest.fixture(scope="module")
def fit() -> TableFit:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 2))
    y = np.sin(X[:, 0] - X[:, 1]) + 0.1 * rng.standard_normal(60)
    frame = pd.DataFrame({"<i>a</i>": X[:, 0], "b": X[:, 1], TARGET: y})
    return fit_table(frame, TARGET, width=5, formula=True)


@pytest.fixture(scope="module")
def folder(fit: TableFit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fit")
    fit.write(path)
    return path


class Reader(HTMLParser):
    """Checks that elements are closed in order, and remembers what they refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.identifiers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.identifiers += [value for name, value in attrs if name == "id" and value]
        self.references += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(fit: TableFit, folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert len(set(reader.identifiers)) == len(reader.identifiers)
    assert all(re.match(r"#|data:", reference) for reference in reader.references)
    assert not re.search(r"<(script|b|i)\b|url\(http", page)
    fitted = fit.description.sentence[1:]
    for words in (TARGET, "<i>a</i>", fitted, "boosted trees", "As a table of a spline"):
        assert words in reader.text
    # How well it predicts comes first.
    assert reader.text.index(headline(fit)) < reader.text.index(fitted)
    assert page.count("<svg ") == len(fit.figures())
    # Flatness comes last, with a word on whether it counts.
    assert reader.text.index(fit.description.network) > reader.text.index("What was compared")


def test_the_numbers_are_all_in_the_report(fit: TableFit, folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["summary"] == fit.description.sentence
    assert report["kernel"] in ("matern52", "gaussian", "matern12", "linear")
    assert len(report["candidates"]) == len(fit.candidates)
    assert report["feature_importances"] == pytest.approx(
        dict(zip(fit.feature_names, fit.feature_importances, strict=True))
    )
    assert set(report["seconds"]) == {"flattest", "ridge regression", "boosted trees"}
    for learner in ("", "ridge_", "boosted_trees_"):
        low, high = report[f"{learner}scores"]["test"]["r2_interval"]
        assert low <= report[f"{learner}scores"]["test"]["r2"] <= high
    true, predicted = fit.values["test"]
    assert fit.interval is not None
    low, high = fit.interval
    assert report["intervals"]["coverage"] == ((low <= true) & (true <= high)).mean()
    assert (low < predicted).all()
    assert report["judged_on"] == "12 test rows"
    assert report["noise"][0]["share_of_variance"] < 0.5


def test_the_formula_is_written(fit: TableFit, folder: Path) -> None:
    assert fit.formula is not None
    names: dict = {}
    exec((folder / "formula.py").read_text(encoding="utf-8"), names)
    X = np.random.default_rng(1).standard_normal((20, 2)) / 2
    expected = fit.model.predictor(X)
    assert np.abs(names["predict"](X) - expected).max() <= 1e-2 * np.ptp(expected)
    assert (folder / "formula.txt").read_text(encoding="utf-8") == fit.formula.text()


def told(
    own: float, ridge: float, over_ridge: tuple[float, float] | None, importances: list[float]
) -> Any:
    """Return the part of a fit that sentences are made of."""
    scores = {OWN: (own, (own - 0.1, own + 0.1)), RIDGE: (ridge, None)}
    judged = {n: Judged({"test": Score(r2, 1.0, ends)}, 1.0) for n, (r2, ends) in scores.items()}
    shown = n_shown(np.array(importances))
    return SimpleNamespace(
        judged=judged,
        judged_on="40 test rows",
        over_ridge=over_ridge,
        model=SimpleNamespace(importances=np.array(importances)),
        n_shown=shown,
        n_hidden=len(importances) - shown,
    )


def test_whether_a_linear_model_would_do() -> None:
    better = told(0.8, 0.6, (0.1, 0.3), [1.0])
    assert headline(better) == (
        "R² is 0.800 (95 % interval 0.70 to 0.90) on 40 test rows, beside 0.600 for ridge "
        "regression."
    )
    assert ridge_sentence(better) == ""
    assert ridge_sentence(told(0.8, 0.6, None, [1.0])) == ""
    assert ridge_sentence(told(0.81, 0.8, (-0.02, 0.04), [1.0])) == (
        "A linear model (ridge) predicts as well here, as far as these rows tell: its R² is 0.010 "
        "less (95 % interval of what flattest gains: −0.020 to 0.040)."
    )
    assert ridge_sentence(told(0.83, 0.71, (-0.02, 0.2), [1.0])) == (
        "The rows do not tell for sure whether a linear model (ridge) predicts as well: its R² is "
        "0.120 less (95 % interval of what flattest gains: −0.020 to 0.200)."
    )
    assert ridge_sentence(told(0.7, 0.8, (-0.2, -0.04), [1.0])) == (
        "A linear model (ridge) predicts better here: its R² is 0.100 greater (95 % interval of "
        "what flattest gains: −0.200 to −0.040)."
    )


def test_how_much_the_directions_matter_that_are_not_shown() -> None:
    assert hidden_sentence(told(0.8, 0.6, None, [0.9, 0.1])) == ""
    assert hidden_sentence(told(0.8, 0.6, None, [0.993, 0.005, 0.002])) == (
        "2 more directions, with 0.7% of the importance, are not shown."
    )
    assert hidden_sentence(told(0.8, 0.6, None, [1.0, 1e-5])) == (
        "1 more direction, with less than 0.1% of the importance, is not shown."
    )
    assert "1 more direction, with 12.0% of" in (
        hidden_sentence(told(0.8, 0.6, None, [0.4, 0.2, 0.15, 0.13, 0.12]))
    )


def test_each_kind_of_candidate_is_shown_once_and_the_one_that_counts_first() -> None:
    table = pd.DataFrame(
        {
            "n_directions": [1, 1, 2, 1, 3],
            "kernel": ["gaussian", "matern52", "gaussian", "gaussian", "linear"],
            "additive": False,
            "trend": False,
            "fitted": ["directions"] * 4 + ["scale"],
            "log_evidence": [-5.0, -4.0, -3.0, -4.5, -6.0],
            "score": [-8.0, -7.5, -9.0, -7.0, -7.2],
        }
    )
    rows = shown_candidates(table)
    assert [(row["directions"], row["kernel"], row["score"]) for row in rows] == [
        *((3, "linear", "−7.2"), (1, "Gaussian", "−7.0")),
        *((1, "Matérn 5/2", "−7.5"), (2, "Gaussian", "−9.0")),
    ]
    assert shown_candidates(pd.DataFrame()) == []


def test_scores_are_written_with_the_digits_that_tell() -> None:
    assert r2_text(0.71234) == "0.712"
    assert interval_text(Score(0.5, 1.0)) == ""
    assert interval_text(Score(0.5, 1.0, (-0.004, 0.61))) == "0.00 to 0.61"
    assert interval_text(Score(0.5, 1.0, (-0.35, 0.61))) == "−0.35 to 0.61"
    assert interval_text(Score(0.5, 1.0, (0.93, 0.97))) == "0.930 to 0.970"
