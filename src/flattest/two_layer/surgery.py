"""Network surgery that keeps the function: merge, split and prune neurons."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flattest.two_layer.networks import TwoLayerNet, check_two_layer
from flattest.validation import check_matrix, check_positive_float, check_positive_int


@torch.no_grad()
def merge(net: TwoLayerNet, tol: float = 1e-10) -> TwoLayerNet:
    r"""Replace neurons on the same ray by one neuron each.

    For ``w_j = t_j u`` with ``t_j > 0`` the sum over the group is
    :math:`\left(\sum_j a_j t_j^p\right) s(u \cdot x)`. For an even or odd activation (``"abs"``,
    ``"linear"``, ``"quadratic"``, ``"cubic"``) the opposite ray belongs to the group as well.

    Parameters
    ----------
    net : TwoLayerNet
        The network; it is not modified.
    tol : float
        Largest distance between unit weight vectors that count as one ray. Beyond rounding the
        function changes by an amount of order `tol`.

    Returns
    -------
    TwoLayerNet
        A new network, neurons in the order in which their rays first appear. Groups that cancel
        are dropped; at least one neuron stays.

    Raises
    ------
    TypeError
        If `net` is not a `TwoLayerNet` or `tol` not a number.
    ValueError
        If `tol` is negative.

    Notes
    -----
    The merged neuron gets ``||w||**(2p) = sum_j t_j**(2p)``, by which, for ``p = 1``, the trace
    never grows; balanced neurons with coefficients of one sign keep it exactly. For ``p > 1`` a
    network of fewer neurons has a larger orbit minimum, by up to ``K**((p-1)/(p+1))`` for ``K``
    equal copies.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[3.0, 0.0], [4.0, 0.0]], [1.0, 1.0], "relu")
    >>> merged = ft.merge(net)
    >>> merged.width, merged.weights.detach().tolist()
    (1, [[5.0, 0.0]])
    """
    check_two_layer(net, "merge")
    tolerance = check_positive_float(tol, "tol", allow_minimum=True)
    p, parity = net.degree, net.activation.parity
    w, a = net.weights.detach().double(), net.coefficients.detach().double()
    norms = torch.linalg.vector_norm(w, dim=1)
    effective = a * norms.pow(p)  # the coefficient of s(u . x)
    if not torch.isfinite(effective).all():
        raise ValueError(
            "net has neurons whose size leaves the range of float64; balance or rescale it first."
        )
    kept = effective.nonzero()[:, 0]
    units = w[kept] / norms[kept, None]

    weights, coefficients, first = [], [], []
    for members, signs in _rays(units, effective[kept].abs(), tolerance, opposite=parity != 0):
        index = kept[members]
        signed = effective[index] * (torch.ones_like(signs) if parity >= 0 else signs)
        if signed.sum().abs() <= torch.finfo(net.weights.dtype).eps * signed.abs().sum():
            continue
        mean = (signed.abs() * signs) @ units[members]
        norm = norms[index].pow(2 * p).sum().pow(1 / (2 * p))
        weights.append(mean * (norm / torch.linalg.vector_norm(mean)))
        coefficients.append(signed.sum() / norm.pow(p))
        first.append(int(index.min()))
    if not weights:
        return _select(net, torch.tensor([0], device=w.device), zero=True)
    order = sorted(range(len(first)), key=first.__getitem__)
    dtype = net.weights.dtype
    return TwoLayerNet(
        torch.stack([weights[i] for i in order]).to(dtype),
        torch.stack([coefficients[i] for i in order]).to(dtype),
        net.activation,
    )


@torch.no_grad()
def split(net: TwoLayerNet, neuron: int, copies: int) -> TwoLayerNet:
    """Replace one neuron by equal copies that share its coefficient.

    The function stays the same. For ``p = 1`` so does the orbit minimum; for ``p > 1`` that of
    the neuron shrinks by ``copies**(-(p-1)/(p+1))``, which is why minima are to be compared at
    one width.

    Parameters
    ----------
    net : TwoLayerNet
        The network; it is not modified.
    neuron : int
        The index of the neuron.
    copies : int
        The number of copies, at least 1.

    Returns
    -------
    TwoLayerNet
        A new network with ``copies - 1`` more neurons, the copies in place of the neuron.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If there is no such neuron, or `copies` is less than 1.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.split(ft.TwoLayerNet([[1.0]], [6.0], "relu"), 0, 3).coefficients.detach()
    tensor([2., 2., 2.], dtype=torch.float64)
    """
    check_two_layer(net, "split")
    index = check_positive_int(neuron, "neuron", minimum=0)
    count = check_positive_int(copies, "copies")
    if index >= net.width:
        raise ValueError(f"neuron must be less than the width {net.width}, not {index}.")
    repeats = torch.ones(net.width, dtype=torch.long, device=net.weights.device)
    repeats[index] = count
    return TwoLayerNet(
        net.weights.detach().repeat_interleave(repeats, dim=0),
        (net.coefficients.detach() / repeats).repeat_interleave(repeats),
        net.activation,
    )


@torch.no_grad()
def prune(net: TwoLayerNet, X: Any = None, tol: float = 0.0) -> TwoLayerNet:
    """Drop neurons that contribute nothing.

    Without data these are the neurons with ``a_j = 0`` or ``w_j = 0``, and the function stays the
    same everywhere. With data `X` also those whose activations ``s(w_j . x_i)`` vanish on all
    samples: then the function stays the same on `X`, but it may change elsewhere.

    Parameters
    ----------
    net : TwoLayerNet
        The network; it is not modified.
    X : Tensor or array_like of shape (n, d), optional
        Data on which neurons must be active to be kept.
    tol : float
        Also drop neurons whose size, ``|a_j| ||w_j||**p`` or with data
        ``max_i |a_j s(w_j . x_i)|``, is at most `tol` times the largest one.

    Returns
    -------
    TwoLayerNet
        A new network with the other neurons in their order; one zero neuron if none is left.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[1.0], [2.0], [-1.0]], [1.0, 0.0, 1.0], "relu")
    >>> ft.prune(net).width, ft.prune(net, [[1.0], [2.0]]).width
    (2, 1)
    """
    check_two_layer(net, "prune")
    tolerance = check_positive_float(tol, "tol", allow_minimum=True)
    w, a = net.weights.detach(), net.coefficients.detach()
    # In logarithms no size overflows; log 0 is -inf, so that a tolerance of 0 keeps everything.
    least, log_a = math.log(tolerance) if tolerance else -math.inf, a.double().abs().log()
    size = log_a + net.degree * torch.linalg.vector_norm(w.double(), dim=1).log()
    keep = (a != 0) & (w != 0).any(dim=1) & (size >= least + size.max())
    if X is not None:
        peak = torch.zeros_like(a)
        for rows in check_matrix(X, like=net.like).split(max(256, (1 << 20) // net.width)):
            peak = torch.maximum(peak, net.activation(rows @ w.T).abs().amax(dim=0))
        size = log_a + peak.double().log()
        keep &= (peak > 0) & (size >= least + size.max())
    kept = keep.nonzero()[:, 0]
    if len(kept) == 0:
        return _select(net, torch.tensor([0], device=w.device), zero=True)
    return _select(net, kept)


def _rays(
    units: Float[Tensor, "m d"], size: Float[Tensor, " m"], tol: float, *, opposite: bool
) -> list[tuple[Int[Tensor, " k"], Float[Tensor, " k"]]]:
    """Group unit vectors, the largest neurons first; with each member its sign on the ray."""
    free = torch.ones(len(units), dtype=torch.bool, device=units.device)
    groups = []
    for seed in size.argsort(descending=True).tolist():
        if not free[seed]:
            continue
        # Distances, not cosines: 1 - cos loses half of the digits.
        same = torch.linalg.vector_norm(units - units[seed], dim=1) <= tol
        other = torch.linalg.vector_norm(units + units[seed], dim=1) <= tol
        joined = free & ((same | other) if opposite else same)
        joined[seed] = True
        free &= ~joined
        members = joined.nonzero()[:, 0]
        groups.append((members, torch.where(same[members], 1.0, -1.0).to(units.dtype)))
    return groups


def _select(net: TwoLayerNet, index: Int[Tensor, " k"], *, zero: bool = False) -> TwoLayerNet:
    """Return the network of some neurons, their coefficients set to 0 where asked."""
    a = net.coefficients.detach()[index]
    return TwoLayerNet(
        net.weights.detach()[index], torch.zeros_like(a) if zero else a, net.activation
    )
