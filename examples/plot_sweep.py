"""
A sweep on a Dask cluster
=========================

A sweep runs a function of settings and a seed over a grid, and files each result as soon as it is
there. Where it runs is one line: processes of this machine, or a Dask cluster. Here the cluster
is one of threads on this machine; with the address of a real one nothing else changes.
"""

# %%
# A trial function in a file
# --------------------------
#
# Workers load it by its name, so it lies in a file of its own.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from distributed import LocalCluster

from flattest.sweeps import Store, Trial, run, trial_function, workers

folder = Path(tempfile.mkdtemp())
_ = (folder / "trials.py").write_text(
    """
from dataclasses import dataclass

import flattest as ft


@dataclass(frozen=True)
class Settings:
    n_samples: int = 100
    method: str = "flattest"


def trial(settings: Settings, seed: int) -> dict[str, float]:
    X, y, model = ft.make_multi_index(settings.n_samples, 10, ["relu", "-relu"], random_state=seed)
    found = ft.interpolate(X, y, settings.method, width=60, random_state=seed)
    error = model.relative_error(found.net, random_state=seed)
    return {"error": error, "ratio": found.flatness.ratio}
"""
)

# %%
# The grid
# --------

function = trial_function(f"{folder / 'trials.py'}:trial")
trials = [
    Trial(function, function.complete({"n_samples": n, "method": method}), seed)
    for n in (16, 24, 32, 48)
    for method in ("flattest", "random_features")
    for seed in range(6)
]

# %%
# Run
# ---
#
# A second run finds all results in the store and computes nothing.

local = LocalCluster(
    n_workers=2,
    threads_per_worker=1,
    processes=False,
    protocol="tcp",
    dashboard_address=None,
)
with local as cluster, Store(folder / "results.sqlite") as store:
    for attempt in ("first", "second"):
        summary = run(trials, store, workers(cluster.scheduler_address))
        print(f"{attempt} run: {summary.done} trials done, {summary.found} of them found")
    results = list(store.results())

# %%
# The records
# -----------

records = pd.DataFrame([{**r.settings, "seed": r.seed, **r.record} for r in results])
medians = records.pivot_table("error", "n_samples", "method", "median")
print(medians.to_string(float_format="{:.1e}".format))

# %%
fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (method, rows), colour in zip(records.groupby("method"), ("#0072B2", "#D55E00"), strict=True):
    ax.plot(
        rows["n_samples"], rows["error"].clip(1e-30), "o", color=colour, alpha=0.6, label=method
    )
ax.set(yscale="log", xlabel="samples", ylabel="relative test error")
ax.set_title("Test errors of two interpolators, by a sweep on Dask")
ax.legend(frameon=False)
plt.show()
