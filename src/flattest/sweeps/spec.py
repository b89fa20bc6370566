"""Sweep specifications: a TOML file that says which trials to run."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flattest.sweeps.trial import Trial
from flattest.sweeps.trial_function import SweepError, TrialFunction, trial_function

_KEYS = {"trial", "claim", "seeds", "time_limit", "code_version", "settings", "grid"}
_MOST = 2**32  # seeds below this suit every generator


@dataclass(frozen=True)
class Spec:
    """Which trials a sweep consists of.

    Parameters
    ----------
    function : TrialFunction
        The trial function.
    cells : tuple of dict
        Complete settings, each once.
    seeds : sequence of int
        Each cell is run with each of them.
    time_limit : float or None
        Seconds that a trial may take.
    """

    function: TrialFunction
    cells: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...] | range
    time_limit: float | None = None

    def __len__(self) -> int:
        """Count the trials."""
        return len(self.cells) * len(self.seeds)

    def trials(self) -> Iterator[Trial]:
        """Yield the trials: all cells with the first seed, then with the next."""
        for seed in self.seeds:
            for cell in self.cells:
                yield Trial(self.function, cell, seed)


def read_spec(path: Path, claims: Mapping[str, str]) -> Spec:
    r"""Read a specification and check all of it.

    Parameters
    ----------
    path : Path
        A TOML file with ``trial = "module:function"`` (or ``claim = "name"``), `seeds` (a number,
        a list, or ``{start, stop}``), optionally `time_limit` and `code_version`, a table
        ``[settings]`` of fixed settings, and a table ``[grid]``, or several ``[[grid]]``, of lists
        of which all combinations are run.
    claims : mapping of str to str
        From names of claims to their trial functions.

    Returns
    -------
    Spec
        What to run.

    Raises
    ------
    SweepError
        If the file cannot be read or something in it is wrong.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.sweeps.spec import read_spec
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "spec.toml"
    ...     _ = path.write_text('claim = "symmetry"\nseeds = 5\n[grid]\nfactor = [1, 10, 100]')
    ...     len(read_spec(path, {"symmetry": "flattest.study.claims.symmetry:trial"}))
    15
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return _spec(content, path.parent, claims)
    except OSError as error:
        raise SweepError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{str(path)!r} is no TOML file: {error}.") from error
    except SweepError as error:
        raise SweepError(f"{str(path)!r}: {error}") from error


def _spec(content: dict[str, Any], folder: Path, claims: Mapping[str, str]) -> Spec:
    for key in content:
        if key not in _KEYS:
            raise SweepError(f"there is no key {key!r}; known are {', '.join(sorted(_KEYS))}.")
    code = content.get("code_version")
    if code is not None and not (isinstance(code, str) and code):
        raise SweepError(f"code_version must be a text, not {code!r}.")
    function = trial_function(_reference(content, folder, claims), code=code)
    fixed = content.get("settings", {})
    grids = content.get("grid", [{}])
    grids = grids if isinstance(grids, list) else [grids]
    if not isinstance(fixed, dict) or not all(isinstance(grid, dict) for grid in grids):
        raise SweepError("settings and grid must be tables, written [settings] and [grid].")
    cells: dict[str, dict[str, Any]] = {}
    for grid in grids:
        for cell in _combinations(grid, fixed):
            complete = function.complete(cell)
            cells.setdefault(Trial(function, complete, 0).settings_json, complete)
    return Spec(function, tuple(cells.values()), _seeds(content), _time_limit(content))


def _reference(content: dict[str, Any], folder: Path, claims: Mapping[str, str]) -> str:
    if ("trial" in content) == ("claim" in content):
        raise SweepError("give either trial = 'module:function' or claim = 'name'.")
    if "claim" in content:
        name = content["claim"]
        if name not in claims:
            raise SweepError(f"there is no claim {name!r}; choose one of {', '.join(claims)}.")
        return claims[name]
    reference = content["trial"]
    if not isinstance(reference, str):
        raise SweepError(f"trial must be a text such as 'module:function', not {reference!r}.")
    place, _, _ = reference.rpartition(":")
    # A file is named relative to the specification.
    return str(folder / reference) if place.endswith(".py") else reference


def _combinations(grid: dict[str, Any], fixed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SweepError(f"grid.{name} must be a list of values, not {values!r}.")
        if name in fixed:
            raise SweepError(f"{name!r} stands in [settings] and in [grid]; leave one out.")
    for values in itertools.product(*grid.values()):
        yield {**fixed, **dict(zip(grid, values, strict=True))}


def _seeds(content: dict[str, Any]) -> tuple[int, ...] | range:
    seeds = content.get("seeds", 1)
    if isinstance(seeds, dict) and set(seeds) <= {"start", "stop"} and "stop" in seeds:
        bounds = seeds.get("start", 0), seeds["stop"]
        if all(type(bound) is int for bound in bounds) and 0 <= bounds[0] < bounds[1] <= _MOST:
            return range(*bounds)
    elif type(seeds) is int and 0 < seeds <= _MOST:
        return range(seeds)
    elif (
        isinstance(seeds, list) and seeds and all(type(s) is int and 0 <= s < _MOST for s in seeds)
    ):
        return tuple(dict.fromkeys(seeds))
    raise SweepError(
        "seeds must be a positive number, a list of numbers from 0, or {start = 0, stop = 10}, all "
        f"below 2**32, "
        f"not {seeds!r}."
    )


def _time_limit(content: dict[str, Any]) -> float | None:
    limit = content.get("time_limit")
    if limit is None:
        return None
    if type(limit) not in (int, float) or not 0 < limit < 1e9:
        raise SweepError(f"time_limit must be a positive number of seconds, not {limit!r}.")
    return float(limit)
