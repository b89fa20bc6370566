"""Shattering: flat networks with biases that fit noise by neurons which hardly ever fire."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from flattest.figures import GREY, colour, marker, new_figure
from flattest.study.claim import Claim, Design
from flattest.study.verdict import Verdict, judge
from flattest.two_layer.measuring import measure
from flattest.two_layer.networks import TwoLayerNet, append_bias_coordinate

RARELY = 0.1
"""A neuron fires rarely if it does on at most this share of the training data."""
_TEST_SAMPLES = 20_000
_SLOW, _FAST = 0.3, 0.5
_NAMES = {"large_steps": "large steps, no penalty", "weight_decay": "weight decay, best strength"}


@dataclass(frozen=True)
class Settings:
    """One way of training on noisy data, and the sizes.

    Parameters
    ----------
    method : str
        ``"large_steps"``: gradient descent on the loss alone. ``"weight_decay"``: with a penalty,
        at the best of `strengths` in hindsight.
    n_samples, n_features, width : int
        ``n``, ``d`` and ``m``.
    noise : float
        The standard deviation of the label noise.
    step_size : float
        Of gradient descent; large.
    n_steps : int
        Their number.
    strengths : tuple of float
        Of the weight decay.
    """

    method: str = "large_steps"
    n_samples: int = 256
    n_features: int = 5
    width: int = 128
    noise: float = 1.0
    step_size: float = 0.5
    n_steps: int = 10_000
    strengths: tuple[float, ...] = (0.01, 0.03, 0.1)


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Train a ReLU network with biases on a noisy linear function in the unit ball.

    Parameters
    ----------
    settings : Settings
        The method and the sizes.
    seed : int
        Seed of the data and of the first network.

    Returns
    -------
    dict
        Test MSE against the noise-free function, train MSE, trace, and the share of the neurons
        that fire rarely, counted and by their size ``|a| ||w||``.
    """
    n, d = settings.n_samples, settings.n_features
    for_data, for_net, for_test = map(np.random.default_rng, ([seed, 0], [seed, 1], [seed, 2]))
    direction = for_data.standard_normal(d)
    u = torch.from_numpy(direction / np.linalg.norm(direction))
    inputs = _unit_ball(n, d, for_data)
    y = inputs @ u + settings.noise * torch.from_numpy(for_data.standard_normal(n))
    fresh = _unit_ball(_TEST_SAMPLES, d, for_test)
    X = append_bias_coordinate(inputs)
    start = _start(settings.width, d + 1, for_net)
    penalised = settings.method == "weight_decay"
    trained = []
    for strength in settings.strengths if penalised else (0.0,):
        net = _descend(X, y, start, settings.step_size, settings.n_steps, strength)
        with torch.no_grad():
            error = net(append_bias_coordinate(fresh)) - fresh @ u
        trained.append((float(error.square().mean()), strength, net))
    test_error, strength, net = min(trained, key=lambda entry: entry[0])
    flatness = measure(net, X, y)
    with torch.no_grad():
        fires = (X @ net.weights.T > 0).double().mean(dim=0)
        size = net.coefficients.abs() * net.weights.norm(dim=1)
    rare, alive = fires <= RARELY, fires > 0
    return {
        "test_error": test_error,
        "train_error": flatness.loss,
        "strength": strength,
        "trace": flatness.trace,
        "orbit_minimum": flatness.orbit_minimum,
        "rare_neurons": float((rare & alive).sum() / alive.sum()),
        "rare_size": float(size[rare].sum() / size.sum()),
    }


def _unit_ball(n: int, d: int, rng: np.random.Generator) -> Float[Tensor, "n d"]:
    """Draw uniformly from the unit ball."""
    g = rng.standard_normal((n, d))
    radius = rng.random((n, 1)) ** (1 / d)
    return torch.from_numpy(radius * g / np.linalg.norm(g, axis=1, keepdims=True))


def _start(
    width: int, n_inputs: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "m d1"], Float[Tensor, " m"]]:
    """Draw balanced neurons in random directions, flat enough for large steps to be stable."""
    W = rng.standard_normal((width, n_inputs))
    W *= width**-0.5 / np.linalg.norm(W, axis=1, keepdims=True)
    return torch.from_numpy(W), torch.from_numpy(rng.choice([-1.0, 1.0], width) * width**-0.5)


def _descend(
    X: Float[Tensor, "n d1"],
    y: Float[Tensor, " n"],
    start: tuple[Float[Tensor, "m d1"], Float[Tensor, " m"]],
    step_size: float,
    n_steps: int,
    strength: float,
) -> TwoLayerNet:
    """Take plain gradient steps on the mean squared error plus ``strength / 2 ||theta||^2``."""
    W, a = (value.clone() for value in start)
    keep = 1 - step_size * strength
    for _ in range(n_steps):
        z = X @ W.T
        gates = (z > 0).to(z)
        s = z.clamp_(min=0)
        pull = (2 * step_size / len(y)) * (s @ a - y)
        W, a = (
            keep * W - a[:, None] * (gates.T @ (X * pull[:, None])),
            keep * a - s.T @ pull,
        )
    if not bool((X @ W.T > 0).any() and W.isfinite().all() and a.isfinite().all()):
        raise FloatingPointError(
            "Gradient descent diverged or switched every neuron off; "
            f"take step_size below {step_size:g}."
        )
    return TwoLayerNet(W, a, "relu")


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge how fast the test error falls with ``n``, and how rarely neurons fire.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        On the largest dimension.
    """
    if records.empty:
        return []
    d = int(records["n_features"].max())
    rows = dict(list(records.groupby("method")))
    judged = []
    if "large_steps" in rows:
        rates = _rates(rows["large_steps"])
        lowest = int(records["n_features"].min())
        judged.append(
            judge(
                f"The limit shows: with d = {d} the test error of flat networks falls at most like "
                f"n^-{_SLOW:g}.",
                "exponent of n, mean over the seeds",
                rates[d],
                "at most",
                _SLOW,
                np.mean,
            )
        )
        if lowest < d:
            judged.append(
                judge(
                    f"It falls more slowly with d = {d} than with d = {lowest}.",
                    "difference of the exponents of n, mean over the seeds",
                    rates[lowest] - rates[d],
                    "at least",
                    0.0,
                    np.mean,
                )
            )
    if "weight_decay" in rows:
        judged.append(
            judge(
                f"With weight decay and d = {d} it falls at least like n^-{_FAST:g}.",
                "exponent of n, mean over the seeds",
                _rates(rows["weight_decay"])[d],
                "at least",
                _FAST,
                np.mean,
            )
        )
    if "large_steps" in rows:
        flat = rows["large_steps"]
        largest = flat[(flat["n_features"] == d)]
        seeds = largest[largest["n_samples"] == largest["n_samples"].max()].set_index("seed")
        for quantity, what in (
            ("rare_size", "most of the size |a| ||w|| of a flat network lies in"),
            ("rare_neurons", "most neurons of a flat network are"),
        ):
            judged.append(
                judge(
                    f"With d = {d} {what} neurons that fire on at most {RARELY:.0%} of the data.",
                    f"their share at n = {seeds['n_samples'].iloc[0]}, mean over the seeds",
                    seeds[quantity],
                    "at least",
                    0.5,
                    np.mean,
                )
            )
    return judged


def _rates(records: pd.DataFrame) -> pd.DataFrame:
    """Return, per seed and dimension, minus the slope of log test error against log n."""

    def rate(rows: pd.DataFrame) -> float:
        if rows["n_samples"].nunique() < 2:
            return math.nan
        x, y = np.log(rows["n_samples"]), np.log(rows["test_error"])
        return -float(np.polyfit(x, y, 1)[0])

    groups = records.groupby(["seed", "n_features"])[["n_samples", "test_error"]]
    return groups.apply(rate).unstack("n_features")


def figure(records: pd.DataFrame) -> Figure:
    """Draw test error against ``n``, its exponent against ``d``, and who fires rarely.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        Three panels.
    """
    present = [name for name in _NAMES if name in set(records["method"])]
    d_max = records["n_features"].max()
    with new_figure(11.0, 4.0) as drawn:
        error, exponent, rare = drawn.subplots(1, 3)
        for name in present:
            rows = records[records["method"] == name]
            highest = rows[rows["n_features"] == d_max]
            _series(error, highest["n_samples"], highest["test_error"], name)
            rates = _rates(rows).melt(ignore_index=False, value_name="rate")
            _series(exponent, rates["n_features"], rates["rate"], name)
            largest = rows[rows["n_samples"] == rows["n_samples"].max()]
            _series(rare, largest["n_features"], largest["rare_size"], name)
        sizes = sorted(records["n_samples"].unique())
        error.set(xscale="log", yscale="log", xlabel="samples  n", ylabel="test MSE")
        error.set_xticks(sizes, [str(size) for size in sizes])
        error.set_title(f"Test error, d = {d_max}")
        exponent.set(xlabel="features  d", ylabel="exponent of n", title="How fast it falls")
        exponent.axhline(0, color=GREY, linewidth=1, zorder=1)
        rare.set(xlabel="features  d", ylabel="share of the network's size", ylim=(-0.04, 1.04))
        rare.set_title(f"Neurons firing on ≤ {RARELY:.0%}, n = {max(sizes)}")
        for axes in (exponent, rare):
            axes.set_xticks(sorted(records["n_features"].unique()))
        for axes in (error, exponent, rare):
            axes.minorticks_off()
            axes.grid(True)
        drawn.legend(*error.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return drawn


def _series(axes: Any, x: pd.Series, y: pd.Series, name: str) -> None:
    """Draw each seed as a faint mark, and the means as a line."""
    index = list(_NAMES).index(name)
    hue, mark = colour(index), marker(index)
    axes.plot(x, y, mark, color=hue, alpha=0.3, markersize=5, mec="none", zorder=2)
    means = y.groupby(x.to_numpy()).mean()
    axes.plot(
        means.index,
        means,
        f"{mark}-",
        color=hue,
        linewidth=1.8,
        markersize=7,
        mec="white",
        mew=0.7,
        label=_NAMES[name],
        zorder=3,
    )


def _cells(
    features: tuple[int, ...], samples: tuple[int, ...], width: int, n_steps: int
) -> tuple[Settings, ...]:
    # A penalised descent settles sooner.
    return tuple(
        Settings(method, n, d, width, n_steps=n_steps // (4 if method == "weight_decay" else 1))
        for method in _NAMES
        for d in features
        for n in samples
    )


CLAIM = Claim(
    name="shattering",
    title="A limit: biases, noise, and neurons that hardly ever fire",
    question=(
        "Gradient descent with a large step can only end in flat minima: sharper ones are "
        "unstable. With biases a neuron can place its kink close to the edge of the data, where it "
        "fires for few samples. Such a neuron costs little flatness however steep it is. In "
        "many dimensions most of a ball lies near its edge, so that flat networks may fit noise "
        "by many such neurons. Does flatness then still bring the test error down as data are "
        "added?"
    ),
    method=(
        "Inputs uniform in the unit ball of d dimensions, labels from a linear function of slope 1 "
        "plus normal noise of standard deviation 1. A ReLU network with biases is trained by plain "
        "gradient descent of step size 0.5 for a fixed number of steps, far longer than the test "
        "error needs. For comparison the same is done with weight decay on all parameters, its "
        "strength the best of three in hindsight, in a quarter of the steps. The test error is the "
        "mean squared difference to the noise-free function on 20,000 fresh inputs; its exponent "
        "is minus the slope of log error against log n. The size of a neuron is |a| ||w||, its "
        "bias among the weights."
    ),
    thresholds=(
        "Ours. The squared error of a linear fit falls like 1/n, an exponent of 1: half of that "
        "counts as fast, and 0.3 as slow. Most is more than half, and rarely is on at most a tenth "
        "of the data. The comparison of dimensions has no threshold but equality."
    ),
    limits=(
        "This is a reduced experiment of ours after the source's: small samples and networks, a "
        "linear target, a fixed number of steps, one step size that was not tuned, and a hindsight "
        "choice of strength for weight decay alone. "
        "Large steps make a minimum flat in its largest curvature, not in the trace that the "
        "other claims minimise, and these networks do not interpolate. Networks trained with "
        "weight decay can be as flat: shown is that flatness does not rule the others out. "
        "An exponent measured over one decade of n is not an asymptotic rate."
    ),
    source=(
        "T. Liang, D. Qiao, Y.-X. Wang, R. Parhi, Stable Minima of ReLU Neural Networks Suffer "
        "from the Curse of Dimensionality: The Neural Shattering Phenomenon, arXiv 2506.20779, "
        "2025."
    ),
    trial=trial,
    quick=Design(_cells((1, 3, 5), (64, 181, 512), 128, 8000), 5),
    full=Design(
        _cells((1, 2, 3, 4, 5), (64, 128, 256, 512, 1024, 2048, 4096), 1024, 40_000), 10, 4 * 3600.0
    ),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Left: test error against the number of samples in the largest dimension. Middle: how fast "
        "it falls, by dimension. Right: the share of the network's size in neurons that fire on at "
        "most a tenth of the training data. Means over the seeds joined by lines, seeds faint."
    ),
)
