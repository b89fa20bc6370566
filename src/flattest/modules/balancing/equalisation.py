r"""Cross-layer equalisation: every hidden unit's largest weights in and out made equal.

The largest weight into a unit, :math:`r_1`, and the largest out of it, :math:`r_2`, are both made
:math:`\sqrt{r_1 r_2}`, again and again over all units until nothing moves. It looks at weights
only.

References
----------
M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Layer
from flattest.modules.balancing.terms import Vector


class Ranges:
    """The largest weights that grow with each scale, and the largest that shrink.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    """

    def __init__(self, layers: Sequence[Layer], channels: sparse.csr_array) -> None:
        self._layers, self._channels = layers, channels
        columns = sparse.csc_array(channels)
        self._up, self._down = (sparse.coo_array(part.maximum(0)) for part in (columns, -columns))
        for exponents in (self._up, self._down):
            exponents.eliminate_zeros()  # which versions of SciPy before 1.13 keep
        self._distinct = [
            tuple(len(np.unique(ends)) == len(ends) for ends in (layer.out, layer.into))
            for layer in layers
        ]

    def at(self, z: Vector) -> tuple[Vector, Vector]:
        """Return their logarithms at a point; minus infinity where there are none.

        Parameters
        ----------
        z : array of shape (n,)
            The log scales.

        Returns
        -------
        grown, shrunk : array of shape (n,)
            Of each scale.
        """
        y = self._channels @ z
        inward, outward = (np.full(len(y), -np.inf) for _ in range(2))
        for layer, once in zip(self._layers, self._distinct, strict=True):
            sizes = layer.logarithms + layer.differences(y)
            grid = sizes.ndim == 2
            _raise(inward, layer.out, sizes.max(1) if grid else sizes, once[0])
            _raise(outward, layer.into, sizes.max(0) if grid else sizes, once[1])
        grown = np.maximum(_largest(self._up, inward), _largest(self._down, outward))
        shrunk = np.maximum(_largest(self._up, outward), _largest(self._down, inward))
        return grown, shrunk


def equalise(
    layers: Sequence[Layer],
    channels: sparse.csr_array,
    tolerance: float = 1e-9,
    max_rounds: int = 2000,
    start: Vector | None = None,
) -> Vector:
    """Return the log scales that equalise ranges.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    tolerance : float
        The largest change of a log scale at which to stop. Where one round from scales of 1 would
        change none by more than ten times that, all stay at 1.
    max_rounds : int
        The largest number of rounds.
    start : array of shape (n,), optional
        Where to start otherwise.

    Returns
    -------
    array of shape (n,)
        The log scales; 0 for units without weights on one side.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from flattest.modules.balancing.coupled_layers import Layer
    >>> from flattest.modules.balancing.equalisation import equalise
    >>> channels = sparse.csr_array(np.array([[0.0], [1.0]]))
    >>> into = Layer(np.ones(1), np.log([8.0]), np.array([1]), np.array([0]))
    >>> out = Layer(np.ones(1), np.log([2.0]), np.array([0]), np.array([1]))
    >>> np.exp(equalise([into, out], channels)).round(6)
    array([0.5])
    """
    ranges, z = Ranges(layers, channels), np.zeros(channels.shape[1])
    if np.abs(_change(ranges, z)).max(initial=0.0) < 10 * tolerance:
        return z
    z = z if start is None else start
    for _ in range(max_rounds):
        change = _change(ranges, z)
        z = z + change
        if np.abs(change).max() < tolerance:
            break
    return z


def _change(ranges: Ranges, z: Vector) -> Vector:
    """Return half of what each unit alone would need, since its neighbours move as well."""
    grown, shrunk = ranges.at(z)
    both = np.isfinite(grown) & np.isfinite(shrunk)
    return np.where(both, 0.25 * (np.where(both, shrunk, 0) - np.where(both, grown, 0)), 0.0)


def _raise(totals: np.ndarray, where: np.ndarray, values: np.ndarray, once: bool) -> None:
    """Raise some totals to values; quicker where each occurs once."""
    if once:
        totals[where] = np.maximum(totals[where], values)
    else:
        np.maximum.at(totals, where, values)


def _largest(exponents: sparse.coo_array, of_channel: np.ndarray) -> Vector:
    """Return for every scale the largest value among the channels that have it."""
    result = np.full(exponents.shape[1], -np.inf)
    np.maximum.at(result, exponents.col, of_channel[exponents.row])
    return result
