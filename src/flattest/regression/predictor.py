"""What predicts: a network, and in most cases a Gaussian process beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.regression.elimination import evaluate
from flattest.regression.gaussian_process import Posterior, Process
from flattest.regression.kernels import SHAPES
from flattest.regression.mixture import Mixture
from flattest.regression.smooth_link import Limits, Part, SmoothLink
from flattest.regression.target_scale import TargetScale
from flattest.regression.training_data import Standardisation
from flattest.two_layer.networks import TwoLayerNet

_OF_LINK = ("basis", "axes", "low", "high")
_OF_PROCESS = ("numbers", "projection", "variances", "points", "weights", "explained")
"""What is stored of a link, and of each of its processes; of its parts only numbers."""


class Predictor(NamedTuple):
    """All that it takes to predict, on the CPU."""

    network: TwoLayerNet
    standardise: Standardisation
    link: SmoothLink | None

    def __call__(
        self, X: Float[np.ndarray, "n d"]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"] | None]:
        """Return predictions, and their standard deviations where there is a process."""
        inputs = torch.from_numpy(self.standardise(X))
        if self.link is not None:
            inputs = self.link.limits(inputs)
        outputs = evaluate(self.network, inputs, self.network.n_features > inputs.shape[1])
        outputs = self.standardise.intercept + outputs
        if self.link is None:
            return outputs.numpy(), None
        mean, deviation = self.link(inputs, outputs)
        return mean.numpy(), deviation.numpy()

    def loadings(self, directions: Float[np.ndarray, "k d"]) -> Float[np.ndarray, "k d"]:
        """Return directions per standard deviation of each feature, as unit vectors."""
        scaled = directions * self.standardise.scale
        norms = np.linalg.norm(scaled, axis=1, keepdims=True)
        return np.divide(scaled, norms, out=np.zeros_like(scaled), where=norms > 0)

    def tensors(self) -> dict[str, Tensor]:
        """Return the numbers, to be stored."""
        standardise = self.standardise
        stored = {
            "weights": self.network.weights.detach(),
            "coefficients": self.network.coefficients.detach(),
            "mean": torch.from_numpy(standardise.mean),
            "inverse_scale": torch.from_numpy(standardise.inverse_scale),
            "intercept": torch.tensor([standardise.intercept], dtype=torch.float64),
        }
        if self.link is not None:
            stored |= _named("link", _OF_LINK, (self.link.basis, *self.link.limits))
            for i, (mixture, units, *numbers) in enumerate(self.link.parts):
                numbers += units[:-1]
                stored[f"part.{i}.numbers"] = torch.tensor(numbers, dtype=torch.float64)
                for j, (process, *rest) in enumerate(mixture.posteriors):
                    first = torch.tensor([mixture.shares[j], process.noise], dtype=torch.float64)
                    values = first, process.projection, process.variances, *rest
                    stored |= _named(f"part.{i}.process.{j}", _OF_PROCESS, values)
        return {name: values.contiguous() for name, values in stored.items()}

    def kernels(self) -> list[dict[str, Any]]:
        """Return what the numbers leave open of each part of the link."""
        return [
            {
                "logarithmic": part.units.logarithmic,
                "processes": [
                    {"shape": p.shape, "additive": p.additive, "trend": p.trend}
                    for p in part.mixture.processes
                ],
            }
            for part in (self.link.parts if self.link else ())
        ]

    @classmethod
    def of(
        cls, network: TwoLayerNet, kernels: list[dict[str, Any]], tensor: Callable[[str], Tensor]
    ) -> Predictor:
        """Make one from stored numbers.

        Raises
        ------
        ValueError
            If the numbers do not fit together.
        """
        mean, inverse_scale, intercept = map(tensor, ("mean", "inverse_scale", "intercept"))
        d = len(mean)
        check_stored("mean", mean, (d,))
        check_stored("inverse_scale", inverse_scale, (d,))
        check_stored("intercept", intercept, (1,))
        if network.n_features not in (d, d + 1):
            raise ValueError(f"the network has {network.n_features} inputs for {d} features")
        standardise = Standardisation(mean.numpy(), inverse_scale.numpy(), float(intercept))
        if not kernels:
            return cls(network, standardise, None)
        basis, *limits = (tensor(f"link.{name}") for name in _OF_LINK)
        h, k = basis.shape[1], len(limits[-1])
        _check_all("link", _OF_LINK, (basis, *limits), ((d, h), (d, k), (k,), (k,)))
        parts = tuple(_part(f"part.{i}", h, entry, tensor) for i, entry in enumerate(kernels))
        nothing = basis.new_zeros(0)  # how the search went is not stored
        link = SmoothLink(parts, basis, Limits(*limits), pd.DataFrame(), nothing)
        return cls(network, standardise, link)


def _part(prefix: str, h: int, kernel: dict[str, Any], tensor: Callable[[str], Tensor]) -> Part:
    """Read a mixture, its units and its share."""
    name = f"{prefix}.numbers"
    check_stored(name, numbers := tensor(name), (6,))
    share, error, centre, size, least, most = numbers.tolist()
    members = [
        _member(f"{prefix}.process.{j}", h, entry, tensor)
        for j, entry in enumerate(kernel["processes"])
    ]
    shares, posteriors = zip(*members, strict=True)
    units = TargetScale(centre, size, least, most, bool(kernel["logarithmic"]))
    return Part(Mixture(posteriors, shares), units, share, error)


def _member(
    prefix: str, h: int, kernel: dict[str, Any], tensor: Callable[[str], Tensor]
) -> tuple[float, Posterior]:
    """Read one of the processes, and its share."""
    shape, additive, trend = kernel["shape"], bool(kernel["additive"]), bool(kernel["trend"])
    if shape not in (*SHAPES, "linear"):
        raise ValueError(f"there is no kernel {shape!r}")
    found = tuple(tensor(f"{prefix}.{name}") for name in _OF_PROCESS)
    numbers, projection, variances, points, *rest = found
    k, n = projection.shape[1], len(points)
    q = (k if additive else 1) + trend
    shapes = ((2,), (h, k), (q,), (n, k), (n,), (n, n))
    _check_all(prefix, _OF_PROCESS, found, shapes)
    share, noise = numbers.tolist()
    process = Process(shape, projection, variances, noise, additive=additive, trend=trend)
    return share, Posterior(process, points, *rest)


def _named(prefix: str, names: tuple[str, ...], values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in zip(names, values, strict=True)}


def _check_all(
    prefix: str,
    names: tuple[str, ...],
    values: tuple[Tensor, ...],
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    for name, value, shape in zip(names, values, shapes, strict=True):
        check_stored(f"{prefix}.{name}", value, shape)


def check_stored(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse stored numbers of another shape or type, NaN and infinity."""
    if tuple(values.shape) != shape or values.dtype != torch.float64:
        raise ValueError(f"{name} does not have shape {shape} in float64")
    if not values.isfinite().all():
        raise ValueError(f"{name} contains NaN or infinity")
