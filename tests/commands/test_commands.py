"""The command line: what it writes, what it prints, and one sentence for every bad input."""

import functools
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from sklearn.linear_model import Ridge
from typer.testing import CliRunner, Result

import flattest as ft
from flattest.commands import demonstration
from flattest.commands.app import app
from flattest.files import OutputError, check_output_folder, output_folder, write_report
from flattest.tables.comparison import OWN, RIDGE, TREES
from flattest.tables.reading import read_table
from flattest.tables.saved_model import SavedModel, SavedModelError
from flattest.tables.saved_network import saved_net

FIGURES = ("links", "directions", "importances", "predictions", "residuals", "path")
FIT_FILES = {
    *("model.safetensors", "report.json", "report.html", "path.csv"),
    *(f"{name}.{end}" for name in FIGURES for end in ("png", "svg")),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def sentence(result: Result) -> str:
    """Check that a command failed with one sentence and nothing else, and return it."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    text = " ".join(result.stderr.split())
    assert text.startswith("Error: ")
    assert "Traceback" not in text
    assert text.endswith((".", "?"))
    return text


def make_table(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2))
    colour = rng.choice(["red", "green", "blue"], n)
    # Noise, without which the likelihood rises without end and a fit takes longer.
    y = np.abs(X[:, 0] - X[:, 1]) + (colour == "red") + 0.1 * rng.standard_normal(n)
    return pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "colour": colour, "y": y})


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a fit's figures empty: to draw them takes longer than a small fit."""

    def save(figure: Figure, stem: Path) -> list[Path]:
        paths = [Path(f"{stem}.{end}") for end in ("png", "svg")]
        for path in paths:
            path.write_text('<svg width="1pt" height="1pt"></svg>', encoding="utf-8")
        return paths

    monkeypatch.setattr("flattest.tables.result.save_figure", save)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a table and a fit."""
    folder = tmp_path_factory.mktemp("place")
    make_table().to_csv(folder / "table.csv", index=False)
    result = run(
        *("fit", folder / "table.csv", "--target", "y", "--out", folder / "fit", "--width", 10)
    )
    assert result.exit_code == 0, result.output
    (folder / "printed.txt").write_text(result.stdout, encoding="utf-8")
    return folder


def test_version_and_help() -> None:
    assert run("--version").stdout.strip() == f"flattest {ft.__version__}"
    text = run("--help").stdout
    assert all(command in text for command in ("demo", "fit", "predict", "measure"))


def test_fit_writes_everything_and_prints_the_summary(place: Path) -> None:
    assert {path.name for path in (place / "fit").iterdir()} == FIT_FILES
    report = json.loads((place / "fit" / "report.json").read_text(encoding="utf-8"))
    assert set(report["files"]) == FIT_FILES
    assert report["rows"] == {"training": 48, "test": 12, "dropped": 0}
    assert sorted(report["features"]) == ["a", "b", "colour=blue", "colour=green", "colour=red"]
    assert report["n_directions"] == len(report["directions"]) >= 1
    assert report["scores"]["test"]["r2"] > report["ridge_scores"]["test"]["r2"]
    assert report["flatness"]["ratio"] >= 1
    printed = (place / "printed.txt").read_text(encoding="utf-8")
    for text in ("R²", "RMSE", "ridge regression", "direction", "colour=red", "ratio"):
        assert text in printed
    assert printed.index("ridge regression") < printed.index("Noise:")  # results first
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("undrawn")
def test_fit_is_reproducible(place: Path) -> None:
    out = place / "again"
    run("fit", place / "table.csv", "--target", "y", "--out", out, "--width", 10)
    first, second = (SavedModel.load(folder) for folder in (place / "fit", out))
    frame = read_table(place / "table.csv")
    np.testing.assert_allclose(first.predict(frame), second.predict(frame), rtol=1e-9)


def test_predict_to_the_terminal_and_to_a_file(place: Path) -> None:
    frame = read_table(place / "table.csv").drop(columns="y")
    frame.to_parquet(place / "new.parquet")
    printed = run("predict", place / "fit", place / "new.parquet")
    assert printed.exit_code == 0, printed.output
    results = pd.read_csv(io.StringIO(printed.stdout))
    assert list(results) == ["prediction", "extrapolation"]
    expected = SavedModel.load(place / "fit").predict(frame)
    np.testing.assert_allclose(results["prediction"], expected)
    assert not results["extrapolation"].any()
    out = place / "predictions.csv"
    model = place / "fit" / "model.safetensors"
    assert run("predict", model, place / "new.parquet", "--out", out).exit_code == 0
    assert out.read_text(encoding="utf-8") == printed.stdout
    assert "pass --force" in sentence(run("predict", model, place / "new.parquet", "--out", out))


def test_predict_leaves_incomplete_rows_empty_on_request(place: Path) -> None:
    frame = make_table(5)
    frame.loc[2, "a"] = None
    frame.to_csv(place / "gaps.csv", index=False)
    message = sentence(run("predict", place / "fit", place / "gaps.csv", "--missing", "refuse"))
    assert "Column 'a' (1) has missing values" in message
    assert "(--strict)" in sentence(run("predict", place / "fit", place / "gaps.csv", "--strict"))
    for option in (("--drop-missing",), ("--missing", "drop")):
        result = run("predict", place / "fit", place / "gaps.csv", *option)
        values = pd.read_csv(io.StringIO(result.stdout), skip_blank_lines=False)["prediction"]
        assert list(values.notna()) == [True, True, False, True, True]
    filled = run("predict", place / "fit", place / "gaps.csv")
    assert "Column 'a' has 1 missing value, filled in" in filled.stderr
    assert pd.read_csv(io.StringIO(filled.stdout)).notna().all(axis=None)


def test_measure_prints_and_writes_the_flatness(place: Path) -> None:
    out = place / "flatness.json"
    result = run(*("measure", place / "fit", place / "table.csv", "--target", "y", "--json", out))
    assert result.exit_code == 0, result.output
    measured = json.loads(out.read_text(encoding="utf-8"))
    assert measured["n_samples"] == 60
    assert measured["lower_bound"] <= measured["orbit_minimum"]
    assert "orbit minimum" in result.stdout
    table, model = read_table(place / "table.csv"), SavedModel.load(place / "fit")
    y = model.encoding.target_values(table)
    # The flatness is that of the network, and so is its loss.
    standardise, net = model.predictor.standardise, saved_net(model)
    inputs = torch.from_numpy(standardise(model.encoding.features(table)))
    with torch.no_grad():
        outputs = net(ft.append_bias_coordinate(inputs)).numpy()
    error = outputs + standardise.intercept - y
    assert measured["loss"] == pytest.approx(float(np.square(error).mean()))
    assert sentence(run("measure", place / "fit", place / "table.csv", "--json", out))


@pytest.mark.usefixtures("undrawn")
def test_missing_values_are_dropped_on_request(tmp_path: Path) -> None:
    frame = make_table(40)
    frame.loc[[1, 5], "b"] = None
    frame.to_csv(tmp_path / "t.csv", index=False)
    arguments = ("fit", tmp_path / "t.csv", "--target", "y", "--out", tmp_path / "o", "--width", 5)
    assert "--missing drop" in sentence(run(*arguments, "--missing", "refuse"))
    assert not (tmp_path / "o").exists()
    result = run(*arguments, "--drop-missing", "--ignore", "colour")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "o" / "report.json").read_text(encoding="utf-8"))
    assert report["rows"] == {"training": 30, "test": 8, "dropped": 2}
    assert report["unused_columns"] == ["colour"]
    assert "2 rows with missing values left out." in result.stderr
    assert "2 rows without all values left out." in result.stdout
    assert run(*arguments, "--drop-missing", "--missing", "fill").exit_code == 2


@pytest.mark.usefixtures("undrawn")
def test_cross_validation_and_formulas_on_request(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {"link": "network", "strengths": [0.01], "cv": 2, "n_directions": 1, "random_state": 0}
    makers = {OWN: lambda: ft.MultiIndexRegressor(width=5, **quick), RIDGE: Ridge, TREES: Ridge}
    monkeypatch.setattr("flattest.tables.fit.learners", lambda *_: makers)
    make_table(40).drop(columns="colour").to_csv(place / "plain.csv", index=False)
    options = ("--out", place / "judged", "--width", 5, "--cv", "--formula")
    result = run("fit", place / "plain.csv", "--target", "y", *options)
    assert result.exit_code == 0, result.output
    assert "all 40 rows, by" in result.stdout
    report = json.loads((place / "judged" / "report.json").read_text(encoding="utf-8"))
    assert report["rows"] == {"training": 40, "test": 40, "dropped": 0}
    said = " ".join(result.stdout.split())
    assert ("formula.py" in said) == ("formula.py" in report["files"]) != ("No formula:" in said)
    assert report["summary"].startswith("A network of")
    assert report["intervals"]["coverage"] is None


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (make_table(1), ("--target", "y"), "The table has 1 row, but a fit needs at least 10"),
        (make_table(9), ("--target", "y"), "The table has 9 rows"),
        (make_table().assign(y=3.0), ("--target", "y"), "The target 'y' is 3 in all 60 rows"),
        (make_table(), ("--target", "Y"), "did you mean 'y'?"),
        (make_table(), ("--target", "colour"), "'colour' holds text"),
        (make_table(), ("--target", "y", "--ignore", "color"), "did you mean 'colour'?"),
        (make_table()[["y"]], ("--target", "y"), "nothing to learn from"),
        (make_table().assign(b=[*range(59), np.inf]), ("--target", "y"), "Column 'b' is inf"),
        (make_table().assign(y=None), ("--target", "y"), "The target 'y' has no values"),
        (make_table(), ("--target", "y", "--decimal", ";"), "--decimal must be . or ,"),
        (
            make_table().assign(a=[1.0, *[None] * 59]),
            ("--target", "y", "--drop-missing"),
            "would leave 1 of 60, too few",
        ),
    ],
)
def test_fit_refuses_what_cannot_be_fitted(
    tmp_path: Path, frame: pd.DataFrame, options: tuple[str, ...], message: str
) -> None:
    frame.to_csv(tmp_path / "t.csv", index=False)
    result = run("fit", tmp_path / "t.csv", "--out", tmp_path / "out", *options)
    assert message in sentence(result)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    "options",
    [
        ("--test-size", "1.5"),
        ("--test-size", "0"),
        ("--width", "0"),
        ("--width", "-3"),
        ("--width", "many"),
        ("--random-state", "-1"),
        ("--no-such-option",),
    ],
)
def test_options_out_of_range(place: Path, options: tuple[str, ...]) -> None:
    out = place / "never"
    result = run("fit", place / "table.csv", "--target", "y", "--out", out, *options)
    assert result.exit_code == 2
    assert options[0] in result.stderr
    assert not out.exists()


def test_commands_need_their_files(place: Path) -> None:
    table, model = place / "table.csv", place / "fit"
    assert "There is no file" in sentence(run("fit", place / "no.csv", "--target", "y"))
    assert "There is no file" in sentence(run("predict", model, place / "no.csv"))
    assert "There is no model" in sentence(run("predict", place / "no.safetensors", table))
    assert "holds no model.safetensors" in sentence(run("measure", place, table))
    assert "not a model written by" in sentence(run("predict", table, table))
    wrong = run("measure", model, table, "--target", "z")
    assert "The table has no column 'z'" in sentence(wrong)
    assert "holds text" in sentence(run("measure", model, table, "--target", "colour"))


def test_damaged_model_files_are_refused(place: Path, tmp_path: Path) -> None:
    content = (place / "fit" / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for size in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert "is not a model written by" in sentence(run("predict", path, place / "table.csv"))
    path.write_bytes(content.replace(b'"levels', b'"lovels'))
    with pytest.raises(SavedModelError, match="it has no entry 'levels'"):
        SavedModel.load(path)
    network = ft.TwoLayerNet([[1.0]], [1.0], "relu")
    network.save(path)
    with pytest.raises(SavedModelError, match=r"its format is 'flattest\.TwoLayerNet"):
        SavedModel.load(path)
    save_file({"weights": network.weights.detach()}, path)
    with pytest.raises(SavedModelError, match="its format is None"):
        SavedModel.load(path)


def test_a_model_is_the_same_after_loading(place: Path, tmp_path: Path) -> None:
    model, table = SavedModel.load(place / "fit"), read_table(place / "table.csv")
    model.save(tmp_path / "copy.safetensors")
    again = SavedModel.load(tmp_path / "copy.safetensors")
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    np.testing.assert_array_equal(again.directions, model.directions)
    assert again.encoding == model.encoding
    assert again.fitted_with == ft.__version__
    np.testing.assert_allclose(np.linalg.norm(model.loadings, axis=1), 1.0)


@pytest.mark.usefixtures("undrawn")
def test_earlier_results_are_kept_without_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_table(20).to_csv(tmp_path / "t.csv", index=False)
    arguments = ("fit", tmp_path / "t.csv", "--target", "y", "--width", 5, "--out", out)
    assert run(*arguments).exit_code == 0
    before = (out / "report.json").read_bytes()
    assert "pass --force" in sentence(run(*arguments))
    assert (out / "report.json").read_bytes() == before
    assert run(*arguments, "--force", "--random-state", 1).exit_code == 0
    assert (out / "report.json").read_bytes() != before
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    assert "files that flattest did not write" in sentence(run(*arguments, "--force"))
    assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"


def test_an_output_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"

    def fail() -> None:
        with output_folder(target, force=False) as folder:
            (folder / "half.txt").write_text("half", encoding="utf-8")
            raise RuntimeError("unexpected")

    with pytest.raises(RuntimeError, match="unexpected"):
        fail()
    assert list(target.parent.iterdir()) == []
    with output_folder(target, force=False) as folder:
        write_report(folder, {})
    assert [path.name for path in target.iterdir()] == ["report.json"]
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="is not a folder"):
        check_output_folder(tmp_path / "file", force=True)
    with pytest.raises(OutputError, match="is not writable"):
        check_output_folder(tmp_path / "file" / "below", force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="is not writable"):
        check_output_folder(tmp_path / "out", force=False)


@pytest.fixture
def small_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    small = functools.partial(
        demonstration.compare_interpolators, n_samples=40, n_features=3, width=8
    )
    monkeypatch.setattr(demonstration, "compare_interpolators", small)
    monkeypatch.setattr(demonstration, "INIT_SCALES", (0.1,))
    monkeypatch.setattr(demonstration, "real_tables", lambda: {"small": (make_table(40), "y")})


@pytest.mark.usefixtures("small_demo", "undrawn")
def test_demo_writes_both_parts_and_replaces_its_own_results(tmp_path: Path) -> None:
    with output_folder(tmp_path / "demo", force=False) as folder:
        (folder / "of-an-earlier-demo.txt").touch()
        write_report(folder, {})
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert names == {
        *("small", "small.csv", "networks.csv", "report.json"),
        *("loss-against-flatness.png", "loss-against-flatness.svg"),
    }
    assert {path.name for path in (tmp_path / "demo" / "small").iterdir()} == FIT_FILES
    assert "Rank correlation" in result.stdout
    assert "ridge regression" in result.stdout


def test_an_interrupted_demo_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(random_state: int) -> Iterator[list[demonstration.Record]]:
        yield next(demonstration.__dict__["_whole"](n_samples=40, n_features=3, width=8))
        raise KeyboardInterrupt

    whole = demonstration.compare_interpolators
    monkeypatch.setattr(demonstration, "_whole", whole, raising=False)
    monkeypatch.setattr(demonstration, "compare_interpolators", interrupted)
    result = run("demo", "--out", tmp_path / "demo")
    assert result.exit_code == 130
    report = json.loads((tmp_path / "demo" / "report.json").read_text(encoding="utf-8"))
    assert report["complete"] is False
    assert report["networks"][0]["network"] == "flattest"
    assert "Interrupted" in result.stderr


def test_an_interrupted_fit_writes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flattest.tables import fit as table_fit

    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(table_fit, "fit_prepared", interrupt)
    out = place / "interrupted"
    result = run("fit", place / "table.csv", "--target", "y", "--out", out)
    assert result.exit_code == 130
    assert not out.exists()


def test_unexpected_errors_are_not_swallowed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flattest.tables import fit as table_fit

    def break_down(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(table_fit, "fit_prepared", break_down)
    result = run("fit", place / "table.csv", "--target", "y", "--out", place / "broken")
    assert isinstance(result.exception, ZeroDivisionError)
