"""`measure`: the flatness of a network on data, and the result that holds it."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from flattest._version import __version__
from flattest.bounds import bound_from_sum
from flattest.closed_form import Accumulator
from flattest.networks import TwoLayerNet
from flattest.validation import check_batches, check_positive_int


class PerNeuron(NamedTuple):
    """The flatness neuron by neuron: float64 tensors of shape (m,) on the network's device.

    Parameters
    ----------
    outer : Tensor
        ``A_j = mean_i s(z_ij)**2``, the mean squared derivative by ``a_j``.
    inner : Tensor
        ``B_j = a_j**2 mean_i s'(z_ij)**2 ||x_i||**2``, likewise for ``w_j``.
    gauss_newton : Tensor
        ``2 (A_j + B_j)``.
    residual : Tensor
        ``2 mean_i r_i a_j s''(z_ij) ||x_i||**2`` with ``r = f - y``.
    orbit_minimum : Tensor
        The smallest `gauss_newton` over all rescalings of the neuron.
    scale : Tensor
        The factor ``c_j`` that reaches it; 1 where no factor does.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[4.0], [1.0]], [1.0, 1.0], "relu")
    >>> ft.measure(net, [[1.0]], [5.0]).per_neuron.scale
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    outer: Float[Tensor, " m"]
    inner: Float[Tensor, " m"]
    gauss_newton: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    orbit_minimum: Float[Tensor, " m"]
    scale: Float[Tensor, " m"]


@dataclass(frozen=True, repr=False)
class Flatness:
    """The flatness of a network on data, for ``L = (1/n) sum_i (f(x_i) - y_i)**2``.

    Parameters
    ----------
    trace : float
        Trace of the Hessian of the loss in all parameters: `gauss_newton` + `residual`.
    gauss_newton : float
        ``(2/n) sum_i ||grad f(x_i)||**2``.
    residual : float
        ``(2/n) sum_i (f(x_i) - y_i) tr grad**2 f(x_i)``: 0 where the network interpolates, and
        for ``p = 1``.
    orbit_minimum : float
        Smallest `gauss_newton` among all rescalings of the network, a number that no rescaling
        changes. At an interpolator it is the smallest trace.
    lower_bound : float
        What `gauss_newton` is at least, for every network of this width and activation with the
        same outputs ``f(x_i)``. At an interpolator: a bound on the trace of all of them.
    ratio : float
        `orbit_minimum` / `lower_bound`, at least 1: the certificate that this network is within
        this factor of the flattest. NaN where both are 0.
    reflected : float
        `gauss_newton` averaged over the data and their negatives ``-x_i``.
    reflected_orbit_minimum : float
        Smallest `reflected` among all rescalings.
    loss : float
        The loss ``L``.
    per_neuron : PerNeuron
        The same neuron by neuron.
    n_samples, n_features, width : int
        ``n``, ``d`` and ``m``.
    degree : float
        The degree ``p``.
    dtype, device : str
        Of the network.
    standard_error : float
        Of the trace; 0, since the closed form is exact.
    version : str
        The version of flattest.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0], [-1.0]], [3.0, 0.0])
    Flatness (exact)
      trace                      38.25
        Gauss-Newton             38.25
        residual                     0
      orbit minimum                 18
      lower bound                   18
      ratio                          1
      reflected trace            21.25
      reflected orbit minimum       10
      loss                           0
      2 samples, 1 feature, width 1, degree 1, torch.float64 on cpu
    """

    trace: float
    gauss_newton: float
    residual: float
    orbit_minimum: float
    lower_bound: float
    ratio: float
    reflected: float
    reflected_orbit_minimum: float
    loss: float
    per_neuron: PerNeuron = field(compare=False)
    n_samples: int
    n_features: int
    width: int
    degree: float
    dtype: str
    device: str
    standard_error: float = 0.0
    version: str = __version__

    def __repr__(self) -> str:
        """Print a small table."""
        rows = (
            ("trace", self.trace),
            ("  Gauss-Newton", self.gauss_newton),
            ("  residual", self.residual),
            ("orbit minimum", self.orbit_minimum),
            ("lower bound", self.lower_bound),
            ("ratio", self.ratio),
            ("reflected trace", self.reflected),
            ("reflected orbit minimum", self.reflected_orbit_minimum),
            ("loss", self.loss),
        )
        exactness = f"standard error {self.standard_error:.2g}" if self.standard_error else "exact"
        lines = [f"Flatness ({exactness})"]
        lines += [f"  {name:<23} {value:>12.6g}" for name, value in rows]
        lines.append(
            f"  {_count(self.n_samples, 'sample')}, {_count(self.n_features, 'feature')}, "
            f"width {self.width}, degree {self.degree:g}, {self.dtype} on {self.device}"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and lists, ready for ``json.dumps``.

        Returns
        -------
        dict
            One entry per field; `per_neuron` is a dictionary of lists. Numbers that are not
            finite become None, since JSON has no word for them.

        Examples
        --------
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet([[2.0]], [0.5], "relu")
        >>> ft.measure(net, [[3.0]], [3.0]).to_dict()["per_neuron"]["outer"]
        [36.0]
        """
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self)}
        values["per_neuron"] = {
            name: [_plain(value) for value in tensor.tolist()]
            for name, tensor in self.per_neuron._asdict().items()
        }
        return values


def measure(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: str = "mse",
    chunk_size: int | None = None,
) -> Flatness:
    r"""Measure the flatness of a network on data, exactly.

    The trace of the Hessian of ``L = (1/n) sum_i (f(x_i) - y_i)**2`` in all parameters,

    .. math::
        \operatorname{tr} H = \frac2n \sum_i \left[ \|\nabla f(x_i)\|^2
        + (f(x_i) - y_i) \operatorname{tr} \nabla^2 f(x_i) \right],

    its smallest value over the network's rescaling symmetry, and a lower bound.

    Parameters
    ----------
    model : TwoLayerNet
        The network, in float32 or float64; it is not modified and gets no gradients.
    X : Tensor or array_like of shape (n, d), or iterable of (X, y) batches
        The data. Tensors must have the network's dtype and device; arrays and data frames are
        converted. Batches are read once, and the means are over all samples.
    y : Tensor or array_like of shape (n,), optional
        The targets; left out for batches.
    loss : {"mse"}
        The loss.
    chunk_size : int, optional
        Rows worked on together, to bound the memory. The default suits the processor's cache.

    Returns
    -------
    Flatness
        The measurements.

    Raises
    ------
    NotImplementedError
        If `model` is a module of another kind.
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[2.0, 0.0], [0.0, 1.0]], [0.5, -1.0], "relu")
    >>> flatness = ft.measure(net, [[3.0, 1.0], [-1.0, 2.0]], [2.0, -2.0])
    >>> flatness.trace, flatness.loss
    (58.5, 0.0)
    """
    return measure_dispatch(model, X, y, loss=loss, chunk_size=chunk_size)


@functools.singledispatch
def measure_dispatch(model: Any, X: Any, y: Any, *, loss: str, chunk_size: int | None) -> Flatness:
    """Choose the way to measure by the type of model: other kinds of network register here.

    Parameters
    ----------
    model, X, y, loss, chunk_size
        As for :func:`measure`.

    Returns
    -------
    Flatness
        The measurements.

    Raises
    ------
    TypeError
        If `model` is not a module.
    NotImplementedError
        If nothing is registered for it.
    """
    raise unsupported_model(model, "measure")


@measure_dispatch.register
def _measure_two_layer(
    model: TwoLayerNet, X: Any, y: Any, *, loss: str, chunk_size: int | None
) -> Flatness:
    check_squared_loss(loss)
    sums = accumulate(model, X, y, chunk_size=chunk_size, needs_targets=True).result()
    bound = bound_from_sum(sums.bound_sum, sums.n_samples, model.width, model.activation)
    minimum = sums.orbit_minimum.sum().item()
    per_neuron = PerNeuron(
        outer=sums.outer,
        inner=sums.inner,
        gauss_newton=2 * (sums.outer + sums.inner),
        residual=2 * sums.residual,
        orbit_minimum=sums.orbit_minimum,
        scale=sums.scale,
    )
    gauss_newton = per_neuron.gauss_newton.sum().item()
    residual = per_neuron.residual.sum().item()
    return Flatness(
        trace=gauss_newton + residual,
        gauss_newton=gauss_newton,
        residual=residual,
        orbit_minimum=minimum,
        lower_bound=bound,
        ratio=_ratio(minimum, bound),
        reflected=sums.reflected.sum().item(),
        reflected_orbit_minimum=sums.reflected_orbit_minimum.sum().item(),
        loss=sums.loss,
        per_neuron=per_neuron,
        n_samples=sums.n_samples,
        n_features=model.n_features,
        width=model.width,
        degree=model.degree,
        dtype=str(model.weights.dtype),
        device=str(model.weights.device),
    )


def accumulate(
    net: TwoLayerNet, X: Any, y: Any, *, chunk_size: int | None = None, needs_targets: bool
) -> Accumulator:
    """Check a network and its data, and sum over all of them.

    Parameters
    ----------
    net : TwoLayerNet
        The network.
    X, y, chunk_size
        As for :func:`measure`.
    needs_targets : bool
        Whether `y` may be left out.

    Returns
    -------
    Accumulator
        The sums.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    if net.weights.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"The model has dtype {net.weights.dtype}; convert it with model.float() or "
            "model.double() first."
        )
    if not (torch.isfinite(net.weights).all() and torch.isfinite(net.coefficients).all()):
        raise ValueError("The model's parameters contain NaN or infinity.")
    rows = None if chunk_size is None else check_positive_int(chunk_size, "chunk_size")
    accumulator = Accumulator(net, rows)
    for batch_X, batch_y in check_batches(X, y, like=net, needs_targets=needs_targets):
        accumulator.add(batch_X, batch_y)
    return accumulator


def check_squared_loss(loss: Any) -> None:
    """Refuse any loss but the squared one, the only one defined for two-layer networks.

    Parameters
    ----------
    loss : str
        The name given.

    Raises
    ------
    ValueError
        If it is not ``"mse"``.
    """
    if loss != "mse":
        raise ValueError(f"loss must be 'mse' for a two-layer network, not {loss!r}.")


def unsupported_model(model: Any, function: str) -> Exception:
    """Make the error for a model that is not supported (yet).

    Parameters
    ----------
    model : object
        What was given.
    function : str
        The public function it was given to.

    Returns
    -------
    Exception
        To be raised by the caller.
    """
    kind = type(model).__name__
    if isinstance(model, torch.nn.Module):
        return NotImplementedError(
            f"{function} works on flattest.TwoLayerNet; other modules, such as this {kind}, "
            "are not supported yet."
        )
    return TypeError(f"model must be a flattest.TwoLayerNet, not {kind}.")


def _ratio(minimum: float, bound: float) -> float:
    if bound == 0:
        return math.nan if minimum == 0 else math.inf
    return minimum / bound


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
