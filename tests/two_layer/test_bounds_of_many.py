"""The lower bound of many networks: a thousand, and ten thousand in make slow.

Run without the run-time type checker, which would take half the time.
"""

import math

import numpy as np
import pytest
from oracles import SLOPES

import flattest as ft


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_bound_holds_for_many_networks(count: int) -> None:
    rng = np.random.default_rng(0)
    smallest = math.inf
    for _ in range(count):
        p, slopes = rng.choice([1.0, 1.5, 2.0, 3.0]), SLOPES[rng.integers(len(SLOPES))]
        n, d, m = (int(size) for size in rng.integers(1, 9, size=3))
        shape = ft.Homogeneous(float(p), *slopes)
        net = ft.TwoLayerNet(rng.normal(size=(m, d)), rng.normal(size=m), shape)
        flatness = ft.measure(net, rng.normal(size=(n, d)), np.zeros(n))
        if flatness.orbit_minimum > 0:
            smallest = min(smallest, flatness.ratio)
    assert smallest >= 1 - 1e-12
