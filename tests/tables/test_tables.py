"""Tables: what is read, how it is encoded, and the sentence for what cannot be used."""

import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flattest.tables.encoding import Column, Encoding, check_varies, learn_encoding, target_values
from flattest.tables.reading import TableError, complete_rows, read_table

FRAME = pd.DataFrame(
    {
        "size": [1.0, 2.5, 3.0, 4.0],
        "colour": ["red", "blue", "red", "green"],
        "paid": ["yes", "no", "no", "yes"],
        "member": [True, False, True, True],
        "price": [10, 20, 30, 45],
    }
)


def _write(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.tsv", "t.PQ"])
def test_a_table_survives_being_written_and_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("v"):
        FRAME.to_csv(path, index=False, sep="\t" if name == "t.tsv" else ",")
    else:
        FRAME.to_parquet(path)
    read = read_table(path)
    encoding = learn_encoding(read, "price")
    assert encoding.feature_names == (
        *("size", "colour=blue", "colour=green", "colour=red", "paid=yes", "member"),
    )
    expected = [
        [1.0, 0, 0, 1, 1, 1],
        [2.5, 1, 0, 0, 0, 0],
        [3.0, 0, 0, 1, 0, 1],
        [4.0, 0, 1, 0, 1, 1],
    ]
    np.testing.assert_array_equal(encoding.features(read), expected)
    np.testing.assert_array_equal(encoding.target_values(read), [10, 20, 30, 45])


def test_a_semicolon_a_byte_order_mark_and_quotes(tmp_path: Path) -> None:
    path = _write(tmp_path, '\ufeffa; b\n1;"x; y"\n2;z\n')
    assert read_table(path).to_dict("list") == {"a": [1, 2], "b": ["x; y", "z"]}


def test_nullable_categorical_and_decimal_columns_are_numbers_or_text() -> None:
    frame = pd.DataFrame(
        {
            "nullable": pd.array([1, 2, 3], dtype="Int64"),
            "category": pd.Categorical(["u", "v", "w"]),
            "object": pd.Series([1, 2.5, 3], dtype=object),
            "y": [1.0, 2.0, 3.0],
        }
    )
    encoding = learn_encoding(frame, "y")
    assert encoding.columns == (
        Column("nullable"),
        Column("category", ("u", "v", "w")),
        Column("object"),
    )
    assert encoding.features(frame).dtype == np.float64


def test_an_encoding_survives_json_and_ignores_order_and_further_columns() -> None:
    encoding = learn_encoding(FRAME, "price")
    again = Encoding.from_dict(encoding.to_dict())
    assert again == encoding
    shuffled = FRAME[["paid", "member", "colour", "size"]].assign(more="text")
    np.testing.assert_array_equal(again.features(shuffled), encoding.features(FRAME))


def test_constant_and_ignored_columns_are_left_out() -> None:
    frame = FRAME.assign(one=1, label="same")
    assert learn_encoding(frame, "price", ignore=["colour"]).feature_names == (
        *("size", "paid=yes", "member"),
    )


def test_dropping_rows_keeps_their_labels() -> None:
    frame = pd.DataFrame({"x": [1.0, np.nan, 3.0], "z": [np.nan, 1.0, 1.0]})
    assert list(complete_rows(frame, ["x"]).index) == [0, 2]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "nothing.csv", "There is no file"),
        ("", "t.csv", "is empty"),
        (" \n\n", "t.csv", "is empty"),
        ("a,b\n", "t.csv", "has a header but no rows"),
        ("a,b,a\n1,2,3\n", "t.csv", "more than one column named 'a'"),
        ("a,b\n1,2\n3,4,5\n", "t.csv", "not a regular table"),
        ("a,b\n1,2,3\n4,5,6\n", "t.csv", "not a regular table"),
        ('a,b\n1,"2\n', "t.csv", "not a regular table"),
        (b"a,b\n1,\xff\xfe\n", "t.csv", "not UTF-8"),
        (b"a,b\n1,\x00\n", "t.csv", "not a text file"),
        ("a,b\n1,2\n", "t.xlsx", "its name must end in .csv"),
        (b"PAR1 and then nothing", "t.parquet", "not a readable Parquet file"),
        (b"a,b\n1,2\n", "t.parquet", "not a readable Parquet file"),
    ],
)
def test_unreadable_files(
    tmp_path: Path, content: str | bytes | None, name: str, message: str
) -> None:
    path = tmp_path / name if content is None else _write(tmp_path, content, name)
    with pytest.raises(TableError, match=message):
        read_table(path)


def test_a_truncated_parquet_file_a_folder_and_a_misspelt_name(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(TableError, match="may be truncated"):
        read_table(_write(tmp_path, content[: len(content) // 2], "half.parquet"))
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match=r"did you mean 'whole\.parquet'"):
        read_table(tmp_path / "hole.parquet")
    with pytest.raises(TableError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "t.csv")


Y = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"x": [1.0, None, 3.0, 4.0]},
            r"Column 'x' \(1\) has missing values, in 1 of 4 rows; fill",
        ),
        ({"x": [None, 1.0, 2.0, 3.0], "z": ["a", None, "b", "c"]}, r"Columns 'x' \(1\), 'z' \(1\)"),
        ({"x": [1.0, float("inf"), 2.0, 3.0]}, "Column 'x' is inf in row 2"),
        ({"x": [1.0, 1e200, 2.0, 3.0]}, r"Column 'x' is 1e\+200 in row 2"),
        ({"x": ["1", "2", "three", "4"]}, r"mixes numbers with text such as 'three' \(row 3\)"),
        ({"x": ["1,5", "2,5", "3,0", "4,1"]}, "decimal comma, such as '1,5'"),
        ({"x": [datetime.date(2026, 1, i) for i in (1, 2, 3, 4)]}, "Column 'x' holds values of"),
        ({"x": pd.date_range("2026-01-01", periods=4)}, "Column 'x' holds values of type datetime"),
        ({"x": [1j, 2j, 3j, 4j]}, "complex"),
        ({"x": [[1], [2], [3], [4]]}, "Column 'x'"),
        ({"x": [1.0] * 4}, "No column beside the target 'y' varies"),
        ({}, "No column beside the target 'y' varies"),
        ({"column 1": [0.0, 1.0, 2.0, 3.0]}, "Column 1 has no name in the header"),
    ],
)
def test_columns_that_are_no_features(columns: dict[str, list[object]], message: str) -> None:
    frame = pd.DataFrame(columns | {"y": Y})
    with pytest.raises(TableError, match=message):
        learn_encoding(frame, "y")


def test_text_that_looks_like_an_identifier() -> None:
    frame = pd.DataFrame({"name": [f"n{i}" for i in range(60)], "y": np.arange(60.0)})
    with pytest.raises(TableError, match="60 different values, more than 50; group them"):
        learn_encoding(frame, "y")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "a", "b"], "target 'y' holds text"),
        (["1", "2", "n/a?", "4"], "mixes numbers with text"),
        ([1.0, None, 2.0, 3.0], "The target 'y' .1. has missing values"),
        ([1.0, float("-inf"), 2.0, 3.0], "Column 'y' is -inf in row 2"),
    ],
)
def test_targets_that_cannot_be_predicted(values: list[object], message: str) -> None:
    with pytest.raises(TableError, match=message):
        target_values(pd.DataFrame({"y": values}), "y")


def test_a_constant_target() -> None:
    with pytest.raises(TableError, match="is 2 in all 3 rows"):
        check_varies(np.full(3, 2.0), "y")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Price", "did you mean 'price'"),
        ("prise", "did you mean 'price'"),
        ("zzz", "it has 'size'"),
    ],
)
def test_a_missing_column_and_what_was_meant(name: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        target_values(FRAME, name)


def test_another_table_must_fit_the_encoding() -> None:
    encoding = learn_encoding(FRAME, "price")
    with pytest.raises(TableError, match="holds 'purple', which the model has not seen; it knows"):
        encoding.features(FRAME.assign(colour="purple"))
    with pytest.raises(TableError, match=r"holds text \(such as 'big'\), but the model was fitted"):
        encoding.features(FRAME.assign(size="big"))
    with pytest.raises(TableError, match="no columns 'size', 'colour'"):
        encoding.features(FRAME.drop(columns=["size", "colour"]))


def test_dropping_every_row() -> None:
    with pytest.raises(TableError, match="Column 'x' has no values at all"):
        complete_rows(pd.DataFrame({"x": [None, None], "y": [1.0, 2.0]}), ["x", "y"])
    with pytest.raises(TableError, match="Every row has a missing value"):
        complete_rows(pd.DataFrame({"x": [None, 1.0], "y": [1.0, None]}), ["x", "y"])
