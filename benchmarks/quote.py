"""Quote the stored benchmark results.

A comparison stands in the README, between its two markers; the site's page of benchmarks has all
figures.
"""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from environment import RESULTS

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- figures:begin -->\n", "<!-- figures:end -->"


def read(name: str) -> dict[str, Any]:
    """Read one results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def interpolation_rows() -> list[str]:
    """Make one line per kind of interpolator."""
    rows = [
        "| links | network | method | train MSE, max | test error, max "
        "| ratio, median (max) | seconds, median |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in read("interpolate")["results"]:
        trials = result["trials"]
        column = {name: [trial[name] for trial in trials] for name in trials[0]}
        options = ", ".join(f"{name}={value:g}" for name, value in result["options"].items())
        rows.append(
            f"| {', '.join(result['links'])} | {result['activation']}, {result['width']} "
            f"| {result['method']}{f' ({options})' if options else ''} "
            f"| {max(column['train_error']):.0e} | {max(column['test_error']):.1e} "
            f"| {statistics.median(column['ratio']):.2f} ({max(column['ratio']):.2f}) "
            f"| {statistics.median(column['seconds']):.2f} |"
        )
    return rows


def quotation() -> str:
    """Write all figures, for the site."""
    interpolation, measurement = read("interpolate"), read("measure")
    environment = interpolation["environment"]
    large, small = measurement["results"]
    sweep = read("sweep")["results"]
    fit = read("fit")
    seeds = len(interpolation["results"][0]["trials"])
    lines = [
        f"Measured on {environment['threads']} cores ({environment['processor']}), PyTorch "
        f"{environment['torch']}, {environment['date']}, by `make bench`;",
        "the files are in `benchmarks/results/`.",
        "",
        f"**Finding the flattest.** d = 20, k = 3, Gaussian inputs, n = 400, noiseless, {seeds} "
        "seeds. Test error: relative mean squared",
        "error on 20,000 fresh points.",
        "",
        *interpolation_rows(),
        "",
        "**Measuring the trace.** d = 100, m = 512, float32, against one matrix product `X @ W.T` "
        "timed in turn with it:",
        f"{small['ratio']:.2f} products for n = 10,000 ({1e3 * small['measure_seconds']:.0f} ms), "
        f"{large['ratio']:.2f} for n = 1,000,000 ({large['measure_seconds']:.2f} s, "
        f"{large['memory_above_data_mb']:.0f} MB above the data).",
        "",
        f"**Sweeping.** {sweep['n_trials']:,} trials that do nothing, {sweep['n_workers']} "
        f"processes: {sweep['trials_per_second']:,.0f} a second with the",
        f"processes' start of {sweep['start_seconds']:.0f} s, "
        f"{sweep['trials_per_second_once_started']:,.0f} without; the driver's memory grows by "
        f"{sweep['memory_growth_mb']:.1f} MB from trial 2,000 to 10,000.",
        "",
        "**Fitting `MultiIndexRegressor`** at its defaults "
        f"({fit['environment']['processor']}, {fit['environment']['date']}), "
        "memory with the data:",
        *(
            f"- n = {entry['n']:,}, d = {entry['d']}: {entry['median_seconds']:.1f} s"
            + f", the median of {len(entry['seconds'])} fits" * (len(entry["seconds"]) > 1)
            + f", {entry['peak_memory_mb']:,.0f} MB"
            for entry in fit["results"]
        ),
    ]
    return "\n".join(lines) + "\n"


def comparison() -> str:
    """Write the table of the README: what people use now, and flattest."""
    rows = [
        "| | flattest | others |",
        "|---|---|---|",
        *(_trace_row(name, label) for name, label in _TRACES.items()),
        _laplace_row(),
        _interpolation_row(),
        _regression_row(),
    ]
    return "\n".join(rows) + "\n"


_TRACES = {"LeNet": "trace of a LeNet to 1 %", "GELU MLP": "trace of an MLP with GELU to 1 %"}
"""The networks of trace.json that the README names; the others are on the site."""


def _trace_row(name: str, label: str) -> str:
    """Compare the passes to the trace of the Hessian, which may be the Gauss-Newton part's."""
    stored = read("trace")["results"][0]
    truth = stored["truths"][name]
    same = truth["gauss_newton"] == truth["hessian"]
    ways = {
        way["way"]: way
        for way in stored["ways"]
        if way["problem"] == name
        and "passes_to_target" in way
        and (way["matrix"] == "hessian" or (same and way["exact"]))
    }
    ours = ways["flattest, Hessian"]
    theirs = "; ".join(
        f"{way.partition(',')[0]} {_passes(each)}"
        for way, each in ways.items()
        if not way.startswith("flattest")
    )
    exact = ours["relative_spread"] == 0
    return f"| {label} | {_passes(ours)} passes{', exact' * exact} | {theirs} |"


def _passes(way: dict[str, Any]) -> str:
    """Write a number of passes with two digits, as far as it is known."""
    passes = way["passes_to_target"]
    rounded = round(passes, 1 - math.floor(math.log10(passes)))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.1f}"


def _laplace_row() -> str:
    """Compare the diagonals of a ResNet-18."""
    stored = read("laplace")["results"]
    rows = {row["backend"]: row for row in stored["fits"] if row["network"] == "ResNet-18"}
    ours = rows.pop("FlattestGGN")
    theirs = "; ".join(f"{name} {fate(row)}" for name, row in rows.items())
    return (
        "| diagonal of a ResNet-18 with sums in place, laplace-torch, "
        f"{stored['settings']['batch']} samples, {stored['settings']['gigabytes']:g} GB "
        f"| {fate(ours)} | {theirs} |"
    )


def fate(row: dict[str, Any]) -> str:
    """Say how a backend of laplace-torch did."""
    if "error" in row:
        if row["error"].startswith("stopped"):
            return row["error"]
        return "out of memory" if "alloc" in row["error"].lower() else "fails"
    if row["wrong"]:
        return f"off by {row['relative_error']:.0%}"
    return f"{row['seconds']:.2g} s, {row['memory_mb']:,.0f} MB"


def _interpolation_row() -> str:
    """Compare the test errors of interpolators of three ReLU directions."""
    results = [r for r in read("interpolate")["results"] if r["links"] == ["relu"] * 3]
    errors = {
        f"{r['method']} {r['options'].get('init_scale', '')}".strip(): statistics.median(
            trial["test_error"] for trial in r["trials"]
        )
        for r in results
    }
    large, small = (errors[f"gradient_descent {scale}"] for scale in (1.0, 0.01))
    return (
        "| test error of a network that fits 400 samples of 20 features, 3 directions | "
        f"{errors['flattest']:.0e} | gradient descent {small:.0e} from a small start, {large:.0f} "
        "from a large one |"
    )


def _regression_row() -> str:
    """Compare the errors of regressors on the grid of links."""
    tasks: dict[tuple[Any, ...], dict[str, float]] = {}
    for record in read("regressor")["results"]:
        if record["kind"] == "grid":
            task = tasks.setdefault(tuple(record[key] for key in ("name", "d", "n", "seed")), {})
            task[record["learner"]] = 1 - record["r2"]
    learners = {learner for task in tasks.values() for learner in task}
    cells: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for (*cell, _), task in tasks.items():
        if set(task) == learners:
            cells.setdefault(tuple(cell), []).append(task)
    ratios, best = [], 0
    for found in cells.values():
        means = {learner: statistics.fmean(task[learner] for task in found) for learner in learners}
        ours = means.pop("MultiIndexRegressor")
        ratios.append(ours / min(means.values()))
        best += ratios[-1] <= 1.02
    return (
        f"| few directions with noise, {len(ratios)} kinds of data | best in {best} | its error is "
        f"{statistics.median(ratios):.2g} times that of the best of {len(learners) - 1} others, in "
        "the median |"
    )


def main() -> None:
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    README.write_text(f"{head}{BEGIN}{comparison()}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
