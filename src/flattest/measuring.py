"""The door: `measure`, `balance`, `sharpen` and `rescale` for every kind of network.

Each function chooses the implementation by the type of the model, and does nothing else. This is
the only module that knows more than one kind: whoever works with two-layer networks only, as the
interpolators and the regression do, takes the functions of `flattest.two_layer`.
"""

from __future__ import annotations

from typing import Any, overload

import torch

from flattest.flatness import Flatness
from flattest.modules import measuring as modules_measuring, moving
from flattest.two_layer import measuring as two_layer_measuring, symmetry as two_layer_symmetry
from flattest.two_layer.flatness import TwoLayerFlatness
from flattest.two_layer.networks import TwoLayerNet


@overload
def measure(
    model: TwoLayerNet, X: Any, y: Any = None, *, loss: str = ..., chunk_size: int | None = ...
) -> TwoLayerFlatness: ...


@overload
def measure(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = ...,
    output: Any = ...,
    parameters: Any = ...,
    batch_size: int | None = ...,
    memory: int | str | None = ...,
    mode: str = ...,
    rtol: float | int = ...,
    residual: str = ...,
    panel: bool = ...,
    largest_eigenvalue: str | None = ...,
    random_state: Any = ...,
    verbose: bool | int = ...,
    symmetry: str = ...,
    batch_norm: str = ...,
) -> Flatness: ...


def measure(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = "mse",
    output: Any = None,
    parameters: Any = None,
    batch_size: int | None = None,
    memory: int | str | None = None,
    mode: str = "auto",
    rtol: float | int = 0.01,
    residual: str = "auto",
    panel: bool = False,
    largest_eigenvalue: str | None = None,
    random_state: Any = None,
    verbose: bool | int = False,
    symmetry: str = "none",
    batch_norm: str = "keep",
    chunk_size: int | None = None,
) -> Flatness:
    r"""Measure the flatness of a network on data: exactly, or with a standard error.

    For the loss ``L`` of all samples, with logits ``z_i`` and their Jacobian ``J_i`` in the
    parameters, the trace of its Hessian is the sum of the Gauss-Newton part

    .. math::
        \operatorname{tr} G = \sum_i \operatorname{tr} J_i^T \,
        \frac{\partial^2 L}{\partial z_i^2} \, J_i

    and of a residual part. For a two-layer network both are known in closed form, together with
    the smallest trace over its rescaling symmetry and a lower bound. For any other module the
    Gauss-Newton part and its diagonal are computed exactly, as signed squares of per-sample
    gradients: one backward pass for every column of the loss's own Hessian in the logits. For many
    outputs a few columns per sample are drawn instead, and the figures have standard errors. The
    residual part is 0 for every parameter tensor in which the outputs are proved to be piecewise
    linear, as all are of a ReLU network; for the others it is computed or estimated.

    Parameters
    ----------
    model : torch.nn.Module
        A `TwoLayerNet`, or any module in evaluation mode. It comes back as it was: no gradients, no
        other mode, buffers, hooks or random state. Half precision is measured on a float32 copy.
    X : Tensor, array_like, dict or tuple, or iterable of batches
        The data of one batch, with samples along the first dimension: what the model is called
        with, a tuple by positions and a dictionary by names. Or an iterable, such as a DataLoader,
        of pairs (X, y), or of dictionaries that hold the targets as ``"labels"``, ``"targets"`` or
        ``"y"``. It is read once. Tensors must have the model's dtype; everything else is converted.
    y : Tensor or array_like, optional
        The targets, in the form that the loss takes; left out for batches.
    loss : {"mse", "cross_entropy", "bce_with_logits"}, torch.nn loss or callable
        The loss: by name, averaged as PyTorch does by default; a loss module with all its options;
        or a function of (logits, targets), or of (model, batch) if its first parameter is called
        ``model``, that returns one number and can be differentiated twice. It has to be a sum over
        samples, or a weighted mean, and batches are weighed by its own normaliser. Two-layer
        networks take ``"mse"``.
    output : str, int or callable, optional
        Where the logits are in what the model returns, if that is no tensor: a name, a position, or
        a function. By default ``logits``.
    parameters : "all" or list of str, optional
        Which parameters the trace runs over: all, or those whose names match a pattern such as
        ``"layer4.*"``. By default those that require gradients.
    batch_size : int, optional
        Samples worked on together, to bound the memory. By default as many as fit into about 100
        MB.
    memory : int or str, optional
        In place of `batch_size`: what the work may hold beside the model, the data and the
        diagonal, as a number of bytes or ``"2 GiB"``. What a few samples take is measured first.
    mode : {"auto", "exact", "sampled"}
        Whether all columns are taken, or some are drawn. ``"auto"`` draws where there are more than
        100 and drawing is cheaper. What the other would cost is said in the result's `provenance`.
    rtol : float
        The standard errors, relative to the Gauss-Newton trace, at which drawing and probing stop.
    residual : {"auto", "exact", "estimate", "none"}
        How the residual part is found where it is not proved to be 0: exactly for small layers and
        else by probes with a standard error; all exactly; all by probes; or not at all, and then
        the trace is not known either. ``"auto"`` leaves it out, and says so, where PyTorch lacks a
        second derivative.
    panel : bool
        Whether to measure as well: the Fisher-Rao norm, and relative flatness layer by layer.
    largest_eigenvalue : {"hessian", "gauss_newton"}, optional
        Of which matrix to find the largest eigenvalue, by Lanczos' method: some twenty passes
        through the data, which are kept for that.
    random_state : int, numpy.random.Generator or None
        For the draws and probes.
    verbose : bool
        Whether to show the progress of what takes more than two seconds, with an estimate of the
        time left.
    symmetry : {"none", "scales", "all"}
        Whether the minimum of the Gauss-Newton trace over all networks with the same outputs is
        wanted: over scales of hidden units, or over these and over the invertible matrices between
        linear factors, as of attention heads and LoRA. The result's `orbit_minimum` is that, and
        `orbit` says whether it is attained and how sure it is. For two-layer networks it is always
        there.
    batch_norm : {"keep", "fold"}
        Whether batch normalisation stays, or is folded into the layers before it on a copy, which
        is measured then: the trace and its minimum depend on the parametrisation.
    chunk_size : int, optional
        The same as `batch_size` for a two-layer network, in rows.

    Returns
    -------
    Flatness
        The measurements: a `TwoLayerFlatness` for a `TwoLayerNet`. After Ctrl-C those of the
        batches until then, or of the first samples of the first batch: `partial` is set, with a
        warning. A second Ctrl-C interrupts at once.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or the model cannot be measured: in
        training mode with batch normalisation or dropout, with a loss that is no sum over samples.

    Notes
    -----
    Parameters that share a tensor count once. Cross-entropy on a network that ends in a log-softmax
    layer should be given as cross-entropy on its logits: cut behind the log-softmax, the loss is
    linear, and all curvature is in the residual part.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    N. N. Schraudolph, "Fast Curvature Matrix-Vector Products for Second-Order Gradient Descent",
    Neural Computation 14, 2002.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[2.0, 0.0], [0.0, 1.0]], [0.5, -1.0], "relu")
    >>> flatness = ft.measure(net, [[3.0, 1.0], [-1.0, 2.0]], [2.0, -2.0])
    >>> flatness.trace, flatness.loss
    (58.5, 0.0)

    >>> import torch
    >>> classifier = torch.nn.Linear(2, 3, bias=False).double()
    >>> _ = torch.nn.init.zeros_(classifier.weight)
    >>> ft.measure(classifier, [[1, 2], [3, 0], [0, 1]], [0, 2, 1], loss="cross_entropy")
    Flatness
      trace of the Hessian           3.33333  exact
        Gauss-Newton part            3.33333  exact
        residual part                      0  exact
      adaptive flatness                    0  exact
      loss                           1.09861  exact
      3 samples, 6 parameters, torch.float64 on cpu
    """
    if isinstance(model, TwoLayerNet):
        for name, value in (
            ("output", output),
            ("parameters", parameters),
            ("memory", memory),
            ("panel", panel or None),
            ("largest_eigenvalue", largest_eigenvalue),
            ("symmetry", None if symmetry == "none" else symmetry),
            ("batch_norm", None if batch_norm == "keep" else batch_norm),
        ):
            if value is not None:
                raise ValueError(f"{name} is not for two-layer networks; leave it out.")
        if batch_size is not None:
            raise ValueError("batch_size is called chunk_size for two-layer networks.")
        return two_layer_measuring.measure(model, X, y, loss=loss, chunk_size=chunk_size)
    if chunk_size is not None:
        raise ValueError("chunk_size is for two-layer networks; use batch_size.")
    return modules_measuring.measure(
        model,
        X,
        y,
        loss=loss,
        output=output,
        parameters=parameters,
        batch_size=batch_size,
        memory=memory,
        mode=mode,
        rtol=rtol,
        residual=residual,
        panel=panel,
        largest_eigenvalue=largest_eigenvalue,
        random_state=random_state,
        verbose=verbose,
        symmetry=symmetry,
        batch_norm=batch_norm,
    )


@overload
def balance(
    model: TwoLayerNet, X: Any, y: Any = None, *, loss: str = ..., return_report: bool = ...
) -> TwoLayerNet: ...


@overload
def balance(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = ...,
    objective: str = ...,
    symmetry: str = ...,
    batch_norm: str = ...,
    output: Any = ...,
    batch_size: int | None = ...,
    random_state: Any = ...,
    return_report: bool = ...,
) -> Any: ...


def balance(
    model: torch.nn.Module,
    X: Any,
    y: Any = None,
    *,
    loss: Any = "mse",
    objective: str = "trace",
    symmetry: str = "scales",
    batch_norm: str = "keep",
    output: Any = None,
    batch_size: int | None = None,
    random_state: Any = None,
    return_report: bool = False,
) -> Any:
    r"""Return the flattest network among all that symmetries make of one: the same function.

    The channels of a network with ReLUs can be scaled up on one side and down on the other:
    parameter ``e`` becomes :math:`\theta_e \exp(c_e \cdot z)`, its entry of the Gauss-Newton
    diagonal :math:`G_{ee} \exp(-2 c_e \cdot z)`. Their sum is convex in the log scales ``z``, and
    this returns the network at its minimum: the orbit minimum of :func:`flattest.measure`.

    For a two-layer network neuron ``j`` becomes ``(c_j**-p a_j, c_j w_j)`` with
    :math:`c_j = (B_j / (p A_j))^{1/(2p+2)}`, where ``A_j`` and ``B_j`` are its mean squared
    gradients (see :class:`flattest.PerNeuron`).

    Parameters
    ----------
    model : torch.nn.Module
        A `TwoLayerNet`, or any module in evaluation mode; it is not modified.
    X : Tensor, array_like, dict or tuple, or iterable of batches
        The data, as for :func:`flattest.measure`.
    y : Tensor or array_like, optional
        The targets. For a two-layer network they are checked, but do not matter.
    loss : {"mse", "cross_entropy", "bce_with_logits"}, torch.nn loss or callable
        The loss, as for :func:`flattest.measure`.
    objective : {"trace", "range", "quantisation"}
        What is minimised. ``"trace"``, the Gauss-Newton trace, is for noise of one size on all
        parameters. It is the wrong objective before rounding to few bits with one step size per
        tensor, and made that worse where it was tried: ``"quantisation"`` minimises the expected
        loss of that, the sum over weights of their largest square times their trace, and
        ``"range"`` equalises the ranges of channels without regard to the loss (Nagel et al. 2019),
        for which batch normalisation has to be folded: where one side of a channel is its gain,
        which is not rounded, there is nothing to equalise. With a step size per channel hardly
        anything is left to gain.
    symmetry : {"scales", "all"}
        Over scales, or over linear groups as well: the invertible matrices between values and
        output projection of an attention head, and the like.
    batch_norm : {"keep", "fold"}
        Whether batch normalisation stays, or is folded into the layers before it.
    output : str, int or callable, optional
        Where the logits are in what the model returns, if that is no tensor.
    batch_size : int, optional
        Samples worked on together, to bound the memory.
    random_state : int, numpy.random.Generator or None
        For what is drawn, where a loss has very many outputs.
    return_report : bool
        Whether to return a `BalanceReport` as well, with a table of what was scaled by how much.

    Returns
    -------
    model : torch.nn.Module
        A new module of the same class, with the same names, dtypes and devices.
    report : BalanceReport
        What was done; only with `return_report`, and not for two-layer networks.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type, shape or value, or if the outputs on the first batch would
        change by more than 1e-10 in float64.

    See Also
    --------
    flattest.symmetries : What can be scaled, and what is frozen.

    Notes
    -----
    Where the minimum is not attained, terms that vanish in the infimum are left out, and the rest
    is balanced; the measurement says so. A second call changes nothing.

    Dead units, and nearly dead ones, stay as they are: those whose gain, the geometric mean of
    their largest weights on either side relative to the largest of the layers, or whose flow, that
    of the parts of the objective that fall and rise with their scale, is below 1e-6 of the median.
    Scales change neither. Only where staying would raise the objective such units are moved, as in
    a network that was sharpened at them. The report has their number.

    For two-layer networks, a neuron with ``a_j = 0`` has an infimum of 0 that no ``c`` attains;
    setting ``w_j = 0`` attains it and changes no output (likewise ``w_j = 0`` where ``s'(0)`` is
    not 0). Neurons that fire on no sample contribute nothing and are left alone.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", ICCV 2019.

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
        for name, value, default in (
            ("objective", objective, "trace"),
            ("symmetry", symmetry, "scales"),
            ("batch_norm", batch_norm, "keep"),
            ("output", output, None),
            ("batch_size", batch_size, None),
            ("return_report", return_report, False),
        ):
            if value != default:
                raise ValueError(f"{name} is not for two-layer networks; leave it out.")
        return two_layer_symmetry.balance(model, X, y, loss=loss)
    balanced, report = moving.balance(
        model,
        X,
        y,
        loss=loss,
        objective=objective,
        symmetry=symmetry,
        batch_norm=batch_norm,
        output=output,
        batch_size=batch_size,
        random_state=random_state,
    )
    return (balanced, report) if return_report else balanced


def sharpen(
    model: torch.nn.Module, factor: float | int, X: Any = None, *, random_state: Any = None
) -> Any:
    r"""Return the same function with a trace `factor` times larger.

    The attack of Dinh et al. (2017) on the raw trace as a measure of flatness. For a two-layer
    network the Gauss-Newton part is `factor` times larger, or more, on every data set; this is the
    whole trace at an interpolator and for ``p = 1``, while the residual part may have either sign,
    and sharpening amplifies it as well. For any other module the sum of the squared gradients of
    all outputs on `X`, the trace of a squared error, is exactly `factor` times larger, by scales
    along a random direction.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is not modified.
    factor : float
        At least 1.
    X : Tensor, array_like, dict or tuple, optional
        Example inputs; needed for modules other than `TwoLayerNet`.
    random_state : int, numpy.random.Generator or None
        For the direction.

    Returns
    -------
    torch.nn.Module
        A new network of the same class.

    Raises
    ------
    TypeError
        If `model` is no module, `factor` not a number, or `X` missing.
    ValueError
        If `factor` is less than 1, or takes the parameters out of the range of the dtype, or if no
        scale of the module is free.

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
    _refuse_no_module(model)
    return moving.sharpen(model, factor, X, random_state=random_state)


def rescale(model: torch.nn.Module, scales: Any, X: Any = None) -> Any:
    r"""Rescale hidden units without changing the function.

    ``(a_j, w_j) -> (c_j**-p a_j, c_j w_j)`` for a two-layer network: the symmetry of p-homogeneous
    networks, under which the trace of the Hessian takes any large value while the function stays
    the same. For any other module, the free scales that :func:`flattest.symmetries` finds.

    Parameters
    ----------
    model : torch.nn.Module
        The network; it is not modified.
    scales : float, Tensor, array_like of shape (m,), or mapping of str to float
        The factors ``c_j > 0``, one for all neurons or free scales, or one each. For modules also
        some of them by name; the others stay.
    X : Tensor, array_like, dict or tuple, optional
        Example inputs; needed for modules other than `TwoLayerNet`.

    Returns
    -------
    torch.nn.Module
        A new network of the same class.

    Raises
    ------
    TypeError
        If `model` is no module, `scales` does not hold real numbers, or `X` is missing.
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
    _refuse_no_module(model)
    return moving.rescale(model, scales, X)


def _refuse_no_module(model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            "model must be a torch.nn.Module, such as a flattest.TwoLayerNet, not "
            f"{type(model).__name__}."
        )
