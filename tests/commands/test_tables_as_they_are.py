"""The command line on tables as programs write them: fitted at the first try, and what it says."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tables_as_written import STYLES, draw_cells, record
from typer.testing import CliRunner, Result

from flattest.commands.app import app
from flattest.tables.model_file import load_encoding
from flattest.tables.saved_model import SavedModel, SavedModelError

N = 60
COLUMNS = ("decimal commas", "truth and unknown", "leading zeros", "German dates", "many levels")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def results(result: Result) -> pd.DataFrame:
    assert result.exit_code == 0, result.output
    return pd.read_csv(io.StringIO(result.stdout))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table that has everything, and a fit."""
    folder = tmp_path_factory.mktemp("as-they-are")
    style = STYLES["R, csv2"]
    columns = {name: draw_cells(name, N, 3, 0.1) for name in COLUMNS}
    x = np.random.default_rng(0).standard_normal(N)
    columns["x"] = [f"{value:.4f}".replace(".", ",") for value in x]
    columns["y"] = [f"{value:.4f}".replace(".", ",") for value in np.abs(x)]
    columns["y"][4] = None
    header = record(["", *columns], style)
    rows = zip(map(str, range(1, N + 1)), *columns.values(), strict=True)
    lines = [record(row, style) for row in rows]
    (folder / "table.csv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    arguments = ("--target", "y", "--out", folder / "fit", "--width", 5)
    result = run("fit", folder / "table.csv", *arguments)
    assert result.exit_code == 0, result.output
    (folder / "said.txt").write_text(result.stderr, encoding="utf-8")
    return folder


def test_a_plain_fit_says_what_it_does_with_the_columns(place: Path) -> None:
    said = (place / "said.txt").read_text(encoding="utf-8")
    for words in (
        "Column 'column 1' only counts or names the rows: left out.",
        "' is read as ",
        "has leading zeros",
        "holds dates",
        "missing values of 59 (NA) filled in with the median",
        "are one level 'other'",
        "1 row without a value of 'y' left out.",
    ):
        assert words in said


def test_every_row_alone_is_predicted_to_the_same_number(place: Path) -> None:
    header, *lines = (place / "table.csv").read_text(encoding="utf-8").splitlines()
    whole = results(run("predict", place / "fit", place / "table.csv", "--intervals"))
    assert list(whole) == ["prediction", "lower", "upper", "extrapolation"]
    model = SavedModel.load(place / "fit")
    for i in (0, 4, 17, 59):
        (place / "row.csv").write_text(f"{header}\n{lines[i]}\n", encoding="utf-8")
        row = results(run("predict", place / "fit", place / "row.csv", "--strict", "--intervals"))
        # The features are the same to the last bit. Products of matrices are rounded in an order
        # that depends on the number of rows, and distances between points, as square roots of
        # differences of these, magnify the rounding to its root.
        np.testing.assert_allclose(
            row.iloc[0, :3].astype(float), whole.iloc[i, :3].astype(float), rtol=1e-6
        )
    assert not whole["extrapolation"].drop(index=4).any()
    assert (whole["lower"] < whole["prediction"]).all()
    assert (whole["prediction"] < whole["upper"]).all()
    assert load_encoding(place / "fit") == model.encoding


def test_predictions_with_identifiers_intervals_and_inputs(place: Path) -> None:
    table = place / "table.csv"
    named = results(run("predict", place / "fit", table, "--id", "x", "--id", "leading zeros"))
    assert list(named) == ["x", "leading zeros", "prediction", "extrapolation"]
    narrow = results(run("predict", place / "fit", table, "--level", "0.5", "--input-columns"))
    assert list(narrow)[:2] == ["column 1", COLUMNS[0]]
    wide = results(run("predict", place / "fit", table, "--intervals"))
    widths = [each["upper"] - each["lower"] for each in (narrow, wide)]
    # The intervals of one law: their widths are as its quantiles.
    if (wide["lower"] > 0).all():
        np.testing.assert_allclose(widths[1] / widths[0], 1.6448536 / 0.6744898, rtol=1e-6)
    assert "no column 'id'" in run("predict", place / "fit", table, "--id", "id").stderr
    assert run("predict", place / "fit", table, "--level", "1.5").exit_code == 2


def test_new_values_are_told_of(place: Path) -> None:
    header, line, *_ = (place / "table.csv").read_text(encoding="utf-8").splitlines()
    cells = dict(zip((cell.strip('"') for cell in header.split(";")), line.split(";"), strict=True))
    new = cells | {"leading zeros": '"77"', "x": "1e3", "German dates": '"24.12.2030"'}
    (place / "new.csv").write_text(f"{header}\n{';'.join(new.values())}\n", encoding="utf-8")
    result = run("predict", place / "fit", place / "new.csv")
    assert results(result)["extrapolation"].all()
    assert "holds '77' in 1 row, which the training table did not have: unknown." in result.stderr
    assert "1 row of 1 outside the range of the training table" in result.stderr
    refused = run("predict", place / "fit", place / "new.csv", "--strict")
    assert refused.exit_code == 2
    assert "'77'" in refused.stderr
    assert refused.stdout == ""


def test_all_faults_of_a_new_table_come_in_one_message(place: Path) -> None:
    (place / "bad.csv").write_text("x,German dates\nbig,soon\n", encoding="utf-8")
    result = run("predict", place / "fit", place / "bad.csv")
    assert result.exit_code == 2
    assert "The table has 3 faults:" in result.stderr
    for words in ("no columns", "'big' in row 1", "'soon' in row 1"):
        assert words in result.stderr


def test_a_network_has_no_intervals(place: Path) -> None:
    model = SavedModel.load(place / "fit")
    features = np.zeros((1, len(model.encoding.feature_names)))
    network = model.predictor._replace(link=None)
    alone = SavedModel(network, model.encoding, model.directions, model.importances)
    with pytest.raises(SavedModelError, match="leave out --level"):
        alone.predict_interval(features, 0.9)


def test_the_encoding_of_a_file_is_remembered(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{x:.3f},€{10 + 2 * x:.2f}" for x in rng.standard_normal(30)]
    text = "\n".join(["größe,preis", *lines, ""])
    table, unicode = tmp_path / "windows.csv", tmp_path / "unicode.csv"
    table.write_bytes(text.encode("cp1252"))
    unicode.write_text(text, encoding="utf-8")
    fit = ("fit", table, "--target", "preis", "--out", tmp_path / "fit", "--width", 5)
    refused = run(*fit)
    assert refused.exit_code == 2
    assert "--encoding cp1252" in " ".join(refused.stderr.split())
    assert run(*fit, "--encoding", "cp1252").exit_code == 0
    first = results(run("predict", tmp_path / "fit", table))
    assert first["prediction"].corr(pd.Series([float(line.split("€")[1]) for line in lines])) > 0.9
    pd.testing.assert_frame_equal(results(run("predict", tmp_path / "fit", unicode)), first)
    named = run("predict", tmp_path / "fit", unicode, "--encoding", "cp1252")
    assert "no column 'größe'" in named.stderr  # what the option says counts
    measured = run("measure", tmp_path / "fit", table)
    assert measured.exit_code == 0, measured.output


def test_names_of_levels_do_not_matter_to_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = rng.choice(["ash", "birch", "cedar", "oak"], 50, p=[0.4, 0.3, 0.2, 0.1])
    x = rng.standard_normal(50)
    frame = pd.DataFrame({"tree": levels, "x": x, "y": np.abs(x) + (levels == "birch")})
    reversed_names = dict(zip(["ash", "birch", "cedar", "oak"], "zyxw", strict=True))
    predictions = []
    for name, table in (("a", frame), ("b", frame.replace({"tree": reversed_names}))):
        path, out = tmp_path / f"{name}.csv", tmp_path / name
        table.to_csv(path, index=False)
        fit = run("fit", path, "--target", "y", "--out", out, "--width", 5)
        assert fit.exit_code == 0, fit.output
        predictions.append(results(run("predict", out, path))["prediction"])
    # The features are the same to the last bit; only threads may round the fit differently.
    np.testing.assert_allclose(*predictions, rtol=0, atol=1e-8)
