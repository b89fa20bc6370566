"""Positively homogeneous activations: every one of them is a degree and two slopes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, repr=False)
class Homogeneous:
    r"""The positively p-homogeneous activation with two given slopes.

    .. math:: s(z) = \alpha \max(z, 0)^p + \beta \max(-z, 0)^p

    Every scalar function with ``s(c z) = c**p s(z)`` for all ``c > 0`` has this form.

    Parameters
    ----------
    degree : float
        The degree ``p >= 1``.
    positive : float
        The slope ``alpha``, acting where ``z > 0``.
    negative : float
        The slope ``beta``, acting where ``z < 0``: it multiplies ``|z|**p``, so that the identity
        is ``Homogeneous(1, 1, -1)`` and the absolute value is ``Homogeneous(1, 1, 1)``.

    Raises
    ------
    TypeError
        If an argument is not a real number.
    ValueError
        If ``degree < 1``, if an argument is not finite, or if both slopes are zero.

    Notes
    -----
    At ``z = 0`` each derivative is the number of smallest magnitude between its two one-sided
    limits. For ReLU, leaky ReLU and the absolute value this is what PyTorch uses. The second
    derivative at 0 is set to 0 for ``p < 2``, where it has no finite limit or is not a function.

    Examples
    --------
    >>> import torch
    >>> import flattest as ft
    >>> leaky = ft.Homogeneous(degree=1, positive=1, negative=-0.1)
    >>> leaky(torch.tensor([-2.0, 0.0, 3.0]))
    tensor([-0.2000,  0.0000,  3.0000])
    >>> ft.Homogeneous(2, 1, 0)
    Homogeneous('relu2')
    """

    degree: float | int
    positive: float | int
    negative: float | int

    def __post_init__(self) -> None:
        """Check the three numbers and store them as floats."""
        for name in ("degree", "positive", "negative"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(
                    f"{name} must be a real number, not {type(value).__name__} ({value!r})."
                )
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, not {value!r}.")
            object.__setattr__(self, name, float(value) + 0.0)  # + 0.0 turns -0.0 into 0.0
        if self.degree < 1:
            raise ValueError(f"degree must be at least 1, not {self.degree:g}.")
        if self.positive == 0 and self.negative == 0:
            raise ValueError("positive and negative cannot both be 0: the activation would be 0.")

    @property
    def smallest_slope(self) -> float:
        """The smaller non-zero one of ``|positive|`` and ``|negative|``.

        Examples
        --------
        >>> import flattest as ft
        >>> ft.activation("leaky_relu").smallest_slope
        0.01
        """
        return min(abs(slope) for slope in (self.positive, self.negative) if slope != 0)

    @property
    def slope_at_zero(self) -> float:
        """The first derivative at 0: of the one-sided slopes' interval, the number nearest 0."""
        return _nearest_zero(self.positive, -self.negative) if self.degree == 1 else 0.0

    @property
    def curvature_at_zero(self) -> float:
        """The second derivative at 0; not 0 only for ``p = 2`` and slopes of one sign."""
        return 2 * _nearest_zero(self.positive, self.negative) if self.degree == 2 else 0.0

    @property
    def parity(self) -> int:
        """1 for an even activation, -1 for an odd one, 0 for neither.

        Examples
        --------
        >>> import flattest as ft
        >>> [ft.activation(name).parity for name in ("relu", "abs", "cubic")]
        [0, 1, -1]
        """
        return int(self.negative == self.positive) - int(self.negative == -self.positive)

    def __call__(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Evaluate ``s(z)`` elementwise; autograd gives the derivatives documented here.

        Parameters
        ----------
        z : Tensor
            Floating-point tensor of any shape.

        Returns
        -------
        Tensor
            ``s(z)``, same shape, dtype and device.

        Examples
        --------
        >>> import torch
        >>> import flattest as ft
        >>> ft.activation("relu2")(torch.tensor([-1.0, 3.0]))
        tensor([0., 9.])
        """
        _check_tensor(z)
        p, alpha, beta = self.degree, self.positive, self.negative
        if p in (1, 2):
            # Factors of z or z**2 on the two sides; `middle` is the one that autograd sees at 0.
            right, left = (alpha, -beta) if p == 1 else (alpha, beta)
            middle = _nearest_zero(right, left)
            if middle == 0:  # relu has derivative 0 at 0, in any power
                return _rectified(z, alpha, beta, squared=p == 2)
            power = z if p == 1 else z * z
            if right == left:
                return right * power
            on_the_right = z >= 0 if middle == right else z > 0
            return torch.where(on_the_right, right * power, left * power)
        # The inner where keeps autograd away from 0**(p - 2), which is infinite for p < 2.
        away = torch.where(z == 0, torch.ones_like(z), z)
        power = away.abs().pow(p)
        return torch.where(
            z == 0, torch.zeros_like(z), torch.where(z > 0, alpha * power, beta * power)
        )

    def derivative(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Evaluate ``s'(z)`` elementwise.

        ``p * positive * z**(p-1)`` for ``z > 0`` and ``-p * negative * |z|**(p-1)`` for ``z < 0``.

        Parameters
        ----------
        z : Tensor
            Floating-point tensor of any shape.

        Returns
        -------
        Tensor
            ``s'(z)``, same shape, dtype and device.

        Examples
        --------
        >>> import torch
        >>> import flattest as ft
        >>> ft.activation("abs").derivative(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([-1.,  0.,  1.])
        """
        _check_tensor(z)
        p = self.degree
        if p in (1, 2) and self.slope_at_zero == 0:
            # Without powers and selections: several times faster.
            return _rectified(z.sign() if p == 1 else z, p * self.positive, -p * self.negative)
        at_zero = torch.full_like(z, self.slope_at_zero)
        power = z.abs().pow(p - 1)
        return torch.where(
            z > 0,
            p * self.positive * power,
            torch.where(z < 0, -p * self.negative * power, at_zero),
        )

    def second_derivative(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Evaluate ``s''(z)`` elementwise; identically 0 for ``p = 1``.

        ``p (p-1) * slope * |z|**(p-2)``, with the slope of the side on which ``z`` lies.

        Parameters
        ----------
        z : Tensor
            Floating-point tensor of any shape.

        Returns
        -------
        Tensor
            ``s''(z)``, same shape, dtype and device.

        Examples
        --------
        >>> import torch
        >>> import flattest as ft
        >>> ft.activation("relu2").second_derivative(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([0., 0., 2.])
        """
        _check_tensor(z)
        p = self.degree
        if p == 1:
            return torch.zeros_like(z)
        at_zero = torch.full_like(z, self.curvature_at_zero)
        power = p * (p - 1) * z.abs().pow(p - 2)
        return torch.where(
            z > 0, self.positive * power, torch.where(z < 0, self.negative * power, at_zero)
        )

    def to_dict(self) -> dict[str, float]:
        """Return the three numbers in a dictionary that JSON can hold.

        Examples
        --------
        >>> import flattest as ft
        >>> ft.activation("relu").to_dict()
        {'degree': 1.0, 'positive': 1.0, 'negative': 0.0}
        """
        return {"degree": self.degree, "positive": self.positive, "negative": self.negative}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Homogeneous:
        """Build the activation that :meth:`to_dict` described.

        Parameters
        ----------
        values : mapping
            With exactly the keys ``degree``, ``positive`` and ``negative``.

        Returns
        -------
        Homogeneous
            The activation.

        Raises
        ------
        TypeError
            If `values` is not a mapping, or a value not a number.
        ValueError
            If a key is missing or unknown.

        Examples
        --------
        >>> import flattest as ft
        >>> ft.Homogeneous.from_dict({"degree": 1, "positive": 1, "negative": 1})
        Homogeneous('abs')
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"values must be a mapping, not {type(values).__name__}.")
        if set(values) != {"degree", "positive", "negative"}:
            raise ValueError(
                "values must have exactly the keys degree, positive and negative, "
                f"not {sorted(map(str, values))}."
            )
        return cls(**values)

    def __repr__(self) -> str:
        """Print the name where there is one, else the three numbers."""
        for name, known in _NAMED.items():
            if self == known:
                return f"Homogeneous({name!r})"
        return f"Homogeneous({self.degree:g}, {self.positive:g}, {self.negative:g})"


def _check_tensor(z: Any) -> None:
    """Refuse what is not a tensor of floating-point numbers."""
    if not isinstance(z, Tensor):
        raise TypeError(f"z must be a torch.Tensor, not {type(z).__name__}.")
    if not z.is_floating_point():
        raise TypeError(f"z must hold floating-point numbers, but has dtype {z.dtype}.")


def _rectified(
    z: Float[Tensor, "..."], right: float, left: float, *, squared: bool = False
) -> Float[Tensor, "..."]:
    """Evaluate ``right max(z, 0) + left max(-z, 0)``, or the same with squares."""
    sides = []
    for slope, sign in ((right, 1), (left, -1)):
        if slope != 0:
            rectified = (z if sign > 0 else -z).relu()
            rectified = rectified.square() if squared else rectified
            sides.append(rectified if slope == 1 else slope * rectified)
    return sides[0] if len(sides) == 1 else sides[0] + sides[1]


def _nearest_zero(one: float, other: float) -> float:
    """Return the number of smallest magnitude in the interval between two numbers."""
    return 0.0 if one * other <= 0 else min(one, other, key=abs)


_NAMED = {
    "relu": Homogeneous(1, 1, 0),
    "leaky_relu": Homogeneous(1, 1, -0.01),
    "abs": Homogeneous(1, 1, 1),
    "linear": Homogeneous(1, 1, -1),
    "relu2": Homogeneous(2, 1, 0),
    "quadratic": Homogeneous(2, 1, 1),
    "relu3": Homogeneous(3, 1, 0),
    "cubic": Homogeneous(3, 1, -1),
}


def activation(name: str | Homogeneous) -> Homogeneous:
    """Return the activation of that name.

    Parameters
    ----------
    name : str or Homogeneous
        ``"relu"``, ``"leaky_relu"`` (negative slope 0.01), ``"abs"``, ``"linear"``, ``"relu2"``,
        ``"quadratic"``, ``"relu3"`` or ``"cubic"``. A `Homogeneous` is returned as it is.

    Returns
    -------
    Homogeneous
        The activation.

    Raises
    ------
    TypeError
        If `name` is neither a string nor a `Homogeneous`.
    ValueError
        If there is no activation of that name.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.activation("quadratic").degree
    2.0
    """
    if isinstance(name, Homogeneous):
        return name
    if not isinstance(name, str):
        raise TypeError(
            f"activation must be a name or a flattest.Homogeneous, not {type(name).__name__}."
        )
    if name not in _NAMED:
        raise ValueError(
            f"There is no activation {name!r}; choose one of {', '.join(_NAMED)}, "
            "or give a flattest.Homogeneous(degree, positive, negative)."
        )
    return _NAMED[name]
