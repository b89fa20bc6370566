"""Figures: drawn without pyplot, written the same every time, for small and odd input too."""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure

from flattest import figures


def _networks(names: list[str], error: float = 1e-3) -> pd.DataFrame:
    rows = [
        {
            "network": name,
            "copy": copy,
            "test_error": error * 10**index,
            "trace": 100.0 * (1 + shift) / (1 + index),
            "orbit_minimum": 10.0 * (1 + index),
            "lower_bound": 8.0,
        }
        for index, name in enumerate(names)
        for shift, copy in enumerate(("as found", "rescaled 1", "rescaled 2"))
    ]
    return pd.DataFrame(rows)


def _path() -> pd.DataFrame:
    rows = [(k, s, s + 1 / k, 0.1, k / s) for k in (1, 2, 4) for s in (0.01, 0.1, 1.0)]
    names = ["n_directions", "strength", "held_out_error", "held_out_standard_error", "flatness"]
    return pd.DataFrame(rows, columns=names)


def _all_figures() -> dict[str, Figure]:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(30)
    return {
        "loss": figures.loss_against_flatness(_networks(list("abc"))),
        "directions": figures.directions_composition(
            rng.standard_normal((2, 20)) / 5, np.array([0.8, 0.2]), [f"x{i}" for i in range(20)]
        ),
        "predictions": figures.predicted_against_true({"training": (y, y), "test": (y, -y)}, "y"),
        "path": figures.regularisation_path(_path(), 0.1, 2),
    }


def test_every_figure_is_written_as_png_and_svg_the_same_each_time(tmp_path: Path) -> None:
    for name, figure in _all_figures().items():
        first = figures.save_figure(figure, tmp_path / name)
        contents = [path.read_bytes() for path in first]
        assert contents[0].startswith(b"\x89PNG")
        assert b"<svg" in contents[1]
        again = figures.save_figure(_all_figures()[name], tmp_path / name)
        assert [path.read_bytes() for path in again] == contents


def test_pyplot_is_not_imported_and_settings_stay() -> None:
    before = dict(rcParams)
    figures.regularisation_path(_path(), 0.1, 2)
    assert dict(rcParams) == before
    for path in Path(figures.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("pyplot" in ast.unparse(node) for node in imports)


def test_every_axis_is_labelled_and_every_network_named() -> None:
    for name, figure in _all_figures().items():
        assert figure.axes, name
        for axes in figure.axes:
            assert axes.get_title(loc="left"), name
    loss = _all_figures()["loss"]
    assert [text.get_text() for text in loss.legends[0].get_texts()] == ["a", "b", "c"]
    assert loss.axes[0].get_title(loc="left") == "Trace: rank correlation -0.70"
    assert loss.axes[1].get_title(loc="left") == "Orbit minimum: rank correlation 1.00"


def test_errors_at_rounding_level_are_drawn_at_the_foot() -> None:
    figure = figures.loss_against_flatness(_networks(["a", "b"], error=1e-30))
    low, high = figure.axes[0].get_ylim()
    assert 1e-18 < low < 1e-16 < high
    assert "leq" in figure.axes[0].get_yticklabels()[0].get_text()


@pytest.mark.parametrize(("k", "d"), [(1, 1), (6, 3), (2, 40)])
def test_any_number_of_directions_and_features(k: int, d: int, tmp_path: Path) -> None:
    figure = figures.directions_composition(
        np.ones((k, d)), np.full(k, 1 / k), ["a name that is rather long for an axis"] * d
    )
    assert len(figure.axes) == min(k, 4)
    assert len(figure.axes[0].get_yticklabels()) == min(d, 12)
    figures.save_figure(figure, tmp_path / "figure")


def test_constant_values_do_not_break_the_axes(tmp_path: Path) -> None:
    y = np.ones(5)
    figure = figures.predicted_against_true({"test": (y, y)}, "y")
    assert "undefined" in figure.axes[0].get_title(loc="left")
    figures.save_figure(figure, tmp_path / "figure")
    single = figures.loss_against_flatness(_networks(["only"]))
    assert single.axes[0].get_title(loc="left") == "Trace"
