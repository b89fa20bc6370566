"""Tables of the stored benchmark of rounding, for the site."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from quote import read

SCALES = ("raw", "range", "quantisation", "trace")
HEAD = ("as it was", "ranges equalised", 'objective="quantisation"', 'objective="trace"')


def tables() -> str:
    """Write all tables, each with what it shows."""
    found = read("quantisation")["results"]
    net, digits = found["mobilenet_v2"], found["digits"]
    seconds = net["seconds"]["quantisation"]
    parts = [
        f"**MobileNetV2**, ImageNet weights, {net['size']} pixels, ReLU in place of ReLU6, batch "
        f"normalisation folded, {net['scales']:,} free scales. The noise of rounding per tensor, "
        "the sum of each largest weight's square times the trace, is "
        f"{net['noise']['range'] / net['noise']['raw']:.3f} of what it was after equalisation and "
        f"{net['noise']['quantisation'] / net['noise']['raw']:.3f} at its minimum, which took "
        f"{net['steps']} steps and {seconds['processor']:.0f} s of processor time after the "
        f"diagonal (gap {net['gap']:.0e}); at the least trace it is "
        f"{net['noise']['trace'] / net['noise']['raw']:.2g} times what it was. Kullback-Leibler "
        "divergence from the unrounded network on crops that nothing was measured on, with its "
        "standard error over crops, and how often both name the same class:",
        *_by_bits(net["rounded"]),
        "Bits by layer for the network as it was, per channel and corrected; bits chosen by the "
        "trace of each weight, or by the diagonal entry by entry:",
        *_by_layer(net["bits_by_layer"]),
        "**Digits.** Accuracy in per cent on the half that the networks did not see, means over "
        f"{len({one['seed'] for one in digits})} seeds with their standard errors:",
        *_digits(digits),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _pick(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def _agreement(row: dict[str, Any]) -> str:
    return f"{row['divergence']:.3f} ± {row['standard_error']:.3f}, {100 * row['agreement']:.0f} %"


def _ways(bits: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through the ways of rounding, each with what it is called."""
    for per_channel, corrected, number in itertools.product((False, True), (False, True), bits):
        name = f"per {'channel' if per_channel else 'tensor'}" + ", corrected" * corrected
        yield name, {"bits": number, "corrected": corrected, "per_channel": per_channel}


def _by_bits(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        [name, str(way["bits"])]
        + [_agreement(_pick(rows, scales=scales, **way)) for scales in SCALES]
        for name, way in _ways((8, 6, 5, 4))
    ]
    return [_table(["rounded", "bits", *HEAD], lines)]


def _by_layer(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        [str(budget)]
        + [
            _agreement(_pick(rows, budget=budget, choice=choice))
            for choice in ("uniform", "trace", "diagonal")
        ]
        for budget in (6, 5, 4, 3)
    ]
    return [_table(["bits on average", "uniform", "by the trace", "by the diagonal"], lines)]


def _digits(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for kind in dict.fromkeys(one["network"] for one in results):
        own = [one for one in results if one["network"] == kind]
        whole = _mean([one["accuracy"] for one in own])
        for name, way in _ways((4, 3)):
            cells = [
                _mean([_pick(one["rounded"], scales=scales, **way)["accuracy"] for one in own])
                for scales in SCALES
            ]
            lines.append([f"{kind}: {whole}", name, str(way["bits"]), *cells])
    return [_table(["network, unrounded", "rounded", "bits", *HEAD], lines)]


def _mean(values: Sequence[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{100 * statistics.mean(values):.1f} ± {100 * error:.1f}"
