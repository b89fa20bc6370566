"""What every interpolator is given and what it returns."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest._version import __version__
from flattest.two_layer.activations import Homogeneous
from flattest.two_layer.flatness import TwoLayerFlatness
from flattest.two_layer.networks import TwoLayerNet


class Status(enum.Enum):
    """How an interpolator ended; the value of each member says what to do about it.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.Status.CONVERGED.value
    'The network interpolates and the solver met its stopping rule.'
    """

    CONVERGED = "The network interpolates and the solver met its stopping rule."
    NOT_FLATTEST = (
        "The network interpolates, but its flatness was still falling when max_iter was reached; "
        "raise max_iter to bring the trace down further."
    )
    NOT_INTERPOLATING = (
        "The training loss is above tol; raise max_iter or the width, or check that no input "
        "occurs twice with different targets."
    )
    DIVERGED = (
        "The training loss grew without bound; lower the learning rate or init_scale, or rescale "
        "the data."
    )
    INTERRUPTED = (
        "The solver was interrupted; this is the best network that it had, and a new call starts "
        "afresh."
    )


class Iterate(NamedTuple):
    """One line of the history of an interpolator.

    Parameters
    ----------
    iteration : int
        Counted from 0.
    train_error : float
        Mean squared error on the training data.
    trace : float
        Trace of the Hessian of the loss (its Gauss-Newton part).
    orbit_minimum : float
        The same, minimised over the rescalings of the network.
    strength : float
        The weight of the flatness penalty in this iteration; 0 for unpenalised methods.
    stage : str
        What the solver was doing.

    Examples
    --------
    >>> import flattest as ft
    >>> result = ft.interpolate([[1.0], [-2.0]], [1.0, 0.0], width=2, random_state=0)
    >>> result.history[-1].stage
    'returned'
    """

    iteration: int
    train_error: float
    trace: float
    orbit_minimum: float
    strength: float
    stage: str


@dataclass(frozen=True)
class Problem:
    """The common input of the interpolators, checked and in float64.

    Parameters
    ----------
    X, y : Tensor
        The data, of shapes (n, d) and (n,).
    width : int
        Number of neurons at most.
    activation : Homogeneous
        The activation.
    rng : numpy.random.Generator
        The only source of randomness.
    max_iter : int or None
        Bound on the iterations; None for the method's own default.
    tol : float
        The network interpolates once its MSE is at most ``tol * mean(y**2)``.
    rounding : float
        The unit of rounding of the dtype in which the data came.
    report : callable
        Called with each `Iterate` and the expected number of iterations.
    watch : callable, optional
        Called with each `Iterate` and the network of that moment.
    """

    X: Float[Tensor, "n d"]
    y: Float[Tensor, " n"]
    width: int
    activation: Homogeneous
    rng: np.random.Generator
    max_iter: int | None
    tol: float
    rounding: float
    report: Callable[[Iterate, int], None]
    watch: Callable[[Iterate, TwoLayerNet], None] | None = None

    @property
    def target_error(self) -> float:
        """The mean squared error at which a network counts as an interpolator."""
        return self.tol * float(self.y.square().mean())

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, the same ones on every device."""
        return torch.from_numpy(self.rng.standard_normal(shape)).to(self.X.device)

    def similar_inputs(self, count: int) -> Float[Tensor, "count d"]:
        """Draw Gaussian inputs with the mean and the covariance of the rows of X."""
        n, mean = len(self.X), self.X.mean(dim=0)
        return mean + self.normal(count, n) @ (self.X - mean) / math.sqrt(n)


class Outcome(NamedTuple):
    """What an interpolator hands back: parameters, how it ended, and its history."""

    weights: Float[Tensor, "m d"]
    coefficients: Float[Tensor, " m"]
    status: Status
    history: list[Iterate]
    notes: dict[str, Any] = {}  # noqa: RUF012 - an immutable default of a named tuple


@dataclass(frozen=True, repr=False, eq=False)
class Interpolation:
    """A network fitted to zero training loss, with how it was found and how flat it is.

    Parameters
    ----------
    net : TwoLayerNet
        The network, in the dtype and on the device of the data.
    flatness : TwoLayerFlatness
        Its flatness on the training data.
    train_error : float
        Mean squared error of `net` on the training data.
    status : Status
        How the solver ended; ``status.value`` says what to do about it.
    history : list of Iterate
        One entry per iteration; ``pandas.DataFrame(result.history)`` makes a table of it.
    method : str
        The name of the interpolator.
    seconds : float
        Wall-clock time.
    random_state : object
        As it was given.
    notes : dict
        What the method has to add, such as the two traces that it chose between.
    version : str
        The version of flattest.

    Examples
    --------
    >>> import flattest as ft
    >>> X, y, model = ft.make_multi_index(60, 4, ["relu"], random_state=0)
    >>> result = ft.interpolate(X, y, width=20, random_state=0)
    >>> result.converged, result.train_error < 1e-20
    (True, True)
    """

    net: TwoLayerNet
    flatness: TwoLayerFlatness
    train_error: float
    status: Status
    history: list[Iterate] = field(compare=False)
    method: str
    seconds: float = field(compare=False)
    random_state: Any = None
    notes: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def converged(self) -> bool:
        """Whether the status is `Status.CONVERGED`."""
        return self.status is Status.CONVERGED

    def __repr__(self) -> str:
        """Summarise in four lines."""
        ratio = self.flatness.ratio
        certificate = "" if math.isnan(ratio) else f"  ({ratio:.4g} times the lower bound)"
        return (
            f"Interpolation by {self.method}: {self.status.name.lower()} in {self.seconds:.2f} s\n"
            f"  train error    {self.train_error:.3g}\n"
            f"  orbit minimum  {self.flatness.orbit_minimum:.6g}{certificate}\n"
            f"  net            {self.net!r}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all but the parameters and the history, in types that JSON can hold.

        Examples
        --------
        >>> import flattest as ft
        >>> result = ft.interpolate([[1.0], [-2.0]], [1.0, 0.0], width=2, random_state=0)
        >>> result.to_dict()["status"]
        'converged'
        """
        return {
            "method": self.method,
            "status": self.status.name.lower(),
            "train_error": self.train_error,
            "iterations": len(self.history),
            "seconds": self.seconds,
            "random_state": repr(self.random_state),
            "notes": self.notes,
            "version": self.version,
            "flatness": self.flatness.to_dict(),
        }
