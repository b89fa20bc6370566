"""Compare the regressor with its peers on published tasks, a grid of links, and real tables.

Run ``python benchmarks/regressor.py`` with flattest[peers] installed. Finished fits are kept in a
store beside the results, so that an interrupted run goes on where it stopped; peers are fitted
once, the regressor again whenever its code changes. Writes ``benchmarks/results/regressor.json``,
where records of other learners and tasks than those run now are kept; the tables and the figure of
it are made by ``benchmarks/regressor_summary.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import regressor_tasks as tasks
from environment import RESULTS, write
from regressor_peers import NATIVE, PEERS
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flattest.sweeps import Store, Summary, Trial, TrialFunction, run, trial_function, workers

OURS = "MultiIndexRegressor"
_FILE = Path(__file__).with_name("regressor_trials.py")
_PACKAGES = ("scikit-learn", "lightgbm", "xrfm", "numpy", "scipy")
_NATIVE_PACKAGES = ("catboost", "interpret-core", "numpy")


def peer_function(packages: tuple[str, ...] = _PACKAGES) -> TrialFunction:
    """Return the trial of a peer: results hold for its version, whatever flattest's is."""
    code = ", ".join(f"{name} {version(name)}" for name in packages)
    return trial_function(f"{_FILE}:trial", code=code)


def our_function() -> TrialFunction:
    """Return the trial of the regressor: results hold for the code of both."""
    trial = trial_function(f"{_FILE}:our_trial")
    regressor = trial_function("flattest.regression.regressor:MultiIndexRegressor")
    return trial_function(trial.reference, code=f"{trial.code} {regressor.code}")


def trials(learners: list[str], kinds: list[str]) -> Iterator[Trial]:
    """Yield the trials, all learners of one task after each other."""
    functions = dict.fromkeys(PEERS, peer_function())
    functions |= dict.fromkeys(NATIVE, peer_function(_NATIVE_PACKAGES)) | {OURS: our_function()}
    for seed in range(max(len(tasks.seeds(kind)) for kind in kinds)):
        for settings in tasks.settings():
            if settings["kind"] in kinds and seed in tasks.seeds(str(settings["kind"])):
                for learner in learners:
                    if learner in NATIVE and settings["kind"] not in tasks.TABLES_OF:
                        continue
                    function = functions[learner]
                    yield Trial(function, function.complete({"learner": learner, **settings}), seed)


def records(wanted: list[Trial], store: Store, any_code: bool) -> list[dict[str, Any]]:
    """Return one flat record per trial; a failed one has its error."""
    return [
        {**result.settings, "seed": result.seed, **(result.record or {"error": result.error})}
        for result in store.results(wanted, any_code=any_code)
    ]


def main() -> None:
    known = [*PEERS, *NATIVE, OURS]
    kinds = list(dict.fromkeys(str(settings["kind"]) for settings in tasks.settings()))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learner", choices=known, action="append", help="all by default")
    parser.add_argument("--kind", choices=kinds, action="append", help="all by default")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--any-code", action="store_true", help="take what older code has left")
    parser.add_argument("--missing", action="store_true", help="fit what the results lack only")
    parser.add_argument("--store", type=Path, default=RESULTS / "regressor.sqlite")
    parser.add_argument("--out", type=Path, default=RESULTS / "regressor.json")
    options = parser.parse_args()
    stored = json.loads(options.out.read_text("utf-8"))["results"] if options.out.exists() else []
    have = {_place(record) for record in stored} if options.missing else set()
    wanted = [
        trial
        for trial in trials(options.learner or known, options.kind or kinds)
        if _place({**trial.settings, "seed": trial.seed}) not in have
    ]
    columns = MofNCompleteColumn(), TextColumn("fits, time left"), TimeRemainingColumn()
    with Store(options.store) as store, Progress(*columns) as bar:
        task = bar.add_task("", total=len(wanted))

        def show(summary: Summary) -> None:
            bar.update(task, completed=summary.finished)

        pool = workers("processes", options.workers)
        choices = {"any_code": options.any_code, "retry_failed": True, "time_limit": 900}
        summary = run(iter(wanted), store, pool, progress=show, **choices)
        if summary.interrupted:
            raise SystemExit("Interrupted; run it again to go on.")
        found = records(wanted, store, options.any_code)
    done = {_place(record) for record in found}
    write(options.out, [record for record in stored if _place(record) not in done] + found)


def _place(record: dict[str, Any]) -> tuple[Any, ...]:
    """Tell what a record is of."""
    return tuple(record[name] for name in ("learner", "kind", "name", "d", "n", "seed"))


if __name__ == "__main__":
    main()
