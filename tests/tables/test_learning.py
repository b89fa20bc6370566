"""What columns of a training table mean, and what is said of them."""

import datetime

import numpy as np
import pandas as pd
import pytest

from flattest.tables.columns import (
    BooleanColumn,
    CategoryColumn,
    DateColumn,
    MeasuredColumn,
    NumberColumn,
)
from flattest.tables.encoding import Encoding, check_varies, learn_encoding
from flattest.tables.faults import TableError
from flattest.tables.learning import Rules
from flattest.tables.preparing import prepare

FRAME = pd.DataFrame(
    {
        "size": [1.0, 2.5, 3.0, 4.0],
        "colour": ["red", "blue", "red", "green"],
        "paid": ["yes", "no", "no", "yes"],
        "member": [True, False, True, True],
        "price": [10, 20, 30, 45],
    }
)
Y = [1.0, 2.0, 3.0, 4.0]


def learnt(cells: list[object], separator: str = ",", **rules: object) -> MeasuredColumn:
    """Learn one column beside a plain one."""
    frame = pd.DataFrame({"x": pd.Series(cells, dtype=object), "y": range(len(cells))})
    encoding = learn_encoding(frame, "y", rules=Rules(separator=separator, **rules))
    (column,) = encoding.columns
    return column


def test_features_of_each_kind() -> None:
    encoding = learn_encoding(FRAME, "price")
    assert encoding.feature_names == (
        *("size", "colour=red", "colour=blue", "colour=green", "paid=yes", "member"),
    )
    expected = [
        [1.0, 1, 0, 0, 1, 1],
        [2.5, 0, 1, 0, 0, 0],
        [3.0, 1, 0, 0, 0, 1],
        [4.0, 0, 0, 1, 1, 1],
    ]
    np.testing.assert_array_equal(encoding.features(FRAME), expected)
    np.testing.assert_array_equal(encoding.target_values(FRAME), [10, 20, 30, 45])


def test_nullable_categorical_and_decimal_columns_are_numbers_or_text() -> None:
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, 2, 3], dtype="Int64"),
            "category": pd.Categorical(["u", "v", "w"]),
            "numbered": pd.Categorical([1, 2, 1]),
            "object": pd.Series([1, 2.5, 3], dtype=object),
            "dates": [datetime.date(2026, 1, day) for day in (1, 2, 4)],
            "y": [1.0, 2.0, 3.0],
        }
    )
    encoding = learn_encoding(frame, "y")
    kinds = [column.kind for column in encoding.columns]
    assert kinds == ["number", "category", "category", "number", "date"]
    assert encoding.features(frame).dtype == np.float64


def test_an_encoding_survives_json_and_ignores_order_and_further_columns() -> None:
    encoding = learn_encoding(FRAME, "price")
    again = Encoding.from_dict(encoding.to_dict())
    assert again == encoding
    shuffled = FRAME[["paid", "member", "colour", "size"]].assign(more="text")
    np.testing.assert_array_equal(again.features(shuffled), encoding.features(FRAME))


def test_constant_and_ignored_columns_are_left_out() -> None:
    frame = FRAME.assign(one=1, label="same", nothing=None)
    assert learn_encoding(frame, "price", ignore=["colour"]).feature_names == (
        *("size", "paid=yes", "member"),
    )


@pytest.mark.parametrize("rename", [{"a": "z", "b": "y", "c": "x"}, {"a": "b", "b": "c", "c": "a"}])
@pytest.mark.parametrize("levels", ["abcabc", "aabbcc", "cbaabb", "abab", "bbba"])
def test_names_of_levels_do_not_matter(levels: str, rename: dict[str, str]) -> None:
    # Features come in the same order whatever their names, so the fits are the same to the last
    # bit: nothing depends on how the names are sorted.
    frame = pd.DataFrame({"c": list(levels), "y": range(len(levels))})
    renamed = frame.assign(c=frame["c"].map(rename))
    first, second = (learn_encoding(each, "y") for each in (frame, renamed))
    np.testing.assert_array_equal(first.features(frame), second.features(renamed))
    assert [rename[level] for level in first.columns[0].levels] == list(second.columns[0].levels)


@pytest.mark.parametrize(
    ("cells", "separator", "expected"),
    [
        (["1,234", "22,345"], ",", [1234, 22345]),
        (["1,234", "22,345"], ";", [1.234, 22.345]),
        (["1,234", "22,345"], "\t", [1234, 22345]),
        (["1,5", "22,345"], ",", [1.5, 22.345]),
        (["1,5", "22,345"], ";", [1.5, 22.345]),
        (["1.234", "22.345"], ";", [1.234, 22.345]),
        (["1.234,5", "22"], ";", [1234.5, 22]),
        (["1 234", "22"], ";", [1234, 22]),
        (["1\u00a0234,5", "22"], ";", [1234.5, 22]),
        (["$1,234", "$5"], ",", [1234, 5]),
        (["12%", "5%"], ",", [0.12, 0.05]),
        (["5 kg", "12 kg"], ",", [5, 12]),
        (["1e3", "-inf"], ",", None),
    ],
)
def test_numbers_in_text(cells: list[str], separator: str, expected: list[float] | None) -> None:
    if expected is None:
        with pytest.raises(TableError, match="Column 'x' is -inf in row 2"):
            learnt(cells, separator)
        return
    column = learnt(cells, separator)
    assert isinstance(column, NumberColumn)
    np.testing.assert_allclose(column.read(pd.Series(cells, dtype=object)), expected)


@pytest.mark.parametrize(
    ("other", "decimal", "expected"),
    [
        (["1,5", "2,5"], None, [1.234, 22.345]),
        (["1.5", "2.5"], None, [1234, 22345]),
        (["a", "b"], None, [1.234, 22.345]),
        (["1,5", "2,5"], ".", [1234, 22345]),
        (["1.5", "2.5"], ",", [1.234, 22.345]),
    ],
)
def test_what_may_be_read_two_ways_is_read_as_its_neighbours(
    other: list[str], decimal: str | None, expected: list[float]
) -> None:
    cells = ["1,234", "22,345"]
    frame = pd.DataFrame({"x": cells, "other": other, "y": ["1", "2"]}, dtype=object)
    encoding = learn_encoding(frame, "y", rules=Rules(separator=";", decimal=decimal))
    np.testing.assert_allclose(encoding.features(frame)[:, 0], expected)


def test_how_numbers_are_read_is_said() -> None:
    n = 12
    frame = pd.DataFrame(
        {
            "a": [f"{i},234" for i in range(1, 1 + n)],
            "b": [f"{i}%" for i in range(n)],
            "c": [f"{i}.5" for i in range(n)],
            "y": [str(i * i % 7) for i in range(n)],
        },
        dtype=object,
    )
    assert prepare(frame, "y").lines == (
        "Column 'a': '1,234' is read as 1234; if that is wrong, say --decimal \",\".",
        "Column 'b': '0%' is read as 0.",
    )
    assert prepare(frame.drop(columns="c"), "y").warnings == (
        "Column 'a': '1,234' is read as 1234, but may mean 1.234 (nothing in the table tells); if "
        'so, say --decimal ",".',
    )


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["TRUE", "FALSE", None, "TRUE"], BooleanColumn),
        (["T", "F", "F", "T"], BooleanColumn),
        (["yes", "No", "no", "YES"], BooleanColumn),
        (["y", "n", "n", "y"], BooleanColumn),
        (["0", "1", "1", "0"], NumberColumn),
        (["m", "f", "f", "m"], CategoryColumn),
        (["TRUE", "FALSE", "unknown", "TRUE"] * 3, CategoryColumn),
        (["01", "02", "10", "01"], CategoryColumn),
        (["0", "1", "2", "3+"] * 5, CategoryColumn),
        (["2024-01-31", "2024-02-01", None, "2024-03-01"], DateColumn),
        (["18-24", "25-34", "18-24", "25-34"], CategoryColumn),
        ([None, "None", "1.5", "2"], NumberColumn),
        (["NA", "1.5", "2"], NumberColumn),  # between quotation marks, but a number otherwise
    ],
)
def test_kinds(cells: list[str | None], kind: type) -> None:
    assert isinstance(learnt(cells), kind)


def test_truth_values_in_all_spellings() -> None:
    column = learnt(["TRUE", "FALSE", "TRUE"])
    for spelled in (["True", "false"], ["T", "F"], ["yes", "NO"], ["1", "0"], [True, False]):
        np.testing.assert_array_equal(column.read(pd.Series(spelled)), [1, 0])
    np.testing.assert_array_equal(column.read(pd.Series([1.0, 0.0])), [1, 0])
    for bad in (["maybe", "T"], [2.0, 1.0], pd.to_datetime(["2020-01-01"])):
        with pytest.raises(TableError, match="fitted with truth values"):
            column.read(pd.Series(bad, name="x"))


def test_dates_become_numbers_and_places_in_periods() -> None:
    daily = [str(day)[:10] for day in pd.date_range("2020-01-01", periods=900)]
    column = learnt(daily)
    assert isinstance(column, DateColumn)
    assert column.cycles == ("year", "week")
    new = column.encode(pd.Series(["2031-12-24"]))
    assert new.beyond.all()
    assert new.matrix[0, 0] == 22637
    np.testing.assert_allclose(new.matrix[0, 1] ** 2 + new.matrix[0, 2] ** 2, 1)
    # Months, or a few days, say nothing of weeks or years.
    assert learnt([f"2020-{month:02d}-01" for month in range(1, 13)]).cycles in ((), ("week",))
    assert learnt(daily[:10]).cycles == ()
    assert learnt([f"{year}-01-01" for year in range(1990, 2010)]).cycles == ("week",)


def test_rare_levels_become_one() -> None:
    frequent = [f"f{i}" for i in range(5) for _ in range(30)]
    cells = [*frequent, *(f"rare {i}" for i in range(60)), "other"]
    column = learnt(cells)
    assert isinstance(column, CategoryColumn)
    assert column.levels == tuple(f"f{i}" for i in range(5))
    assert column.feature_names[-1] == "x=other"
    found = column.encode(pd.Series(["f3", "rare 7", "new", "other"], dtype=object))
    np.testing.assert_array_equal(found.matrix[:, -1], [0, 1, 1, 1])
    assert found.unseen == ("new",)
    np.testing.assert_array_equal(found.beyond, [False, False, True, False])


def test_levels_that_the_training_table_did_not_have() -> None:
    encoding = learn_encoding(FRAME, "price")
    encoded = encoding.encode(FRAME.assign(colour=["purple", "red", "purple", "mauve"]))
    np.testing.assert_array_equal(encoded.features[:, 1:4].sum(axis=1), [0, 1, 0, 0])
    assert encoded.remarks == (
        "Column 'colour' holds 'purple', 'mauve' in 3 rows, which the training table did not have: "
        "unknown.",
    )
    with pytest.raises(TableError, match=r"'purple'.*strict"):
        encoding.encode(FRAME.assign(colour="purple"), strict=True)


def test_an_unquoted_level_named_like_a_missing_value() -> None:
    # A program that writes no quotation marks writes Namibia as NA; nothing was missing before.
    column = learnt(["NA", "DE", "FR", "NA"])
    features = column.encode(pd.Series([None, "NA"], dtype=object))
    np.testing.assert_array_equal(*features.matrix)
    assert not features.gaps.any()


def test_categories_that_are_numbers() -> None:
    column = learnt([1.0, 2.0, 3.0, 1.0], categorical=("x",))
    assert isinstance(column, CategoryColumn)
    for values in (["3", "1.0"], [3, 1], [3.0, 1.0], pd.array([3, 1], dtype="Int64")):
        np.testing.assert_array_equal(
            column.encode(pd.Series(values)).matrix, [[0, 0, 1], [1, 0, 0]]
        )
    text = learnt(["1", "2.0", "3", "1"], categorical=("x",))
    assert text.levels == column.levels
    assert learnt(["01", "1", "2", "01"], categorical=("x",)).levels == ("01", "1", "2")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1.0, float("inf"), 2.0, 3.0]}, "Column 'x' is inf in row 2"),
        ({"x": [1.0, 1e200, 2.0, 3.0]}, r"Column 'x' is 1e\+200 in row 2"),
        ({"x": ["1", "2", "three", "4"]}, r"mixes numbers with text such as 'three' \(row 3\)"),
        ({"x": ["1", "2", "?", "4"]}, r'say --na "\?"'),
        ({"x": ["$1", "€2", "$3", "$4"]}, "mixes numbers with '\\$', '€'"),
        ({"x": ["2024-01-31", "later", "2024-02-01", "2024-02-02"]}, "mixes dates with text such"),
        ({"x": ["1/2/2024", "3/4/2024", "5/6/2024", "7/8/2024"]}, "day or month first"),
        ({"x": [f"{i}{'kM'[i % 2]}" for i in range(24)], "y": range(24)}, "'M', 'k'; convert"),
        ({"x": [1j, 2j, 3j, 4j]}, "complex"),
        ({"x": [[1], [2], [3], [4]]}, "Column 'x'"),
        ({"x": [1.0] * 4}, "No column beside the target 'y' varies"),
        ({}, "No column beside the target 'y' varies"),
    ],
)
def test_columns_that_are_no_features(columns: dict[str, list[object]], message: str) -> None:
    frame = pd.DataFrame({"y": Y} | columns)
    with pytest.raises(TableError, match=message):
        learn_encoding(frame, "y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "a", "b"], "target 'y' holds text"),
        (pd.Categorical([1, 2, 1, 2]), "target 'y' holds text"),
        (["1", "2", "n/a?", "4"], "mixes numbers with text"),
        (pd.date_range("2020-01-01", periods=4), "target 'y' holds dates"),
        (["2020-01-31", "2020-01-30", "2020-01-29", "2020-01-28"], "target 'y' holds dates"),
        ([None] * 4, "target 'y' has no values"),
        ([1.0, float("-inf"), 2.0, 3.0], "Column 'y' is -inf in row 2"),
    ],
)
def test_targets_that_cannot_be_predicted(values: object, message: str) -> None:
    with pytest.raises(TableError, match=message):
        learn_encoding(pd.DataFrame({"x": [1.0, 3.0, 2.0, 5.0], "y": values}), "y")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["$1,234", "$5", "$2.50", "$7"], [1234, 5, 2.5, 7]),
        (["05", "10", "15", "20"], [5, 10, 15, 20]),
        (["TRUE", "FALSE", "TRUE", "FALSE"], [1, 0, 1, 0]),
        (["1", None, "2", "NA"], [1, np.nan, 2, np.nan]),
    ],
)
def test_targets_in_text(values: list[str | None], expected: list[float]) -> None:
    frame = pd.DataFrame({"x": [1.0, 3.0, 2.0, 5.0], "y": pd.Series(values, dtype=object)})
    np.testing.assert_array_equal(learn_encoding(frame, "y").target_values(frame), expected)


def test_a_constant_target() -> None:
    with pytest.raises(TableError, match="is 2 in all 3 rows"):
        check_varies(np.full(3, 2.0), "y")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Price", "did you mean 'price'"),
        ("prise", "did you mean 'price'"),
        ("zzz", "it has 'size'"),
        ("siez", r"did you mean 'size'\?"),
    ],
)
def test_a_missing_column_and_what_was_meant(name: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        learn_encoding(FRAME, name)


def test_only_near_misses_are_suggested() -> None:
    frame = pd.DataFrame({"age": [1.0, 2.0], "target": [3.0, 5.0], "size_1": 1, "size_2": 2})
    with pytest.raises(TableError, match=r"did you mean 'target'\?$"):
        learn_encoding(frame, "tragets")  # of which 'age' has three letters, too
    with pytest.raises(TableError, match=r"did you mean 'size_\d' or 'size_\d'\?$"):
        learn_encoding(frame, "size")


def test_another_table_must_fit_the_encoding() -> None:
    encoding = learn_encoding(FRAME, "price")
    with pytest.raises(TableError, match=r"holds text \(such as 'big' in row 1\), but the model"):
        encoding.features(FRAME.assign(size="big"))
    with pytest.raises(TableError, match="no columns 'size', 'colour'"):
        encoding.features(FRAME.drop(columns=["size", "colour"]))
    with pytest.raises(TableError, match="fitted with numbers in it"):
        encoding.features(FRAME.assign(size=pd.Timestamp(0)))


def test_other_units_than_in_the_training_table_are_refused() -> None:
    column = learnt(["$5", "$6", "$7"])
    np.testing.assert_array_equal(column.read(pd.Series(["$1,000.50", "8"])), [1000.5, 8])
    with pytest.raises(TableError, match="'€5' in row 1"):
        column.read(pd.Series(["€5"], name="x"))
