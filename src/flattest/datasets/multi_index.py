"""Multi-index data: sums of functions of a few projections of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.datasets.input_laws import InputLaw, check_matrix_shape, input_law
from flattest.datasets.links import Link, link_sequence
from flattest.validation import (
    Argument,
    check_matrix,
    check_positive_float,
    check_positive_int,
    check_random_state,
    check_vector,
)


@dataclass(frozen=True, init=False, eq=False, repr=False)
class MultiIndexModel:
    r"""A sum of single-index models, with the law of its inputs.

    .. math:: f^*(x) = \sum_{r=1}^k c_r \, g_r(u_r \cdot x), \qquad
              y = f^*(x) + \text{noise} \cdot e, \quad e \sim N(0, 1)

    Parameters
    ----------
    directions : Tensor or array_like of shape (k, d)
        Row ``r`` is ``u_r``, used as given: not normalised. A float32 tensor stays one; everything
        else becomes float64.
    links : sequence of str, callable, Link or (coefficient, link)
        The ``k`` terms ``c_r g_r``, as :func:`flattest.datasets.links.link` reads them.
    noise : float, default=0.0
        The standard deviation of the label noise. It never enters ``model(X)``.
    inputs : str, callable or InputLaw, default="gaussian"
        The law of ``x``; for one with options, an :class:`flattest.datasets.input_laws.InputLaw`.

    Attributes
    ----------
    directions : Tensor of shape (k, d)
        A copy of what was given.
    links : tuple of Link
        The terms, coefficients included.
    noise : float
        The standard deviation of the label noise.
    inputs : InputLaw
        The law of the inputs.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, or a value is not allowed.

    See Also
    --------
    make_multi_index : Draw directions, inputs and labels.

    Examples
    --------
    >>> from flattest.datasets import MultiIndexModel
    >>> model = MultiIndexModel([[1.0, 0.0], [0.0, 1.0]], ["relu", (3, "abs")])
    >>> model
    MultiIndexModel('relu' + '3*abs', n_features=2, inputs='gaussian', noise=0)
    >>> model([[2.0, -1.0]])
    array([5.])
    """

    directions: Float[Tensor, "k d"]
    links: tuple[Link, ...]
    noise: float
    inputs: InputLaw

    def __init__(
        self, directions: Any, links: Any, noise: Any = 0.0, inputs: Any = "gaussian"
    ) -> None:
        terms = link_sequence(links)
        U = check_matrix(directions, Argument("directions", "direction"))
        if U.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"directions must be float32 or float64, not {U.dtype}.")
        k, d = U.shape
        if k != len(terms):
            raise ValueError(
                f"directions has {k} rows, but links has {len(terms)} entries; "
                "give one row per link."
            )
        object.__setattr__(self, "directions", U.clone())
        object.__setattr__(self, "links", terms)
        object.__setattr__(self, "noise", check_positive_float(noise, "noise", allow_minimum=True))
        object.__setattr__(self, "inputs", input_law(inputs, d))

    @property
    def n_features(self) -> int:
        """The number of input features ``d``."""
        return self.directions.shape[1]

    @property
    def coefficients(self) -> Float[Tensor, " k"]:
        """The coefficients ``c_r``, shape (k,)."""
        return self.directions.new_tensor([link.coefficient for link in self.links])

    def __call__(self, X: Any) -> Any:
        """Evaluate the model without noise.

        Parameters
        ----------
        X : Tensor or array_like of shape (n, d)
            The inputs.

        Returns
        -------
        Tensor or ndarray of shape (n,)
            ``f*(x_i)``. For a tensor: a tensor of the same dtype and device, differentiable with
            respect to `X`; for anything else an array.

        Raises
        ------
        TypeError
            If `X` does not hold floating-point numbers.
        ValueError
            If its shape does not fit, or NaN or infinity comes in or out.

        Examples
        --------
        >>> import torch
        >>> from flattest.datasets import MultiIndexModel
        >>> MultiIndexModel([[1.0, 1.0]], "quadratic")(torch.ones(2, 2))
        tensor([4., 4.])
        """
        checked = check_matrix(X)
        if checked.shape[1] != self.n_features:
            raise ValueError(
                f"X has {checked.shape[1]} features, but the model has {self.n_features}."
            )
        # The checked tensor is detached; the caller's own keeps its autograd graph.
        return self._values(X) if isinstance(X, Tensor) else self._values(checked).cpu().numpy()

    def sample(self, n_samples: Any, random_state: Any = None) -> Float[Tensor, "n d"]:
        """Draw fresh inputs from the law of the inputs.

        Parameters
        ----------
        n_samples : int
            The number of inputs ``n``.
        random_state : int, numpy.random.Generator or None
            A seed, a generator to draw from, or None for fresh entropy. The seed that made a
            training set gives other inputs here.

        Returns
        -------
        Tensor of shape (n, d)
            With the dtype and device of `directions`.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described.

        Examples
        --------
        >>> from flattest.datasets import MultiIndexModel
        >>> MultiIndexModel([[1.0, 1.0]], "sin").sample(5, random_state=0).shape
        torch.Size([5, 2])
        """
        return self.inputs.sample(n_samples, random_state).to(self.directions)

    @torch.no_grad()
    def relative_error(
        self, predict: Any, n_samples: Any = 20_000, random_state: Any = None
    ) -> float:
        r"""Estimate the population loss of a predictor, relative to the model's variance.

        On fresh inputs :math:`x_1, \dots, x_n` and with :math:`\bar f` the mean of the
        :math:`f^*(x_i)`,

        .. math:: \frac{\sum_i (f(x_i) - f^*(x_i))^2}{\sum_i (f^*(x_i) - \bar f)^2}

        which is 0 for the model itself and 1 for the constant :math:`\bar f`: it is
        :math:`1 - R^2` against noise-free labels.

        Parameters
        ----------
        predict : callable
            A network, or any function of inputs of shape (n, d), given as a tensor with the dtype
            and device of `directions`; returns n numbers, shape (n,) or (n, 1).
        n_samples : int, default=20000
            The number ``n >= 2`` of fresh inputs.
        random_state : int, numpy.random.Generator or None
            As for :meth:`sample`.

        Returns
        -------
        float
            The relative error, computed in float64.

        Raises
        ------
        TypeError
            If `predict` is not callable, or does not return floating-point numbers.
        ValueError
            If `predict` returns another shape, NaN or infinity, or if the model is constant.

        Examples
        --------
        >>> from flattest.datasets import MultiIndexModel
        >>> model = MultiIndexModel([[1.0, 0.0]], "linear")
        >>> round(model.relative_error(lambda X: 0.9 * X[:, 0], random_state=0), 4)
        0.01
        """
        if not callable(predict):
            raise TypeError(
                f"predict must be callable, not {type(predict).__name__}; "
                "for an estimator give its predict method."
            )
        n = check_positive_int(n_samples, "n_samples", minimum=2)
        X = self.sample(n, random_state)
        truth = self._values(X).double().cpu()
        centred = truth - truth.mean()
        # Rounding alone leaves a variance of this order.
        if centred.square().mean() <= (1e-12 * truth.abs().max()) ** 2:
            raise ValueError("The model is constant on its inputs, so no error is relative to it.")
        values = predict(X)
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            values = torch.from_numpy(values.astype(np.float64))
        if isinstance(values, Tensor) and not values.isfinite().all():
            raise ValueError("predict returned NaN or infinity; repair or retrain it first.")
        values = check_vector(values, Argument("predict(X)", "row"), n_samples=n).double().cpu()
        return float((values - truth).square().sum() / centred.square().sum())

    def _values(self, X: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Sum the links of the projections."""
        Z = X @ self.directions.to(X).T
        total = self.links[0](Z[:, 0])
        for r, term in enumerate(self.links[1:], start=1):
            total = total + term(Z[:, r])
        return total

    def __repr__(self) -> str:
        """Print the sum and the law in one line."""
        terms = " + ".join(repr(str(term)) for term in self.links)
        return (
            f"MultiIndexModel({terms}, n_features={self.n_features}, "
            f"inputs={self.inputs.name!r}, noise={self.noise:g})"
        )


def make_multi_index(
    n_samples: Any = 400,
    n_features: Any = 20,
    links: Any = ("relu", "relu", "relu"),
    *,
    directions: Any = "orthonormal",
    noise: Any = 0.0,
    inputs: Any = "gaussian",
    covariance: Any = None,
    degrees_of_freedom: Any = None,
    random_state: Any = None,
    dtype: Any = torch.float64,
    device: Any = "cpu",
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"], MultiIndexModel]:
    r"""Draw data from a multi-index model: a sum of single-index models, plus noise.

    .. math:: y_i = \sum_{r=1}^k c_r \, g_r(u_r \cdot x_i) + \text{noise} \cdot e_i,
              \qquad e_i \sim N(0, 1)

    Parameters
    ----------
    n_samples : int, default=400
        The number of samples ``n``.
    n_features : int, default=20
        The dimension ``d`` of the inputs.
    links : sequence of str, callable or (coefficient, link), default=("relu", "relu", "relu")
        The ``k`` terms ``c_r g_r``: ``"relu"``, ``"abs"``, ``"linear"``, ``"relu2"``,
        ``"quadratic"``, ``"cubic"``, ``"step"``, ``"tanh"``, ``"sin"``, ``"hermite2"`` or
        ``"hermite3"``; ``"-relu"`` for the opposite sign; ``(0.5, "relu")`` for a coefficient; or
        callables acting elementwise. One name or callable alone gives a single-index model. The
        formulas are listed in :func:`flattest.datasets.links.link`.
    directions : "orthonormal" or array_like of shape (k, d), default="orthonormal"
        The vectors ``u_r``. Orthonormal ones are drawn uniformly, and need ``k <= d``; given ones
        are used as they are, not normalised.
    noise : float, default=0.0
        The standard deviation of the label noise.
    inputs : {"gaussian", "uniform", "rademacher", "sphere", "student_t"}, callable or InputLaw
        The law of the inputs, by default Gaussian. Named laws have mean 0 and covariance I;
        their formulas are in :class:`flattest.datasets.input_laws.InputLaw`. A callable
        ``(n, d, rng)`` returns the inputs themselves.
    covariance : array_like of shape (d, d), optional
        Multiplies the inputs of a named law by its symmetric root, which makes it their
        covariance.
    degrees_of_freedom : float, optional
        For ``student_t`` only: greater than 2, and 5 by default.
    random_state : int, numpy.random.Generator or None
        A seed, a generator to draw from, or None for fresh entropy.
    dtype : torch.dtype, default=torch.float64
        ``torch.float32`` or ``torch.float64``.
    device : str or torch.device, default="cpu"
        Where the tensors go. They are computed on the CPU, so they do not depend on it.

    Returns
    -------
    X : Tensor of shape (n, d)
        The inputs.
    y : Tensor of shape (n,)
        The labels.
    model : MultiIndexModel
        ``model(X)`` is the noise-free value; also the directions, links and coefficients, and
        methods to draw fresh inputs and to test predictors on them.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument has a value that is not allowed; the message says which are.

    Notes
    -----
    Directions, inputs and noise come from three independent random streams. With the same seed,
    changing the links or the noise leaves the inputs as they are, and changing the number of
    samples leaves the directions.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> X, y, model = ft.make_multi_index(100, 10, ["relu", "-relu"], random_state=0)
    >>> X.shape, y.shape, model.directions.shape
    (torch.Size([100, 10]), torch.Size([100]), torch.Size([2, 10]))
    >>> bool((model(X) == y).all())
    True
    """
    n = check_positive_int(n_samples, "n_samples")
    d = check_positive_int(n_features, "n_features")
    terms = link_sequence(links)
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be torch.float32 or torch.float64, not {dtype!r}.")
    target = _check_device(device)
    law = input_law(inputs, d, covariance, degrees_of_freedom)
    noise = check_positive_float(noise, "noise", allow_minimum=True)
    rng = check_random_state(random_state)
    for_directions, for_inputs, for_noise = map(np.random.default_rng, rng.integers(2**63, size=3))

    U = _directions(directions, len(terms), d, for_directions).to(dtype)
    model = MultiIndexModel(U, terms, noise, law)
    X = model.sample(n, for_inputs)
    y = model(X)
    if noise > 0:
        y = y + noise * torch.from_numpy(for_noise.standard_normal(n)).to(dtype)
    model = MultiIndexModel(U.to(target), terms, noise, law)
    return X.to(target), y.to(target), model


def _directions(given: Any, k: int, d: int, rng: np.random.Generator) -> Float[Tensor, "k d"]:
    """Return the given directions, or uniformly distributed orthonormal ones, in float64."""
    if not isinstance(given, str):
        return check_matrix_shape(given, "directions", (k, d))
    if given != "orthonormal":
        raise ValueError(f"directions must be 'orthonormal' or an array, not {given!r}.")
    if k > d:
        raise ValueError(
            f"links has {k} entries, but {d} features have only {d} orthonormal directions; "
            f"use fewer links or give directions as an array of shape {(k, d)}."
        )
    Q, R = np.linalg.qr(rng.standard_normal((d, k)))
    # QR fixes signs by convention; this makes the distribution invariant under rotations.
    return torch.from_numpy((Q * np.sign(np.diag(R))).T.copy())


def _check_device(device: Any) -> torch.device:
    """Return a device that tensors can be made on."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"device {device!r} is not available on this machine.") from error
    if target.type == "meta":
        raise ValueError("device 'meta' holds no values; choose 'cpu' or a GPU.")
    return target
