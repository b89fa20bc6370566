r"""Layers whose largest weight counts: a variable for the logarithm of each one's maximum.

An entry that leads from channel i to channel o of layer l has the exponent
:math:`v = y_o - y_i - s_l`: its weight stays below the layer's maximum if
:math:`\ln|w| + v \leq 0`, and its part in the noise is :math:`a\, e^{-2 v}`. Half of the maximum
goes to either end, :math:`v = (y_o - s_l / 2) - (y_i + s_l / 2)`, so that these are channels like
others and the noise is a sum of exponentials as `terms` has it. `Limits` are the inequalities: of
millions of entries a few for each channel come near their limit, and only these are looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from flattest.modules.balancing.terms import Grid, Listed, Part, Vector

Entries = Float[np.ndarray, "..."]
Numbers = Int[np.ndarray, " k"]
_FIRST = 3
"""Entries of each row and column that are looked at from the beginning."""


class Layer:
    """The entries of one weight, summed and maximised over those with the same two channels.

    Parameters
    ----------
    amounts : array of shape (r, c) or (t,)
        Their parts in the trace.
    logarithms : array of the same shape
        The logarithms of their sizes; minus infinity for weights that are 0.
    out, into : array of int, of shapes (r,) and (c,), or both (t,)
        The channels of rows and columns, or of each entry.
    """

    def __init__(
        self,
        amounts: Entries,
        logarithms: Entries,
        out: Int[np.ndarray, " r"],
        into: Int[np.ndarray, " c"],
    ) -> None:
        self.amounts, self.logarithms, self.out, self.into = amounts, logarithms, out, into

    def differences(self, y: Vector) -> Entries:
        """Return what the first channel of each entry has more than the second."""
        out, into = y[self.out], y[self.into]
        return out[:, None] - into if self.amounts.ndim == 2 else out - into

    def moved(self, y: Vector, scale: float) -> Layer:
        """Return the layer where its channels have the log scales y, its amounts over a number."""
        v = self.differences(y)
        with np.errstate(divide="ignore"):
            amounts = np.exp(np.log(self.amounts) - 2 * v - np.log(scale))
        return Layer(amounts, self.logarithms + v, self.out, self.into)

    def without(self, some: Bool[np.ndarray, " m"]) -> Layer:
        """Return the layer with zeros for the weights of some channels, one flag for each."""
        out, into = some[self.out], some[self.into]
        gone = out[:, None] | into if self.amounts.ndim == 2 else out | into
        logarithms = np.where(gone, -np.inf, self.logarithms)
        return Layer(np.where(gone, 0.0, self.amounts), logarithms, self.out, self.into)

    def part(self) -> Part:
        """Return the amounts as terms."""
        return (Grid if self.amounts.ndim == 2 else Listed)(self.amounts, self.out, self.into)


def with_maxima(
    layers: Sequence[Layer], channels: sparse.csr_array
) -> tuple[list[Layer], sparse.csr_array]:
    """Give either end of every layer channels of its own, with half of the layer's maximum.

    Parameters
    ----------
    layers : sequence of Layer
        The L layers.
    channels : sparse array of shape (m, n)
        The channels as combinations of free scales.

    Returns
    -------
    layers : list of Layer
        The same entries between the new channels.
    channels : sparse array of shape (k, n + L)
        These as combinations of the free scales and the maxima's logarithms.
    """
    moved, blocks, start = [], [], 0
    for number, layer in enumerate(layers):
        ends = []
        for channel, half in ((layer.out, -0.5), (layer.into, 0.5)):
            own, position = np.unique(channel, return_inverse=True)
            column = sparse.csr_array(
                (np.full(len(own), half), (np.arange(len(own)), np.full(len(own), number))),
                (len(own), len(layers)),
            )
            blocks.append(sparse.hstack([channels[own], column], format="csr"))
            ends.append(start + position)
            start += len(own)
        moved.append(Layer(layer.amounts, layer.logarithms, *ends))
    return moved, sparse.csr_array(sparse.vstack(blocks, format="csr"))


class Limits:
    """The inequalities that keep weights below their layers' maxima; entries have one numbering.

    Parameters
    ----------
    layers : sequence of Layer
        Layers between channels that have the maxima in them.
    channels : sparse array of shape (k, n)
        Their channels.
    """

    def __init__(self, layers: Sequence[Layer], channels: sparse.csr_array) -> None:
        self._layers, self._channels = layers, channels
        self._starts = np.cumsum([0, *(layer.amounts.size for layer in layers)])

    def first(self, x: Vector) -> Numbers:
        """Return the entries with the largest weights of every row and column at a point."""
        y, found = self._channels @ x, []
        for layer, start in zip(self._layers, self._starts, strict=False):
            slack = -(layer.logarithms + layer.differences(y))
            chosen = np.full(slack.shape, slack.ndim == 1)
            for axis in range(slack.ndim if slack.ndim == 2 else 0):
                some = min(_FIRST, slack.shape[axis])
                largest = np.argpartition(slack, some - 1, axis=axis)
                np.put_along_axis(chosen, largest.take(range(some), axis), True, axis)
            found.append(start + np.flatnonzero(chosen & np.isfinite(slack)))
        return np.concatenate(found)

    def near(self, x: Vector, within: float) -> Numbers:
        """Return the entries whose slack at a point is less than a number."""
        y, found = self._channels @ x, []
        for layer, start in zip(self._layers, self._starts, strict=False):
            sizes = layer.differences(y)
            sizes += layer.logarithms
            found.append(start + np.flatnonzero(sizes > -within))
        return np.concatenate(found)

    def growing(self, x: Vector, more: float) -> Numbers:
        """Return the entries whose exponents grow by more than a number along a direction."""
        y, found = self._channels @ x, []
        for layer, start in zip(self._layers, self._starts, strict=False):
            found.append(start + np.flatnonzero(layer.differences(y) > more))
        return np.concatenate(found)

    def of(self, entries: Numbers) -> tuple[Entries, Entries, sparse.csr_array]:
        """Return amounts a, logarithms b and exponents J of some entries.

        The terms of these are ``a exp(-2 J x)``, and their slack is ``-(b + J x)``.

        Parameters
        ----------
        entries : array of int of shape (k,)
            The entries in ascending order.

        Returns
        -------
        amounts, logarithms : array of shape (k,)
            Their parts in the trace, and their sizes' logarithms.
        exponents : sparse array of shape (k, n)
            The v of each.
        """
        amounts, logarithms, ends = [], [], []
        bounds = np.searchsorted(entries, self._starts)
        for number, layer in enumerate(self._layers):
            own = entries[bounds[number] : bounds[number + 1]] - self._starts[number]
            amounts.append(layer.amounts.ravel()[own])
            logarithms.append(layer.logarithms.ravel()[own])
            grid = layer.amounts.ndim == 2
            row, column = np.divmod(own, layer.amounts.shape[1]) if grid else (own, own)
            ends.append((layer.out[row], layer.into[column]))
        out, into = (np.concatenate(side) for side in zip(*ends, strict=True))
        exponents = sparse.csr_array(self._channels[out] - self._channels[into])
        return np.concatenate(amounts), np.concatenate(logarithms), exponents
