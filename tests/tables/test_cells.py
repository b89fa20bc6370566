"""Single cells: numbers and dates as people write them."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from flattest.tables.cells import Cells, number_marks, parse_number
from flattest.tables.dates import ISO, format_of, parse
from flattest.tables.faults import TableError

SPACES = (" ", "\u00a0", "\u202f", "'")


@pytest.mark.parametrize(
    ("cell", "mark", "value", "unit"),
    [
        ("1,234", ".", 1234, ""),
        ("1,234", ",", 1.234, ""),
        ("1.234,5", ",", 1234.5, ""),
        ("1 234", ".", 1234, ""),
        ("1\u00a0234\u00a0567,8", ",", 1234567.8, ""),
        ("1'234.50", ".", 1234.5, ""),
        ("12,34,567", ".", 1234567, ""),
        ("$1,234", ".", 1234, "$"),
        ("-$1,234.50", ".", -1234.5, "$"),
        ("$-5", ".", -5, "$"),
        ("($5.00)", ".", -5, "$"),
        ("(1,234)", ".", -1234, ""),
        ("−3", ".", -3, ""),
        ("+3", ".", 3, ""),
        ("1.234,50 €", ",", 1234.5, "€"),
        ("EUR 12", ".", 12, "EUR"),
        ("R$ 1.234,50", ",", 1234.5, "R$"),
        ("12%", ".", 0.12, "%"),
        ("12,5 %", ",", 0.125, "%"),
        ("12 kg", ".", 12, "kg"),
        ("1.5e-3", ".", 0.0015, ""),
        ("1,5E3", ",", 1500, ""),
        (".5", ".", 0.5, ""),
        ("0,5", ",", 0.5, ""),
        ("inf", ".", math.inf, ""),
        ("-Inf", ".", -math.inf, ""),
    ],
)
def test_numbers(cell: str, mark: str, value: float, unit: str) -> None:
    found = parse_number(cell, mark)
    assert found is not None
    assert found.value == pytest.approx(value, rel=1e-15)
    assert found.unit == unit


@pytest.mark.parametrize(
    "cell",
    [
        *(
            "",
            "a",
            "1,5",
            "1,23",
            "12,3456",
            "0,123",
            "1.2.3",
            "18-24",
            "3+",
            "<5",
            "1_000",
            "0x1F",
        ),
        *("$1€", "1 23", "1,234 567", "--3", "$", "%", "-", "(5", "2020-01-01", "12:30"),
    ],
)
def test_no_numbers_with_a_decimal_point(cell: str) -> None:
    assert parse_number(cell, ".") is None


@given(
    value=st.decimals(-(10**9), 10**9, places=2),
    group=st.sampled_from(["", ",", *SPACES]),
    unit=st.sampled_from(["", "$", "€", "kg"]),
    european=st.booleans(),
)
def test_numbers_written_and_read(value: float, group: str, unit: str, european: bool) -> None:
    text, mark = f"{value:,}", "."
    if european:
        text, mark = text.translate(str.maketrans(",.", ".,")), ","
        group = "." if group == "," else group
    text = text.replace("." if european else ",", group)
    written = f"{text} {unit}" if unit in ("€", "kg") else text.replace("-", f"-{unit}")
    if unit == "$" and value >= 0:
        written = f"${text}"
    found = parse_number(written, mark)
    assert found is not None
    assert found.value == float(value)


def test_units_that_differ_are_no_numbers() -> None:
    assert number_marks(["$5", "€5"]) == {}
    assert number_marks(["12%", "0.12"]) == {".": "%"}
    assert number_marks(["1,234", "2,5"]) == {",": ""}


@pytest.mark.parametrize(
    ("cells", "form"),
    [
        (["2024-01-31", "2024-02-01"], ISO),
        (["2024/01/31"], ISO),
        (["2024-01"], ISO),
        (["2024-01-31 12:00", "2024-01-31T12:00:00.5Z", "2024-01-31 12:00:00+02:00"], ISO),
        (["31.01.2024", "1.2.2024"], "%d.%m.%Y"),
        (["31/01/24"], "%d/%m/%y"),
        (["1/31/2024", "2/1/2024"], "%m/%d/%Y"),
        (["1/31/2024 14:30"], "%m/%d/%Y %H:%M"),
        (["31-Jan-2024"], "%d-%b-%Y"),
        (["January 31, 2024"], "%B %d, %Y"),
        (["Mar 2024"], "%b %Y"),
        (["13:45"], "%H:%M"),
        (["01.01.2024", "02.02.2024"], "%d.%m.%Y"),
        (["2024-13-01"], None),
        (["31.02.2024"], None),
        (["2024-01-31", "soon"], None),
        (["A4-1"], None),
        (["20240131"], None),
    ],
)
def test_formats_of_dates(cells: list[str], form: str | None) -> None:
    assert format_of(cells, "x") == form


def test_dates_that_may_be_read_two_ways() -> None:
    with pytest.raises(TableError, match="'1/2/2024', which may be read day or month first"):
        format_of(["1/2/2024", "3/4/2024"], "x")
    assert format_of(["3/3/2024", "4/4/2024"], "x") == "%d/%m/%Y"  # the same either way


@given(st.datetimes(pd.Timestamp("1900-01-01"), pd.Timestamp("2100-01-01")))
def test_dates_written_and_read(moment: pd.Timestamp) -> None:
    expected = (moment - pd.Timestamp(0)) / pd.Timedelta(days=1)
    read = parse([moment.isoformat(sep=" ")], ISO)
    np.testing.assert_allclose(read, expected, atol=1e-9)
    typed = Cells.of(pd.Series(pd.to_datetime([moment])))
    np.testing.assert_allclose(typed.values, expected, atol=1e-9)


def test_values_of_other_types_are_refused() -> None:
    for values in ([1j, 2j], [[1], [2]], [b"a", b"b"]):
        with pytest.raises(TableError, match="Column 'x' holds"):
            Cells.of(pd.Series(values, name="x"))
