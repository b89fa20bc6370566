"""What balancing does to each parameter tensor, and the bits that weights get."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullFormatter

from flattest.figures.style import GREY, colour, new_figure
from flattest.modules.balance_report import WORDS, BalanceReport
from flattest.quantisation.bit_allocation import BitAllocation

_HEIGHT, _LINE = 1.2, 0.22


def traces_by_layer(report: BalanceReport) -> Figure:
    """Draw each tensor's part in what was balanced, before and after.

    Parameters
    ----------
    report : BalanceReport
        What :func:`flattest.balance` returned.

    Returns
    -------
    Figure
        One line per tensor, from what it was to what it is; those without a part are left out.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> from flattest.figures import traces_by_layer
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _, report = ft.balance(net, torch.ones(4, 2), torch.ones(4, 1), return_report=True)
    >>> traces_by_layer(report).axes[0].get_xlabel()
    'part in the Gauss-Newton trace'
    """
    layers = [layer for layer in report.layers if layer.before > 0 and layer.after > 0]
    height = _HEIGHT + _LINE * max(1, len(layers))
    with new_figure(7.2, height) as figure:
        axes = figure.subplots()
        places = np.arange(len(layers))
        before, after = ([getattr(x, name) for x in layers] for name in ("before", "after"))
        axes.hlines(places, before, after, color=GREY, linewidth=1, zorder=1)
        axes.plot(before, places, "o", mfc="white", mec=colour(1), label="before", zorder=2)
        axes.plot(after, places, "s", color=colour(0), label="after", zorder=3)
        axes.set(xscale="log", xlabel=f"part in the {WORDS[report.objective].partition(',')[0]}")
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))  # 2, not 2 x 10^0
        axes.set_yticks(places, [layer.name for layer in layers])
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.grid(True, axis="x")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure


def bits_by_layer(bits: BitAllocation) -> Figure:
    """Draw the bits of each weight, and what they cost beside equal bits.

    Parameters
    ----------
    bits : BitAllocation
        What :func:`flattest.allocate_bits` returned.

    Returns
    -------
    Figure
        Bars of bits on the left, costs on the right.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> from flattest.figures import bits_by_layer
    >>> net = torch.nn.Linear(3, 2)
    >>> flatness = ft.measure(net, torch.eye(3), torch.ones(3, 2))
    >>> chosen = ft.allocate_bits(flatness, net, budget=6)
    >>> [axes.get_xlabel() for axes in bits_by_layer(chosen).axes]
    ['bits', 'expected rise of the loss']
    """
    places = np.arange(len(bits.layers))
    with new_figure(9.0, _HEIGHT + _LINE * max(2, len(places))) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.barh(places, [layer.bits for layer in bits.layers], color=colour(0), height=0.7)
        left.axvline(bits.uniform, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        left.set(xlabel="bits")
        left.set_yticks(places, list(bits))
        left.set_ylim(len(places) - 0.5, -0.5)
        for name, mark, hue, label in (
            ("uniform_cost", "o", colour(1), f"{bits.uniform} bits throughout"),
            ("cost", "s", colour(0), "chosen"),
        ):
            costs = np.array([getattr(layer, name) for layer in bits.layers])
            shown = costs > 0
            style = {"mfc": "white", "mec": hue} if mark == "o" else {"color": hue}
            right.plot(costs[shown], places[shown], mark, label=label, **style)
        what = "measured" if bits.measured else "expected"
        right.set(xscale="log", xlabel=f"{what} rise of the loss")
        # Whole decades, so that some tick is labelled, and labels do not overlap.
        low, high = right.get_xlim()
        right.set_xlim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
        right.xaxis.set_minor_formatter(NullFormatter())
        right.grid(True, axis="x")
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
    return figure
