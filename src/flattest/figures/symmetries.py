"""The chain of a module's layers: which of their channels are free, tied to others, or frozen."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from flattest.figures.style import GREY, colour, new_figure
from flattest.modules.symmetry.layers import Channels
from flattest.modules.symmetry.result import Symmetries

_KINDS = (("free", colour(0), ""), ("tied", colour(1), "////"), ("frozen", "#d9d9d9", ""))
_WORDS = {
    "free": "free: a scale of its own",
    "tied": "tied: one scale with other layers",
    "frozen": "frozen",
}
_LINE, _MARGIN = 0.27, 1.1  # inches


def chain_of_layers(symmetries: Symmetries, *, most: int = 60) -> Figure:
    """Draw a bar for each layer, in the order of the graph: the shares of its channels.

    Parameters
    ----------
    symmetries : Symmetries
        What `flattest.symmetries` found.
    most : int
        How many layers are drawn; of more, those with free or tied channels come first.

    Returns
    -------
    Figure
        The figure. Beside each bar stand the number of channels and why they are frozen.

    Examples
    --------
    >>> import torch, flattest as ft
    >>> from flattest.figures import chain_of_layers
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> figure = chain_of_layers(ft.symmetries(net, torch.ones(4, 2)))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['0  Linear', '2  Linear']
    """
    every = symmetries.layers()
    layers = _chosen(every, most)
    paired = {
        factor.name.rpartition(".")[0]
        for group in symmetries.groups
        for factor in (*group.forward, *group.backward)
    }
    with new_figure(8.4, _MARGIN + _LINE * max(len(layers), 2)) as figure:
        axes = figure.subplots()
        for place, layer in enumerate(layers):
            _draw_bar(axes, place, layer)
        names = [f"{_short(entry.layer or entry.name)}  {entry.kind}".rstrip() for entry in layers]
        marked = [
            f"{name} *" if entry.layer in paired else name
            for name, entry in zip(names, layers, strict=True)
        ]
        axes.set_yticks(range(len(layers)), marked)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(max(len(layers), 2) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.set_xlabel("share of the channels")
        axes.spines["left"].set_visible(False)
        axes.set_title(_title(symmetries, len(every) - len(layers)))
        handles = [
            Patch(facecolor=hue, hatch=hatch, edgecolor="white", label=_WORDS[kind])
            for kind, hue, hatch in _KINDS
        ]
        if paired.intersection(entry.layer for entry in layers):
            label = "* has factors of linear groups"
            handles.append(Patch(facecolor="none", edgecolor="none", label=label))
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=9)
    return figure


def _draw_bar(axes: Axes, place: int, layer: Channels) -> None:
    """Draw the shares of one layer, and what there is to say of it."""
    total = max(layer.free + layer.tied + layer.frozen, 1)
    left = 0.0
    for kind, hue, hatch in _KINDS:
        share = getattr(layer, kind) / total
        if share:
            axes.barh(
                place, share, 0.72, left, color=hue, hatch=hatch, edgecolor="white", linewidth=0.8
            )
        left += share
    count = f"{total:,}"
    text = f"{count}   {layer.reason}" if layer.reason else count
    axes.annotate(
        text,
        (1, place),
        (6, 0),
        textcoords="offset points",
        va="center",
        ha="left",
        fontsize=8,
        color=GREY,
        annotation_clip=False,
    )


def _chosen(layers: list[Channels], most: int) -> list[Channels]:
    if len(layers) <= most:
        return layers
    first = sorted(range(len(layers)), key=lambda i: layers[i].free + layers[i].tied == 0)[:most]
    return [layers[i] for i in sorted(first)]


def _short(name: str) -> str:
    return name if len(name) <= 34 else "…" + name[-33:]


def _title(symmetries: Symmetries, left_out: int) -> str:
    parts = [f"{symmetries.n_scales:,} free scales"]
    if symmetries.groups:
        parts.append(f"{len(symmetries.groups):,} linear groups")
    if left_out:
        parts.append(f"{left_out:,} layers not shown")
    return ", ".join(parts)
