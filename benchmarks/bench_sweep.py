"""Time the overhead of a sweep: 10,000 trials that do nothing, and the memory of the driver.

Run ``python benchmarks/bench_sweep.py``. Writes ``benchmarks/results/sweep.json``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_measure import resident_memory
from environment import RESULTS, write

from flattest.sweeps import Store, Summary, Trial, run, trial_function, workers

N_TRIALS, N_WORKERS, EARLY = 10_000, 2, 2_000


def trial(settings: dict[str, Any], seed: int) -> dict[str, int]:
    """Do nothing."""
    return {"seed_again": seed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "sweep.json")
    out = parser.parse_args().out
    function = trial_function(f"{__file__}:trial")
    marks: dict[int, tuple[float, float]] = {}

    def watch(summary: Summary) -> None:
        if summary.finished in (1, EARLY, N_TRIALS):
            marks[summary.finished] = time.perf_counter(), resident_memory()

    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.sqlite") as store:
        started = time.perf_counter()
        trials = (Trial(function, {}, seed) for seed in range(N_TRIALS))
        summary = run(trials, store, workers("processes", N_WORKERS), progress=watch)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    assert summary.done == N_TRIALS, summary
    first, early, last = marks[1], marks[EARLY], marks[N_TRIALS]
    figures = {
        "n_trials": N_TRIALS,
        "n_workers": N_WORKERS,
        "seconds": seconds,
        "start_seconds": first[0] - started,
        "trials_per_second": N_TRIALS / seconds,
        "trials_per_second_once_started": (N_TRIALS - 1) / (last[0] - first[0]),
        "memory_growth_mb": last[1] - early[1],
        "store_mb": size,
    }
    write(out, figures)
    for name, value in figures.items():
        print(f"{name:32} {value:,.6g}")


if __name__ == "__main__":
    main()
