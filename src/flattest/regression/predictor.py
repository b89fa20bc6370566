"""What predicts: a network, and in most cases a Gaussian process beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.networks import TwoLayerNet
from flattest.regression.elimination import evaluate
from flattest.regression.gaussian_process import SHAPES, Posterior, Process
from flattest.regression.smooth_link import Limits, SmoothLink
from flattest.regression.target_scale import TargetScale
from flattest.regression.training_data import Standardisation

_STORED = (
    "basis",
    "projection",
    "variances",
    "numbers",
    "points",
    "weights",
    "explained",
    "axes",
    "low",
    "high",
)
"""Numbers of a process."""


class Predictor(NamedTuple):
    """All that it takes to predict, on the CPU."""

    network: TwoLayerNet
    standardise: Standardisation
    link: SmoothLink | None
    network_error: float
    """The variance, in units of the process, of the network as an observation of the function."""

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
        mean, deviation = self.link(inputs, outputs, self.network_error)
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
            posterior = self.link.posterior
            process = posterior.process
            *numbers, _ = self.network_error, process.noise, *self.link.units
            stored |= {
                "process.basis": self.link.basis,
                "process.projection": process.projection,
                "process.variances": process.variances,
                "process.numbers": torch.tensor(numbers, dtype=torch.float64),
                "process.points": posterior.points,
                "process.weights": posterior.weights,
                "process.explained": posterior.explained,
                "process.axes": self.link.limits.axes,
                "process.low": self.link.limits.low,
                "process.high": self.link.limits.high,
            }
        return {name: values.contiguous() for name, values in stored.items()}

    def kernel(self) -> dict[str, Any] | None:
        """Return what the numbers leave open."""
        if self.link is None:
            return None
        process = self.link.posterior.process
        return {
            "shape": process.shape,
            "additive": process.additive,
            "trend": process.trend,
            "logarithmic": self.link.units.logarithmic,
        }

    @classmethod
    def of(
        cls, network: TwoLayerNet, kernel: dict[str, Any] | None, tensor: Callable[[str], Tensor]
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
        if kernel is None:
            return cls(network, standardise, None, 0.0)
        if kernel["shape"] not in (*SHAPES, "linear"):
            raise ValueError(f"there is no kernel {kernel['shape']!r}")
        found = {name: tensor(f"process.{name}") for name in _STORED}
        (h, k), n = found["projection"].shape, len(found["points"])
        additive, trend = bool(kernel["additive"]), bool(kernel["trend"])
        q, axes = (k if additive else 1) + trend, min(d, k)
        shapes = ((d, h), (h, k), (q,), (6,), (n, k), (n,), (n, n), (d, axes), (axes,), (axes,))
        for name, shape in zip(_STORED, shapes, strict=True):
            check_stored(f"process.{name}", found[name], shape)
        error, noise, centre, size, least, most = found["numbers"].tolist()
        process = Process(
            kernel["shape"],
            found["projection"],
            found["variances"],
            noise,
            additive=additive,
            trend=trend,
        )
        posterior = Posterior(process, found["points"], found["weights"], found["explained"])
        units = TargetScale(centre, size, least, most, bool(kernel["logarithmic"]))
        limits = Limits(found["axes"], found["low"], found["high"])
        nothing = found["low"].new_zeros(0)  # how the search went is not stored
        link = SmoothLink(posterior, found["basis"], units, limits, pd.DataFrame(), nothing)
        return cls(network, standardise, link, error)


def check_stored(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    """Refuse stored numbers of another shape or type, NaN and infinity."""
    if tuple(values.shape) != shape or values.dtype != torch.float64:
        raise ValueError(f"{name} does not have shape {shape} in float64")
    if not values.isfinite().all():
        raise ValueError(f"{name} contains NaN or infinity")
