r"""A formula for functions of one or two directions: the directions, and a table for a spline.

Predictions at knots that are evenly spaced over the training range are tabulated, twice as many
each time until a cubic spline through them (of two directions, a tensor product of such splines)
is as close as is wanted to predictions in between. That they depend on these directions alone is
checked, not assumed: the table is compared with predictions of rows whose other coordinates differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline, RectBivariateSpline

from flattest.regression.prediction.predictor import Predictor

_FIRST = 9  # knots along a direction
_MOST = {1: 513, 2: 65}
_NEGLECTED = 1e-4  # importance of all directions that a formula leaves out; what it does is checked
_SHARE = 0.3  # of the tolerance, for the spline
_ROWS, _CHECKED = 200, 1000  # rows for their other coordinates; points checked
_DIGITS = 1e-6  # of the range, to which values are written


class Formula(NamedTuple):
    """A function of one or two directions as numbers; `python` and `text` write it out.

    Parameters
    ----------
    directions : ndarray of shape (k, d)
        The directions.
    ranges : ndarray of shape (k, 2)
        Where the table begins and ends along each; beyond, the function stays as it is there.
    values : ndarray of shape (m,) or (m, m)
        The predictions at ``m`` evenly spaced knots along each direction.
    error : float
        The largest difference from predictions that was found, relative to their range.
    feature_names : tuple of str
        The names of the features.
    target_name : str
        The name of the target.

    Examples
    --------
    >>> import numpy as np
    >>> from flattest.regression.formula import Formula
    >>> u, ends = np.array([[2.0, 0.0]]), np.array([[0.0, 3.0]])
    >>> formula = Formula(u, ends, np.arange(4.0) ** 2, 0.0, ("width", "age"), "area")
    >>> formula(np.array([[1.0, 7.0], [9.0, 7.0]])).round(6)
    array([4., 9.])
    """

    directions: Float[np.ndarray, "k d"]
    ranges: Float[np.ndarray, "k 2"]
    values: Float[np.ndarray, " m"] | Float[np.ndarray, "m m"]
    error: float
    feature_names: tuple[str, ...]
    target_name: str

    @property
    def knots(self) -> list[Float[np.ndarray, " m"]]:
        """The knots along each direction."""
        return [np.linspace(low, high, self.values.shape[0]) for low, high in self.ranges]

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Evaluate the formula.

        Parameters
        ----------
        X : ndarray of shape (n, d)
            Rows of features.

        Returns
        -------
        ndarray of shape (n,)
            Nearly the predictions.
        """
        z = np.clip(X @ self.directions.T, *self.ranges.T)
        if len(self.directions) == 1:
            return CubicSpline(*self.knots, self.values)(z[:, 0])
        return RectBivariateSpline(*self.knots, self.values).ev(z[:, 0], z[:, 1])

    def python(self) -> str:
        """Write a program with a function ``predict(X)`` that needs NumPy and SciPy only.

        Returns
        -------
        str
            The program.
        """
        k, m = len(self.directions), self.values.shape[0]
        spline = "CubicSpline" if k == 1 else "RectBivariateSpline"
        name = " ".join(self.target_name.split())
        call = "(z[:, 0])" if k == 1 else ".ev(z[:, 0], z[:, 1])"
        lines = [
            f"# {name} as a function of {k} direction{'s' * (k > 1)} of {self.directions.shape[1]}",
            f"# features, within {self.error:.1g} of the range of the predictions of flattest.",
            "# Beyond the ranges it stays as it is at their ends.",
            "import numpy as np",
            f"from scipy.interpolate import {spline}",
            "",
            "FEATURES = [",
            *(f"    {feature!r}," for feature in self.feature_names),
            "]",
            "DIRECTIONS = np.array([",
            *(f"    {row.tolist()}," for row in self.directions),
            "])",
            f"RANGES = np.array({self.ranges.tolist()})",
            f"KNOTS = [np.linspace(low, high, {m}) for low, high in RANGES]",
            f"VALUES = np.array({self._written()})",
            "",
            "",
            "def predict(X):",
            '    """Predict from rows of the features, in the order of FEATURES."""',
            "    z = np.clip(np.asarray(X, dtype=float) @ DIRECTIONS.T, *RANGES.T)",
            f"    return {spline}(*KNOTS, VALUES){call}",
            "",
        ]
        return "\n".join(lines)

    def text(self) -> str:
        """Write the directions as sums, and the table.

        Returns
        -------
        str
            The text.
        """
        k, name = len(self.directions), " ".join(self.target_name.split())
        variables = ["z"] if k == 1 else ["z1", "z2"]
        lines = []
        for variable, direction in zip(variables, self.directions, strict=True):
            terms = [
                f"{weight:+.10g} * {' '.join(feature.split())}"
                for weight, feature in zip(direction.tolist(), self.feature_names, strict=True)
                if weight
            ]
            lines += [f"{variable} = {terms[0]}", *(f"    {term}" for term in terms[1:]), ""]
        joined = " and ".join(variables)
        lines += [
            f"{name} is a cubic spline in {joined} through the points below, within "
            f"{self.error:.1g} of the range of predictions; beyond the table it stays as it is.",
            "",
        ]
        rows = np.asarray(self._written())
        if k == 1:
            lines.append(f"{'z':>16}  {name}")
            knots = self.knots[0].tolist()
            lines += [f"{z:16.10g}  {v:.10g}" for z, v in zip(knots, rows, strict=True)]
        else:
            first, second = self.knots
            lines.append(f"{'z1, down; z2':>16}" + "".join(f"{z:16.10g}" for z in second))
            for z, row in zip(first, rows, strict=True):
                lines.append(f"{z:16.10g}" + "".join(f"{v:16.10g}" for v in row))
        return "\n".join([*lines, ""])

    def _written(self) -> list[Any]:
        """Return the values with as many digits as matter."""
        size = float(np.ptp(self.values)) or abs(float(self.values.flat[0])) or 1.0
        decimals = int(np.ceil(-np.log10(_DIGITS * size)))
        return np.round(self.values, decimals).tolist()

    def __str__(self) -> str:
        """Return the text."""
        return self.text()


def formula_of(
    predictor: Predictor,
    directions: Float[np.ndarray, "k d"],
    importances: Float[np.ndarray, " k"],
    ranges: Float[np.ndarray, "k 2"],
    feature_names: Sequence[str],
    target_name: str,
    tolerance: float,
) -> Formula:
    """Tabulate a predictor along its directions.

    Parameters
    ----------
    predictor : Predictor
        What predicts.
    directions, importances, ranges : ndarray of shape (k, d), (k,) and (k, 2)
        Its directions, their shares, and the training range along them.
    feature_names : sequence of str
        The names of the features.
    target_name : str
        The name of the target.
    tolerance : float
        The largest difference that is allowed, relative to the range of the predictions.

    Returns
    -------
    Formula
        The formula.

    Raises
    ------
    ValueError
        If more than two directions matter, or the tolerance is not met.
    """
    rest = importances.sum() - np.cumsum(importances)
    k = next((count for count in (1, 2) if count <= len(rest) and rest[count - 1] <= _NEGLECTED), 0)
    if not k:
        raise ValueError(
            f"A formula is for one or two directions, but predictions depend on {len(rest)}; fit "
            "with n_directions=2, or 1, for a function that has one."
            if len(rest)
            else "The fitted function is constant: there is no direction to write a formula of."
        )
    along = _Along(predictor, directions[:k], _other_coordinates(predictor))
    bounds = ranges[:k]
    values = _tabulate(along, bounds, _SHARE * tolerance)
    rough = Formula(directions[:k], bounds, values, 0.0, tuple(feature_names), target_name)
    X = along.scattered(bounds)
    predicted = predictor(X)
    size = float(np.ptp(predicted[: len(along.rows)])) or 1.0
    error = float(np.abs(rough(X) - predicted).max()) / size
    if error > tolerance:
        raise ValueError(
            f"A formula of {k} direction{'s' * (k > 1)} is off by {error:.2g} of the range of the "
            f"predictions, more than {tolerance:g}: they depend a little on other directions, or "
            "are too rough for a table; allow a larger tolerance."
        )
    return rough._replace(error=error)


class _Along(NamedTuple):
    """Predictions as a function of projections, with the other coordinates of a row."""

    predictor: Predictor
    directions: Float[np.ndarray, "k d"]
    rows: Float[np.ndarray, "n d"]

    def __call__(self, z: Float[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
        """Return predictions at projections, with the other coordinates of the first row."""
        return self.predictor(self.moved(np.repeat(self.rows[:1], len(z), axis=0), z))

    def moved(
        self, X: Float[np.ndarray, "m d"], z: Float[np.ndarray, "m k"]
    ) -> Float[np.ndarray, "m d"]:
        """Move rows, along these directions only, to other projections."""
        scale = self.predictor.standardise.scale
        back = scale[:, None] * np.linalg.pinv(self.directions * scale)
        return X + (z - X @ self.directions.T) @ back.T

    def scattered(self, ranges: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "m d"]:
        """Return the rows, and rows between two of them in projection that are else like a third.

        Within the ranges, beyond which the table stays as it is.
        """
        rng = np.random.default_rng(0)
        one, two, three = rng.integers(len(self.rows), size=(3, _CHECKED))
        along = self.rows @ self.directions.T
        z = along[one] + rng.random((_CHECKED, 1)) * (along[two] - along[one])
        rows = np.concatenate([self.rows, self.rows[three]])
        return self.moved(rows, np.clip(np.concatenate([along, z]), *ranges.T))


def _other_coordinates(predictor: Predictor) -> Float[np.ndarray, "n d"]:
    """Return rows for their coordinates along which the function is not to vary.

    Training rows where they are remembered, the most usual one first; otherwise random ones.
    """
    standardise, link = predictor.standardise, predictor.link
    kept = None if link is None else link.parts[0].average.rows
    if link is not None and kept is not None:
        step = -(-len(kept.X) // _ROWS)
        inputs = kept.X[::step] @ link.basis.T
    else:
        basis = np.eye(len(standardise.mean)) if link is None else link.basis
        drawn = np.random.default_rng(0).standard_normal((_ROWS, basis.shape[1]))
        inputs = drawn @ basis.T
    inputs = inputs[np.argsort(np.square(inputs).sum(axis=1), kind="stable")]
    return inputs * standardise.scale + standardise.mean


def _tabulate(along: _Along, ranges: Float[np.ndarray, "k 2"], tolerance: float) -> np.ndarray:
    """Return values at as many knots as a spline needs, or at the most that are allowed."""
    k, m = len(ranges), _FIRST
    values = _grid(along, ranges, m)
    while 2 * m - 1 <= _MOST[k]:
        finer = _grid(along, ranges, 2 * m - 1)
        here = Formula(np.eye(k), ranges, values, 0.0, (), "")
        places = [np.linspace(low, high, 2 * m - 1) for low, high in ranges]
        points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, k)
        error = np.abs(here(points) - finer.ravel()).max()
        if error <= tolerance * np.ptp(finer):
            break
        m, values = 2 * m - 1, finer
    return values


def _grid(along: _Along, ranges: np.ndarray, m: int) -> np.ndarray:
    places = [np.linspace(low, high, m) for low, high in ranges]
    points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1)
    return along(points.reshape(-1, len(ranges))).reshape(points.shape[:-1])
