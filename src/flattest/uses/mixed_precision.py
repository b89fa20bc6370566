"""Mixed precision: bits by layer, from exact traces, from noisy ones, and without any."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from torch.nn import functional as F

from flattest.figures import colour, marker, new_figure
from flattest.flatness import Flatness
from flattest.quantisation.allocation import allocate_bits
from flattest.quantisation.rounding import quantise, weights_of
from flattest.study import Claim, Design, Verdict, judge
from flattest.uses.divergence import change
from flattest.uses.networks import KINDS
from flattest.uses.rounding import ratio
from flattest.uses.versions import Version, flatness, version

SOURCES = ("uniform", "rounding error", "1 probe", "3 probes", "10 probes", "exact")
BUDGETS = (4, 5, 6)
_CHOICES = (2, 3, 4, 5, 6, 7, 8)
_GAIN = 0.9


@dataclass(frozen=True)
class Settings:
    """Bits by layer for a trained network.

    Parameters
    ----------
    network : str
        One of :data:`flattest.uses.networks.KINDS`.
    source : str
        One of `SOURCES`: what the bits are chosen by.
    budget : int
        The average bits of a weight.
    """

    network: str = "cnn"
    source: str = "exact"
    budget: int = 4


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Choose bits, round, and compare the predictions on test samples with what they were.

    Parameters
    ----------
    settings : Settings
        Which network, and how bits are chosen.
    seed : int
        Seed of the network and of the probes.

    Returns
    -------
    dict
        Divergence, agreement, accuracy, and the largest error of a layer's trace relative to it.
    """
    found = version(settings.network, "trained", seed)
    measured = flatness(settings.network, "trained", seed)
    traces = {layer.name: layer.gauss_newton for layer in measured.layers}
    used = _traces(settings.source, found, traces, seed)
    bits: Any = settings.budget
    if settings.source != "uniform":
        bits = _chosen(measured, used, found, settings.budget)
    X, y = found.data.X_test, found.data.y_test
    rounded = quantise(found.net, bits, per_channel=True, correct_bias=found.samples[0])
    with torch.no_grad():
        changed = change(found.net(X), rounded(X), y)
    return {
        "divergence": changed.divergence,
        "agreement": changed.agreement,
        "accuracy": changed.accuracy,
        "trace_error": max(abs(value / traces[name] - 1) for name, value in used.items())
        if "probe" in settings.source
        else 0.0,
        "bits": " ".join(f"{number}" for number in dict(bits).values())
        if isinstance(bits, Mapping)
        else f"{bits}",
    }


def _traces(source: str, found: Version, exact: dict[str, float], seed: int) -> dict[str, float]:
    """Return what is taken for the traces of the weights."""
    names = list(weights_of(found.net))
    if source.endswith(("probe", "probes")):
        return probed(found, int(source.split()[0]), seed)
    if source == "rounding error":  # as if the loss were as sensitive to each entry of all layers
        sizes = {name: weight.numel() for name, weight in weights_of(found.net).items()}
        return {name: float(sizes[name]) for name in names}
    return {name: exact[name] for name in names}


def probed(found: Version, n_probes: int, random_state: int) -> dict[str, float]:
    r"""Estimate the trace of each weight's block by Hutchinson's method, as HAWQ-V2 does.

    The mean over probes of :math:`v^T H v`, where v has random signs in one weight and zeros
    elsewhere.

    Parameters
    ----------
    found : Version
        The network and its samples.
    n_probes : int
        Probes of each weight.
    random_state : int
        The seed of the signs.

    Returns
    -------
    dict of str to float
        The estimates by name, without a bound: they may be far off.
    """
    weights = weights_of(found.net)
    X, y = found.samples
    loss = F.cross_entropy(found.net(X), y)
    generator = torch.Generator().manual_seed(random_state)
    estimates = {}
    for name, weight in weights.items():
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        values = []
        for _ in range(n_probes):
            signs = 2.0 * torch.randint(2, weight.shape, generator=generator).to(weight) - 1
            (product,) = torch.autograd.grad(gradient, weight, signs, retain_graph=True)
            values.append(float((product * signs).sum()))
        estimates[name] = float(np.mean(values))
    return estimates


def _chosen(
    measured: Flatness, traces: Mapping[str, float], found: Version, budget: int
) -> Mapping[str, int]:
    layers = tuple(
        layer._replace(gauss_newton=traces.get(layer.name, layer.gauss_newton))
        for layer in measured.layers
    )
    with warnings.catch_warnings():
        # That few bits end the second order is part of what this measures.
        warnings.filterwarnings("ignore", message=".* get fewer than .* bits")
        return allocate_bits(
            dataclasses.replace(measured, layers=layers),
            found.net,
            budget=budget,
            bits=_CHOICES,
            per_channel=True,
        )


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge exact traces against uniform bits, rounding errors alone, and probes.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        Ratios of divergences; geometric means over networks and budgets where none is named.
    """
    pooled = records.assign(network=records["network"] + records["budget"].astype(str))
    judged = [
        judge(
            f"In the {KINDS[network].title} bits by exact traces leave at most {_GAIN:g} of the "
            "divergence of uniform bits.",
            "ratio of divergences, geometric mean over budgets, by seed",
            ratio(pooled[records["network"] == network], "source", "exact", "uniform"),
            "at most",
            _GAIN,
        )
        for network in records["network"].unique()
    ]
    for source, sentence, threshold in (
        ("rounding error", "Exact traces do no worse than rounding errors without traces.", 1.0),
        ("1 probe", f"Exact traces leave at most {_GAIN:g} of what one probe leaves.", _GAIN),
        ("10 probes", f"Exact traces leave at most {_GAIN:g} of what ten probes leave.", _GAIN),
    ):
        values = ratio(pooled, "source", "exact", source)
        quantity = "ratio of divergences, geometric mean over networks and budgets, by seed"
        judged.append(judge(sentence, quantity, values, "at most", threshold))
    return [verdict for verdict in judged if verdict.n_seeds]


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Tabulate divergences.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        One row per network and source, one column per budget; medians over the seeds.
    """
    found = records.pivot_table(
        index=["network", "source"],
        columns="budget",
        values="divergence",
        aggfunc="median",
        sort=False,
    )
    found.columns = [f"{budget} bits: divergence" for budget in found.columns]
    errors = records.groupby(["network", "source"], sort=False)["trace_error"].median()
    found["largest error of a trace"] = errors
    found = found.reset_index()
    found["network"] = found["network"].map(lambda name: KINDS[name].title)
    return found.rename(columns={"source": "bits chosen by"})


def figure(records: pd.DataFrame) -> Figure:
    """Draw the divergence of every choice of bits over that of uniform bits.

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
    with new_figure(3.4 * max(len(networks), 2), 3.8) as drawn:
        panels = drawn.subplots(1, len(networks), sharey=True, squeeze=False)[0]
        for axes, network in zip(panels, networks, strict=True):
            for place, budget in enumerate(BUDGETS):
                rows = records[(records["network"] == network) & (records["budget"] == budget)]
                for index, source in enumerate(SOURCES[1:]):
                    values = ratio(rows, "source", source, "uniform")
                    at = index + 0.22 * (place - 1)
                    style = {"color": colour(place), "label": f"{budget} bits on average"}
                    axes.plot([at] * len(values), values, marker(place), ms=4, alpha=0.35, **style)
                    axes.plot([at - 0.09, at + 0.09], [values.median()] * 2, lw=2.5, **style)
            axes.axhline(1, color="#333333", linewidth=0.8)
            axes.set(title=KINDS[network].title, yscale="log")
            axes.set_xticks(range(len(SOURCES) - 1), SOURCES[1:], rotation=35, ha="right")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(True, axis="y")
        panels[0].set_ylabel("divergence / that of uniform bits")
        handles, labels = panels[0].get_legend_handles_labels()
        first = dict(zip(labels, handles, strict=True))
        ordered = [(first[label], label) for label in sorted(first)]
        drawn.legend(
            *zip(*ordered, strict=True), loc="outside lower center", ncols=len(BUDGETS), fontsize=9
        )
    return drawn


_CELLS = tuple(
    Settings(network, source, budget)
    for network in KINDS
    for source in SOURCES
    for budget in BUDGETS
)

CLAIM = Claim(
    name="bits",
    title="Bits by layer",
    question=(
        "A layer whose trace is large suffers more from the same rounding error. Is it worth "
        "measuring traces to choose the bits of each layer, and do they have to be exact?"
    ),
    method=(
        "Trained networks with batch norm folded, one step per channel, biases corrected. Bits "
        "from 2 to 8 for each weight by an integer programme, at 4, 5 or 6 bits on average: by "
        "exact traces; by Hutchinson's estimates from 1, 3 and 10 probes of each weight's block; "
        "by the rounding error alone, as if all entries mattered alike; and the same bits for all."
    ),
    limits=(
        "Networks of four to six weights, of which few choices are sensible. Below four bits the "
        "second order that all choices are based on ends. A pretrained MobileNetV2 is in "
        "benchmarks/quantisation.py."
    ),
    source=(
        "Z. Dong, Z. Yao, D. Arfeen, A. Gholami, M. Mahoney, K. Keutzer, HAWQ-V2: Hessian Aware "
        "trace-Weighted Quantization of Neural Networks, NeurIPS 2020."
    ),
    trial=trial,
    quick=Design(_CELLS, n_seeds=5),
    full=Design(_CELLS, n_seeds=20),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Divergence of the predictions from those before rounding, over what uniform bits of the "
        "same average leave. Marks are seeds, bars their medians; below 1 the choice pays."
    ),
    table=table,
)
