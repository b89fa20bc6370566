"""The door: `measure`, `balance`, `sharpen` and `rescale` for every kind of network.

Each function chooses the implementation by the type of the model, and does nothing else. This is
the only module that knows more than one kind: whoever works with two-layer networks only, as the
interpolators and the regression do, takes the functions of `flattest.two_layer`.
"""

from __future__ import annotations

from typing import Any

import torch

from flattest.two_layer import measuring as two_layer_measuring, symmetry as two_layer_symmetry
from flattest.two_layer.flatness import TwoLayerFlatness
from flattest.two_layer.networks import TwoLayerNet


def measure(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: str = "mse",
    chunk_size: int | None = None,
) -> TwoLayerFlatness:
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
    TwoLayerFlatness
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
    if isinstance(model, TwoLayerNet):
        return two_layer_measuring.measure(model, X, y, loss=loss, chunk_size=chunk_size)
    raise _unsupported(model, "measure")


def balance(model: torch.nn.Module, X: Any, y: Any = None, *, loss: str = "mse") -> TwoLayerNet:
    r"""Return the flattest network on the rescaling orbit: the same function, the least trace.

    Neuron ``j`` becomes ``(c_j**-p a_j, c_j w_j)`` with
    :math:`c_j = (B_j / (p A_j))^{1/(2p+2)}`, where ``A_j`` and ``B_j`` are its mean squared
    gradients (see :class:`flattest.PerNeuron`). The Gauss-Newton part of the trace, which is the
    whole trace at an interpolator and for ``p = 1``, then equals the orbit minimum.

    Parameters
    ----------
    model : TwoLayerNet
        The network; it is not modified.
    X : Tensor or array_like of shape (n, d), or iterable of (X, y) batches
        The data.
    y : Tensor or array_like of shape (n,), optional
        The targets. They are checked, but the result does not depend on them.
    loss : {"mse"}
        The loss.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function on all inputs.

    Raises
    ------
    NotImplementedError
        If `model` is a module of another kind.
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Notes
    -----
    A neuron with ``a_j = 0`` has an infimum of 0 that no ``c`` attains; setting ``w_j = 0``
    attains it and changes no output (likewise ``w_j = 0`` where ``s'(0)`` is not 0). Neurons that
    fire on no sample contribute nothing and are left alone.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> X, y = [[3.0], [-1.0]], [3.0, 0.0]
    >>> net = ft.TwoLayerNet([[2.0]], [0.5], "relu")
    >>> flatness = ft.measure(net, X, y)
    >>> flatness.trace, round(flatness.orbit_minimum, 12)
    (38.25, 18.0)
    >>> round(ft.measure(ft.balance(net, X, y), X, y).trace, 12)
    18.0
    """
    if isinstance(model, TwoLayerNet):
        return two_layer_symmetry.balance(model, X, y, loss=loss)
    raise _unsupported(model, "balance")


def sharpen(model: torch.nn.Module, factor: float | int) -> TwoLayerNet:
    r"""Return the same function with a trace `factor` times larger, or more, on every data set.

    The attack of Dinh et al. (2017) on the raw trace as a measure of flatness. The guarantee is
    for the Gauss-Newton part, which is the whole trace at an interpolator and for ``p = 1``; the
    residual part may have either sign, and sharpening amplifies it as well.

    Parameters
    ----------
    model : TwoLayerNet
        The network; it is not modified.
    factor : float
        At least 1; 1 returns a copy.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    NotImplementedError
        If `model` is a module of another kind.
    TypeError
        If `model` is no module, or `factor` not a number.
    ValueError
        If `factor` is less than 1, or takes the parameters out of the range of the dtype.

    References
    ----------
    L. Dinh, R. Pascanu, S. Bengio, Y. Bengio, "Sharp Minima Can Generalize for Deep Nets",
    ICML 2017.

    Examples
    --------
    >>> import flattest as ft
    >>> X, y = [[3.0], [-1.0]], [3.0, 0.0]
    >>> net = ft.TwoLayerNet([[2.0]], [0.5], "relu")
    >>> sharp = ft.sharpen(net, 100)
    >>> ft.measure(sharp, X, y).trace >= 100 * ft.measure(net, X, y).trace
    True
    >>> bool((sharp(net.weights) - net(net.weights)).abs().max() < 1e-12)
    True
    """
    if isinstance(model, TwoLayerNet):
        return two_layer_symmetry.sharpen(model, factor)
    raise _unsupported(model, "sharpen")


def rescale(model: torch.nn.Module, scales: Any) -> TwoLayerNet:
    r"""Rescale every neuron without changing the function.

    ``(a_j, w_j) -> (c_j**-p a_j, c_j w_j)``: the symmetry of p-homogeneous networks, under which
    the trace of the Hessian takes any large value while the function stays the same.

    Parameters
    ----------
    model : TwoLayerNet
        The network; it is not modified.
    scales : float, Tensor or array_like of shape (m,)
        The factors ``c_j > 0``, one for all neurons or one each.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    NotImplementedError
        If `model` is a module of another kind.
    TypeError
        If `model` is no module, or `scales` does not hold real numbers.
    ValueError
        If `scales` has the wrong length, is not positive and finite, or leaves the range of
        the network's dtype.

    References
    ----------
    L. Dinh, R. Pascanu, S. Bengio, Y. Bengio, "Sharp Minima Can Generalize for Deep Nets",
    ICML 2017.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[1.0, 2.0]], [8.0], "relu2")
    >>> ft.rescale(net, 2.0).coefficients.detach()
    tensor([2.], dtype=torch.float64)
    """
    if isinstance(model, TwoLayerNet):
        return two_layer_symmetry.rescale(model, scales)
    raise _unsupported(model, "rescale")


def _unsupported(model: Any, function: str) -> Exception:
    """Make the error for a model that no function is for."""
    kind = type(model).__name__
    if isinstance(model, torch.nn.Module):
        return NotImplementedError(
            f"{function} works on flattest.TwoLayerNet; other modules, such as this {kind}, "
            "are not supported yet."
        )
    return TypeError(f"model must be a flattest.TwoLayerNet, not {kind}.")
