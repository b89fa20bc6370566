"""Every single row of a training table, as a file of its own, gives the same features.

This is what it means that types are learnt from the training table and remembered: a single row
tells little of what its cells mean.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from tables_as_written import KINDS, STYLES, draw_cells, record

from flattest.tables.encoding import Encoding
from flattest.tables.learning import Rules
from flattest.tables.preparing import Prepared, prepare
from flattest.tables.reading import read_file


def _prepared(path: Path, target: str = "y", **options: object) -> Prepared:
    reading = read_file(path)
    rules = Rules((), None, reading.separator, reading.missing)
    return prepare(reading.frame, target, rules=rules, **options)


def _check_single_rows(
    folder: Path, header: str, lines: list[str], encoding: Encoding, name: str = "row.csv"
) -> None:
    whole, row = folder / f"whole-{name}", folder / name
    whole.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    expected = encoding.encode(read_file(whole).frame, strict=True)
    for i, line in enumerate(lines):
        row.write_text(f"{header}\n{line}\n", encoding="utf-8")
        found = encoding.encode(read_file(row).frame, strict=True)
        np.testing.assert_array_equal(found.features, expected.features[i : i + 1], err_msg=line)
        assert not found.beyond.any()


@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5, unique=True),
    style=st.sampled_from(sorted(STYLES)),
    n=st.integers(12, 40),
    seed=st.integers(0, 2**16),
    gaps=st.sampled_from([0.0, 0.1, 0.4]),
    missing=st.sampled_from(["fill", "drop"]),
)
def test_every_row_as_a_file_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    style: str,
    n: int,
    seed: int,
    gaps: float,
    missing: str,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    columns = {kind: draw_cells(kind, n, seed, gaps) for kind in kinds}
    # A column without gaps that varies, and whole numbers as a target: no decimal mark to tell.
    columns |= {"x": [str(i % 7) for i in range(n)], "y": [str(i * i % 23) for i in range(n)]}
    header = record([f"{name}, {i}" for i, name in enumerate(columns)], STYLES[style])
    lines = [record(cells, STYLES[style]) for cells in zip(*columns.values(), strict=True)]
    path = folder / "table.csv"
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    if missing == "drop":
        complete = sum(None not in row for row in zip(*columns.values(), strict=True))
        missing = missing if complete >= max(10, (n + 1) // 2) else "fill"
    prepared = _prepared(path, f"y, {len(columns) - 1}", missing=missing)
    if missing == "fill":
        _check_single_rows(folder, header, lines, prepared.encoding)
    # What is read from the file for storage is the same too.
    assert Encoding.from_dict(prepared.encoding.to_dict()) == prepared.encoding
    assert np.isfinite(prepared.features).all()


@pytest.mark.parametrize("style", sorted(STYLES))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_in_each_style_is_what_it_is(tmp_path: Path, kind: str, style: str) -> None:
    cells = draw_cells(kind, 60, 0, 0.1)
    rows = zip(cells, range(60), strict=True)
    lines = [record([cell, str(i * i % 23)], STYLES[style]) for cell, i in rows]
    (tmp_path / "table.csv").write_text(
        "\n".join([record(["c", "y"], STYLES[style]), *lines, ""]), encoding="utf-8"
    )
    (column,) = _prepared(tmp_path / "table.csv").encoding.columns
    expected = {
        "category": (
            *("truth and unknown", "leading zeros", "colours", "years or text", "missing words"),
            *("many levels", "lines"),
        ),
        "boolean": ("truth", "yes"),
        "date": ("ISO dates", "times", "German dates", "American dates", "dates in words"),
    }
    kinds = [name for name, members in expected.items() if kind in members]
    assert column.kind == (kinds[0] if kinds else "number")
    assert column.has_gaps


TYPED = {
    "nullable": pd.array([1, None, 3, 4] * 5, dtype="Int64"),
    "floats": np.array([1.5, np.nan, 2.5, 3.5] * 5),
    "boolean": pd.array([True, None, False, True] * 5, dtype="boolean"),
    "bool": np.array([True, False] * 10),
    "category": pd.Categorical(["u", None, "v", "w"] * 5),
    "numbered category": pd.Categorical([1, 2, 3, 1] * 5),
    "string": pd.array(["NA", "None", None, "x"] * 5, dtype="string"),
    "object": pd.Series(["NA", "None", None, "x"] * 5, dtype=object),
    "date": pd.to_datetime(["2020-01-31", None, "2021-05-06", "2022-07-08"] * 5),
    "zoned date": pd.to_datetime(["2020-01-31", "2021-05-06"] * 10).tz_localize("Europe/Berlin"),
    "duration": pd.to_timedelta(["1D", "2D", None, "4h"] * 5),
    "y": np.arange(20.0) ** 1.5 % 7,
}


@pytest.mark.parametrize("gaps", [True, False])
def test_every_row_of_a_parquet_file(tmp_path: Path, gaps: bool) -> None:
    frame = pd.DataFrame(TYPED)
    if not gaps:
        frame = frame.dropna().reset_index(drop=True)
        frame = pd.concat([frame] * 4, ignore_index=True).assign(y=range(4 * len(frame)))
        frame["floats"] += np.arange(len(frame))
    frame.to_parquet(tmp_path / "table.parquet")
    read = read_file(tmp_path / "table.parquet").frame
    prepared = prepare(read, "y")
    kinds = {column.name: column.kind for column in prepared.encoding.columns}
    if gaps:
        assert kinds == {
            "nullable": "number",
            "floats": "number",
            "boolean": "boolean",
            "bool": "boolean",
            "category": "category",
            "numbered category": "category",
            "string": "category",
            "object": "category",
            "date": "date",
            "zoned date": "date",
            "duration": "number",
        }
        levels = {c.name: c.levels for c in prepared.encoding.columns if c.kind == "category"}
        assert set(levels["string"]) == {"NA", "None", "x"}
    for i in range(len(frame)):
        frame.iloc[[i]].to_parquet(tmp_path / "row.parquet")
        row = read_file(tmp_path / "row.parquet").frame
        found = prepared.encoding.encode(row, strict=True)
        np.testing.assert_array_equal(found.features, prepared.features[i : i + 1])


def test_a_model_of_a_parquet_file_reads_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(TYPED).drop(columns=["duration", "zoned date"])
    frame.to_parquet(tmp_path / "table.parquet")
    prepared = prepare(read_file(tmp_path / "table.parquet").frame, "y")
    frame.to_csv(tmp_path / "table.csv", index=False, quoting=2)  # text between quotation marks
    features = prepared.encoding.features(read_file(tmp_path / "table.csv").frame)
    np.testing.assert_array_equal(features, prepared.features)
