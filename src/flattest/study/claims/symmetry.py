"""Symmetry: one function at any trace, and one orbit minimum (Dinh et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from flattest.datasets import make_multi_index
from flattest.figures import colour, marker, new_figure
from flattest.interpolators import interpolate
from flattest.study.claim import Claim, Design
from flattest.study.verdict import Verdict, judge
from flattest.two_layer.measuring import measure
from flattest.two_layer.symmetry import rescale, sharpen


@dataclass(frozen=True)
class Settings:
    """One network, and how much sharper a copy of it is made.

    Parameters
    ----------
    activation : str
        The name of the activation, which is also the link of the data.
    factor : float
        At least 1: the copy, whose neurons are rescaled at random first, is sharpened by this.
    n_samples, n_features, n_directions, width : int
        ``n``, ``d``, ``k`` and ``m``.
    """

    activation: str = "relu"
    factor: float = 1.0
    n_samples: int = 200
    n_features: int = 10
    n_directions: int = 3
    width: int = 100


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Make a copy of an interpolator with the same function, and measure both.

    Parameters
    ----------
    settings : Settings
        The network and the factor.
    seed : int
        Seed of the data, of the network and of the rescaling.

    Returns
    -------
    dict
        Traces and orbit minima, and the largest change of an output on fresh inputs, relative to
        the root mean square of the outputs.
    """
    links = [settings.activation] * settings.n_directions
    X, y, model = make_multi_index(
        settings.n_samples, settings.n_features, links, random_state=seed
    )
    activation, width = settings.activation, settings.width
    net = interpolate(X, y, width=width, activation=activation, random_state=seed).net
    scales = np.exp(np.random.default_rng([seed, 1]).standard_normal(net.width))
    copy = sharpen(rescale(net, scales), settings.factor)
    original, measured = measure(net, X, y), measure(copy, X, y)
    fresh = model.sample(2000, random_state=seed)
    with torch.no_grad():
        outputs, copied = net(fresh), copy(fresh)
    return {
        "trace": measured.trace,
        "orbit_minimum": measured.orbit_minimum,
        "original_trace": original.trace,
        "original_orbit_minimum": original.orbit_minimum,
        "output_change": float((copied - outputs).abs().max() / outputs.square().mean().sqrt()),
        "test_error": model.relative_error(copy, random_state=seed),
    }


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge the span of the traces and the constancy of the orbit minimum and of the function.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        Three per activation.
    """
    change = (records["orbit_minimum"] / records["original_orbit_minimum"] - 1).abs()
    records = records.assign(change=change)
    judged = []
    for activation, group in records.groupby("activation", sort=False):
        seeds = group.groupby("seed")
        judged += [
            judge(
                f"Copies of one {activation} network have traces over at least 6 orders of "
                "magnitude.",
                "orders of magnitude between the traces",
                (seeds["trace"].max() / seeds["trace"].min()).map(math.log10),
                "at least",
                6.0,
                np.min,
            ),
            judge(
                f"The orbit minimum of the {activation} network changes by at most 1e-8 of itself.",
                "largest relative change of the orbit minimum",
                seeds["change"].max(),
                "at most",
                1e-8,
                np.max,
            ),
            judge(
                f"The copies of the {activation} network compute the same function to 1e-8.",
                "largest relative change of an output",
                seeds["output_change"].max(),
                "at most",
                1e-8,
                np.max,
            ),
        ]
    return judged


def figure(records: pd.DataFrame) -> Figure:
    """Draw trace and orbit minimum of the copies against the factor.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        One panel per activation.
    """
    activations = list(dict.fromkeys(records["activation"]))
    with new_figure(4.8 * len(activations), 3.8) as drawn:
        panels = drawn.subplots(1, len(activations), squeeze=False)[0]
        for axes, activation in zip(panels, activations, strict=True):
            rows = records[records["activation"] == activation]
            for index, (quantity, label) in enumerate(
                (("trace", "trace"), ("orbit_minimum", "orbit minimum"))
            ):
                axes.plot(
                    rows["factor"],
                    rows[quantity] / rows["original_orbit_minimum"],
                    marker(index),
                    color=colour(index),
                    alpha=0.6,
                    mec="white",
                    mew=0.5,
                    markersize=7,
                    label=label,
                )
            axes.set(
                xscale="log",
                yscale="log",
                xlabel="sharpened by the factor",
                title=f"{activation} network",
            )
            axes.grid(True)
        panels[0].set_ylabel("value / orbit minimum of the original")
        panels[0].legend(loc="upper left")
    return drawn


def _cells(factors: Sequence[float], n_samples: int) -> tuple[Settings, ...]:
    return tuple(
        Settings(activation=activation, factor=factor, n_samples=n_samples)
        for activation in ("relu", "quadratic")
        for factor in factors
    )


CLAIM = Claim(
    name="symmetry",
    title="One function, any trace",
    question=(
        "Flat minima are said to generalise, and flatness is measured by the trace of the Hessian "
        "of the training loss. But a neuron of a homogeneous network can be scaled up before its "
        "activation and down after it without any effect on what the network computes. Does the "
        "trace survive this symmetry, and does its minimum over all rescalings, the orbit minimum?"
    ),
    method=(
        "A network that fits noiseless data exactly is copied: every neuron is rescaled at random "
        "and the whole is sharpened by a factor. Trace and orbit minimum are computed in closed "
        "form, without sampling, and the outputs are compared on 2,000 fresh inputs."
    ),
    thresholds=(
        "Ours. That the trace takes any value is a statement without a number, for which 6 orders "
        "of magnitude stand. 1e-8 stands for equality: above what float64 loses to rounding in "
        "such sums, and below any effect that would matter."
    ),
    limits=(
        "Rescaling is not the only symmetry of a network of degree above 1: splitting a neuron "
        "into equal copies lowers the orbit minimum there, so it must be compared at equal width."
    ),
    source=(
        "L. Dinh, R. Pascanu, S. Bengio, Y. Bengio, Sharp Minima Can Generalize for Deep Nets, "
        "ICML 2017."
    ),
    trial=trial,
    quick=Design(_cells((1.0, 1e2, 1e4, 1e7), 100), n_seeds=5),
    full=Design(_cells([10.0**exponent for exponent in range(11)], 200), n_seeds=20),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Copies of one network that compute the same function, each seed a mark. The trace takes "
        "any value; the orbit minimum does not move."
    ),
)
