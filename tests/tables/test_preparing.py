"""A training table before the fit: missing values, rows left out, warnings, all faults at once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flattest.tables.faults import TableError
from flattest.tables.learning import Rules
from flattest.tables.preparing import Prepared, prepare
from flattest.tables.reading import read_file

RNG = np.random.default_rng(0)
N = 60
FRAME = pd.DataFrame({"a": RNG.standard_normal(N), "c": list("xyz") * 20, "y": RNG.random(N)})


def from_text(tmp_path: Path, text: str, target: str = "y", **options: object) -> Prepared:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    reading = read_file(tmp_path / "t.csv")
    rules = Rules((), None, reading.separator, reading.missing)
    return prepare(reading.frame, target, rules=rules, **options)


CATEGORIES = "Categories become features of 0 and 1, of two the rarer only: 'c' (3)."


def with_gaps(**gaps: list[int]) -> pd.DataFrame:
    frame = FRAME.copy()
    for name, rows in gaps.items():
        frame.loc[rows, name] = None
    return frame


def test_missing_values_are_filled_in_and_told_of() -> None:
    frame = with_gaps(a=[0, 3, 6, 9, 12, 15], c=[1, 2])
    prepared = prepare(frame, "y")
    assert prepared.encoding.feature_names == ("a", "a is missing", "c=x", "c=y", "c=z")
    median = frame["a"].median()
    np.testing.assert_array_equal(prepared.features[0, :2], [median, 1])
    np.testing.assert_array_equal(prepared.features[1, 2:], [1, 0, 0])  # the most frequent
    assert prepared.lines == (
        f"Column 'a': 6 missing values of 60 filled in with the median, {median:.6g}, and a "
        "feature tells where.",
        "Column 'c': 2 missing values of 60 filled in with the most frequent level, 'x'.",
        CATEGORIES,
    )
    assert prepared.n_dropped == 0


def test_gaps_that_say_the_same_are_marked_once() -> None:
    frame = with_gaps(a=[0, 1, 2, 3, 4]).assign(b=lambda f: f["a"] * 2)
    assert prepare(frame, "y").encoding.feature_names == (
        *("a", "a is missing", "c=x", "c=y", "c=z", "b"),
    )


def test_what_was_read_as_missing_is_named(tmp_path: Path) -> None:
    rows = [f"{i % 5 if i > 2 else 'NA'},{i * i % 11}" for i in range(30)]
    prepared = from_text(tmp_path, "\n".join(["a,y", *rows, ",3"]))
    assert "4 missing values of 31 (NA, empty cells) filled in" in prepared.lines[0]


def test_missing_values_are_refused_on_request() -> None:
    frame = with_gaps(a=[0, 3], c=[1])
    message = r"Columns 'a' \(2\), 'c' \(1\) have missing values, in 3 of 60 rows; with --missing"
    with pytest.raises(TableError, match=message):
        prepare(frame, "y", missing="refuse")
    encoding = prepare(FRAME, "y", missing="refuse").encoding
    with pytest.raises(TableError, match="missing values"):
        encoding.features(frame)
    filled = prepare(FRAME, "y").encoding.encode(frame)
    assert filled.remarks[0].startswith("Column 'a' has 2 missing values, filled in; the training")
    assert filled.incomplete.sum() == 3


def test_rows_with_missing_values_are_dropped_on_request() -> None:
    # Gaps in columns that are not used cost nothing.
    frame = with_gaps(a=[0, 3], c=[1]).assign(empty=None, note=[None, *["n"] * 59])
    prepared = prepare(frame, "y", ignore=["note"], missing="drop")
    assert len(prepared.target) == 57
    assert prepared.n_dropped == 3
    assert prepared.unused == ("note", "empty")
    assert "3 rows with missing values left out." in prepared.lines


def test_a_drop_that_leaves_few_rows_is_refused() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0] * 500, "b": RNG.random(1000), "y": RNG.random(1000)})
    frame.loc[10:, "a"] = np.nan
    frame.loc[0, "a"] = 3.0
    message = r"would leave 10 of 1,000.*'a' \(990\).*--ignore \"a\""
    with pytest.raises(TableError, match=message):
        prepare(frame, "y", missing="drop")
    assert len(prepare(frame, "y", missing="fill").target) == 1000
    assert len(prepare(frame, "y", missing="drop", ignore=["a"]).target) == 1000


def test_rows_without_a_target_are_left_out() -> None:
    frame = with_gaps(y=[0, 1, 2])
    frame.loc[0, "c"] = "only here"
    prepared = prepare(frame, "y")
    assert len(prepared.target) == 57
    assert prepared.n_dropped == 3
    assert prepared.lines == (CATEGORIES, "3 rows without a value of 'y' left out.")
    assert "c=only here" not in prepared.encoding.feature_names
    with pytest.raises(TableError, match="9 rows with a value of 'y', but a fit needs at least 10"):
        prepare(with_gaps(y=list(range(51))), "y")


def test_indices_are_left_out(tmp_path: Path) -> None:
    plain = FRAME.to_csv(index=False).splitlines()[1:]
    for names in (range(N), range(1, N + 1), np.random.default_rng(1).permutation(N)):
        rows = [f'"{i}",{row}' for i, row in zip(names, plain, strict=True)]
        prepared = from_text(tmp_path, "\n".join([",a,c,y", *rows]))
        assert prepared.encoding.feature_names == ("a", "c=x", "c=y", "c=z")
        assert prepared.lines[0].startswith("Column 'column 1' only counts")
    rows = [f"Row no. {i},{row}" for i, row in enumerate(plain)]
    assert from_text(tmp_path, "\n".join([",a,c,y", *rows])).unused == ("column 1",)
    for name in ("rownames", "Unnamed: 0", "row.names"):
        frame = FRAME.assign(**{name: range(1, N + 1)})
        assert prepare(frame, "y").unused == (name,)
    # Dates and measurements without a name are features.
    days = [str(day)[:10] for day in pd.date_range("2020-01-01", periods=N)]
    for cells in (days, [str(value) for value in RNG.random(N)]):
        rows = [f"{cell},{row}" for cell, row in zip(cells, plain, strict=True)]
        names = from_text(tmp_path, "\n".join([",a,c,y", *rows])).encoding.feature_names
        assert names[0] == "column 1"


@pytest.mark.parametrize(
    ("name", "values", "warned"),
    [
        ("id", np.arange(1, N + 1), "counts the rows from 1"),
        ("x", np.arange(N), "counts the rows from 0"),
        ("customerId", np.random.default_rng(2).permutation(N) + 100, "is different in every row"),
        ("year", np.arange(1960, 1960 + N), ""),
        ("x", np.random.default_rng(2).permutation(N), ""),
        ("humid", np.random.default_rng(2).permutation(N), ""),
    ],
)
def test_identifiers_are_warned_of(name: str, values: np.ndarray, warned: str) -> None:
    warnings = prepare(FRAME.assign(**{name: values}), "y").warnings
    assert len(warnings) == bool(warned)
    assert all(warned in each and f'--ignore "{name}"' in each for each in warnings)


def test_text_that_differs_from_row_to_row_is_left_out() -> None:
    prepared = prepare(FRAME.assign(name=[f"n{i}" for i in range(N)]), "y")
    assert prepared.lines == (
        "Column 'name' is text that differs from row to row, an identifier: left out.",
        CATEGORIES,
    )


def test_codes_of_which_most_are_rare_are_left_out() -> None:
    different = prepare(FRAME.assign(code=[f"{i:05d}" for i in range(N)]), "y")
    assert different.lines[0].endswith("an identifier: left out.")
    twice = prepare(FRAME.assign(code=[f"{i // 2:05d}" for i in range(N)]), "y")
    assert twice.lines == ("Column 'code' has rare texts only: left out.", CATEGORIES)


def test_all_columns_of_categories_are_told_of_in_one_line() -> None:
    frame = FRAME.assign(sex=["f", "m"] * 30, region=["north", "-", "south"] * 20)
    assert prepare(frame, "y").lines == (
        "Column 'region' has the category '-'; if that stands for missing values, say --na \"-\".",
        "Categories become features of 0 and 1, of two the rarer only: 'c' (3), 'sex' (2).",
    )


@pytest.mark.parametrize("function", [np.exp, lambda y: -(y**3), lambda y: 100 * y + 3])
def test_columns_that_give_the_target_away(function: object) -> None:
    warnings = prepare(FRAME.assign(leak=function(FRAME["y"])), "y").warnings
    assert len(warnings) == 1
    assert "function of column 'leak' alone" in warnings[0]
    assert '--ignore "leak"' in warnings[0]
    noisy = FRAME.assign(leak=FRAME["y"] + 0.1 * FRAME["a"])
    assert prepare(noisy, "y").warnings == ()


def test_numbers_that_may_be_names_are_suggested() -> None:
    frame = FRAME.assign(cyl=[4, 6, 8] * 20, zero=[0, 1] * 30, odd=[1, 2, 5] * 20)
    assert prepare(frame, "y").warnings == (
        "Column 'cyl' takes few whole numbers in equal steps: if these are names, say "
        '--categorical "cyl".',
    )
    rules = Rules(categorical=("cyl",))
    prepared = prepare(frame, "y", rules=rules)
    assert prepared.warnings == ()
    assert {"cyl=4", "cyl=6", "cyl=8"} < set(prepared.encoding.feature_names)


def test_why_nothing_is_left_to_learn_from() -> None:
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(N)], "one": 1, "y": FRAME["y"]})
    message = r"nothing to learn from: column 'name' is text that differs.*left out; column 'one'"
    with pytest.raises(TableError, match=message):
        prepare(frame, "y")


def test_all_faults_come_in_one_message() -> None:
    frame = FRAME.assign(
        mixed=[*map(str, range(59)), "lots"],
        huge=[*range(59), 1e200],
        date=["1/2/2024", "3/4/2024"] * 30,
        y=["text"] * 60,
    )
    with pytest.raises(TableError) as caught:
        prepare(frame, "y", ignore=["color"], rules=Rules(categorical=("d",)))
    first, *rest = str(caught.value).splitlines()
    assert first == "The table has 6 faults:"
    assert len(rest) == 6
    words = ("color", "'d'", "target 'y' holds text", "'lots'", "1e+200", "day or month first")
    assert all(any(word in line for line in rest) for word in words)


def test_words_for_missing_values_are_remembered(tmp_path: Path) -> None:
    rows = [f"{'?' if i == 3 else i % 7},{'NA' if i % 2 else 'b'},{i * i % 11}" for i in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(["a,c,y", *rows]), encoding="utf-8")
    reading = read_file(tmp_path / "t.csv", na=["?"])
    prepared = prepare(reading.frame, "y", na=["?"])
    assert prepared.encoding.na == ("?",)
    assert {column.kind for column in prepared.encoding.columns} == {"number", "category"}
    assert [column.has_gaps for column in prepared.encoding.columns] == [True, False]
    with pytest.raises(TableError, match=r"mixes numbers with text such as '\?'"):
        prepare(read_file(tmp_path / "t.csv").frame.assign(a=[*map(str, range(29)), "?"]), "y")
