"""What predicts: a network, and in most cases a Gaussian process beside it; and how it is stored.

Arrays are stored as tensors and all else as JSON, each under the name of its field, so that a new
field neither moves nor renames another one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.gaussian_process import Data, Process
from flattest.regression.kernels import SHAPES
from flattest.regression.limits import Limits
from flattest.regression.mixture import Mixture
from flattest.regression.posterior import Posterior
from flattest.regression.predictive import Predictive
from flattest.regression.smooth_link import Part, SmoothLink
from flattest.regression.target_scale import TargetScale
from flattest.regression.training_data import Standardisation, evaluate
from flattest.regression.variation import Variation
from flattest.two_layer.networks import TwoLayerNet

TensorOf = Callable[[str], Tensor]
"""Returns a stored tensor by its name."""


class Predictor(NamedTuple):
    """All that it takes to predict, on the CPU.

    Parameters
    ----------
    network : TwoLayerNet
        The network on standardised features.
    standardise : Standardisation
        From features as they are to these.
    link : SmoothLink or None
        The processes, if these predict.
    """

    network: TwoLayerNet
    standardise: Standardisation
    link: SmoothLink | None

    def __call__(self, X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Return predictions."""
        if self.link is None:
            return self._outputs(torch.from_numpy(self.standardise(X))).numpy()
        return self.law(X).moments()[0].numpy()

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
        inputs = self.link.limits(torch.from_numpy(self.standardise(X)))
        return self.link(inputs, self._outputs(inputs))

    def _outputs(self, inputs: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return self.standardise.intercept + evaluate(self.network, inputs)

    def loadings(self, directions: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
        """Return directions per standard deviation of each feature, as unit vectors."""
        scaled = directions * self.standardise.scale
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        return np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays to be stored, by name."""
        stored = {
            "network.weights": self.network.weights.detach(),
            "network.coefficients": self.network.coefficients.detach(),
            "standardise.mean": torch.from_numpy(self.standardise.mean),
            "standardise.inverse_scale": torch.from_numpy(self.standardise.inverse_scale),
        }
        if self.link is not None:
            stored["link.basis"] = self.link.basis
            stored |= _prefixed("link.limits", self.link.limits._asdict())
            for i, part in enumerate(self.link.parts):
                stored |= _tensors(f"part.{i}", part.mixture)
        return {name: values.contiguous() for name, values in stored.items()}

    def description(self) -> dict[str, Any]:
        """Return what else is to be stored, in types that JSON can hold."""
        parts = self.link.parts if self.link else ()
        return {
            "activation": self.network.activation.to_dict(),
            "intercept": self.standardise.intercept,
            "parts": [
                {
                    "share": part.share,
                    "network_error": part.network_error,
                    "units": part.units._asdict(),
                    "exact": part.mixture.rows is not None,
                    "processes": [
                        {
                            "share": share,
                            "shape": process.shape,
                            "noise": process.noise,
                            "additive": process.additive,
                            "trend": process.trend,
                            "free": process.free,
                            "inflation": process.inflation,
                        }
                        for share, process in zip(
                            part.mixture.shares, part.mixture.processes, strict=True
                        )
                    ],
                }
                for part in parts
            ],
        }

    @classmethod
    def of(cls, description: dict[str, Any], network: TwoLayerNet, tensor: TensorOf) -> Predictor:
        """Make one from what was stored.

        Raises
        ------
        ValueError, KeyError, TypeError
            If something is missing or does not fit.
        """
        mean, inverse_scale = tensor("standardise.mean"), tensor("standardise.inverse_scale")
        d = len(mean)
        check_stored("standardise.mean", mean, (d,))
        check_stored("standardise.inverse_scale", inverse_scale, (d,))
        if network.n_features not in (d, d + 1):
            raise ValueError(f"the network has {network.n_features} inputs for {d} features")
        intercept = _number(description, "intercept")
        standardise = Standardisation(mean.numpy(), inverse_scale.numpy(), intercept)
        if not description["parts"]:
            return cls(network, standardise, None)
        basis = tensor("link.basis")
        h = basis.shape[1]
        check_stored("link.basis", basis, (d, h))
        limits = Limits(*(tensor(f"link.limits.{name}") for name in Limits._fields))
        k = len(limits.low)
        for name, shape in (("axes", (d, k)), ("low", (k,)), ("high", (k,))):
            check_stored(f"link.limits.{name}", getattr(limits, name), shape)
        parts = tuple(
            _part(f"part.{i}", h, entry, tensor) for i, entry in enumerate(description["parts"])
        )
        # How the search went, and along what the function varies most, is not stored.
        unknown = Variation(basis.new_zeros(0), basis.new_zeros(d, 0), basis.new_zeros(0))
        return cls(network, standardise, SmoothLink(parts, basis, limits, [], unknown))


def _part(prefix: str, h: int, entry: dict[str, Any], tensor: TensorOf) -> Part:
    """Read a mixture, its units and its share."""
    units = entry["units"]
    numbers = {name: _number(units, name) for name in ("centre", "size", "least", "most")}
    return Part(
        mixture=_mixture(prefix, h, entry, tensor),
        units=TargetScale(**numbers, logarithmic=bool(units["logarithmic"])),
        share=_number(entry, "share"),
        network_error=_number(entry, "network_error"),
    )


_ROWS = {"X": ("n", "h"), "y": ("n", "1"), "spread": ("n",)}
_PROCESS = {"projection": ("h", "k"), "variances": ("q",)}
_POSTERIOR = {
    "points": ("n", "k"),
    "weights": ("n",),
    "explained": ("n", "n"),
    "turn": ("p", "p"),
    "known": ("n", "p"),
}
"""The arrays that are stored, with their shapes: the rows where processes are conditioned on them
exactly, from which all else follows, or what inducing points remember of them."""


def _tensors(prefix: str, mixture: Mixture) -> dict[str, Tensor]:
    """Return the arrays of a mixture."""
    stored = {} if mixture.rows is None else _prefixed(f"{prefix}.rows", mixture.rows._asdict())
    for j, posterior in enumerate(mixture.posteriors):
        fields = {**posterior._asdict(), **posterior.process._asdict()}
        names = [*_PROCESS, *(_POSTERIOR if mixture.rows is None else ())]
        stored |= _prefixed(f"{prefix}.process.{j}", {name: fields[name] for name in names})
    return stored


def _mixture(prefix: str, h: int, entry: dict[str, Any], tensor: TensorOf) -> Mixture:
    """Read a mixture, and condition it again where its rows are stored."""
    shares = [_number(process, "share") for process in entry["processes"]]
    names = [f"{prefix}.process.{j}" for j in range(len(shares))]
    processes = [
        _process(name, h, stored, tensor)
        for name, stored in zip(names, entry["processes"], strict=True)
    ]
    if entry["exact"]:
        arrays = {name: tensor(f"{prefix}.rows.{name}") for name in _ROWS}
        _check_shapes(f"{prefix}.rows", arrays, _ROWS, h=h, n=len(arrays["y"]))
        return Mixture.exactly(processes, shares, Data(**arrays))
    posteriors = tuple(
        _posterior(name, process, tensor) for name, process in zip(names, processes, strict=True)
    )
    return Mixture(posteriors, tuple(shares), None)


def _process(prefix: str, h: int, entry: dict[str, Any], tensor: TensorOf) -> Process:
    """Read a process."""
    shape, free = entry["shape"], entry["free"]
    if shape not in (*SHAPES, "linear"):
        raise ValueError(f"there is no kernel {shape!r}")
    if free not in ("projection", "lengths", "scale"):
        raise ValueError(f"no process is fitted over its {free!r}")
    additive, trend = bool(entry["additive"]), bool(entry["trend"])
    arrays = {name: tensor(f"{prefix}.{name}") for name in _PROCESS}
    k = arrays["projection"].shape[1]
    _check_shapes(prefix, arrays, _PROCESS, h=h, k=k, q=(k if additive else 1) + trend)
    return Process(
        shape=shape,
        projection=arrays["projection"],
        variances=arrays["variances"],
        noise=_number(entry, "noise"),
        inflation=_number(entry, "inflation"),
        additive=additive,
        trend=trend,
        free=free,
    )


def _posterior(prefix: str, process: Process, tensor: TensorOf) -> Posterior:
    """Read what inducing points remember."""
    arrays = {name: tensor(f"{prefix}.{name}") for name in _POSTERIOR}
    n, p = arrays["known"].shape
    _check_shapes(prefix, arrays, _POSTERIOR, n=n, p=p, k=process.n_directions)
    return Posterior(process, **arrays)


def _check_shapes(
    prefix: str, arrays: dict[str, Tensor], shapes: dict[str, tuple[str, ...]], **sizes: int
) -> None:
    for name, shape in shapes.items():
        expected = tuple(sizes.get(size, 1) for size in shape)
        check_stored(f"{prefix}.{name}", arrays[name], expected)


def _prefixed(prefix: str, values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _number(entry: dict[str, Any], name: str) -> float:
    """Read a finite number."""
    value = entry[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r} instead of a number")
    return float(value)


def check_stored(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse stored numbers of another shape or type, NaN and infinity."""
    if tuple(values.shape) != shape or values.dtype != torch.float64:
        raise ValueError(f"{name} does not have shape {shape} in float64")
    if not values.isfinite().all():
        raise ValueError(f"{name} contains NaN or infinity")
