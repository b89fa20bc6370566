"""Points and commas in numbers: the column decides, then its neighbours; doubts are said."""

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import flattest as ft
from flattest.tables.learning import Rules
from flattest.tables.preparing import Prepared, prepare
from flattest.tables.reading import read_file

WINES = {
    "Proline": ["502", "660", "1,190", "735"],
    "Alkohol (%)": ["13,0 %", "12,5 %", "14,1 %", "11,9 %"],
    "Umsatz": ["€ 2,091.44", "€ 845.10", "€ 1,300.00", "€ 96.75"],
    "Preis": ["€13.70", "€9.95", "€22.40", "€15.00"],
}
THREES = ["1,190", "2,305", "4,100", "8,200"]
DOUBT = "but may mean"


def write(columns: dict[str, list[str]], separator: str, folder: Path, times: int = 3) -> str:
    """Write columns, several times below each other, beside a target."""
    frame = pd.concat([pd.DataFrame(columns)] * times, ignore_index=True)
    frame = frame.assign(y=np.arange(len(frame)) ** 2 % 11)
    text = frame.to_csv(sep=separator, index=False)
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return text


def by_command(folder: Path, decimal: str | None = None) -> Prepared:
    reading = read_file(folder / "table.csv")
    rules = Rules((), decimal, reading.separator, reading.missing)
    return prepare(reading.frame, "y", rules=rules)


def by_encoder(text: str, separator: str, **options: object) -> tuple[np.ndarray, list[str]]:
    """Encode what pandas reads; return the features and the warnings."""
    table = pd.read_csv(io.StringIO(text), sep=separator).drop(columns="y")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = ft.TableEncoder(**options).fit(table).transform(table)
    assert all(each.category is UserWarning for each in caught)
    return features, [str(each.message) for each in caught]


@pytest.mark.parametrize(
    ("columns", "separator", "first", "doubtful"),
    [
        # The column itself: groups begin at 1,000 and not before.
        (WINES, ";", [502, 660, 1190, 735], False),
        ({"x": ["3", "1,250", "12", "0"], "other": ["1,5", "2,5", "0,5", "2"]}, ";", None, False),
        ({"x": ["$502", "$1,190", "$9", "$4"]}, ",", [502, 1190, 9, 4], False),
        ({"x": ["502 €", "1.190 €", "9 €", "4 €"]}, ";", [502, 1190, 9, 4], False),
        # Other whole numbers are not below 1,000, or only zeros: the others vote.
        ({"x": ["1200", "1,190", "5", "7"], "other": ["1,5", "2,5", "0,5", "2"]}, ";", None, False),
        ({"x": ["0", "1,190", "0", "2,250"], "z": ["1,5", "2", "0,5", "1"]}, ";", None, False),
        # All of them have three digits behind a comma.
        ({"x": THREES}, "\t", [1190, 2305, 4100, 8200], True),
        ({"x": THREES}, ",", [1190, 2305, 4100, 8200], True),
        ({"x": THREES, "z": ["1.5", "2", "3", "4"]}, ";", [1190, 2305, 4100, 8200], False),
        ({"x": THREES, "z": ["1,5", "2", "3", "4"]}, ";", [1.19, 2.305, 4.1, 8.2], False),
        # One value that may be read in two ways, and no other that tells.
        ({"x": ["1,190", "4500", "2200", "7"]}, "\t", [1190, 4500, 2200, 7], True),
        # The others disagree: two of them against one.
        (
            WINES | {"Proline": THREES},
            *(";", [1190, 2305, 4100, 8200], True),
        ),
        # Plain points are decimal, whatever text says.
        ({"x": ["502", "660", "1.190", "735"]}, ";", [502, 660, 1.19, 735], False),
        ({"x": ["502", "660", "1.190", "735"], "z": ["1,5", "2", "3", "4"]}, ",", None, False),
    ],
)
def test_command_and_encoder_read_the_same(
    columns: dict[str, list[str]],
    separator: str,
    first: list[float] | None,
    doubtful: bool,
    tmp_path: Path,
) -> None:
    text = write(columns, separator, tmp_path)
    prepared = by_command(tmp_path)
    features, said = by_encoder(text, separator)
    np.testing.assert_array_equal(features, prepared.features)
    if first is not None:
        np.testing.assert_array_equal(features[:4, 0], first)
    in_doubt = [line for line in prepared.warnings if DOUBT in line]
    assert len(in_doubt) == len(said) == int(doubtful)
    if doubtful:
        assert in_doubt[0].replace('--decimal ","', 'decimal=","') == said[0]
        assert DOUBT not in "".join(prepared.lines)
        assert not [line for line in by_command(tmp_path, ".").warnings if DOUBT in line]
        by_comma, unsaid = by_encoder(text, separator, decimal=",")
        assert not unsaid
        np.testing.assert_array_equal(by_comma, by_command(tmp_path, ",").features)
        np.testing.assert_allclose(by_comma[0, 0], features[0, 0] / 1000)


def test_semicolons_decide_where_nothing_else_does(tmp_path: Path) -> None:
    write({"x": THREES}, ";", tmp_path)
    prepared = by_command(tmp_path)
    np.testing.assert_allclose(prepared.features[:2, 0], [1.19, 2.305])
    assert [line for line in prepared.warnings if "but may mean 1190 (nothing in the" in line]
    np.testing.assert_allclose(by_command(tmp_path, ".").features[:2, 0], [1190, 2305])


def test_votes(tmp_path: Path) -> None:
    for other, factor in ((["1,5", "2,5", "0,5", "2"], 1e-3), (["1.5", "2.5", "0.5", "2"], 1.0)):
        write({"x": THREES, "other": other}, ";", tmp_path)
        prepared = by_command(tmp_path)
        np.testing.assert_allclose(prepared.features[:2, 0], [1190 * factor, 2305 * factor])
        assert any(line.startswith("Column 'x': '1,190' is read as") for line in prepared.lines)


def test_points_between_thousands_in_a_file_with_decimal_commas(tmp_path: Path) -> None:
    # pandas has read this column as 1.19 before an encoder sees it; the text tells more.
    text = write({"x": ["502", "660", "1.190", "9"], "z": ["1,5", "2", "3", "4"]}, ";", tmp_path)
    prepared = by_command(tmp_path)
    np.testing.assert_array_equal(prepared.features[:3, 0], [502, 660, 1190])
    assert "Column 'x': '1.190' is read as 1190; if that is wrong, say --decimal \".\"." in (
        prepared.lines
    )
    table = pd.read_csv(io.StringIO(text), sep=";", dtype=str).drop(columns="y")
    np.testing.assert_array_equal(ft.TableEncoder().fit(table).transform(table), prepared.features)


def test_a_target_in_doubt() -> None:
    frame = pd.DataFrame({"y": [f"{i},{i}50" for i in range(1, 10)] * 2, "x": [1, 2, 4] * 6})
    prepared = prepare(frame, "y")
    assert prepared.warnings == (
        "Column 'y': '1,150' is read as 1150, but may mean 1.15 (nothing in the table tells); if "
        'so, say --decimal ",".',
    )
    assert not prepared.lines


@given(
    numbers=st.lists(st.integers(1, 10**7), min_size=2, max_size=12, unique=True),
    sign=st.sampled_from(["", "$", "€ "]),
)
def test_grouped_whole_numbers_that_span_a_thousand(numbers: list[int], sign: str) -> None:
    # However many they are and whatever the neighbours write.
    numbers = [*numbers, 7, 1200]
    table = pd.DataFrame(
        {"x": [f"{sign}{n:,}" for n in numbers], "z": [f"{i},5" for i in range(len(numbers))]}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = ft.TableEncoder().fit(table).transform(table)
    np.testing.assert_array_equal(features[:, 0], numbers)
