"""Moving along the rescaling symmetry: anywhere, to the flattest point, or as far as asked."""

from __future__ import annotations

import functools
from numbers import Real
from typing import Any

import torch

from flattest.flatness import accumulate, check_squared_loss, unsupported_model
from flattest.networks import TwoLayerNet, check_two_layer
from flattest.validation import check_positive_float, check_y


@torch.no_grad()
def rescale(net: TwoLayerNet, scales: Any) -> TwoLayerNet:
    r"""Rescale every neuron without changing the function.

    ``(a_j, w_j) -> (c_j**-p a_j, c_j w_j)``: the symmetry of p-homogeneous networks, under which
    the trace of the Hessian takes any large value while the function stays the same.

    Parameters
    ----------
    net : TwoLayerNet
        The network; it is not modified.
    scales : float, Tensor or array_like of shape (m,)
        The factors ``c_j > 0``, one for all neurons or one each.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    TypeError
        If `net` is not a `TwoLayerNet`, or `scales` does not hold real numbers.
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
    check_two_layer(net, "rescale")
    if getattr(scales, "ndim", 1) == 0 and not getattr(scales, "is_meta", False):
        scales = scales.item()
    one_for_all = isinstance(scales, Real) and not isinstance(scales, bool)
    c = check_y([scales] if one_for_all else scales, name="scales")
    c = c.to(net.weights.device).double()
    if one_for_all:
        c = c.expand(net.width)
    if len(c) != net.width:
        raise ValueError(
            f"scales must be one number or {net.width} numbers, one per neuron, not {len(c)}."
        )
    if not (c > 0).all():
        raise ValueError(f"scales must be positive, but one of them is {c.min():g}.")
    weights = (net.weights.double() * c[:, None]).to(net.weights.dtype)
    coefficients = (net.coefficients.double() * c.pow(-net.degree)).to(net.weights.dtype)
    lost = (coefficients == 0) & (net.coefficients != 0)
    lost |= (weights == 0).all(dim=1) & (net.weights != 0).any(dim=1)
    finite = torch.isfinite(weights).all() and torch.isfinite(coefficients).all()
    if lost.any() or not finite:
        raise ValueError(
            f"scales take the parameters out of the range of {net.weights.dtype}; "
            "use scales nearer 1, or net.double()."
        )
    return TwoLayerNet(weights, coefficients, net.activation)


def balance(model: torch.nn.Module, X: Any, y: Any = None, *, loss: str = "mse") -> TwoLayerNet:
    r"""Return the flattest network on the rescaling orbit: the same function, the least trace.

    Neuron ``j`` becomes ``(c_j**-p a_j, c_j w_j)`` with
    :math:`c_j = (B_j / (p A_j))^{1/(2p+2)}`, where ``A_j`` and ``B_j`` are its mean squared
    gradients (see :class:`flattest.Flatness`). The Gauss-Newton part of the trace, which is the
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
    return balance_dispatch(model, X, y, loss=loss)


@functools.singledispatch
def balance_dispatch(model: Any, X: Any, y: Any, *, loss: str) -> Any:
    """Choose the way to balance by the type of model: other kinds of network register here.

    Parameters
    ----------
    model, X, y, loss
        As for :func:`balance`.

    Returns
    -------
    Module
        A new model of the same kind.

    Raises
    ------
    TypeError
        If `model` is not a module.
    NotImplementedError
        If nothing is registered for it.
    """
    raise unsupported_model(model, "balance")


@balance_dispatch.register
@torch.no_grad()
def _balance_two_layer(model: TwoLayerNet, X: Any, y: Any, *, loss: str) -> TwoLayerNet:
    check_squared_loss(loss)
    sums = accumulate(model, X, y, needs_targets=False).result()
    balanced = rescale(model, sums.scale)
    silent = (model.coefficients == 0) & (sums.outer > 0)
    balanced.weights[silent] = 0
    empty = (model.weights == 0).all(dim=1) & (sums.inner > 0)
    balanced.coefficients[empty] = 0
    return balanced


@torch.no_grad()
def sharpen(model: TwoLayerNet, factor: float | int) -> TwoLayerNet:
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
    TypeError
        If `model` is not a `TwoLayerNet` or `factor` not a number.
    ValueError
        If `factor` is less than 1, or takes the parameters out of the range of the dtype.

    Notes
    -----
    Since ``|z s'(z)| = p |s(z)|`` and ``|z| <= ||w|| ||x||``, on all data
    ``B_j >= kappa_j A_j`` with ``kappa_j = p**2 a_j**2 / ||w_j||**2``. The scale ``c_j`` turns
    ``B_j`` into ``c_j**-2 B_j``, so ``c_j**-2 = factor (1 + 1 / kappa_j)`` gives at least
    ``factor (B_j + A_j)``: the weights shrink, the coefficients grow. A neuron with ``a_j = 0``
    has ``B_j = 0``, and there ``c_j**(2p) = factor``.

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
    check_two_layer(model, "sharpen")
    number = check_positive_float(factor, "factor", minimum=1, allow_minimum=True)
    if number == 1:
        return rescale(model, 1.0)
    a = model.coefficients.double()
    norms = torch.linalg.vector_norm(model.weights, dim=1, dtype=torch.float64)
    # A hair more than enough, so that rounding in the network's dtype keeps the guarantee.
    number *= 1 + torch.finfo(model.weights.dtype).eps ** 0.5
    scales = (number * (1 + (norms / (model.degree * a)).square())).pow(-0.5)
    silent = number ** (1 / (2 * model.degree))
    try:
        return rescale(model, torch.where(a == 0, torch.full_like(a, silent), scales))
    except ValueError as error:
        raise ValueError(
            f"factor {factor:g} takes the parameters out of the range of {model.weights.dtype}; "
            "use a smaller one, or model.double()."
        ) from error
