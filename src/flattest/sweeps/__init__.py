"""Sweeps: thousands of trials, on one machine or on a cluster, none lost."""

from flattest.errors import require

require("pebble", extra="study", purpose="A sweep")

from flattest.sweeps.engine import Summary, n_found, run
from flattest.sweeps.executors import Workers, workers
from flattest.sweeps.spec import Spec, read_spec
from flattest.sweeps.store import Store, StoredResult, StoreError
from flattest.sweeps.trial import Result, Trial
from flattest.sweeps.trial_function import SweepError, TrialFunction, trial_function

__all__ = [
    "Result",
    "Spec",
    "Store",
    "StoreError",
    "StoredResult",
    "Summary",
    "SweepError",
    "Trial",
    "TrialFunction",
    "Workers",
    "n_found",
    "read_spec",
    "run",
    "trial_function",
    "workers",
]
