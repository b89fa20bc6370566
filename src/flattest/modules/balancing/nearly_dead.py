r"""Units that carry next to nothing: they stay as they are, unless that would cost something.

A hidden unit with tiny weights on both sides, or one that hardly ever fires, has next to no part in
the noise of rounding and sets no layer's range. Where it should go depends on the last digits of
its gradients, and where it came from is as good a place as any.

Of scale j, let :math:`r_1` be the largest weight that grows with it and :math:`r_2` the largest
that shrinks, both relative to the largest weights of their layers, and P and N the parts of the
noise that fall and rise with it. Moving the unit changes either factor of its gain
:math:`\sqrt{r_1 r_2}` and of its flow :math:`\sqrt{P N}`, but not the products: between layers
whose maxima are the same they are the same for all twins of a network. (Exactly so where the
scale's exponents are 1 and -1.) A unit is nearly dead if its gain or flow is small beside the
median. Units with one side that is not rounded, such as the gain of a batch normalisation, have
neither, and are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Layer
from flattest.modules.balancing.equalisation import Ranges, equalise
from flattest.modules.balancing.terms import Terms, Vector

_FAINT = 1e-6
"""Gains and flows below this part of the median are those of nearly dead units."""
_ROUNDING = 1e-12
"""By how much, in logarithms, a weight may be above its layer's maximum."""


def leave_alone(
    layers: Sequence[Layer], channels: sparse.csr_array, z: Vector, allowed: float
) -> tuple[Vector, Bool[np.ndarray, " n"]]:
    """Set the scales of nearly dead units to 1 where that costs next to nothing.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    z : array of shape (n,)
        Log scales where the noise is small.
    allowed : float
        By which part of itself the noise may grow; no layer's largest weight may.

    Returns
    -------
    z : array of shape (n,)
        The log scales with some set to 0.
    left_alone : array of bool, of shape (n,)
        Scales of no weight, and those of nearly dead units that are 1.

    Examples
    --------
    Of two hidden units the second has a gain and a flow of 1e-12:

    >>> import numpy as np
    >>> from scipy import sparse
    >>> from flattest.modules.balancing.coupled_layers import Layer
    >>> from flattest.modules.balancing.nearly_dead import leave_alone
    >>> channels = sparse.csr_array(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    >>> ground, units = np.zeros(2, int), np.array([1, 2])
    >>> into = Layer(np.array([4.0, 1e-24]), np.log([1.0, 1e-12]), units, ground)
    >>> out = Layer(np.array([4.0, 1e-24]), np.log([1.0, 1e-12]), ground, units)
    >>> leave_alone([into, out], channels, np.array([0.1, 3.0]), 1e-8)
    (array([0.1, 0. ]), array([False,  True]))
    """
    n = len(z)
    layers = [layer for layer in layers if np.isfinite(layer.logarithms).any()]
    tops = [float(layer.moved(channels @ z, 1.0).logarithms.max()) for layer in layers]
    # With the maxima at 1 the noise is the sum of the amounts, and z is the origin.
    here = [
        Layer(layer.amounts, layer.logarithms - top, layer.out, layer.into).moved(
            channels @ z, float(np.exp(-2 * top))
        )
        for layer, top in zip(layers, tops, strict=True)
    ]
    terms = Terms([layer.part() for layer in here], channels)
    flows = terms.at(np.zeros(n))
    grown, shrunk = Ranges(here, channels).at(np.zeros(n))
    idle = np.isneginf(grown) & np.isneginf(shrunk)
    gain = np.exp(0.5 * (grown + shrunk))
    flow = np.sqrt(flows.inward) * np.sqrt(flows.outward)
    # Zeros for the weights tell sides without any from sides with zeros.
    blank = [
        Layer(layer.amounts, np.zeros_like(layer.amounts), layer.out, layer.into) for layer in here
    ]
    judged = np.isfinite(Ranges(blank, channels).at(np.zeros(n))).all(axis=0)
    faint = judged & (_small(gain) | _small(flow))
    with np.errstate(over="ignore", invalid="ignore"):
        cost = flows.inward * np.expm1(2 * z) + flows.outward * np.expm1(-2 * z)
    back = faint & (z != 0) & (cost <= allowed * flows.value / max(n, 1))
    back = _within_maxima(here, channels, z, back)
    if back.any() and terms.at(np.where(back, -z, 0.0)).value > flows.value * (1 + allowed):
        back[:] = False
    moved = np.where(back, 0.0, z)
    return moved, idle | (faint & (moved == 0))


def equalise_others(
    layers: Sequence[Layer], channels: sparse.csr_array, tolerance: float, allowed: float
) -> tuple[Vector, Bool[np.ndarray, " n"]]:
    """Equalise the ranges of all units but those that are nearly dead.

    Parameters
    ----------
    layers : sequence of Layer
        The layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.
    tolerance : float
        As for `equalise`.
    allowed : float
        As for `leave_alone`.

    Returns
    -------
    z : array of shape (n,)
        The log scales.
    left_alone : array of bool, of shape (n,)
        As from `leave_alone`.
    """
    z = equalise(layers, channels, tolerance)
    _, alone = leave_alone(layers, channels, z, allowed)
    # What is left where it is sets no other unit's range either: a second time nothing moves.
    some = (abs(channels) @ alone.astype(np.float64)) > 0
    others = [layer.without(some) for layer in layers]
    return equalise(others, channels, tolerance, start=np.where(alone, 0.0, z)), alone


def _small(values: Vector) -> Bool[np.ndarray, " n"]:
    positive = values[values > 0]
    return values < _FAINT * (np.median(positive) if positive.size else 0.0)


def _within_maxima(
    layers: Sequence[Layer], channels: sparse.csr_array, z: Vector, back: Bool[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Return those of the scales that can go back to 1 without raising a layer's maximum of 1."""
    touched = abs(channels)
    while back.any():
        change = channels @ np.where(back, -z, 0.0)
        above = np.zeros(len(change))
        for layer in layers:
            places = np.nonzero(layer.logarithms + layer.differences(change) > _ROUNDING)
            above[layer.out[places[0]]] = above[layer.into[places[-1]]] = 1
        kept = back & (touched.T @ above == 0)
        if kept.sum() == back.sum():
            break
        back = kept
    return back
