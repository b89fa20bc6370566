"""Displays: what they draw, of which estimators, on which axes; and that all of it can be read."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import sklearn
from hypothesis import given, strategies as st
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flattest as ft
from flattest import figures
from flattest.figures.fitted import fitted_regressor
from flattest.figures.names import heaviest, shortened
from flattest.figures.partial_dependence import n_shown, partial_dependence

LONG = [f"The area of the {part} floor above the ground in $ft^2$ ($)" for part in "abcde"]
TARGET = "Sale price of the house at the first sale after construction ($, not $1,000)"
QUICK = {"link": "network", "width": 10, "strengths": [0.01], "cv": 2, "n_directions": 2}


def make_data() -> tuple[pd.DataFrame, pd.Series]:
    X = np.random.default_rng(0).standard_normal((80, 5)) * [1, 1, 1e5, 1, 1] + 3
    y = 1e6 * (np.abs(X[:, 0] - X[:, 1]) + X[:, 2] / 1e5)
    return pd.DataFrame(X, columns=LONG), pd.Series(y, name=TARGET)


@pytest.fixture(scope="module")
def fitted() -> ft.MultiIndexRegressor:
    return ft.MultiIndexRegressor(**QUICK, random_state=0).fit(*make_data())


def test_curves_are_averages_of_rows_moved_along_one_direction(
    fitted: ft.MultiIndexRegressor,
) -> None:
    X = make_data()[0].to_numpy()[:30]
    projections, curves = partial_dependence(fitted, X)
    np.testing.assert_allclose(projections, X @ fitted.directions_.T)
    assert len(curves) == 2
    for index, curve in enumerate(curves):
        assert curve.band is None
        assert curve.at[[0, -1]] == pytest.approx(
            [projections[:, index].min(), projections[:, index].max()]
        )
        for place in (0, 17, 60):
            moved = []
            for row in X:
                # The shortest step, in standard units, after which the projections are as wanted.
                scaled = fitted.directions_ / fitted.inverse_scale_
                wanted = np.zeros(2)
                wanted[index] = curve.at[place] - row @ fitted.directions_[index]
                step = np.linalg.lstsq(scaled, wanted, rcond=None)[0] / fitted.inverse_scale_
                moved.append(fitted.predictor_((row + step)[None])[0])
            assert curve.mean[place] == pytest.approx(np.mean(moved))


def test_intervals_along_a_direction_are_those_of_the_process() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((25, 1))
    y = X[:, 0] + 0.3 * rng.standard_normal(25)
    model = ft.MultiIndexRegressor(width=5, strengths=[0.1], cv=2, random_state=0).fit(X, y)
    _, (curve,) = partial_dependence(model, X)
    at = curve.at[:, None] / model.directions_
    np.testing.assert_allclose(curve.mean, model.predict(at))
    np.testing.assert_allclose(curve.band, model.predict_interval(at))


def test_output_as_tables_changes_nothing(fitted: ft.MultiIndexRegressor) -> None:
    X, y = make_data()
    with sklearn.config_context(transform_output="pandas"):
        display = ft.LinkDisplay.from_estimator(fitted, X, y)
        composed = ft.DirectionsDisplay.from_estimator(fitted)
        paths = ft.PathDisplay.from_estimator(fitted)
    np.testing.assert_allclose(display.residuals, y - fitted.predict(X))
    assert list(composed.feature_names) == LONG
    assert len(display.axes_) == len(composed.axes_) == len(paths.axes_) == 2
    assert display.target_name == TARGET


@pytest.mark.parametrize("named", [True, False])
def test_pipelines_and_searches(fitted: ft.MultiIndexRegressor, named: bool) -> None:
    X, y = make_data()
    inputs = X if named else X.to_numpy()
    pipeline = make_pipeline(StandardScaler(), ft.MultiIndexRegressor(**QUICK, random_state=0))
    search = SimpleNamespace(best_estimator_=pipeline.fit(inputs, y))
    found = fitted_regressor(search)
    assert found.names == (LONG if named else [f"x{i}" for i in range(5)])
    np.testing.assert_allclose(found.features(inputs), StandardScaler().fit_transform(X.to_numpy()))
    display = ft.LinkDisplay.from_estimator(search, inputs, y.to_numpy())
    np.testing.assert_allclose(display.residuals, y - pipeline.predict(inputs))
    assert display.target_name == "target"


def test_only_what_ends_in_the_regressor_is_drawn(fitted: ft.MultiIndexRegressor) -> None:
    X, y = make_data()
    for estimator in (Ridge().fit(X, y), make_pipeline(StandardScaler(), Ridge()).fit(X, y)):
        with pytest.raises(TypeError, match="estimator must be a MultiIndexRegressor"):
            ft.PathDisplay.from_estimator(estimator)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        ft.PathDisplay.from_estimator(ft.MultiIndexRegressor())


def test_axes_of_a_caller(fitted: ft.MultiIndexRegressor) -> None:
    X, y = make_data()
    figure = Figure()
    rows = figure.subplots(3, 2)
    display = ft.LinkDisplay.from_estimator(fitted, X, y, ax=rows[0])
    assert display.figure_ is figure
    assert list(display.axes_) == list(rows[0])
    assert rows[0][0].lines
    ft.DirectionsDisplay.from_estimator(fitted, ax=rows[1])
    assert rows[1][1].patches
    path = ft.PathDisplay.from_estimator(fitted, ax=rows[2][0])
    assert len(path.axes_) == 2
    assert not rows[2][0].axison
    assert not set(path.axes_) & set(rows.ravel())
    with pytest.raises(ValueError, match="ax has 3 axes, but 2 panels"):
        ft.PathDisplay.from_estimator(fitted, ax=list(rows[:, 0]))


def test_only_directions_that_matter_are_shown() -> None:
    assert n_shown(np.array([0.7, 0.29, 0.0099, 0.0001])) == 2
    assert n_shown(np.array([0.3, 0.2, 0.2, 0.2, 0.1])) == 4
    assert n_shown(np.full(300, 1 / 300)) == 1
    assert n_shown(np.empty(0)) == 0


def _all_drawn(fitted: ft.MultiIndexRegressor) -> dict[str, Figure]:
    X, y = make_data()
    true, predicted = y.to_numpy(), fitted.predict(X)
    around = predicted - 1e5, predicted + 1e5
    return {
        "links": ft.LinkDisplay.from_estimator(fitted, X, y).figure_,
        "directions": ft.DirectionsDisplay.from_estimator(fitted).figure_,
        "importances": figures.feature_importances(fitted.feature_importances_, LONG),
        "residuals": figures.residuals(true, predicted, around, TARGET, "test rows"),
        "predictions": figures.predicted_against_true({"test": (true, predicted)}, TARGET),
    }


def test_nothing_is_cut_off_or_overlaps_with_long_names(fitted: ft.MultiIndexRegressor) -> None:
    for name, figure in _all_drawn(fitted).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        width, height = canvas.get_width_height()
        renderer = canvas.get_renderer()
        for axes in figure.axes:
            ticks = [_visible_ticks(axis) for axis in (axes.xaxis, axes.yaxis)]
            texts = [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]
            for text in [*texts, *ticks[0], *ticks[1]]:
                if text.get_text():
                    box = text.get_window_extent(renderer)
                    assert min(box.x0, box.y0) >= -1, (name, text)
                    assert box.x1 <= width + 1, (name, text)
                    assert box.y1 <= height + 1, (name, text)
            for labels in ticks:
                boxes = [text.get_window_extent(renderer) for text in labels if text.get_text()]
                for one, two in itertools.pairwise(boxes):
                    assert not one.overlaps(two), (name, labels)


def _visible_ticks(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    inside = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in inside if text.get_visible()]


def test_residuals_tell_which_rows_lie_in_their_intervals() -> None:
    y = np.arange(4.0)
    figure = figures.residuals(
        y, y + 1, (y - 1, y + np.array([0.5, 0.5, 0.5, -0.1])), "price", "test rows"
    )
    inside, outside = (figure.axes[0].lines[i].get_xdata() for i in (1, 2))
    assert inside.tolist() == [1, 2, 3]
    assert outside.tolist() == [4]
    assert "75%" in figure.axes[0].get_title(loc="left")
    plain = figures.residuals(y, y + 1, None, "price", "test rows")
    assert not plain.legends


@given(st.lists(st.text("ab$ ", min_size=1, max_size=60), min_size=1, max_size=6))
def test_short_names_differ_where_names_do(names: list[str]) -> None:
    short = shortened(names, 10)
    plain = [" ".join(name.split()) for name in names]
    assert len(set(short)) == len(set(plain))
    for label, name in zip(short, plain, strict=True):
        assert label.count("$") == label.count(r"\$")
        assert len(name) > 10 or label.replace(r"\$", "$") == name


def test_what_a_direction_is_made_of() -> None:
    text = heaviest(np.array([0.7, -0.6, 0.3, 0.2, 0.01]), list("abcde"))
    assert text.splitlines() == ["+0.70 a", "−0.60 b", "and 2 more"]
