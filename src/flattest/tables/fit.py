"""Fitting a table: split, regression, comparison with ridge, report and figures."""

from __future__ import annotations

import platform
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flattest._version import __version__
from flattest.figures import (
    predicted_against_true,
    save_figure,
)
from flattest.figures.displays import DirectionsDisplay, LinkDisplay, PathDisplay
from flattest.files import write_report
from flattest.regression.regressor import MultiIndexRegressor
from flattest.tables.encoding import check_varies
from flattest.tables.model_file import MODEL_FILE
from flattest.tables.preparing import FEWEST_ROWS, Prepared, prepare
from flattest.tables.saved_model import SavedModel
from flattest.two_layer.flatness import TwoLayerFlatness

_RIDGE_STRENGTHS = np.logspace(-3, 4, 15)


@dataclass(frozen=True)
class Score:
    """How well predictions fit true values.

    Parameters
    ----------
    r2 : float
        ``1 - sum (y - f)**2 / sum (y - mean(y))**2``; NaN for a constant ``y``.
    rmse : float
        Root mean squared error, in the units of the target.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.fit import Score
    >>> Score.of(np.array([0.0, 2.0]), np.array([0.0, 1.0])).r2
    0.5
    """

    r2: float
    rmse: float

    @classmethod
    def of(cls, true: Float[np.ndarray, " n"], predicted: Float[np.ndarray, " n"]) -> Score:
        """Compare two arrays.

        Parameters
        ----------
        true, predicted : ndarray of shape (n,)
            The values.

        Returns
        -------
        Score
            The score.
        """
        squares = float(np.square(true - predicted).sum())
        total = float(np.square(true - true.mean()).sum())
        return cls(1 - squares / total if total else float("nan"), (squares / len(true)) ** 0.5)

    def to_dict(self) -> dict[str, float | None]:
        """Return the numbers, None for NaN."""
        return {"r2": self.r2 if np.isfinite(self.r2) else None, "rmse": self.rmse}


@dataclass(frozen=True, eq=False)
class TableFit:
    """A regression fitted to a table, and how good it is.

    Parameters
    ----------
    model : SavedModel
        The model.
    scores : dict of str to Score
        ``"train"`` and ``"test"``.
    ridge : dict of str to Score
        The same for ridge regression, its strength chosen by cross-validation.
    flatness : TwoLayerFlatness
        The flatness on the training rows.
    path : DataFrame
        `MultiIndexRegressor.path_`.
    strength : float
        The strength of the penalty that was chosen.
    links : LinkDisplay or None
        The fitted link along each direction, with the training rows; None without directions.
    values : dict of str to (true, predicted)
        Target and predictions, ``"training"`` and ``"test"``.
    n_dropped : int
        Rows left out, without a target or for missing values.
    unused : tuple of str
        Columns left out.
    lines : tuple of str
        What was done with columns, a sentence for each.
    warnings : tuple of str
        What the user should look at before believing the fit.
    notes : tuple of str
        What the regression warned of.
    seconds : float
        Time for the fit.
    random_state : int
        The seed.
    """

    model: SavedModel
    scores: dict[str, Score]
    ridge: dict[str, Score]
    flatness: TwoLayerFlatness
    path: pd.DataFrame
    strength: float
    links: LinkDisplay | None
    values: dict[str, tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]]
    n_dropped: int
    unused: tuple[str, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    random_state: int

    @property
    def n_rows(self) -> dict[str, int]:
        """The number of rows of each part."""
        return {part: len(true) for part, (true, _) in self.values.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the report, in types that JSON can hold."""
        names = self.model.encoding.feature_names
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
        return {
            "kind": "fit",
            "target": self.model.encoding.target,
            "features": list(names),
            "unused_columns": list(self.unused),
            "columns": list(self.lines),
            "warnings": list(self.warnings),
            "rows": {**self.n_rows, "dropped": self.n_dropped},
            "scores": {part: score.to_dict() for part, score in self.scores.items()},
            "ridge_scores": {part: score.to_dict() for part, score in self.ridge.items()},
            "n_directions": len(directions),
            "directions": directions,
            "flatness": flatness,
            "strength": self.strength,
            "path": self.path.to_dict("records"),
            "notes": list(self.notes),
            "seconds": self.seconds,
            "random_state": self.random_state,
            "versions": {
                "flattest": __version__,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    def write(self, folder: Path) -> None:
        """Write the model, the figures (PNG and SVG), the path (CSV) and the report (JSON).

        Parameters
        ----------
        folder : Path
            An empty folder.
        """
        self.model.save(folder / MODEL_FILE)
        names = self.model.encoding.feature_names
        if len(self.model.directions):
            composition = DirectionsDisplay(self.model.loadings, self.model.importances, names)
            save_figure(composition.plot().figure_, folder / "directions")
        if self.links is not None:
            save_figure(self.links.figure_, folder / "links")
        predictions = predicted_against_true(self.values, self.model.encoding.target)
        save_figure(predictions, folder / "predictions")
        path = PathDisplay(
            self.path,
            self.strength,
            len(self.model.directions),
            directions_given=self.model.predictor.link is not None,
        )
        save_figure(path.plot().figure_, folder / "path")
        self.path.to_csv(folder / "path.csv", index=False)
        write_report(folder, self.to_dict())


def fit_table(
    frame: pd.DataFrame,
    target: str,
    *,
    test_size: float = 0.2,
    width: int = 100,
    random_state: int = 0,
    verbose: bool = False,
    **preparation: Any,
) -> TableFit:
    """Fit a multi-index regression to a part of a table, and test it on the rest.

    Parameters
    ----------
    frame : DataFrame
        The table.
    target : str
        The column to predict.
    test_size, width, random_state, verbose : object
        As for :func:`fit_prepared`.
    **preparation : object
        As for :func:`flattest.tables.preparing.prepare`.

    Returns
    -------
    TableFit
        The model and its scores.

    Raises
    ------
    TableError
        If the table does not suit; nothing is computed then.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from flattest.tables.fit import fit_table
    >>> X = np.random.default_rng(0).standard_normal((80, 2))
    >>> frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": np.abs(X[:, 0] + X[:, 1])})
    >>> fit = fit_table(frame, "y", width=20)
    >>> fit.n_rows, fit.scores["test"].r2 > 0.8
    ({'training': 64, 'test': 16}, True)
    """
    return fit_prepared(
        prepare(frame, target, **preparation),
        test_size=test_size,
        width=width,
        random_state=random_state,
        verbose=verbose,
    )


def fit_prepared(
    prepared: Prepared,
    *,
    test_size: float = 0.2,
    width: int = 100,
    random_state: int = 0,
    verbose: bool = False,
) -> TableFit:
    """Fit a multi-index regression to a part of the rows, and test it on the rest.

    Parameters
    ----------
    prepared : Prepared
        The table as numbers.
    test_size : float
        The share of the rows that are kept for the test, between 0 and 1.
    width : int
        Neurons at the start.
    random_state : int
        Seed of the split and of the fit.
    verbose : bool
        Whether to show the progress.

    Returns
    -------
    TableFit
        The model and its scores.

    Raises
    ------
    TableError
        If the target is the same in all rows that are fitted.
    """
    encoding, X, y = prepared.encoding, prepared.features, prepared.target
    n_test = min(max(round(test_size * len(y)), 2), len(y) - FEWEST_ROWS // 2)
    rows = train_test_split(np.arange(len(y)), test_size=n_test, random_state=random_state)
    train, test = (np.sort(part) for part in rows)
    check_varies(y[train], encoding.target)

    started = time.perf_counter()
    regressor = MultiIndexRegressor(
        width=width, random_state=random_state, n_jobs=-1, verbose=verbose
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        regressor.fit(X[train], y[train])
    seconds = time.perf_counter() - started
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]

    baseline = make_pipeline(StandardScaler(), RidgeCV(_RIDGE_STRENGTHS)).fit(X[train], y[train])
    parts = {"train": train, "test": test}
    predicted = {part: regressor.predict(X[rows]) for part, rows in parts.items()}
    return TableFit(
        model=SavedModel.of(regressor, encoding),
        scores={part: Score.of(y[rows], predicted[part]) for part, rows in parts.items()},
        ridge={part: Score.of(y[rows], baseline.predict(X[rows])) for part, rows in parts.items()},
        flatness=regressor.flatness_,
        path=regressor.path_,
        strength=float(regressor.strength_),
        links=LinkDisplay.from_estimator(regressor, X[train], y[train])
        if regressor.n_directions_
        else None,
        values={
            "training": (y[train], predicted["train"]),
            "test": (y[test], predicted["test"]),
        },
        n_dropped=prepared.n_dropped,
        unused=prepared.unused,
        lines=prepared.lines,
        warnings=prepared.warnings,
        notes=tuple(dict.fromkeys(notes)),
        seconds=seconds,
        random_state=random_state,
    )
