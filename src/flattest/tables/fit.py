"""Fitting a table: split, regression, comparison with ridge and boosted trees."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from flattest.figures.displays import LinkDisplay
from flattest.regression.formula import Formula
from flattest.regression.regressor import MultiIndexRegressor
from flattest.tables.comparison import cross_validate, hold_out, learners
from flattest.tables.description import describe
from flattest.tables.encoding import check_varies
from flattest.tables.preparing import FEWEST_ROWS, Prepared, prepare
from flattest.tables.result import TableFit
from flattest.tables.saved_model import SavedModel
from flattest.tables.texts import Table

_TOLERANCE = 1e-2  # of a formula; how close it is, it says itself


def fit_table(
    table: Table,
    target: str,
    *,
    test_size: float = 0.2,
    width: int = 100,
    random_state: int = 0,
    cv: bool = False,
    formula: bool = False,
    verbose: bool = False,
    **preparation: Any,
) -> TableFit:
    """Fit a multi-index regression to a part of a table, and test it on the rest.

    Parameters
    ----------
    table : TextTable or DataFrame
        The table.
    target : str
        The column to predict.
    test_size, width, random_state, cv, formula, verbose : object
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
    >>> X = np.random.default_rng(0).standard_normal((40, 2))
    >>> frame = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": np.abs(X[:, 0] + X[:, 1])})
    >>> fit = fit_table(frame, "y", width=10)
    >>> fit.n_rows, fit.scores["test"].r2 > 0.8
    ({'training': 32, 'test': 8}, True)
    """
    return fit_prepared(
        prepare(table, target, **preparation),
        test_size=test_size,
        width=width,
        random_state=random_state,
        cv=cv,
        formula=formula,
        verbose=verbose,
    )


def fit_prepared(
    prepared: Prepared,
    *,
    test_size: float = 0.2,
    width: int = 100,
    random_state: int = 0,
    cv: bool = False,
    formula: bool = False,
    verbose: bool = False,
) -> TableFit:
    """Fit a multi-index regression to a part of the rows, and test it and its peers on the rest.

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
    cv : bool
        Whether to fit to all rows, and judge by cross-validation instead.
    formula : bool
        Whether to write the predictions as a formula, if they depend on one or two directions.
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
    if cv:
        makers = learners(width, random_state, False)
        found = cross_validate(makers, X, y, random_state, verbose=verbose)
    else:
        n_test = min(max(round(test_size * len(y)), 2), len(y) - FEWEST_ROWS // 2)
        rows = train_test_split(np.arange(len(y)), test_size=n_test, random_state=random_state)
        train, test = (np.sort(part) for part in rows)
        check_varies(y[train], encoding.target)
        makers = learners(width, random_state, verbose)
        found = hold_out(makers, X, y, train, test, random_state)
    regressor, names, target = found.regressor, encoding.feature_names, encoding.target
    written, why_none = _formula(regressor, names, target) if formula else (None, ())
    return TableFit(
        model=SavedModel.of(regressor, encoding),
        description=describe(regressor, target),
        judged=found.judged,
        cross_validated=cv,
        coverage=found.coverage,
        over_ridge=found.over_ridge,
        values={
            "training": (y[found.train], found.fitted),
            "test": (y[found.test], found.predicted),
        },
        interval=found.interval,
        feature_importances=regressor.feature_importances_,
        log_share=regressor.log_share_,
        candidates=regressor.candidates_,
        flatness=regressor.flatness_,
        path=regressor.path_,
        strength=float(regressor.strength_),
        links=LinkDisplay.from_estimator(
            regressor, X[found.train], y[found.train], target_name=target, feature_names=names
        )
        if regressor.n_directions_
        else None,
        formula=written,
        n_dropped=prepared.n_dropped,
        unused=prepared.unused,
        lines=prepared.lines,
        warnings=prepared.warnings,
        notes=(*found.notes, *why_none),
        random_state=random_state,
    )


def _formula(
    regressor: MultiIndexRegressor, names: tuple[str, ...], target: str
) -> tuple[Formula | None, tuple[str, ...]]:
    """Write a formula, or say why there is none."""
    try:
        formula = regressor.export_formula(
            feature_names=names, target_name=target, tolerance=_TOLERANCE
        )
    except ValueError as error:
        return None, (f"No formula: {error}",)
    return formula, ()
