"""Quote the stored benchmark results in the README, between its two markers."""

from __future__ import annotations

import json
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
    """Write the whole passage."""
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


def main() -> None:
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    README.write_text(f"{head}{BEGIN}{quotation()}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
