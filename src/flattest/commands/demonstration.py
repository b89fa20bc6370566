"""The demonstration: one training set, several networks that fit it, and how flat each is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from flattest.datasets import MultiIndexModel, make_multi_index
from flattest.interpolators import Interpolation, Status, interpolate
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet
from flattest.two_layer.symmetry import balance, rescale, sharpen
from flattest.validation import check_random_state

INIT_SCALES = (0.01, 0.1, 0.3, 1.0)
"""Gradient descent starts from parameters of these standard deviations, small to large."""
SHARPENINGS = (1e2, 1e4)
"""The flattest network is sharpened by these factors."""
TRACES = (1e4, 1e8)
"""Every network is rescaled to `N_RESCALED` traces drawn (their logarithms uniformly) from here."""
N_RESCALED = 6
_FRESH_SAMPLES = 20_000


@dataclass(frozen=True)
class Record:
    """One network that fits the training set, measured.

    Parameters
    ----------
    network : str
        How it was found; the same for all that compute one function.
    copy : str
        ``"as found"``, or how it was changed without changing the function.
    train_error : float
        Mean squared error on the training set.
    test_error : float
        Error on fresh samples, relative to the variance of the true function.
    trace, orbit_minimum, lower_bound, ratio : float
        Its flatness (see `TwoLayerFlatness`).
    seconds : float
        Time to find the function.
    status : str
        How the interpolator ended.

    Examples
    --------
    >>> from flattest.commands.demonstration import Record
    >>> Record("flattest", "as found", 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.1, "converged").found
    True
    """

    network: str
    copy: str
    train_error: float
    test_error: float
    trace: float
    orbit_minimum: float
    lower_bound: float
    ratio: float
    seconds: float
    status: str

    @property
    def found(self) -> bool:
        """Whether it is the network as found, and no copy."""
        return self.copy == "as found"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON or a data frame."""
        return asdict(self)


def interpolator_names() -> list[str]:
    """Name the networks that :func:`compare_interpolators` finds, in its order.

    Returns
    -------
    list of str
        The names.

    Examples
    --------
    >>> from flattest.commands.demonstration import interpolator_names
    >>> interpolator_names()[:2]
    ['flattest', 'gradient descent, start 0.01']
    """
    return ["flattest", *(f"gradient descent, start {scale:g}" for scale in INIT_SCALES)]


def compare_interpolators(
    *, n_samples: int = 400, n_features: int = 20, width: int = 200, random_state: int = 0
) -> Iterator[list[Record]]:
    """Fit one noiseless multi-index data set in several ways, and rescale each network.

    The target is a sum of three ReLUs of orthonormal directions; the inputs are Gaussian. The
    networks are the flattest interpolator and the ends of gradient descent from small and large
    starts. Each also comes in rescaled copies, which compute the same function.

    Parameters
    ----------
    n_samples, n_features, width : int
        ``n``, ``d`` and ``m``.
    random_state : int
        Seed of everything.

    Yields
    ------
    list of Record
        One network and its copies, as soon as it is found.

    Raises
    ------
    KeyboardInterrupt
        If the search for a network was interrupted.

    Examples
    --------
    >>> from flattest.commands.demonstration import compare_interpolators
    >>> records = next(compare_interpolators(n_samples=60, n_features=4, width=20))
    >>> records[0].network, records[0].test_error < 1e-20
    ('flattest', True)
    """
    X, y, model = make_multi_index(n_samples, n_features, ["relu"] * 3, random_state=random_state)
    rng = check_random_state(random_state)
    options: list[dict[str, Any]] = [{"method": "flattest"}]
    options += [{"method": "gradient_descent", "init_scale": scale} for scale in INIT_SCALES]
    for name, settings in zip(interpolator_names(), options, strict=True):
        with warnings.catch_warnings():
            # The record carries the status, and the table shows it.
            warnings.simplefilter("ignore", ConvergenceWarning)
            result = interpolate(X, y, width=width, random_state=random_state, **settings)
        if result.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        yield _records(name, result, X, y, model, rng)


def rank_correlations(records: Sequence[Record]) -> dict[str, float]:
    """Correlate the test error with two measures of flatness, by ranks (Spearman).

    Parameters
    ----------
    records : sequence of Record
        The networks.

    Returns
    -------
    dict of str to float
        For ``"trace"`` and ``"orbit_minimum"``: 1 where the measure puts the networks in the order
        of their test errors, 0 where it says nothing of it. NaN where all networks compute one
        function.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from flattest.commands.demonstration import Record, rank_correlations
    >>> flat = Record("a", "as found", 0.0, 0.1, 5.0, 1.0, 1.0, 1.0, 0.1, "converged")
    >>> sharp = replace(flat, network="b", test_error=0.2, trace=4.0, orbit_minimum=2.0)
    >>> rank_correlations([flat, sharp])
    {'trace': -1.0, 'orbit_minimum': 1.0}
    """
    table = pd.DataFrame([record.to_dict() for record in records])
    # Copies of one function differ by rounding, which must not order them.
    table["test_error"] = table.groupby("network")["test_error"].transform("median")
    measures = table[["test_error", "trace", "orbit_minimum"]]
    correlations = measures.apply(np.log).round(9).rank().corr()["test_error"]
    return {name: float(correlations[name]) for name in ("trace", "orbit_minimum")}


def real_tables() -> dict[str, tuple[pd.DataFrame, str]]:
    """Return two tables that come with scikit-learn, in their original units.

    The first is what the regressor is for: the area of cell nuclei follows from their radius and
    shape by geometry, a smooth function of a few combinations that is not linear. In the second, a
    common test of regressions, little but a linear function is left above the noise.

    Returns
    -------
    dict of str to (DataFrame, str)
        By name a table and the column to predict: ``"nuclei"``, 569 breast masses and ten means
        over the nuclei of each; ``"diabetes"``, 442 patients, ten measurements, and the progression
        of the disease after one year.

    Examples
    --------
    >>> from flattest.commands.demonstration import real_tables
    >>> {name: (table.shape, target) for name, (table, target) in real_tables().items()}
    {'nuclei': ((569, 10), 'mean area'), 'diabetes': ((442, 11), 'progression')}
    """
    nuclei = load_breast_cancer(as_frame=True).data
    diabetes = load_diabetes(as_frame=True, scaled=False).frame
    return {
        "nuclei": (nuclei[[c for c in nuclei if c.startswith("mean")]], "mean area"),
        "diabetes": (diabetes.rename(columns={"target": "progression"}), "progression"),
    }


def _records(
    name: str,
    result: Interpolation,
    X: Tensor,
    y: Tensor,
    model: MultiIndexModel,
    rng: np.random.Generator,
) -> list[Record]:
    balanced = balance(result.net, X, y)
    # The flattest interpolator is the flattest network on its own orbit as well.
    found = balanced if result.method == "flattest" else result.net
    copies = {"as found": found}
    if result.method == "flattest":
        copies |= {f"sharpened ≥ ×{factor:,.0f}": sharpen(found, factor) for factor in SHARPENINGS}
    low, high = np.log10(TRACES)
    for number, trace in enumerate(10 ** rng.uniform(low, high, N_RESCALED), start=1):
        copies[f"rescaled {number}"] = _rescaled(balanced, trace / result.flatness.orbit_minimum)
    return [_record(name, copy, net, result, X, y, model) for copy, net in copies.items()]


def _rescaled(balanced: TwoLayerNet, factor: float) -> TwoLayerNet:
    """Multiply the trace of a balanced network of degree 1 by a factor of at least 1.

    Balanced, ``A = B``, and the scale ``c`` takes the trace ``2 (A + B)`` to
    ``2 (c**2 A + B / c**2)``: solve ``c**2 + c**-2 = 2 factor`` for the root below 1.
    """
    factor = max(factor, 1.0)
    return rescale(balanced, float(np.sqrt(factor + np.sqrt(factor**2 - 1))) ** -1)


def _record(
    name: str,
    copy: str,
    net: TwoLayerNet,
    result: Interpolation,
    X: Tensor,
    y: Tensor,
    model: MultiIndexModel,
) -> Record:
    flatness = measure(net, X, y)
    return Record(
        network=name,
        copy=copy,
        train_error=flatness.loss,
        test_error=model.relative_error(net, _FRESH_SAMPLES, random_state=result.random_state),
        trace=flatness.trace,
        orbit_minimum=flatness.orbit_minimum,
        lower_bound=flatness.lower_bound,
        ratio=flatness.ratio,
        seconds=result.seconds,
        status=result.status.name.lower(),
    )
