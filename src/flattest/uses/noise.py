r"""Noise: what Gaussian noise on all weights does, and whether the trace foretells it.

To second order, noise of standard deviation sigma on every parameter raises the loss by
:math:`\frac{1}{2} \sigma^2 \operatorname{tr} H` on average, and moves the class probabilities by a
Kullback-Leibler divergence of :math:`\frac{1}{2} \sigma^2 \operatorname{tr} F`, where the Fisher
matrix F is the Gauss-Newton matrix of cross-entropy.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from flattest.figures import GREY, colour, marker, new_figure
from flattest.study import Claim, Design, Verdict, judge
from flattest.uses.divergence import change
from flattest.uses.networks import KINDS
from flattest.uses.versions import flatness, version

SIGMAS = tuple(round(10.0 ** (eighth / 8), 6) for eighth in (-32, -28, -24, *range(-20, -7, 2)))
"""From 1e-4 to 1e-1, closer where the predictions begin to change."""
STATES = ("trained", "sharpened", "balanced")
SMALL, LOST = 0.01, 0.02
"""The predicted divergence that counts as small, and the accuracy that noise may cost."""
_TOLERANCE, _GAIN = 0.2, 1.05
_TICKS = (0.5, 1, 2, 5, 10, 20)


@dataclass(frozen=True)
class Settings:
    """Noise on a version of a trained network.

    Parameters
    ----------
    network : str
        One of :data:`flattest.uses.networks.KINDS`.
    state : str
        One of `STATES`.
    sigma : float
        The standard deviation of the noise on every parameter.
    n_pairs : int
        Draws, each taken with both signs.
    """

    network: str = "mlp"
    state: str = "trained"
    sigma: float = 1e-3
    n_pairs: int = 12


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Add noise to a network many times and compare with what the trace foretells.

    Parameters
    ----------
    settings : Settings
        Which network and how much noise.
    seed : int
        Seed of the network and of the noise.

    Returns
    -------
    dict
        The trace and the prediction; divergence and rise of the loss on the training samples with
        the standard errors of their means over the draws; the accuracy on test samples that noise
        costs.
    """
    net, data = found = version(settings.network, settings.state, seed)
    X, y = found.samples
    measured = flatness(settings.network, settings.state, seed)
    predicted = 0.5 * settings.sigma**2 * measured.gauss_newton
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        train, test = net(X), net(data.X_test)
        before, clean = change(train, train, y), change(test, test, data.y_test)
        divergences, rises, losses = [], [], []
        for _ in range(settings.n_pairs):
            draw = _draw(net, settings.sigma, generator)
            both = []
            for noisy in (_moved(net, draw, sign) for sign in (1, -1)):
                both.append(change(train, noisy(X), y))
                after = change(test, noisy(data.X_test), data.y_test)
                losses.append(clean.accuracy - after.accuracy)
            # What the second order says of this draw is known, and so is its mean over all draws:
            # with their difference taken off, a few draws say what hundreds would.
            excess = second_order(net, X, draw) - predicted
            divergences.append(np.mean([one.divergence for one in both]) - excess)
            rises.append(np.mean([one.loss for one in both]) - before.loss - excess)
    return {
        "trace": measured.gauss_newton,
        "predicted": predicted,
        "divergence": float(np.mean(divergences)),
        "divergence_error": _standard_error(divergences),
        "rise": float(np.mean(rises)),
        "rise_error": _standard_error(rises),
        "lost_accuracy": float(np.mean(losses)),
        "accuracy": clean.accuracy,
    }


def second_order(net: nn.Module, X: Tensor, step: dict[str, Tensor]) -> float:
    r"""Return the second order of the divergence along a step.

    That is :math:`\frac{1}{2} v^T G v` for the step v, by the derivative of the logits along it;
    for Gaussian steps its mean is half sigma squared times the trace of G.

    Parameters
    ----------
    net : torch.nn.Module
        The network.
    X : Tensor
        The samples.
    step : dict of str to Tensor
        A change of each parameter, by name.

    Returns
    -------
    float
        In nats, the mean over the samples.
    """
    parameters = {name: parameter.detach() for name, parameter in net.named_parameters()}
    logits, slopes, *_ = torch.func.jvp(
        lambda values: torch.func.functional_call(net, values, (X,)), (parameters,), (step,)
    )
    p = logits.softmax(1)
    variances = (p * slopes**2).sum(1) - (p * slopes).sum(1) ** 2
    return 0.5 * float(variances.mean())


def _draw(net: nn.Module, sigma: float, generator: torch.Generator) -> dict[str, Tensor]:
    return {
        name: sigma * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, parameter in net.named_parameters()
    }


def _moved(net: nn.Module, step: dict[str, Tensor], sign: int) -> nn.Module:
    moved = copy.deepcopy(net)
    for name, parameter in moved.named_parameters():
        parameter.add_(sign * step[name])
    return moved


def _standard_error(values: list[Any]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge the predictions while they are small, and what balancing is worth.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        For each state of the networks the divergence; the loss; and for each network what noise it
        tolerates.
    """
    judged = []
    small = records[records["predicted"] <= SMALL]
    for state in STATES:
        rows = small[small["state"] == state]
        if len(rows):
            judged.append(
                judge(
                    f"As long as half sigma squared times the trace is at most {SMALL:g}, the "
                    f"divergence from the {state} network is within {_TOLERANCE:.0%} of it, at "
                    "every sigma and in every network.",
                    "largest deviation of the ratio from 1, by seed",
                    _largest_deviation(rows, "divergence"),
                    "at most",
                    _TOLERANCE,
                )
            )
    rows = small[small["state"] == "trained"]
    if len(rows):
        judged.append(
            judge(
                "The same holds for the rise of the training loss of the trained network.",
                "largest deviation of the ratio from 1, by seed",
                _largest_deviation(rows, "rise"),
                "at most",
                _TOLERANCE,
            )
        )
    tolerated = tolerance(records)
    for network in records["network"].unique():
        gain = _gain(tolerated, network, "balanced")
        if len(gain):
            judged.append(
                judge(
                    f"At the orbit minimum the {KINDS[network].title} tolerates at least {_GAIN:g} "
                    f"times the noise at the cost of {100 * LOST:g} points of accuracy.",
                    "ratio of the tolerated sigma, balanced to trained",
                    gain,
                    "at least",
                    _GAIN,
                )
            )
    return judged


def _largest_deviation(rows: pd.DataFrame, column: str) -> pd.Series:
    deviations = (rows[column] / rows["predicted"] - 1).abs()
    return deviations.groupby(rows["seed"]).max()


def tolerance(records: pd.DataFrame) -> pd.DataFrame:
    """Return the noise at which accuracy falls by two points, for each network, state and seed.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        With `tolerated`, interpolated in log sigma; NaN where no sigma that was tried costs so
        much, or all do.
    """
    rows = [
        {**dict(zip(("network", "state", "seed"), names, strict=True)), "tolerated": _crossing(one)}
        for names, one in records.groupby(["network", "state", "seed"], sort=False)
    ]
    return pd.DataFrame(rows, columns=["network", "state", "seed", "tolerated"])


def _crossing(rows: pd.DataFrame) -> float:
    ordered = rows.sort_values("sigma")
    sigmas, costs = ordered["sigma"].to_numpy(), ordered["lost_accuracy"].to_numpy()
    above = np.flatnonzero(costs >= LOST)
    if not len(above) or above[0] == 0:
        return float("nan")
    right = above[0]
    share = (LOST - costs[right - 1]) / (costs[right] - costs[right - 1])
    low, high = np.log(sigmas[[right - 1, right]])
    return float(np.exp(low + share * (high - low)))


def _gain(tolerated: pd.DataFrame, network: str, state: str) -> pd.Series:
    by_state = tolerated[tolerated["network"] == network].pivot(
        index="seed", columns="state", values="tolerated"
    )
    if not {state, "trained"} <= set(by_state):
        return pd.Series(dtype=float)
    return (by_state[state] / by_state["trained"]).dropna()


def reach(records: pd.DataFrame) -> pd.DataFrame:
    """Return how far the predicted divergence is right, for each network, state and seed.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        With `sigma` and `predicted`: the largest that were tried up to which the divergence is
        within 20 % of what is predicted; NaN where the smallest is beyond.
    """
    rows = []
    for names, one in records.groupby(["network", "state", "seed"], sort=False):
        ordered = one.sort_values("sigma")
        right = ((ordered["divergence"] / ordered["predicted"] - 1).abs() <= _TOLERANCE).cummin()
        last = ordered[right][["sigma", "predicted"]].max()  # NaN of none
        rows.append({**dict(zip(("network", "state", "seed"), names, strict=True)), **last})
    return pd.DataFrame(rows)


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Tabulate traces, ratios, how far predictions are right, and tolerated noise.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        One row per network and state; medians over the seeds.
    """
    tolerated = tolerance(records).groupby(["network", "state"], sort=False)["tolerated"].median()
    reached = reach(records).groupby(["network", "state"], sort=False)
    far = reached[["sigma", "predicted"]].median()
    rows = []
    for network, state in records[["network", "state"]].drop_duplicates().itertuples(index=False):
        one = records[(records["network"] == network) & (records["state"] == state)]
        small = one[one["predicted"] <= SMALL]
        rows.append(
            {
                "network": KINDS[network].title,
                "state": state,
                "trace": one["trace"].median(),
                "divergence / predicted": (small["divergence"] / small["predicted"]).median(),
                "rise of the loss / predicted": (small["rise"] / small["predicted"]).median(),
                "divergence within 20 % up to sigma": far.loc[(network, state), "sigma"],
                "that is up to predicted": far.loc[(network, state), "predicted"],
                "sigma for 2 points of accuracy": tolerated.loc[(network, state)],
            }
        )
    return pd.DataFrame(rows)


def figure(records: pd.DataFrame) -> Figure:
    """Draw measured over predicted, for the divergence and for the loss, network by network.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        One panel per network.
    """
    networks = list(records["network"].unique())
    with new_figure(3.6 * max(len(networks), 2), 3.9) as drawn:
        panels = drawn.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for axes, network in zip(panels, networks, strict=True):
            axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            for index, state in enumerate(STATES):
                rows = records[(records["network"] == network) & (records["state"] == state)]
                for column, style, fill in (("divergence", "-", True), ("rise", ":", False)):
                    ratio = (rows[column] / rows["predicted"]).groupby(rows["sigma"]).median()
                    axes.plot(
                        rows.groupby("sigma")["predicted"].median(),
                        ratio,
                        f"{marker(index)}{style}",
                        color=colour(index),
                        mfc=colour(index) if fill else "white",
                        markersize=5,
                        linewidth=1.3,
                        label=f"{state}: {'divergence' if fill else 'training loss'}",
                    )
            axes.axvline(SMALL, color=GREY, linewidth=0.8)
            axes.set(title=KINDS[network].title, xscale="log", yscale="log")
            axes.set_xlabel(r"predicted: $\frac{1}{2} \sigma^2$ tr H")
            axes.set_ylim(0.5, 20)
            axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
            axes.minorticks_off()
            axes.grid(True)
        panels[0].set_ylabel("measured / predicted")
        drawn.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9
        )
    return drawn


def _cells(n_pairs: int) -> tuple[Settings, ...]:
    return tuple(
        Settings(network, state, sigma, n_pairs)
        for network in KINDS
        for state in STATES
        for sigma in SIGMAS
    )


CLAIM = Claim(
    name="noise",
    title="Noise on the weights",
    question=(
        "Weights on analogue chips, in low precision or from a posterior distribution are noisy. "
        "Does half sigma squared times the trace of the Hessian say what noise of standard "
        "deviation sigma on all weights does, and up to which sigma? Does the orbit minimum buy "
        "tolerance of noise?"
    ),
    method=(
        "Networks trained on 1,000 digits with batch norm folded: an MLP, a CNN and a depthwise "
        "CNN. Each as trained, sharpened 100 times by scales along a random direction, and "
        "balanced: at the minimum of the trace over scales. Gaussian noise on all parameters, "
        "drawn in pairs of opposite signs; the divergence from the network without noise and the "
        "rise of the loss on the samples that the trace was taken on, and the accuracy on 597 test "
        "samples."
    ),
    limits=(
        "Small images and small networks. Noise of one size on all parameters: noise relative to "
        "the size of a tensor is another question, which the trace does not answer."
    ),
    source=(
        "Second-order expansion; for ReLU networks it holds only as long as noise carries few "
        "samples over a kink, since the Hessian does not contain the curvature of kinks."
    ),
    trial=trial,
    quick=Design(_cells(6), n_seeds=5),
    full=Design(_cells(24), n_seeds=20),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "What noise did over what half sigma squared times the trace foretells, against the "
        "latter: medians over the seeds. Filled marks and full lines: divergence from the network "
        "without noise. Open marks and dotted lines: rise of the training loss. The vertical line "
        "ends the range that the verdicts are about."
    ),
    table=table,
)
