"""Input laws: the distributions that the inputs of a multi-index model are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.validation import (
    Argument,
    check_matrix,
    check_positive_float,
    check_positive_int,
    check_random_state,
)

_DEGREES_OF_FREEDOM = 5.0  # student_t by default: heavy tails, finite fourth moment
_TOLERANCE = 1e-6  # relative rounding allowed in a covariance, which may come from float32


@dataclass(frozen=True, init=False, eq=False, repr=False)
class InputLaw:
    r"""A distribution of inputs in ``d`` dimensions, with mean 0 and a known covariance.

    Every named law is isotropic: :math:`E[x] = 0` and :math:`E[x x^T] = I`. With a covariance
    :math:`\Sigma`, the inputs are :math:`\Sigma^{1/2} x` (symmetric root). For
    :math:`g \sim N(0, I_d)`:

    ============== ============================================================================
    Name           :math:`x`
    ============== ============================================================================
    ``gaussian``   :math:`g`
    ``uniform``    uniform on the cube :math:`[-\sqrt 3, \sqrt 3]^d`
    ``rademacher`` uniform on the corners :math:`\{-1, 1\}^d`
    ``sphere``     :math:`\sqrt d\, g / \|g\|`, uniform on the sphere of radius :math:`\sqrt d`
    ``student_t``  :math:`g \sqrt{(\nu - 2) / c}` with one independent :math:`c \sim \chi^2_\nu`
                   per sample: multivariate t, so every projection on a unit vector is Student
                   t with :math:`\nu` degrees of freedom, scaled to variance 1
    ============== ============================================================================

    Parameters
    ----------
    law : str or callable
        A name of the table, or ``law(n, d, rng)`` returning an array of shape (n, d) drawn from
        the `numpy.random.Generator` it is given.
    n_features : int
        The dimension ``d``.
    covariance : array_like of shape (d, d), optional
        Symmetric and positive semi-definite; only with a named law.
    degrees_of_freedom : float, optional
        The number ``nu > 2`` of ``student_t``, 5 by default; only with that law.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the law is unknown, an option does not belong to it, or the covariance is not one.

    Examples
    --------
    >>> from flattest.datasets.input_laws import InputLaw
    >>> law = InputLaw("sphere", n_features=9)
    >>> law
    InputLaw('sphere', n_features=9)
    >>> law.sample(2, random_state=0).norm(dim=1)
    tensor([3.0000, 3.0000], dtype=torch.float64)
    """

    law: str | Callable[..., Any]
    n_features: int
    covariance: Tensor | None
    degrees_of_freedom: float | None
    _root: Tensor | None

    def __init__(
        self, law: Any, n_features: Any, covariance: Any = None, degrees_of_freedom: Any = None
    ) -> None:
        d = check_positive_int(n_features, "n_features")
        if not callable(law):
            _check_name(law)
        object.__setattr__(self, "law", law)
        object.__setattr__(self, "n_features", d)
        if law == "student_t":
            nu = _DEGREES_OF_FREEDOM if degrees_of_freedom is None else degrees_of_freedom
            degrees_of_freedom = check_positive_float(nu, "degrees_of_freedom", minimum=2.0)
        elif degrees_of_freedom is not None:
            raise ValueError(
                "degrees_of_freedom belongs to inputs='student_t'; leave it out with "
                f"inputs={self.name!r}."
            )
        if covariance is not None and callable(law):
            raise ValueError(
                "covariance cannot be combined with a callable for inputs; "
                "return inputs of the covariance you want."
            )
        sigma, root = (None, None) if covariance is None else _check_covariance(covariance, d)
        object.__setattr__(self, "covariance", sigma)
        object.__setattr__(self, "degrees_of_freedom", degrees_of_freedom)
        object.__setattr__(self, "_root", root)

    @property
    def name(self) -> str:
        """The law's name; for a callable, the callable's."""
        if isinstance(self.law, str):
            return self.law
        return getattr(self.law, "__name__", type(self.law).__name__)

    def sample(self, n_samples: Any, random_state: Any = None) -> Float[Tensor, "n d"]:
        """Draw independent inputs.

        Parameters
        ----------
        n_samples : int
            The number of inputs ``n``.
        random_state : int, numpy.random.Generator or None
            A seed, a generator to draw from, or None for fresh entropy.

        Returns
        -------
        Tensor of shape (n, d)
            float64, on the CPU.

        Raises
        ------
        TypeError
            If an argument, or what a callable law returns, has the wrong type.
        ValueError
            If `n_samples` is not positive, or a callable law returns another shape, NaN or
            infinity.

        Examples
        --------
        >>> from flattest.datasets.input_laws import InputLaw
        >>> InputLaw("rademacher", 3).sample(2, random_state=0)
        tensor([[ 1.,  1.,  1.],
                [-1., -1., -1.]], dtype=torch.float64)
        """
        n = check_positive_int(n_samples, "n_samples")
        rng = check_random_state(random_state)
        if isinstance(self.law, str):
            X = torch.from_numpy(_LAWS[self.law](n, self.n_features, rng, self.degrees_of_freedom))
            return X if self._root is None else X @ self._root
        drawn = self.law(n, self.n_features, rng)
        return check_matrix_shape(drawn, "inputs(n, d, rng)", (n, self.n_features))

    def __repr__(self) -> str:
        """Print the law and its options; a covariance by its shape."""
        parts = [repr(self.name), f"n_features={self.n_features}"]
        if self.covariance is not None:
            parts.append(f"covariance={'x'.join(map(str, self.covariance.shape))} matrix")
        if self.degrees_of_freedom is not None:
            parts.append(f"degrees_of_freedom={self.degrees_of_freedom:g}")
        return f"InputLaw({', '.join(parts)})"


def input_law(
    inputs: Any, n_features: int, covariance: Any = None, degrees_of_freedom: Any = None
) -> InputLaw:
    """Return the law that a name, a callable or a law itself stands for.

    Parameters
    ----------
    inputs : str, callable or InputLaw
        An `InputLaw` is returned as it is.
    n_features : int
        The dimension ``d``.
    covariance, degrees_of_freedom : optional
        The options of a named law.

    Returns
    -------
    InputLaw
        The law.

    Raises
    ------
    TypeError, ValueError
        As for `InputLaw`; also for an `InputLaw` of another dimension, or options beside it.

    Examples
    --------
    >>> from flattest.datasets.input_laws import input_law
    >>> input_law("student_t", 3)
    InputLaw('student_t', n_features=3, degrees_of_freedom=5)
    """
    if not isinstance(inputs, InputLaw):
        return InputLaw(inputs, n_features, covariance, degrees_of_freedom)
    if covariance is not None or degrees_of_freedom is not None:
        raise ValueError(
            "covariance and degrees_of_freedom cannot be given beside an InputLaw; "
            "set them when making that law."
        )
    if inputs.n_features != n_features:
        raise ValueError(
            f"inputs has {inputs.n_features} features, but n_features is {n_features}."
        )
    return inputs


def check_matrix_shape(values: Any, name: str, shape: tuple[int, int]) -> Tensor:
    """Return a float64 copy, on the CPU, of a finite matrix of that shape.

    Parameters
    ----------
    values : Tensor or array_like
        The matrix.
    name : str
        What to call the argument in messages.
    shape : (int, int)
        The shape it must have.

    Returns
    -------
    Tensor
        The copy.

    Raises
    ------
    TypeError
        If `values` does not hold floating-point numbers.
    ValueError
        If its shape or a value is wrong.

    Examples
    --------
    >>> from flattest.datasets.input_laws import check_matrix_shape
    >>> check_matrix_shape([[1, 2]], "directions", (1, 2))
    tensor([[1., 2.]], dtype=torch.float64)
    """
    # Arrays first, by their own shape: check_matrix would speak of samples and features.
    found = tuple(getattr(values, "shape", shape))
    if found == shape:
        matrix = check_matrix(values, Argument(name, "row"))
        found = tuple(matrix.shape)
    if found != shape:
        raise ValueError(f"{name} must have shape {shape}, but has shape {found}.")
    return matrix.to("cpu", torch.float64, copy=True)


def _gaussian(n: int, d: int, rng: np.random.Generator, nu: Any) -> np.ndarray:
    return rng.standard_normal((n, d))


def _uniform(n: int, d: int, rng: np.random.Generator, nu: Any) -> np.ndarray:
    return rng.uniform(-math.sqrt(3), math.sqrt(3), (n, d))


def _rademacher(n: int, d: int, rng: np.random.Generator, nu: Any) -> np.ndarray:
    return 2.0 * rng.integers(2, size=(n, d)) - 1.0


def _sphere(n: int, d: int, rng: np.random.Generator, nu: Any) -> np.ndarray:
    g = rng.standard_normal((n, d))
    return g * (math.sqrt(d) / np.linalg.norm(g, axis=1, keepdims=True))


def _student_t(n: int, d: int, rng: np.random.Generator, nu: float) -> np.ndarray:
    g = rng.standard_normal((n, d))
    return g * np.sqrt((nu - 2) / rng.chisquare(nu, (n, 1)))


_LAWS: dict[str, Callable[[int, int, np.random.Generator, Any], np.ndarray]] = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "rademacher": _rademacher,
    "sphere": _sphere,
    "student_t": _student_t,
}


def _check_name(law: Any) -> None:
    """Refuse what is not the name of a law."""
    if not isinstance(law, str):
        raise TypeError(f"inputs must be a name or a callable, not {type(law).__name__}.")
    if law not in _LAWS:
        raise ValueError(
            f"inputs {law!r} is unknown; choose one of {', '.join(_LAWS)}, or give a callable "
            "(n, d, rng) -> array."
        )


def _check_covariance(values: Any, d: int) -> tuple[Tensor, Tensor]:
    """Return a covariance, made exactly symmetric, and its symmetric root."""
    sigma = check_matrix_shape(values, "covariance", (d, d))
    if (sigma - sigma.T).abs().max() > _TOLERANCE * sigma.abs().max():
        raise ValueError("covariance must be symmetric; use (covariance + covariance.T) / 2.")
    sigma = (sigma + sigma.T) / 2
    eigenvalues, vectors = torch.linalg.eigh(sigma)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if largest <= 0 or smallest < -_TOLERANCE * largest:
        raise ValueError(
            "covariance must be positive semi-definite and not zero, but its eigenvalues lie "
            f"between {smallest:.3g} and {largest:.3g}."
        )
    root = (vectors * eigenvalues.clamp(min=0).sqrt()) @ vectors.T
    return sigma, (root + root.T) / 2
