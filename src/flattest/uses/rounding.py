"""Quantisation: which of the networks with one function survives rounding to few bits best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from flattest.figures import colour, marker, new_figure
from flattest.quantisation.rounding import quantise
from flattest.study import Claim, Design, Verdict, judge
from flattest.uses.divergence import change
from flattest.uses.networks import KINDS
from flattest.uses.versions import version

STATES = ("trained", "balanced", "equalised", "rounding-balanced")
BITS = (8, 7, 6, 5, 4, 3)
_GAIN, _MOOT = 0.9, 0.8
_JUDGED = 4
"""The bits that verdicts are about: few enough to hurt, and enough for a second order."""


@dataclass(frozen=True)
class Settings:
    """Rounding of a version of a trained network.

    Parameters
    ----------
    network : str
        One of :data:`flattest.uses.networks.KINDS`.
    state : str
        One of `STATES`.
    bits : int
        Of every weight.
    per_channel : bool
        Whether each output channel has a step of its own.
    corrected : bool
        Whether biases are corrected, on the training samples that traces are taken on.
    """

    network: str = "mlp"
    state: str = "trained"
    bits: int = 4
    per_channel: bool = False
    corrected: bool = False


def trial(settings: Settings, seed: int) -> dict[str, Any]:
    """Round a network and compare its predictions on test samples with what they were.

    Parameters
    ----------
    settings : Settings
        Which network and how it is rounded.
    seed : int
        Seed of the network.

    Returns
    -------
    dict
        Divergence, agreement and accuracy.
    """
    found = version(settings.network, settings.state, seed)
    X, y = found.data.X_test, found.data.y_test
    rounded = quantise(
        found.net,
        settings.bits,
        per_channel=settings.per_channel,
        correct_bias=found.samples[0] if settings.corrected else None,
    )
    with torch.no_grad():
        before, after = found.net(X), rounded(X)
    changed = change(before, after, y)
    return {
        "divergence": changed.divergence,
        "agreement": changed.agreement,
        "accuracy": changed.accuracy,
        "accuracy_before": change(before, before, y).accuracy,
    }


def verdicts(records: pd.DataFrame) -> list[Verdict]:
    """Judge versions, steps per channel and bias correction by ratios of divergences.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    list of Verdict
        At four bits; ratios are geometric means over the networks where none is named.
    """
    rows = records[records["bits"] == _JUDGED]
    tensor = rows[~rows["per_channel"] & ~rows["corrected"]]
    channel = rows[rows["per_channel"] & ~rows["corrected"]]
    plain = rows[(rows["state"] == "trained") & ~rows["corrected"]]
    judged = [
        _compared(
            tensor[tensor["network"] == network],
            f"With one step per tensor, {_JUDGED} bits move the {KINDS[network].title} at most "
            f"{_GAIN:g} times as far once it is balanced for rounding.",
            ("state", "rounding-balanced", "trained"),
            _GAIN,
        )
        for network in records["network"].unique()
    ]
    judged += [
        _compared(
            tensor,
            "With one step per tensor, balancing for rounding leaves no more divergence than "
            "equalised ranges do.",
            ("state", "rounding-balanced", "equalised"),
            1.0,
        ),
        _compared(
            tensor,
            "With one step per tensor, the minimum of the trace leaves no more divergence than the "
            "network as it was trained.",
            ("state", "balanced", "trained"),
            1.0,
        ),
        _compared(
            channel,
            "With one step per channel there is little to gain: balanced for rounding, at least "
            f"{_MOOT:g} of the divergence remains.",
            ("state", "rounding-balanced", "trained"),
            _MOOT,
            at_least=True,
        ),
        _compared(
            plain,
            f"One step per channel leaves at most {_GAIN:g} of the divergence of one per tensor.",
            ("per_channel", True, False),
            _GAIN,
        ),
        _compared(
            rows[(rows["state"] == "trained") & ~rows["per_channel"]],
            f"Bias correction leaves at most {_GAIN:g} of the divergence, one step per tensor.",
            ("corrected", True, False),
            _GAIN,
        ),
    ]
    return [verdict for verdict in judged if verdict.n_seeds]


def _compared(
    rows: pd.DataFrame,
    statement: str,
    of: tuple[str, Any, Any],
    threshold: float,
    *,
    at_least: bool = False,
) -> Verdict:
    column, new, old = of
    return judge(
        statement,
        "ratio of divergences, geometric mean, by seed",
        ratio(rows, column, new, old),
        "at least" if at_least else "at most",
        threshold,
    )


def ratio(rows: pd.DataFrame, column: str, new: Any, old: Any) -> pd.Series:
    """Return the geometric mean over the networks of a ratio of divergences, seed by seed.

    Parameters
    ----------
    rows : DataFrame
        Records that differ in network, seed, and one column.
    column : str
        The setting that is compared.
    new, old : object
        Its two values; the divergence of the one is divided by that of the other.

    Returns
    -------
    Series
        By seed.

    Examples
    --------
    >>> import pandas as pd
    >>> from flattest.uses.rounding import ratio
    >>> rows = pd.DataFrame({"network": ["a", "a", "b", "b"], "seed": 0})
    >>> rows = rows.assign(state=["new", "old"] * 2, divergence=[1.0, 2.0, 4.0, 2.0])
    >>> ratio(rows, "state", "new", "old").to_dict()
    {0: 1.0}
    """
    sides = (
        np.log(rows[rows[column] == value].set_index(["network", "seed"])["divergence"])
        for value in (new, old)
    )
    first, second = sides
    return np.exp((first - second).dropna().groupby("seed").mean())


def table(records: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the accuracy that rounding leaves.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    DataFrame
        One row per network, state, step and correction; the mean accuracy over the seeds by bits.
    """
    by_bits = records.pivot_table(
        index=["network", "per_channel", "corrected", "state"],
        columns="bits",
        values="accuracy",
        sort=False,
    )
    float_accuracy = records.groupby("network")["accuracy_before"].mean()
    found = by_bits[sorted(by_bits.columns, reverse=True)].reset_index()
    found.insert(4, "not rounded", found["network"].map(float_accuracy))
    found["network"] = found["network"].map(lambda name: KINDS[name].title)
    found["per_channel"] = found["per_channel"].map({True: "channel", False: "tensor"})
    found["corrected"] = found["corrected"].map({True: "yes", False: "no"})
    names = {"per_channel": "step per", "corrected": "bias corrected"}
    names |= {bits: f"{bits} bits" for bits in by_bits.columns}
    return found.rename(columns=names)


def figure(records: pd.DataFrame) -> Figure:
    """Draw the divergence against the bits, network by network and step by step.

    Parameters
    ----------
    records : DataFrame
        The records.

    Returns
    -------
    Figure
        A column per network, a row per kind of step.
    """
    networks = list(records["network"].unique())
    with new_figure(3.4 * max(len(networks), 2), 6.2) as drawn:
        grid = drawn.subplots(2, len(networks), sharex=True, sharey=True, squeeze=False)
        for row, per_channel in zip(grid, (False, True), strict=True):
            for axes, network in zip(row, networks, strict=True):
                chosen = records[
                    (records["network"] == network) & (records["per_channel"] == per_channel)
                ]
                _draw(axes, chosen)
                axes.set_title(
                    f"{KINDS[network].title}, step per {'channel' if per_channel else 'tensor'}"
                )
        for axes in grid[1]:
            axes.set_xlabel("bits")
        for axes in grid[:, 0]:
            axes.set_ylabel("divergence (nats)")
        drawn.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9
        )
    return drawn


def _draw(axes: Any, records: pd.DataFrame) -> None:
    for index, state in enumerate(STATES):
        for corrected, style in ((False, "-"), (True, ":")):
            rows = records[(records["state"] == state) & (records["corrected"] == corrected)]
            medians = rows.groupby("bits")["divergence"].median()
            axes.plot(
                medians.index,
                medians,
                f"{marker(index)}{style}",
                color=colour(index),
                mfc="white" if corrected else colour(index),
                markersize=5,
                linewidth=1.3,
                label=f"{state}{', corrected' if corrected else ''}",
            )
    axes.set(yscale="log", xticks=BITS)
    axes.set_xlim(max(BITS) + 0.3, min(BITS) - 0.3)
    axes.grid(True)


_CELLS = tuple(
    Settings(network, state, bits, per_channel, corrected)
    for network in KINDS
    for state in STATES
    for bits in BITS
    for per_channel in (False, True)
    for corrected in (False, True)
)

CLAIM = Claim(
    name="rounding",
    title="Rounding to few bits",
    question=(
        "Rounding is a perturbation of the weights too. Of all networks with the same outputs, "
        "does the flattest one survive it best? Or the one whose ranges are equal, or the one that "
        "minimises the expected loss of rounding itself? And does it matter once every channel has "
        "a step of its own, or biases are corrected?"
    ),
    method=(
        "Networks trained on 1,000 digits with batch norm folded, as trained; at the minimum of "
        "the trace; with ranges equalised across layers; and at the minimum of the expected loss "
        "of rounding with one step per tensor. All weights rounded symmetrically to 8 to 3 bits, "
        "with one step per tensor or per output channel, with and without bias correction. "
        "Divergence of the predictions on 597 test samples from those before, and accuracy."
    ),
    limits=(
        "Weights only; activations stay exact. Small networks on small images. A pretrained "
        "MobileNetV2 is in benchmarks/quantisation.py."
    ),
    source=(
        "M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, Data-Free Quantization Through "
        "Weight Equalization and Bias Correction, ICCV 2019."
    ),
    trial=trial,
    quick=Design(_CELLS, n_seeds=5),
    full=Design(_CELLS, n_seeds=20),
    verdicts=verdicts,
    figure=figure,
    caption=(
        "Divergence of the predictions after rounding from those before, against the bits: medians "
        "over the seeds. Above with one step per tensor, below with one per channel; open marks "
        "and dotted lines with bias correction."
    ),
    table=table,
)
