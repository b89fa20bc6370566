"""Traces by flattest and its peers: time and memory to an error of 1 %, and error against time.

Run ``make bench-trace``, or this file with the extra ``trace-peers``. Every way works in a process
of its own with one thread, on the same networks and data; times are processor times, which a busy
machine changes less than others. A way that estimates is asked for single estimates until its time
is over; from their spread follows the time that a mean of them needs to an error of 1 % (one
standard error), and that is extrapolated where the time was shorter. Time is also given in forward
and backward passes of the same batch, in the same process. Ways that fail, and means more than four
standard errors off, are listed as such. Writes ``benchmarks/results/trace.json`` and ``trace.png``.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from environment import RESULTS, write
from torch import nn
from trace_peers import WAYS, preload
from trace_problems import PROBLEMS, Problem, gpt2, make

import flattest as ft

TARGET = 0.01
_LEAST, _MOST = 3, 2_000  # estimates
TAKING_LOSSES = (
    *("flattest, exact", "flattest, one draw", "BackPACK, exact", "curvlinops, Gauss-Newton"),
    "hessian-eigenthings, Gauss-Newton",
)
"""Ways to the Gauss-Newton trace that are handed a loss with its options and normalise it."""
_KEPT = 200  # estimates that are stored
_WRONG = 4.0  # standard errors that a mean may be off
_ROUNDING = 1e-3  # relative, that an exact value in float32 may be off


def peak_memory() -> float:
    """Return the largest resident size since `forget_peak`, in MB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1e3
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def forget_peak() -> None:
    """Make the peak what is resident now, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def timed_values(values: Iterator[float], seconds: float) -> tuple[list[float], list[float]]:
    """Return estimates and the times that they took, the first with all preparations."""
    found: list[float] = []
    times: list[float] = []
    began = time.process_time()
    while len(found) < _MOST and (len(found) < _LEAST or time.process_time() - began < seconds):
        start = time.process_time()
        found.append(next(values))
        times.append(time.process_time() - start)
    return found, times


def pass_seconds(problem: Problem) -> float:
    """Time one forward and backward pass."""

    def once() -> float:
        start = time.process_time()
        problem.value().backward()
        problem.model.zero_grad()
        return time.process_time() - start

    once()
    return statistics.median(once() for _ in range(5))


def try_way(problem_name: str, way_name: str, seconds: float) -> dict[str, Any]:
    """Run one way on one problem, in this process."""
    torch.set_num_threads(1)
    way, problem = WAYS[way_name], make(problem_name)
    one_pass = pass_seconds(problem)
    result: dict[str, Any] = {"problem": problem_name, "way": way_name, "matrix": way.matrix}
    result |= {"exact": way.exact, "pass_seconds": one_pass}
    try:
        next(way.values(make(problem_name)))  # what is imported and compiled once is not timed
        forget_peak()
        before = peak_memory()
        values, times = timed_values(way.values(problem), seconds)
    except Exception as error:  # a peer may fail in any way, and how is the result
        message = str(error).strip().splitlines()
        return result | {"error": f"{type(error).__name__}: {message[0] if message else ''}"[:300]}
    return result | {
        "values": values,
        "seconds": statistics.median(times[1:]),
        "first_seconds": times[0],
        "memory_mb": peak_memory() - before,
    }


def reference(problem_name: str) -> dict[str, Any]:
    """Return both traces in float64, with the standard errors that remain."""
    torch.set_num_threads(1)
    problem = make(problem_name)
    model, X = problem.model.double(), problem.X
    X, y = (t.double() if t.is_floating_point() else t for t in (X, problem.y))
    small = sum(p.numel() for p in model.parameters()) < 50_000
    found = ft.measure(
        model,
        X,
        y,
        loss=problem.loss,
        residual="exact" if small else "auto",
        rtol=0.002 if small else 0.01,
        random_state=0,
    )
    return {
        "gauss_newton": found.gauss_newton,
        "hessian": found.trace,
        "standard_errors": {
            "gauss_newton": found.standard_error.get("gauss_newton", 0.0),
            "hessian": found.standard_error.get("trace", 0.0),
        },
        "why": found.provenance["trace"].why,
    }


def judge(result: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """Say what error a way has, and when it is within the target."""
    if "error" in result:
        return result
    values, right = result["values"], truth[result["matrix"]]
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) / abs(right)
    bias = abs(mean - right) / abs(right)
    known = truth["standard_errors"][result["matrix"]] / abs(right)
    allowed = _ROUNDING + _WRONG * math.hypot(spread / math.sqrt(len(values)), known)
    result |= {"values": values[:_KEPT], "estimates": len(values)}
    result |= {"relative_spread": spread, "relative_bias": bias, "wrong": bias > allowed}
    if not result["wrong"]:
        needed = max(1.0, (spread / TARGET) ** 2)
        seconds = result["first_seconds"] + (needed - 1) * result["seconds"]
        if result["exact"]:
            seconds = result["seconds"]
        result |= {
            "estimates_to_target": needed,
            "seconds_to_target": seconds,
            "passes_to_target": seconds / result["pass_seconds"],
            "extrapolated": needed > len(values),
        }
    return result


def ignored_targets(way_name: str) -> dict[str, Any]:
    """Measure what some peers get wrong: targets that the loss ignores, as padding is."""
    problem = make("MLP")
    y = problem.y.clone()
    y[::2] = -100
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    found = ft.measure(problem.model, problem.X, y, loss=loss, residual="none")
    row: dict[str, Any] = {"way": way_name, "right": found.gauss_newton}
    try:
        values, _ = timed_values(WAYS[way_name].values(problem._replace(y=y, loss=loss)), 1.0)
    except Exception as error:  # as above
        return row | {"error": f"{type(error).__name__}: {error}"[:300]}
    row |= {"value": statistics.fmean(values)}
    return row | {"standard_error": statistics.stdev(values) / math.sqrt(len(values))}


def measure_gpt2() -> dict[str, Any]:
    """Measure the Gauss-Newton trace of a network of GPT-2's size by drawn columns."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        problem = gpt2()
    one_pass = pass_seconds(problem)
    forget_peak()
    start = time.process_time()
    found = ft.measure(
        problem.model,
        problem.X,
        problem.y,
        loss=problem.loss,
        mode="sampled",
        residual="none",
        rtol=0.1,
        batch_size=1,
        random_state=0,
    )
    return {
        "parameters": found.n_parameters,
        "tokens": problem.X.numel(),
        "seconds": time.process_time() - start,
        "pass_seconds": one_pass,
        "peak_memory_mb": peak_memory(),
        "gauss_newton": found.gauss_newton,
        "standard_error": found.standard_error["gauss_newton"],
        "why": found.provenance["gauss_newton"].why,
    }


def memory_of(batch_size: int | None) -> dict[str, Any]:
    """Measure what the exact diagonal of ResNet-20 holds beside the model and the data.

    Beforehand two samples are measured, so that what is loaded and compiled once is there already.
    """
    torch.set_num_threads(1)
    problem = make("ResNet-20")
    options: dict[str, Any] = {"loss": problem.loss, "mode": "exact", "residual": "none"}
    ft.measure(problem.model, problem.X[:2], problem.y[:2], **options)
    forget_peak()
    before = peak_memory()
    ft.measure(problem.model, problem.X, problem.y, batch_size=batch_size, **options)
    return {"batch_size": batch_size, "memory_mb": peak_memory() - before}


def in_a_process(function: Any, *arguments: Any, limit: float | None = None) -> Any:
    """Call a function in a process of its own, so that peaks are its; None if it takes too long."""
    with multiprocessing.get_context("fork").Pool(1) as pool:  # what is imported is so already
        try:
            return pool.apply_async(function, arguments).get(limit)
        except multiprocessing.TimeoutError:
            return None


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw the error against time, in forward and backward passes, one panel per network.

    A colour and a mark for each package; what estimates the Gauss-Newton part only is dashed.
    """
    from flattest.figures import colour, marker, new_figure

    names = list(dict.fromkeys(result["problem"] for result in results))
    packages = list(dict.fromkeys(way.partition(",")[0] for way in WAYS))
    columns = math.ceil(len(names) / 2)
    with new_figure(1 + 4.2 * columns, 8.0) as figure:
        axes = figure.subplots(2, columns, sharey=True, squeeze=False)
        for axis, name in zip(axes.flat, names, strict=False):
            for result in results:
                if result["problem"] == name and "passes_to_target" in result:
                    index = packages.index(result["way"].partition(",")[0])
                    _draw_way(axis, result, colour(index), marker(index))
            axis.set(xscale="log", yscale="log", title=name, xlabel="forward and backward passes")
            axis.axhline(TARGET, color="grey", lw=0.8, ls=":")
        for axis in axes.flat[len(names) :]:
            axis.set_visible(False)
        for axis in axes[:, 0]:
            axis.set_ylabel("relative error")
        handles: dict[str, Any] = {}
        for axis in axes.flat:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=130)


def _draw_way(axis: Any, result: dict[str, Any], hue: str, mark: str) -> None:
    """Draw a mark for an exact value, or a line from one estimate to as many as are needed."""
    way, passes = result["way"], result["seconds"] / result["pass_seconds"]
    if result["exact"]:
        axis.plot(passes, max(result["relative_bias"], 1e-7), mark, color=hue, ms=8, label=way)
        return
    counts = [1, max(2.0, result["estimates_to_target"])]
    errors = [max(result["relative_spread"], 1e-7) / math.sqrt(k) for k in counts]
    style = "-" if way.endswith("Hessian") or way == "PyHessian" else "--"
    axis.plot([passes * k for k in counts], errors, style, color=hue, lw=1.6, label=way)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each way and network")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds with preparations")
    parser.add_argument("--problems", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--out", type=Path, default=RESULTS / "trace.json")
    parser.add_argument("--memory", action="store_true", help="also the memory of ResNet-20")
    parser.add_argument("--gpt2", action="store_true", help="also a network of GPT-2's size")
    options = parser.parse_args()
    torch.set_num_threads(1)  # or the processes that are forked would wait for its threads
    preload()
    record = stored(options.out)
    for problem in options.problems:
        make(problem)  # what is trained is so once, before processes are forked
        truth = in_a_process(reference, problem)
        print(f"{problem}: tr G = {truth['gauss_newton']:.6g}, tr H = {truth['hessian']:.6g}")
        results = []
        for way in WAYS:
            result = in_a_process(try_way, problem, way, options.seconds, limit=options.limit)
            if result is None:
                error = f"stopped after {options.limit:.0f} s with less than {_LEAST} estimates"
                result = {"problem": problem, "way": way, "error": error}
            results.append(judge(result, truth))
            print(f"  {way:34} {summary(result)}")
        record["truths"][problem] = truth
        record["ways"] = [r for r in record["ways"] if r["problem"] != problem] + results
        write(options.out, [record])
    record["ignored"] = [in_a_process(ignored_targets, name) for name in TAKING_LOSSES]
    for row in record["ignored"]:
        print("half of the targets ignored:", json.dumps(row))
    if options.memory:
        record["memory"] = [in_a_process(memory_of, size) for size in (1, 4, None)]
        print("ResNet-20:", json.dumps(record["memory"]))
    if options.gpt2:
        record["gpt2"] = in_a_process(measure_gpt2)
        print(record["gpt2"])
    write(options.out, [record])
    draw(record["ways"], options.out.with_suffix(".png"))


def stored(path: Path) -> dict[str, Any]:
    """Return what was measured before, of which the networks not asked for are kept."""
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))["results"][0]
    return {"truths": {}, "ways": [], "ignored": []}


def summary(result: dict[str, Any]) -> str:
    """Say in a line how a way did."""
    if "error" in result:
        return result["error"][:80]
    if result["wrong"]:
        return f"wrong by {result['relative_bias']:.1%}"
    return (
        f"{result['seconds_to_target']:10.3f} s to 1 %, {result['passes_to_target']:10.1f} passes, "
        f"{result['memory_mb']:6.0f} MB"
    )


if __name__ == "__main__":
    main()
