"""The flatness of a two-layer network: the general figures, and those that only it has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Float
from torch import Tensor

from flattest.flatness import Flatness, plain
from flattest.wording import count


class PerNeuron(NamedTuple):
    """The flatness neuron by neuron: float64 tensors of shape (m,) on the network's device.

    Parameters
    ----------
    outer : Tensor
        ``A_j = mean_i s(z_ij)**2``, the mean squared derivative by ``a_j``.
    inner : Tensor
        ``B_j = a_j**2 mean_i s'(z_ij)**2 ||x_i||**2``, likewise for ``w_j``.
    gauss_newton : Tensor
        ``2 (A_j + B_j)``.
    residual : Tensor
        ``2 mean_i r_i a_j s''(z_ij) ||x_i||**2`` with ``r = f - y``.
    orbit_minimum : Tensor
        The smallest `gauss_newton` over all rescalings of the neuron.
    scale : Tensor
        The factor ``c_j`` that reaches it; 1 where no factor does.

    Examples
    --------
    >>> import flattest as ft
    >>> net = ft.TwoLayerNet([[4.0], [1.0]], [1.0, 1.0], "relu")
    >>> ft.measure(net, [[1.0]], [5.0]).per_neuron.scale
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """

    outer: Float[Tensor, " m"]
    inner: Float[Tensor, " m"]
    gauss_newton: Float[Tensor, " m"]
    residual: Float[Tensor, " m"]
    orbit_minimum: Float[Tensor, " m"]
    scale: Float[Tensor, " m"]


@dataclass(frozen=True, repr=False, kw_only=True)
class TwoLayerFlatness(Flatness):
    """The flatness of a two-layer network on data, for ``L = (1/n) sum_i (f(x_i) - y_i)**2``.

    All of it is exact, by closed forms.

    Parameters
    ----------
    loss : float
        The loss ``L``.
    trace : float
        Trace of the Hessian of the loss in all parameters: `gauss_newton` + `residual`.
    gauss_newton : float
        ``(2/n) sum_i ||grad f(x_i)||**2``.
    residual : float
        ``(2/n) sum_i (f(x_i) - y_i) tr grad**2 f(x_i)``: 0 where the network interpolates, and
        for ``p = 1``.
    orbit_minimum : float
        Smallest `gauss_newton` among all rescalings of the network, a number that no rescaling
        changes. At an interpolator it is the smallest trace.
    n_samples, n_parameters : int
        ``n`` and ``m (d + 1)``.
    layers : tuple of LayerFlatness
        The parts of `weights` and `coefficients`.
    provenance : mapping of str to Provenance
        Which figures are exact: all.
    dtype, device : str
        Of the network.
    version : str
        The version of flattest.
    adaptive : float
        Not measured for this kind: NaN.
    n_left_out : int
        0: the trace runs over all parameters.
    fisher_rao, largest_eigenvalue : float
        Not measured for this kind: NaN.
    loss_name : str
        Empty: there is one loss.
    normaliser : float
        Not kept for this kind: NaN.
    summed, partial : bool
        False.
    orbit : None
        `orbit_minimum` is a closed form, which needs no certificate.
    diagonals : None
        The sums over neurons are kept, and no diagonal.
    lower_bound : float
        What `gauss_newton` is at least, for every network of this width and activation with the
        same outputs ``f(x_i)``. At an interpolator: a bound on the trace of all of them.
    ratio : float
        `orbit_minimum` / `lower_bound`, at least 1: the certificate that this network is within
        this factor of the flattest. NaN where both are 0.
    reflected : float
        `gauss_newton` averaged over the data and their negatives ``-x_i``.
    reflected_orbit_minimum : float
        Smallest `reflected` among all rescalings.
    per_neuron : PerNeuron
        The same neuron by neuron.
    n_features, width : int
        ``d`` and ``m``.
    degree : float
        The degree ``p``.

    References
    ----------
    H. Vardhan, H. Taheri, A. Mazumdar, "Flatness and Generalization: Learning Multi-Index Models
    with Homogeneous Neural Networks", arXiv 2606.04429, 2026.

    Examples
    --------
    >>> import flattest as ft
    >>> ft.measure(ft.TwoLayerNet([[2.0]], [0.5], "relu"), [[3.0], [-1.0]], [3.0, 0.0])
    TwoLayerFlatness
      trace of the Hessian             38.25  exact
        Gauss-Newton part              38.25  exact
        residual part                      0  exact
      orbit minimum                       18  exact
      lower bound                         18  exact
      ratio                                1  exact
      reflected trace                  21.25  exact
      reflected orbit minimum             10  exact
      mean squared error                   0  exact
      2 samples, 1 feature, width 1, degree 1, torch.float64 on cpu
    """

    lower_bound: float
    ratio: float
    reflected: float
    reflected_orbit_minimum: float
    per_neuron: PerNeuron = field(compare=False)
    n_features: int
    width: int
    degree: float

    _figures: ClassVar[tuple[tuple[str, str, int], ...]] = (
        ("trace", "trace of the Hessian", 0),
        ("gauss_newton", "Gauss-Newton part", 1),
        ("residual", "residual part", 1),
        ("orbit_minimum", "orbit minimum", 0),
        ("lower_bound", "lower bound", 0),
        ("ratio", "ratio", 0),
        ("reflected", "reflected trace", 0),
        ("reflected_orbit_minimum", "reflected orbit minimum", 0),
        ("loss", "mean squared error", 0),
    )

    @property
    def scope(self) -> str:
        """What was measured, in a line, for below the table."""
        return (
            f"{count(self.n_samples, 'sample')}, {count(self.n_features, 'feature')}, "
            f"width {self.width}, degree {self.degree:g}, {self.dtype} on {self.device}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and lists, ready for ``json.dumps``.

        Returns
        -------
        dict
            As for `Flatness`; `per_neuron` is a dictionary of lists.

        Examples
        --------
        >>> import flattest as ft
        >>> net = ft.TwoLayerNet([[2.0]], [0.5], "relu")
        >>> ft.measure(net, [[3.0]], [3.0]).to_dict()["per_neuron"]["outer"]
        [36.0]
        """
        neurons = {
            name: plain(values.tolist()) for name, values in self.per_neuron._asdict().items()
        }
        return {**super().to_dict(), "per_neuron": neurons}
