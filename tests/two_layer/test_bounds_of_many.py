"""The lower bound of ten thousand networks.

Run without the run-time type checker, which would take half the time.
"""

import math

import numpy as np
from oracles import SLOPES

import flattest as ft


def test_bound_holds_for_ten_thousand_networks() -> None:
    rng = np.random.default_rng(0)
    smallest = math.inf
    for _ in range(10_000):
        p, slopes = rng.choice([1.0, 1.5, 2.0, 3.0]), SLOPES[rng.integers(len(SLOPES))]
        n, d, m = (int(size) for size in rng.integers(1, 9, size=3))
        shape = ft.Homogeneous(float(p), *slopes)
        net = ft.TwoLayerNet(rng.normal(size=(m, d)), rng.normal(size=m), shape)
        flatness = ft.measure(net, rng.normal(size=(n, d)), np.zeros(n))
        if flatness.orbit_minimum > 0:
            smallest = min(smallest, flatness.ratio)
    assert smallest >= 1 - 1e-12
