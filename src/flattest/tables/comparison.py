"""Three regressions fitted and judged on the same rows: flattest, ridge, and boosted trees.

Either on rows kept for the test, or on all rows by repeated cross-validation, for which none of
them has seen the rows that it is judged on either.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flattest.progress import progress_bar
from flattest.regression.regressor import MultiIndexRegressor
from flattest.tables.scores import Score, interval_of_difference

FOLDS, REPEATS = 5, 2
"""Of a cross-validation."""
INTERVAL_LEVEL = 0.9
"""The probability of the intervals whose coverage is counted."""
OWN, RIDGE, TREES = "flattest", "ridge regression", "boosted trees"
"""The names of the learners."""
_RIDGE_STRENGTHS = np.logspace(-3, 4, 15)

Interval = tuple[Float[np.ndarray, "*r n"], Float[np.ndarray, "*r n"]]


class Trial(NamedTuple):
    """A learner fitted to rows.

    Parameters
    ----------
    estimator : object
        The fitted estimator.
    seconds : float
        What the fit took.
    notes : tuple of str
        What it warned of.
    """

    estimator: Any
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """How good a learner is.

    Parameters
    ----------
    scores : dict of str to Score
        ``"train"``, and ``"test"``: of rows that the learner had not seen.
    seconds : float
        What a fit took.
    """

    scores: dict[str, Score]
    seconds: float


class Comparison(NamedTuple):
    """The learners beside each other.

    Parameters
    ----------
    regressor : MultiIndexRegressor
        The one to keep.
    judged : dict of str to Judged
        All of them, by name.
    train, test : ndarray of int
        The rows fitted to, and those judged on.
    fitted : ndarray of shape (train,)
        Predictions of the rows fitted to.
    predicted : ndarray of shape (test,)
        Predictions of the rows judged on, by regressions that had not seen them; of repetitions
        the first.
    interval : tuple of ndarray of shape (test,), or None
        The ends of 90 % intervals for these, where there are any.
    coverage : float or None
        The share of the rows judged on that lie in them, over all repetitions.
    over_ridge : tuple of float, or None
        A 95 % interval of how much greater R squared is than that of ridge regression.
    notes : tuple of str
        What the fits warned of.
    """

    regressor: MultiIndexRegressor
    judged: dict[str, Judged]
    train: np.ndarray
    test: np.ndarray
    fitted: Float[np.ndarray, " train"]
    predicted: Float[np.ndarray, " test"]
    interval: Interval | None
    coverage: float | None
    over_ridge: tuple[float, float] | None
    notes: tuple[str, ...]


def learners(width: int, random_state: int, verbose: bool) -> dict[str, Callable[[], Any]]:
    """Return what makes each learner, by name.

    Parameters
    ----------
    width : int
        Neurons of the network at the start.
    random_state : int
        The seed.
    verbose : bool
        Whether to show the progress.

    Returns
    -------
    dict of str to callable
        Ridge chooses its strength by cross-validation; the trees have scikit-learn's defaults.

    Examples
    --------
    >>> from flattest.tables.comparison import learners
    >>> list(learners(100, 0, False))
    ['flattest', 'ridge regression', 'boosted trees']
    """
    return {
        OWN: lambda: MultiIndexRegressor(
            width=width, random_state=random_state, n_jobs=-1, verbose=verbose
        ),
        RIDGE: lambda: make_pipeline(StandardScaler(), RidgeCV(_RIDGE_STRENGTHS)),
        TREES: lambda: HistGradientBoostingRegressor(random_state=random_state),
    }


def hold_out(
    makers: dict[str, Callable[[], Any]],
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    train: np.ndarray,
    test: np.ndarray,
    random_state: int,
) -> Comparison:
    """Fit to some rows and judge on others.

    Parameters
    ----------
    makers : dict of str to callable
        The learners.
    X, y : ndarray of shape (n, d) and (n,)
        The data.
    train, test : ndarray of int
        The rows.
    random_state : int
        Seeds the intervals of scores.

    Returns
    -------
    Comparison
        The regressor is the one fitted to the training rows.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.tables.comparison import RIDGE, hold_out, learners
    >>> X = np.random.default_rng(0).standard_normal((60, 2))
    >>> rows = np.arange(60)
    >>> found = hold_out(learners(10, 0, False), X, X[:, 0], rows[:40], rows[40:], 0)
    >>> round(found.judged[RIDGE].scores["test"].r2, 4), found.coverage > 0.5
    (1.0, True)
    """
    trials = {name: _fit(make, X[train], y[train]) for name, make in makers.items()}
    own = trials[OWN].estimator
    predicted = {name: trial.estimator.predict(X[test]) for name, trial in trials.items()}
    judged = {
        name: _judged(trial, X[train], y[train], y[test], predicted[name], random_state)
        for name, trial in trials.items()
    }
    interval = _interval(own, X[test])
    return Comparison(
        regressor=own,
        judged=judged,
        train=train,
        test=test,
        fitted=own.predict(X[train]),
        predicted=predicted[OWN],
        interval=interval,
        coverage=_coverage(y[test], interval),
        over_ridge=_over_ridge(y[test], predicted, random_state),
        notes=trials[OWN].notes,
    )


def cross_validate(
    makers: dict[str, Callable[[], Any]],
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    random_state: int,
    *,
    verbose: bool = False,
) -> Comparison:
    """Fit to all rows, and judge by 5-fold cross-validation, done twice.

    Parameters
    ----------
    makers : dict of str to callable
        The learners.
    X, y : ndarray of shape (n, d) and (n,)
        The data.
    random_state : int
        Seeds the folds and the intervals of scores.
    verbose : bool
        Whether to show the progress.

    Returns
    -------
    Comparison
        The regressor is the one fitted to all rows; the seconds are those of a fit in a fold.
    """
    n, rows = len(y), np.arange(len(y))
    predicted = {name: np.full((REPEATS, n), np.nan) for name in makers}
    ends = np.full((2, REPEATS, n), np.nan)
    seconds: dict[str, list[float]] = {name: [] for name in makers}
    said: dict[str, None] = {}
    text = "{task.completed:.0f}/{task.total:.0f} folds"
    with progress_bar("cross-validation", text, shown=verbose, total=FOLDS * REPEATS) as bar:
        for repeat in range(REPEATS):
            folds = KFold(FOLDS, shuffle=True, random_state=random_state + repeat)
            for train, held_out in folds.split(X):
                for name, make in makers.items():
                    trial = _fit(make, X[train], y[train])
                    predicted[name][repeat, held_out] = trial.estimator.predict(X[held_out])
                    seconds[name].append(trial.seconds)
                    if name == OWN:
                        said |= dict.fromkeys(trial.notes)
                        found = _interval(trial.estimator, X[held_out])
                        if found is not None:
                            ends[:, repeat, held_out] = found
                bar.advance()
    trials = {name: _fit(make, X, y) for name, make in makers.items()}
    judged = {}
    for name, trial in trials.items():
        entry = _judged(trial, X, y, y, predicted[name], random_state)
        judged[name] = Judged(entry.scores, float(np.mean(seconds[name])))
    whole = not np.isnan(ends).any()
    own = trials[OWN]
    others = [note for note in said if note not in own.notes]
    return Comparison(
        regressor=own.estimator,
        judged=judged,
        train=rows,
        test=rows,
        fitted=own.estimator.predict(X),
        predicted=predicted[OWN][0],
        interval=(ends[0, 0], ends[1, 0]) if whole else None,
        coverage=_coverage(y, (ends[0], ends[1])) if whole else None,
        over_ridge=_over_ridge(y, predicted, random_state),
        notes=(*own.notes, *(f"In a fold of the cross-validation: {note}" for note in others)),
    )


def _fit(make: Callable[[], Any], X: Float[np.ndarray, "n d"], y: Float[np.ndarray, " n"]) -> Trial:
    """Fit a learner, and take the time."""
    estimator = make()
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        estimator.fit(X, y)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    return Trial(estimator, time.perf_counter() - started, tuple(dict.fromkeys(notes)))


def _judged(
    trial: Trial,
    X: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, " n"],
    true: Float[np.ndarray, " m"],
    predicted: Float[np.ndarray, "*r m"],
    random_state: int,
) -> Judged:
    """Score a learner on its own rows, and on those that it had not seen."""
    # Every learner is judged on the same bootstrap samples.
    test = Score.of(true, predicted, np.random.default_rng(random_state))
    return Judged({"train": Score.of(y, trial.estimator.predict(X)), "test": test}, trial.seconds)


def _interval(regressor: Any, X: Float[np.ndarray, "n d"]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return 90 % intervals, where what predicts has any."""
    if regressor.link_ == "network":
        return None
    return regressor.predict_interval(X, INTERVAL_LEVEL)


def _coverage(true: Float[np.ndarray, " n"], interval: Interval | None) -> float | None:
    if interval is None:
        return None
    low, high = interval
    return float(((low <= true) & (true <= high)).mean())


def _over_ridge(
    true: Float[np.ndarray, " n"], predicted: Mapping[str, np.ndarray], random_state: int
) -> tuple[float, float] | None:
    if RIDGE not in predicted:
        return None
    rng = np.random.default_rng(random_state)
    return interval_of_difference(true, predicted[OWN], predicted[RIDGE], rng)
