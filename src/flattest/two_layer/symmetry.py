"""Moving along the rescaling symmetry: anywhere, to the flattest point, or as far as asked."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch

from flattest.two_layer.measuring import check_squared_loss, sum_over
from flattest.two_layer.networks import TwoLayerNet, check_two_layer
from flattest.validation import Argument, check_positive_float, check_vector


@torch.no_grad()
def rescale(net: TwoLayerNet, scales: Any) -> TwoLayerNet:
    """Rescale every neuron: the general function for two-layer networks.

    Parameters
    ----------
    net, scales
        As for :func:`flattest.rescale`.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    check_two_layer(net, "rescale")
    if getattr(scales, "ndim", 1) == 0 and not getattr(scales, "is_meta", False):
        scales = scales.item()
    one_for_all = isinstance(scales, Real) and not isinstance(scales, bool)
    c = check_vector([scales] if one_for_all else scales, Argument("scales", "neuron"))
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


@torch.no_grad()
def balance(net: TwoLayerNet, X: Any, y: Any = None, *, loss: str = "mse") -> TwoLayerNet:
    """Go to the flattest network on the orbit: the general function for two-layer networks.

    Parameters
    ----------
    net, X, y, loss
        As for :func:`flattest.balance`.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.
    """
    check_squared_loss(loss)
    sums = sum_over(net, X, y, needs_targets=False)
    balanced = rescale(net, sums.scale)
    silent = (net.coefficients == 0) & (sums.outer > 0)
    balanced.weights[silent] = 0
    empty = (net.weights == 0).all(dim=1) & (sums.inner > 0)
    balanced.coefficients[empty] = 0
    return balanced


@torch.no_grad()
def sharpen(net: TwoLayerNet, factor: float | int) -> TwoLayerNet:
    """Multiply the trace on every data set: the general function for two-layer networks.

    Parameters
    ----------
    net, factor
        As for :func:`flattest.sharpen`.

    Returns
    -------
    TwoLayerNet
        A new network computing the same function.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value.

    Notes
    -----
    Since ``|z s'(z)| = p |s(z)|`` and ``|z| <= ||w|| ||x||``, on all data
    ``B_j >= kappa_j A_j`` with ``kappa_j = p**2 a_j**2 / ||w_j||**2``. The scale ``c_j`` turns
    ``B_j`` into ``c_j**-2 B_j``, so ``c_j**-2 = factor (1 + 1 / kappa_j)`` gives at least
    ``factor (B_j + A_j)``: the weights shrink, the coefficients grow. A neuron with ``a_j = 0``
    has ``B_j = 0``, and there ``c_j**(2p) = factor``.
    """
    check_two_layer(net, "sharpen")
    number = check_positive_float(factor, "factor", minimum=1, allow_minimum=True)
    if number == 1:
        return rescale(net, 1.0)
    a = net.coefficients.double()
    norms = torch.linalg.vector_norm(net.weights, dim=1, dtype=torch.float64)
    # A hair more than enough, so that rounding in the network's dtype keeps the guarantee.
    number *= 1 + torch.finfo(net.weights.dtype).eps ** 0.5
    scales = (number * (1 + (norms / (net.degree * a)).square())).pow(-0.5)
    silent = number ** (1 / (2 * net.degree))
    try:
        return rescale(net, torch.where(a == 0, torch.full_like(a, silent), scales))
    except ValueError as error:
        raise ValueError(
            f"factor {factor:g} takes the parameters out of the range of {net.weights.dtype}; "
            "use a smaller one, or model.double()."
        ) from error
