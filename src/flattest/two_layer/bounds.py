"""Lower bounds on the trace: no network of the given width can be flatter on the given data."""

from __future__ import annotations

import math
from typing import Any

import torch

from flattest.two_layer.activations import Homogeneous, activation as get_activation
from flattest.validation import check_matrix, check_positive_int, check_vector, like_inputs

_ROWS = 1 << 16


def lower_bound(X: Any, y: Any, *, width: int, activation: str | Homogeneous) -> float:
    r"""Lower bound on the Hessian's trace at every interpolator of one width.

    .. math::
        \operatorname{tr} H \ge \frac{2}{n} (1 + p)\, p^{p/(p+1)} \, m^{-(p-1)/(p+1)}
        \sum_i \left( \gamma^{1/p} \|x_i\| |y_i| \right)^{2p/(p+1)}

    for every network ``f(x) = sum_j a_j s(w_j . x)`` of width ``m`` with ``f(x_i) = y_i``.

    Parameters
    ----------
    X : Tensor or array_like of shape (n, d)
        The data.
    y : Tensor or array_like of shape (n,)
        The targets. With a network's own outputs in their place, the bound holds for the
        Gauss-Newton part of that network's trace.
    width : int
        The number of neurons ``m``; the bound does not depend on it for ``p = 1``.
    activation : str or Homogeneous
        The activation; ``gamma`` is its smaller non-zero absolute slope.

    Returns
    -------
    float
        The bound.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Notes
    -----
    Write ``t_ij = a_j s(z_ij)``. Sample ``i`` and neuron ``j`` contribute to ``n/2`` times the
    trace ``u + v`` with ``u = s(z_ij)**2`` and ``v = a_j**2 s'(z_ij)**2 ||x_i||**2``. The weighted
    inequality of arithmetic and geometric means, ``u + v >= (1+p) p**(-p/(p+1)) u**(1/(p+1))
    v**(p/(p+1))``, cancels ``z_ij`` because ``|z s'(z)| = p |s(z)|``, and leaves
    ``(1+p) p**(p/(p+1)) (slope**(1/p) ||x_i|| |t_ij|)**q`` with ``q = 2p/(p+1)``. Hölder's
    inequality over the ``m`` neurons, ``sum_j |t_ij|**q >= m**(1-q) |sum_j t_ij|**q``, gives the
    bound. For ``p = 1`` and ReLU see also Wen, Li and Ma (2023).

    References
    ----------
    K. Wen, Z. Li, T. Ma, "Sharpness Minimization Algorithms Do Not Only Minimize Sharpness To
    Achieve Better Generalization", NeurIPS 2023.

    Examples
    --------
    One ReLU per sample, on orthogonal samples, attains the bound:

    >>> import flattest as ft
    >>> X, y = [[1.0, 0.0], [0.0, 4.0]], [1.0, 1.0]
    >>> ft.lower_bound(X, y, width=2, activation="relu")
    10.0
    >>> net = ft.balance(ft.TwoLayerNet([[1.0, 0.0], [0.0, 0.25]], [1.0, 1.0], "relu"), X)
    >>> round(ft.measure(net, X, y).trace, 12)
    10.0
    """
    checked_X = check_matrix(X)
    like = like_inputs(checked_X, y) if isinstance(X, torch.Tensor) else None
    checked_y = check_vector(y, like=like, n_samples=len(checked_X))
    m = check_positive_int(width, "width")
    shape = get_activation(activation)
    q = 2 * shape.degree / (shape.degree + 1)
    total = 0.0
    for rows, targets in zip(checked_X.split(_ROWS), checked_y.split(_ROWS), strict=True):
        norms = torch.linalg.vector_norm(rows.double(), dim=1)
        total += (norms * targets.abs()).pow(q).sum().item()
    return bound_from_sum(total, len(checked_X), m, shape)


def bound_from_sum(total: float, n_samples: int, width: int, activation: Homogeneous) -> float:
    """Turn ``sum_i (||x_i|| |y_i|)**(2p/(p+1))`` into the lower bound.

    Parameters
    ----------
    total : float
        The sum over samples.
    n_samples, width : int
        ``n`` and ``m``.
    activation : Homogeneous
        The activation.

    Returns
    -------
    float
        The bound.

    Examples
    --------
    >>> import flattest as ft
    >>> from flattest.two_layer.bounds import bound_from_sum
    >>> bound_from_sum(5.0, 2, 2, ft.activation("relu"))
    10.0
    """
    p = activation.degree
    factor = 2 * (1 + p) * p ** (p / (p + 1)) * width ** (-(p - 1) / (p + 1))
    slope = activation.smallest_slope ** (2 / (p + 1))
    return factor * slope * total / n_samples if math.isfinite(total) else math.inf
