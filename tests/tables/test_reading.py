"""Files: how text is decoded and split, which cells are missing, and what is refused."""

import codecs
import gzip
import io
from pathlib import Path

import pandas as pd
import pytest

from flattest.tables.delimited import parse_delimited
from flattest.tables.faults import TableError
from flattest.tables.reading import read_file, read_table

FRAME = pd.DataFrame({"size": [1.0, 2.5], "colour": ["red", "blue"], "price": [10, 20]})


def write(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(text: str, na: list[str] | None = None) -> dict[str, list[str | None]]:
    return parse_delimited(text, Path("t.csv"), na).table.to_frame().to_dict("list")


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.csv.gz", "t.tsv.gz", "T.CSV"])
def test_text_survives_being_written_and_read(tmp_path: Path, name: str) -> None:
    separator = "\t" if "tsv" in name else ","
    FRAME.to_csv(tmp_path / name, index=False, sep=separator)
    assert read_table(tmp_path / name).to_dict("list") == {
        "size": ["1.0", "2.5"],
        "colour": ["red", "blue"],
        "price": ["10", "20"],
    }


@pytest.mark.parametrize("name", ["t.parquet", "t.PQ"])
def test_parquet_keeps_its_types(tmp_path: Path, name: str) -> None:
    FRAME.to_parquet(tmp_path / name)
    pd.testing.assert_frame_equal(read_table(tmp_path / name), FRAME, check_column_type=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Separators and line breaks inside quotation marks belong to names and cells.
        (
            '"price, EUR";"area, m2, net";y\n1;2;3\n',
            {"price, EUR": ["1"], "area, m2, net": ["2"], "y": ["3"]},
        ),
        ('"price;EUR","area",y\n1,2,3\n', {"price;EUR": ["1"], "area": ["2"], "y": ["3"]}),
        ('"price\nin EUR","y"\n1,2\n', {"price in EUR": ["1"], "y": ["2"]}),
        ('a,b\n"x\ny",1\n', {"a": ["x\ny"], "b": ["1"]}),
        ('a,b\n"so ""called"", x",1\n', {"a": ['so "called", x'], "b": ["1"]}),
        # What pandas, R and spreadsheets write.
        ("\ta\tb\n0\t1\t2\n", {"column 1": ["0"], "a": ["1"], "b": ["2"]}),
        (",a\n0,1\n1,2\n", {"column 1": ["0", "1"], "a": ["1", "2"]}),
        (
            '"a"\t"b"\n"1"\t5\t6\n"2"\t7\t8\n',
            {"column 1": ["1", "2"], "a": ["5", "7"], "b": ["6", "8"]},
        ),
        ("sep=;\na;b\n1,5;2\n", {"a": ["1,5"], "b": ["2"]}),
        ('"sep=;"\r\na;b\r\n1,5;2\r\n', {"a": ["1,5"], "b": ["2"]}),
        ("sep=,\na,b\n1;5,2\n", {"a": ["1;5"], "b": ["2"]}),
        ("sep=\t\na\tb\n1\t2\n", {"a": ["1"], "b": ["2"]}),
        ("a|b\n1|2\n", {"a": ["1"], "b": ["2"]}),
        ("a, b\n1, x\n", {"a": ["1"], "b": ["x"]}),
        # Decimal commas do not make a comma the separator.
        ("a;b\n1,5;2,5\n3,5;4,5\n", {"a": ["1,5", "3,5"], "b": ["2,5", "4,5"]}),
        ("a\tb\n1,5\t2,5\n", {"a": ["1,5"], "b": ["2,5"]}),
        ("price, EUR\tarea\n1,5\t2\n", {"price, EUR": ["1,5"], "area": ["2"]}),
        ("price, EUR\tarea\n1,5\t2,5\n", {"price, EUR": ["1,5"], "area": ["2,5"]}),
        ("price, EUR;area\n1,5;2\n", {"price, EUR": ["1,5"], "area": ["2"]}),
        ("a,b;c\nx,y\nu;v,w\n", {"a": ["x", "u;v"], "b;c": ["y", "w"]}),
        ("a\n1\n2\n", {"a": ["1", "2"]}),
        ("a\n1,5\n2,5\n", {"a": ["1,5", "2,5"]}),
        ("\n\na,b\n1,2\n", {"a": ["1"], "b": ["2"]}),
        # A row that ends early has missing values.
        ("a,b\n1\n2,3\n", {"a": ["1", "2"], "b": [None, "3"]}),
    ],
)
def test_separators_and_headers(text: str, expected: dict[str, list[str | None]]) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["NA", "NaN", "null", "NULL", "<NA>", "", "n/a"], [None] * 7),
        (["None", "none", "-", "nil", "NAN"], ["None", "none", "-", "nil", "NAN"]),
        (['"NA"', '"None"', '"null"', '" NA "'], ["NA", "None", "null", "NA"]),
        (['""', '" "'], [None, None]),
        (['"NA, or not"', '"x ""NA"" y"', '"a,""NA"",b"'], ["NA, or not", 'x "NA" y', 'a,"NA",b']),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_missing_values_and_levels_of_the_same_name(
    cells: list[str], expected: list[str | None], last: bool
) -> None:
    rows = [f"1,{cell}" if last else f"{cell},1" for cell in cells]
    header = "x,c" if last else "c,x"
    assert read("\n".join([header, *rows]))["c"] == expected
    assert read("\r\n".join([header, *rows, ""]))["c"] == expected


def test_other_words_for_missing_values() -> None:
    assert read("a,b\n?,NA\n-9,x\n", na=["?", "-9"]) == {"a": [None, None], "b": ["NA", "x"]}
    assert read('a,b\n"?",1\n?,2\n', na=["?"]) == {"a": ["?", None], "b": ["1", "2"]}


def test_what_was_missing_is_counted_by_column_and_word() -> None:
    found = parse_delimited("a,b\nNA,1\n,2\nNA,null\nx,4\n", Path("t.csv"))
    assert found.missing == {"a": {"NA": 2, "": 1}, "b": {"null": 1}}


TEXT = "größe,y\nweiß,1\n"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (TEXT.encode(), None),
        (codecs.BOM_UTF8 + TEXT.encode(), None),
        (TEXT.encode("utf-16"), None),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), None),
        (TEXT.encode("utf-32"), None),
        (TEXT.encode("utf-16-le"), "utf-16-le"),
        (TEXT.encode("latin-1"), "latin-1"),
        (TEXT.encode("cp1252"), "cp1252"),
        (gzip.compress(TEXT.encode(), mtime=0), None),
        (gzip.compress(TEXT.encode("utf-16"), mtime=0), None),
        (gzip.compress(TEXT.encode("latin-1"), mtime=0), "latin-1"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_encodings_and_compression(
    tmp_path: Path, content: bytes, encoding: str | None, name: str
) -> None:
    frame = read_table(write(tmp_path, content, name), encoding=encoding)
    assert frame.to_dict("list") == {"größe": ["weiß"], "y": ["1"]}


@pytest.mark.parametrize(
    ("usual", "written"),
    [
        ("cp1252", "cp1252"),
        ("utf-16-le", "utf-16-le"),
        ("shift_jis", "shift_jis"),
        ("iso2022_jp", "iso2022_jp"),  # text that is ASCII at first sight
        # Whoever fitted to one encoding may have a table in Unicode next.
        ("cp1252", "utf-8"),
        ("cp1252", "utf-8-sig"),
        ("cp1252", "utf-16"),
        ("utf-16-le", "utf-8"),
    ],
)
def test_the_usual_encoding_gives_way_to_unicode(tmp_path: Path, usual: str, written: str) -> None:
    text = "色,y\n赤,1\n" if "j" in usual else "größe €,y\nweiß,1\n"
    path = write(tmp_path, text.encode(written), "t.csv")
    expected = pd.read_csv(io.StringIO(text), dtype=str).to_dict("list")
    assert read_table(path, usual=usual).to_dict("list") == expected
    assert read_table(path, usual="cp037", encoding=written).to_dict("list") == expected


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "nothing.csv", "There is no file"),
        ("", "t.csv", "is empty"),
        (" \n\n", "t.csv", "is empty"),
        ("\ufeff\n", "t.csv", "is empty"),
        ("sep=;\n", "t.csv", "is empty"),
        ("a,b\n", "t.csv", "has a header but no rows"),
        ("a,b,a\n1,2,3\n", "t.csv", "more than one column named 'a'"),
        ("a,b\n1,2\n3,4,5\n", "t.csv", "not a regular table"),
        ("a,b\n1,2\n4,5\n1,2,3,4\n", "t.csv", "not a regular table"),
        ('a,b\n1,"2\n', "t.csv", "not a regular table"),
        (
            b"a,b\n1,\xff\xfe\n",
            "t.csv",
            r"not UTF-8 text \(byte 6\); name its encoding, such as --encoding cp1252",
        ),
        (TEXT.encode("utf-16-le"), "t.csv", "--encoding"),
        (b"a,b\n1,\x00\n", "t.csv", "not a text file"),
        ("a,b\n1,2\n", "t.xlsx", r"its name must end in \.csv"),
        ("a,b\n1,2\n", "t.xlsx.gz", r"its name must end in \.csv"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "t.csv.gz", "damaged gzip file"),
        (b"PAR1 and then nothing", "t.parquet", "not a readable Parquet file"),
        (b"a,b\n1,2\n", "t.parquet", "not a readable Parquet file"),
    ],
)
def test_unreadable_files(
    tmp_path: Path, content: str | bytes | None, name: str, message: str
) -> None:
    path = tmp_path / name if content is None else write(tmp_path, content, name)
    with pytest.raises(TableError, match=message):
        read_table(path)


@pytest.mark.parametrize(
    ("encoding", "message"), [("ascii", "name another --encoding"), ("klingon", "no character enc")]
)
def test_a_wrong_encoding(tmp_path: Path, encoding: str, message: str) -> None:
    with pytest.raises(TableError, match=message):
        read_table(write(tmp_path, TEXT), encoding=encoding)


def test_a_truncated_parquet_file_a_folder_and_a_misspelt_name(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(TableError, match="may be truncated"):
        read_table(write(tmp_path, content[: len(content) // 2], "half.parquet"))
    with pytest.raises(TableError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(TableError, match=r"did you mean 'whole\.parquet'"):
        read_table(tmp_path / "hole.parquet")
    with pytest.raises(TableError, match="there is no folder"):
        read_table(tmp_path / "nowhere" / "t.csv")


def test_the_separator_is_told(tmp_path: Path) -> None:
    assert read_file(write(tmp_path, "a;b\n1;2\n")).separator == ";"
