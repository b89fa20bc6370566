"""Links: the scalar functions of a multi-index model, by name or as any callable."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from flattest.two_layer.activations import Homogeneous


def _check_coefficient(value: Any, name: str) -> float:
    """Return a finite float; zero and negative numbers are allowed."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, not {type(value).__name__} ({value!r}).")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {float(value):g}.")
    return float(value)


@dataclass(frozen=True, init=False, repr=False)
class Link:
    """A scalar function times a coefficient: one term ``c g(z)`` of a multi-index model.

    Parameters
    ----------
    name : str
        What to call the function ``g`` in tables and messages.
    function : callable
        ``g``, acting elementwise on a tensor. One that knows NumPy arrays only also works, without
        gradients.
    coefficient : float, default=1.0
        The factor ``c``.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the coefficient is not finite or the name is empty.

    Examples
    --------
    >>> import torch
    >>> from flattest.datasets.links import Link
    >>> Link("softplus", torch.nn.functional.softplus, coefficient=2.0)(torch.zeros(1))
    tensor([1.3863])
    """

    name: str
    function: Callable[..., Any]
    coefficient: float

    def __init__(self, name: Any, function: Any, coefficient: Any = 1.0) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, not {type(name).__name__}.")
        if not name:
            raise ValueError("name must not be empty.")
        if not callable(function):
            raise TypeError(f"function must be callable, not {type(function).__name__}.")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "coefficient", _check_coefficient(coefficient, "coefficient"))

    def __call__(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Evaluate ``c g(z)`` elementwise.

        Parameters
        ----------
        z : Tensor
            Floating-point tensor of any shape.

        Returns
        -------
        Tensor
            Same shape, dtype and device.

        Raises
        ------
        TypeError
            If the function cannot be applied to `z`, or returns neither a tensor nor an array.
        ValueError
            If the function returns another shape, NaN or infinity.

        Examples
        --------
        >>> import torch
        >>> from flattest.datasets.links import link
        >>> link((0.5, "relu"))(torch.tensor([-1.0, 4.0]))
        tensor([0., 2.])
        """
        values = _evaluate(self, z)
        if values.shape != z.shape:
            raise ValueError(
                f"Link {self.name!r} must act elementwise, but returned shape "
                f"{tuple(values.shape)} for an input of shape {tuple(z.shape)}."
            )
        values = self.coefficient * values.to(z)
        bad = ~torch.isfinite(values)
        if bad.any():
            raise ValueError(
                f"Link {self.name!r} returned NaN or infinity at z = {float(z[bad][0]):g}; "
                "choose a link that is finite there, or smaller inputs."
            )
        return values

    def __neg__(self) -> Link:
        """Return the link with the opposite sign."""
        return replace(self, coefficient=-self.coefficient)

    def __str__(self) -> str:
        """Print the term as it stands in the sum."""
        if abs(self.coefficient) == 1:
            return self.name if self.coefficient > 0 else f"-{self.name}"
        return f"{self.coefficient:g}*{self.name}"

    def __repr__(self) -> str:
        """Print what gives back a named link."""
        if abs(self.coefficient) == 1:
            return f"Link({str(self)!r})"
        return f"Link({self.name!r}, coefficient={self.coefficient:g})"


def _linear(z: Tensor) -> Tensor:
    return z


def _relu2(z: Tensor) -> Tensor:
    return z.relu().square()


def _cubic(z: Tensor) -> Tensor:
    return z * z * z


def _hermite2(z: Tensor) -> Tensor:
    return (z * z - 1) / math.sqrt(2)


def _hermite3(z: Tensor) -> Tensor:
    return (z * z - 3) * z / math.sqrt(6)


def _step(z: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


# Functions of this module or of torch, not lambdas: models stay picklable.
LINKS: Mapping[str, Link] = MappingProxyType(
    {
        name: Link(name, function)
        for name, function in {
            "relu": torch.relu,
            "abs": torch.abs,
            "relu2": _relu2,
            "quadratic": torch.square,
            "cubic": _cubic,
            "linear": _linear,
            "tanh": torch.tanh,
            "sin": torch.sin,
            "hermite2": _hermite2,
            "hermite3": _hermite3,
            "step": _step,
        }.items()
    }
)


def link(spec: Any, name: str = "link") -> Link:
    r"""Return the link that a name, a callable or a (coefficient, link) pair stands for.

    ============= ======================================= =============
    Name          :math:`g(z)`                            Homogeneous
    ============= ======================================= =============
    ``relu``      :math:`\max(z, 0)`                      degree 1
    ``abs``       :math:`|z|`                             degree 1
    ``linear``    :math:`z`                               degree 1
    ``relu2``     :math:`\max(z, 0)^2`                    degree 2
    ``quadratic`` :math:`z^2`                             degree 2
    ``cubic``     :math:`z^3`                             degree 3
    ``step``      1 for :math:`z > 0`, else 0             degree 0
    ``tanh``      :math:`\tanh z`                         no
    ``sin``       :math:`\sin z`                          no
    ``hermite2``  :math:`(z^2 - 1) / \sqrt 2`             no
    ``hermite3``  :math:`(z^3 - 3 z) / \sqrt 6`           no
    ============= ======================================= =============

    The two Hermite links have mean 0 and variance 1 for a standard Gaussian ``z``.

    Parameters
    ----------
    spec : str, callable, Link, Homogeneous or pair
        A name of the table; a name after a minus sign (``"-relu"``) for the opposite sign; a
        callable acting elementwise; or ``(coefficient, link)`` with any of these.
    name : str, default="link"
        What to call the argument in messages.

    Returns
    -------
    Link
        The link.

    Raises
    ------
    TypeError
        If `spec` is none of these, or a coefficient is not a real number.
    ValueError
        If there is no link of that name, or a coefficient is not finite.

    Examples
    --------
    >>> import torch
    >>> from flattest.datasets.links import link
    >>> [link(spec) for spec in ("relu", "-abs", (0.5, "cubic"), torch.sigmoid)]
    [Link('relu'), Link('-abs'), Link('cubic', coefficient=0.5), Link('sigmoid')]
    """
    if isinstance(spec, Link):
        return spec
    if isinstance(spec, str):
        known = LINKS.get(spec.removeprefix("-"))
        if known is None:
            raise ValueError(
                f"{name} {spec!r} is unknown; choose one of {', '.join(LINKS)}, one of these "
                "after a minus sign, or give a callable."
            )
        return -known if spec.startswith("-") else known
    if isinstance(spec, tuple | list):
        return _from_pair(spec, name)
    if not callable(spec):
        raise TypeError(
            f"{name} must be a name, a callable or a (coefficient, link) pair, "
            f"not {type(spec).__name__} ({spec!r})."
        )
    if isinstance(spec, Homogeneous):
        return Link(repr(spec), spec)
    return Link(getattr(spec, "__name__", type(spec).__name__), spec)


def link_sequence(links: Any) -> tuple[Link, ...]:
    """Return the links of a sum: one or more of what :func:`link` accepts.

    Parameters
    ----------
    links : sequence, or one name or callable
        The terms of the sum, in order.

    Returns
    -------
    tuple of Link
        At least one.

    Raises
    ------
    TypeError
        If `links` is not a sequence, or an entry is not a link.
    ValueError
        If `links` is empty, or an entry is unknown.

    Examples
    --------
    >>> from flattest.datasets.links import link_sequence
    >>> link_sequence(["relu", (2, "-relu")])
    (Link('relu'), Link('relu', coefficient=-2))
    """
    if isinstance(links, str) or callable(links):
        return (link(links, "links"),)
    if not isinstance(links, Sequence):
        raise TypeError(
            f"links must be a list of names, callables or (coefficient, link) pairs, "
            f"not {type(links).__name__}."
        )
    if len(links) == 0:
        raise ValueError("links is empty; give at least one link, for instance ['relu'].")
    return tuple(link(spec, f"links[{index}]") for index, spec in enumerate(links))


def _from_pair(pair: Sequence[Any], name: str) -> Link:
    """Read (coefficient, link); the sign and coefficient of the link itself are kept."""
    if len(pair) != 2 or isinstance(pair[1], tuple | list):
        raise TypeError(f"{name} must be a (coefficient, link) pair, not {pair!r}.")
    factor = _check_coefficient(pair[0], f"The coefficient in {name}")
    term = link(pair[1], name)
    return replace(term, coefficient=factor * term.coefficient)


def _evaluate(link: Link, z: Tensor) -> Tensor:
    """Apply the function to a tensor or, where it takes none, to a NumPy array."""
    try:
        if isinstance(link.function, np.ufunc):
            raise TypeError("a NumPy function has no gradient")
        values = link.function(z)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0].rstrip(".")
        complaint = TypeError(
            f"Link {link.name!r} must accept a tensor or a NumPy array of numbers, "
            f"but raised {type(error).__name__}: {reason}."
        )
        if z.requires_grad:  # NumPy would lose the gradient without a word
            raise complaint from error
        try:
            values = link.function(z.cpu().numpy())
        except Exception:
            raise complaint from error
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        values = torch.from_numpy(values.astype(np.float64))
    if not isinstance(values, Tensor) or values.is_complex():
        kind = getattr(values, "dtype", type(values).__name__)
        raise TypeError(
            f"Link {link.name!r} must return a tensor or an array of real numbers, not {kind}."
        )
    return values
