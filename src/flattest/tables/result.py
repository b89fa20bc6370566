"""What a fitted table gives: a model, a report in numbers, figures and a page."""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from flattest._version import __version__
from flattest.figures import (
    feature_importances,
    predicted_against_true,
    residuals,
    save_figure,
)
from flattest.figures.displays import DirectionsDisplay, LinkDisplay, PathDisplay
from flattest.figures.partial_dependence import n_shown
from flattest.files import write_report
from flattest.regression.formula import Formula
from flattest.tables.comparison import FOLDS, INTERVAL_LEVEL, OWN, REPEATS, RIDGE, TREES, Judged
from flattest.tables.description import Description
from flattest.tables.model_file import MODEL_FILE
from flattest.tables.page import page
from flattest.tables.saved_model import SavedModel
from flattest.tables.scores import Score
from flattest.two_layer.flatness import TwoLayerFlatness


@dataclass(frozen=True, eq=False)
class TableFit:
    """A regression fitted to a table, what it is, and how good.

    Parameters
    ----------
    model : SavedModel
        The model.
    description : Description
        What it is, in words.
    judged : dict of str to Judged
        How good it is, beside ridge regression and boosted trees.
    cross_validated : bool
        Whether that was judged by cross-validation on all rows, and not on rows kept for the test.
    coverage : float or None
        The share of rows not seen that lie in their 90 % intervals; None where a network predicts.
    over_ridge : tuple of float, or None
        A 95 % interval of how much greater R squared is than that of ridge regression.
    values : dict of str to (true, predicted)
        Target and predictions, ``"training"`` and ``"test"``.
    interval : tuple of ndarray, or None
        The ends of the test rows' 90 % intervals.
    feature_importances : ndarray of shape (d,)
        The shares of the features.
    log_share : float
        How much processes of the target's logarithm count.
    candidates : DataFrame
        `MultiIndexRegressor.candidates_`.
    flatness : TwoLayerFlatness
        The flatness of the network on the training rows.
    path : DataFrame
        `MultiIndexRegressor.path_`.
    strength : float
        The strength of the penalty that was chosen.
    links : LinkDisplay or None
        Predictions along each direction, with the training rows; None without directions.
    formula : Formula or None
        The predictions as a formula, where it was asked for and there is one.
    n_dropped : int
        Rows left out, without a target or for missing values.
    unused : tuple of str
        Columns left out.
    lines : tuple of str
        What was done with columns, a sentence for each.
    warnings : tuple of str
        What the user should look at before believing the fit.
    notes : tuple of str
        What the regression warned of, and why there is no formula.
    random_state : int
        The seed.
    """

    model: SavedModel
    description: Description
    judged: dict[str, Judged]
    cross_validated: bool
    coverage: float | None
    over_ridge: tuple[float, float] | None
    values: dict[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]
    interval: tuple[Float[np.ndarray, " test"], Float[np.ndarray, " test"]] | None
    feature_importances: Float[np.ndarray, " d"]
    log_share: float
    candidates: pd.DataFrame
    flatness: TwoLayerFlatness
    path: pd.DataFrame
    strength: float
    links: LinkDisplay | None
    formula: Formula | None
    n_dropped: int
    unused: tuple[str, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    random_state: int

    @property
    def scores(self) -> dict[str, Score]:
        """The regression's own scores, ``"train"`` and ``"test"``."""
        return self.judged[OWN].scores

    @property
    def n_rows(self) -> dict[str, int]:
        """The number of rows of each part."""
        return {part: len(true) for part, (true, _) in self.values.items()}

    @property
    def judged_on(self) -> str:
        """Say which rows the scores are about."""
        n = self.n_rows["test"]
        if self.cross_validated:
            return f"all {n:,} rows, by {FOLDS}-fold cross-validation, {REPEATS} times"
        return f"{n:,} test rows"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features."""
        return self.model.encoding.feature_names

    @property
    def target(self) -> str:
        """The name of the target."""
        return self.model.encoding.target

    @property
    def n_shown(self) -> int:
        """The number of directions worth to be shown."""
        return n_shown(self.model.importances)

    @property
    def n_hidden(self) -> int:
        """The number of the others."""
        return len(self.model.importances) - self.n_shown

    def to_dict(self) -> dict[str, Any]:
        """Return the report, in types that JSON can hold."""
        names = self.feature_names
        directions = [
            {
                "importance": float(importance),
                "weight_per_standard_deviation": dict(zip(names, loading.tolist(), strict=True)),
                "weight_per_unit": dict(zip(names, direction.tolist(), strict=True)),
            }
            for importance, loading, direction in zip(
                self.model.importances, self.model.loadings, self.model.directions, strict=True
            )
        ]
        flatness = self.flatness.to_dict()
        del flatness["per_neuron"]
        scores = {
            f"{key}scores": {
                part: score.to_dict() for part, score in self.judged[name].scores.items()
            }
            for key, name in (("", OWN), ("ridge_", RIDGE), ("boosted_trees_", TREES))
        }
        words = self.description
        return {
            "kind": "fit",
            "summary": words.sentence,
            "target": self.target,
            "features": list(names),
            "unused_columns": list(self.unused),
            "columns": list(self.lines),
            "warnings": list(self.warnings),
            "rows": {**self.n_rows, "dropped": self.n_dropped},
            "judged_on": self.judged_on,
            **scores,
            "r2_over_ridge_interval": None if self.over_ridge is None else list(self.over_ridge),
            "intervals": {"level": INTERVAL_LEVEL, "coverage": self.coverage},
            "seconds": {name: judged.seconds for name, judged in self.judged.items()},
            "kernel": words.kernel or None,
            "noise": list(words.noises),
            "log_share": self.log_share,
            "all_features_matter": words.all_matter,
            "n_directions": len(directions),
            "directions": directions,
            "feature_importances": dict(zip(names, self.feature_importances.tolist(), strict=True)),
            "candidates": _records(self.candidates),
            "formula_error": None if self.formula is None else self.formula.error,
            "flatness": flatness,
            "strength": self.strength,
            "path": self.path.to_dict("records"),
            "notes": list(self.notes),
            "random_state": self.random_state,
            "versions": {
                "flattest": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    def figures(self) -> dict[str, Figure]:
        """Draw all figures.

        Returns
        -------
        dict of str to Figure
            By the names of their files.
        """
        found = {}
        model, k = self.model, self.n_shown
        if self.links is not None:
            composition = DirectionsDisplay(
                model.loadings[:k], model.importances[:k], self.feature_names
            )
            found["links"] = self.links.figure_
            found["directions"] = composition.plot().figure_
            found["importances"] = feature_importances(self.feature_importances, self.feature_names)
        parts = dict(self.values)
        if self.cross_validated:
            parts["cross-validation"] = parts.pop("test")
        found["predictions"] = predicted_against_true(parts, self.target)
        which = "rows, cross-validated" if self.cross_validated else "test rows"
        found["residuals"] = residuals(*self.values["test"], self.interval, self.target, which)
        path = PathDisplay(
            self.path,
            self.strength,
            len(model.directions),
            directions_given=model.predictor.link is not None,
        )
        found["path"] = path.plot().figure_
        return found

    def write(self, folder: Path) -> None:
        """Write the model, the figures (PNG, SVG), a page (HTML), tables and the report (JSON).

        Parameters
        ----------
        folder : Path
            An empty folder.
        """
        self.model.save(folder / MODEL_FILE)
        drawn = {}
        for name, figure in self.figures().items():
            _, vector = save_figure(figure, folder / name)
            drawn[name] = vector.read_text(encoding="utf-8")
        (folder / "report.html").write_text(page(self, drawn), encoding="utf-8")
        self.path.to_csv(folder / "path.csv", index=False)
        if self.formula is not None:
            (folder / "formula.py").write_text(self.formula.python(), encoding="utf-8")
            (folder / "formula.txt").write_text(self.formula.text(), encoding="utf-8")
        write_report(folder, self.to_dict())


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for numbers that JSON does not know."""
    return [
        {
            str(name): None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in row.items()
        }
        for row in table.to_dict("records")
    ]
