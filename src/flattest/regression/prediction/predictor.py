"""What predicts: a network, and in most cases a Gaussian process beside it; and how it is stored.

Arrays are stored as they are and all else as JSON, each under the name of its field, so that a new
field neither moves nor renames another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from flattest.regression.prediction.average import Average
from flattest.regression.prediction.conditioned import Conditioned, Seen
from flattest.regression.prediction.kernels import SHAPES
from flattest.regression.prediction.limits import Limits
from flattest.regression.prediction.link import Link, LinkPart
from flattest.regression.prediction.network import Network
from flattest.regression.prediction.predictive import Predictive
from flattest.regression.prediction.prior import Prior
from flattest.regression.prediction.standardisation import Standardisation
from flattest.regression.prediction.target_scale import TargetScale

ArrayOf = Callable[[str], np.ndarray]
"""Returns a stored array by its name."""


class Predictor(NamedTuple):
    """All that it takes to predict.

    Parameters
    ----------
    network : Network
        The network on standardised features.
    standardise : Standardisation
        From features as they are to these.
    link : Link or None
        The processes, if these predict.
    """

    network: Network
    standardise: Standardisation
    link: Link | None

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Return predictions."""
        if self.link is None:
            return self._outputs(self.standardise(X))
        return self.law(X).moments()[0]

    def law(self, X: Float[np.ndarray, "n d"]) -> Predictive:
        """Return the law of new targets.

        Raises
        ------
        ValueError
            If a network predicts alone, which knows of no law.
        """
        if self.link is None:
            raise ValueError(
                "A network predicts here, and only Gaussian processes tell how sure they are; "
                "fit with link='gaussian_process' and a target that varies."
            )
        inputs = self.link.limits(self.standardise(X))
        return self.link(inputs, self._outputs(inputs))

    def _outputs(self, inputs: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        return self.standardise.intercept + self.network(inputs)

    def loadings(self, directions: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
        """Return directions per standard deviation of each feature, as unit vectors."""
        scaled = directions * self.standardise.scale
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        return np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays to be stored, by name."""
        stored = {
            "network.weights": self.network.weights,
            "network.coefficients": self.network.coefficients,
            "standardise.mean": self.standardise.mean,
            "standardise.inverse_scale": self.standardise.inverse_scale,
        }
        if self.link is not None:
            stored["link.basis"] = self.link.basis
            stored |= _prefixed("link.limits", self.link.limits._asdict())
            for i, part in enumerate(self.link.parts):
                stored |= _arrays(f"part.{i}", part.average)
        return {name: np.ascontiguousarray(values) for name, values in stored.items()}

    def description(self) -> dict[str, Any]:
        """Return what else is to be stored, in types that JSON can hold."""
        parts = self.link.parts if self.link else ()
        return {
            "activation": {name: getattr(self.network, name) for name in _ACTIVATION},
            "intercept": self.standardise.intercept,
            "parts": [
                {
                    "share": part.share,
                    "network_error": part.network_error,
                    "units": part.units._asdict(),
                    "exact": part.average.rows is not None,
                    "processes": [
                        {
                            "share": share,
                            "shape": prior.shape,
                            "noise": prior.noise,
                            "additive": prior.additive,
                            "trend": prior.trend,
                            "free": prior.free,
                            "inflation": prior.inflation,
                        }
                        for share, prior in zip(
                            part.average.shares, part.average.priors, strict=True
                        )
                    ],
                }
                for part in parts
            ],
        }

    @classmethod
    def of(cls, description: dict[str, Any], array: ArrayOf) -> Predictor:
        """Make one from what was stored.

        Raises
        ------
        ValueError, KeyError, TypeError
            If something is missing or does not fit.
        """
        mean, inverse_scale = array("standardise.mean"), array("standardise.inverse_scale")
        d = len(mean)
        check_stored("standardise.mean", mean, (d,))
        check_stored("standardise.inverse_scale", inverse_scale, (d,))
        network = _network(d, description["activation"], array)
        standardise = Standardisation(mean, inverse_scale, _number(description, "intercept"))
        if not description["parts"]:
            return cls(network, standardise, None)
        basis = array("link.basis")
        h = basis.shape[1]
        check_stored("link.basis", basis, (d, h))
        limits = Limits(*(array(f"link.limits.{name}") for name in Limits._fields))
        k = len(limits.low)
        for name, shape in (("axes", (d, k)), ("low", (k,)), ("high", (k,))):
            check_stored(f"link.limits.{name}", getattr(limits, name), shape)
        parts = tuple(
            _part(f"part.{i}", h, entry, array) for i, entry in enumerate(description["parts"])
        )
        return cls(network, standardise, Link(parts, basis, limits))


_ACTIVATION = ("degree", "positive", "negative")


def _network(d: int, activation: dict[str, Any], array: ArrayOf) -> Network:
    """Read the network on so many features."""
    weights, coefficients = array("network.weights"), array("network.coefficients")
    m, inputs = weights.shape
    if inputs not in (d, d + 1):
        raise ValueError(f"the network has {inputs} inputs for {d} features")
    check_stored("network.weights", weights, (m, inputs))
    check_stored("network.coefficients", coefficients, (m,))
    degree, positive, negative = (_number(activation, name) for name in _ACTIVATION)
    if degree < 1:
        raise ValueError(f"the degree of the activation is {degree:g} and not at least 1")
    return Network(weights, coefficients, degree, positive, negative)


def _part(prefix: str, h: int, entry: dict[str, Any], array: ArrayOf) -> LinkPart:
    """Read an average of processes, its units and its share."""
    units = entry["units"]
    numbers = {name: _number(units, name) for name in ("centre", "size", "least", "most")}
    return LinkPart(
        average=_average(prefix, h, entry, array),
        units=TargetScale(**numbers, logarithmic=bool(units["logarithmic"])),
        share=_number(entry, "share"),
        network_error=_number(entry, "network_error"),
    )


_SEEN = {"X": ("n", "h"), "y": ("n", "1"), "spread": ("n",)}
_PRIOR = {"projection": ("h", "k"), "variances": ("q",)}
_CONDITIONED = {
    "points": ("n", "k"),
    "weights": ("n",),
    "explained": ("n", "n"),
    "turn": ("p", "p"),
    "known": ("n", "p"),
}
"""The arrays that are stored, with their shapes: the rows where processes are conditioned on them
exactly, from which all else follows, or what inducing points remember of them."""


def _arrays(prefix: str, average: Average) -> dict[str, np.ndarray]:
    """Return the arrays of an average."""
    stored = {} if average.rows is None else _prefixed(f"{prefix}.rows", average.rows._asdict())
    for j, conditioned in enumerate(average.each):
        fields = {**conditioned._asdict(), **conditioned.prior._asdict()}
        names = [*_PRIOR, *(_CONDITIONED if average.rows is None else ())]
        stored |= _prefixed(f"{prefix}.process.{j}", {name: fields[name] for name in names})
    return stored


def _average(prefix: str, h: int, entry: dict[str, Any], array: ArrayOf) -> Average:
    """Read an average, and condition it again where its rows are stored."""
    shares = [_number(process, "share") for process in entry["processes"]]
    names = [f"{prefix}.process.{j}" for j in range(len(shares))]
    priors = [
        _prior(name, h, stored, array)
        for name, stored in zip(names, entry["processes"], strict=True)
    ]
    if entry["exact"]:
        arrays = {name: array(f"{prefix}.rows.{name}") for name in _SEEN}
        _check_shapes(f"{prefix}.rows", arrays, _SEEN, h=h, n=len(arrays["y"]))
        return Average.exactly(priors, shares, Seen(**arrays))
    each = tuple(
        _conditioned(name, prior, array) for name, prior in zip(names, priors, strict=True)
    )
    return Average(each, tuple(shares), None)


def _prior(prefix: str, h: int, entry: dict[str, Any], array: ArrayOf) -> Prior:
    """Read a process."""
    shape, free = entry["shape"], entry["free"]
    if shape not in (*SHAPES, "linear"):
        raise ValueError(f"there is no kernel {shape!r}")
    if free not in ("projection", "lengths", "scale"):
        raise ValueError(f"no process is fitted over its {free!r}")
    additive, trend = bool(entry["additive"]), bool(entry["trend"])
    arrays = {name: array(f"{prefix}.{name}") for name in _PRIOR}
    k = arrays["projection"].shape[1]
    _check_shapes(prefix, arrays, _PRIOR, h=h, k=k, q=(k if additive else 1) + trend)
    return Prior(
        shape=shape,
        projection=arrays["projection"],
        variances=arrays["variances"],
        noise=_number(entry, "noise"),
        inflation=_number(entry, "inflation"),
        additive=additive,
        trend=trend,
        free=free,
    )


def _conditioned(prefix: str, prior: Prior, array: ArrayOf) -> Conditioned:
    """Read what inducing points remember."""
    arrays = {name: array(f"{prefix}.{name}") for name in _CONDITIONED}
    n, p = arrays["known"].shape
    _check_shapes(prefix, arrays, _CONDITIONED, n=n, p=p, k=prior.n_directions)
    return Conditioned(prior, **arrays)


def _check_shapes(
    prefix: str, arrays: dict[str, np.ndarray], shapes: dict[str, tuple[str, ...]], **sizes: int
) -> None:
    for name, shape in shapes.items():
        expected = tuple(sizes.get(size, 1) for size in shape)
        check_stored(f"{prefix}.{name}", arrays[name], expected)


def _prefixed(prefix: str, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _number(entry: dict[str, Any], name: str) -> float:
    """Read a finite number."""
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r} instead of a number")
    return float(value)


def check_stored(name: str, values: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse stored numbers of another shape or type, NaN and infinity."""
    if values.shape != shape or values.dtype != np.float64:
        raise ValueError(f"{name} does not have shape {shape} in float64")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} contains NaN or infinity")
