"""Random layers between scaled channels, and the same layers at other scales."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from flattest.modules.balancing.coupled_layers import Layer


def chain(
    seed: int, widths: Sequence[int], depthwise: bool = False
) -> tuple[list[Layer], sparse.csr_array]:
    """Weights and traces of a multilayer perceptron, with a layer of one weight per unit."""
    rng = np.random.default_rng(seed)
    hidden = widths[1:-1]
    starts = np.concatenate([[1], 1 + np.cumsum(hidden)])
    units = [start + np.arange(width) for start, width in zip(starts, hidden, strict=False)]
    channels = [np.zeros(widths[0], int), *units, np.zeros(widths[-1], int)]
    layers = []
    for into, out in itertools.pairwise(channels):
        weight = rng.normal(size=(len(out), len(into))) * rng.lognormal(0, 1, (len(out), 1))
        layers.append(Layer(rng.lognormal(0, 1, weight.shape), np.log(abs(weight)), out, into))
    n = int(sum(hidden))
    if depthwise:
        last = units[-1]
        extra = n + 1 + np.arange(len(last))
        layers[-1] = Layer(layers[-1].amounts, layers[-1].logarithms, layers[-1].out, extra)
        layers.append(Layer(rng.random(len(last)), rng.normal(size=len(last)), extra, last))
        n += len(last)
    zero = sparse.csr_array((1, n))
    return layers, sparse.csr_array(sparse.vstack([zero, sparse.eye_array(n)]))


def moved(layers: Sequence[Layer], channels: sparse.csr_array, z: np.ndarray) -> list[Layer]:
    """Return the layers of a network whose hidden units were scaled by exp(z)."""
    y = channels @ z
    return [
        Layer(
            layer.amounts * np.exp(-2 * layer.differences(y)),
            layer.logarithms + layer.differences(y),
            layer.out,
            layer.into,
        )
        for layer in layers
    ]
