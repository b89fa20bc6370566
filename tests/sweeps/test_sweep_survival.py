"""Sweeps survive what happens to long runs: killed drivers, dead workers, stuck trials."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trials_for_sweeps

from flattest.sweeps import Store, Summary, Trial, engine, run, trial_function, workers

FILE = Path(trials_for_sweeps.__file__)
PATIENCE = 900.0
"""Seconds after which something hangs: on a busy machine all that is well may take minutes."""
SPEC = """
trial = "{file}:trial"
seeds = {seeds}
[settings]
folder = "{folder}"
gated = {gated}
"""
# The claims, of which these sweeps know nothing, would load PyTorch.
DRIVER = """
import sys, types
sys.modules["flattest.study"] = types.SimpleNamespace(CLAIMS={})
from flattest.commands import main
main()
"""


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the folder in which trials leave a mark each time that they are run."""
    folder = tmp_path / "ran"
    folder.mkdir()
    return folder


def counts(ran: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in ran.glob("ran-*")}


def let_pass(ran: Path, below: int) -> None:
    """Let gated trials with seeds below a number go on, the others wait."""
    new = ran / "gate-to-be"
    new.write_text(str(below))
    new.replace(ran / trials_for_sweeps.GATE)  # at once: trials read it all the time


def start(spec: Path, store: Path) -> "subprocess.Popen[str]":
    """Start `flattest sweep` in a process group of its own."""
    command = [sys.executable, "-c", DRIVER]
    return subprocess.Popen(
        [*command, "sweep", str(spec), "--store", str(store), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def write_spec(tmp_path: Path, ran: Path, seeds: int, *, gated: bool) -> Path:
    path = tmp_path / "spec.toml"
    text = SPEC.format(file=FILE, seeds=seeds, folder=ran, gated=str(gated).lower())
    path.write_text(text)
    return path


def rows(store: Path) -> list[tuple[Any, ...]]:
    with Store(store, read_only=True) as opened:
        return [(r.key, r.seed, r.status, r.record and r.record["value"]) for r in opened.results()]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def finished(store: Path) -> int:
    return len(rows(store)) if store.exists() and store.stat().st_size else 0


def test_a_driver_killed_in_the_middle_loses_nothing(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=30, gated=True), tmp_path / "a.sqlite"
    let_pass(ran, 10)
    driver = start(spec, store)
    wait_for(lambda: finished(store) >= 10)
    wait_for(lambda: len(counts(ran)) == 12)  # and one more is under way in each worker
    children = _children(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(_alive(child) for child in children))  # no orphans go on
    kept = rows(store)
    assert len(kept) == 10
    before = counts(ran)

    let_pass(ran, 30)
    resumed = start(spec, store)
    output, _ = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, output
    final = rows(store)
    assert set(kept) <= set(final)
    assert [row[1] for row in final] == sorted(range(30))
    assert [row[3] for row in final] == [float(seed) for seed in range(30)]
    # What was filed is not run again; what was under way is, once.
    filed = {f"ran-1-{row[1]}" for row in kept}
    after = counts(ran)
    assert all(after[name] == 1 for name in filed)
    assert all(after[name] == before.get(name, 0) + 1 for name in set(after) - filed)


def test_ctrl_c_ends_cleanly_and_the_same_command_continues(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=20, gated=True), tmp_path / "a.sqlite"
    let_pass(ran, 4)
    driver = start(spec, store)
    wait_for(lambda: finished(store) >= 4)
    wait_for(lambda: len(counts(ran)) == 6)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    let_pass(ran, 12)  # the eight that were handed over, of which two are under way
    output, _ = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 130, output
    assert "continues" in output
    assert "Traceback" not in output
    kept = {f"ran-1-{row[1]}" for row in rows(store)}
    assert 6 <= len(kept) <= 12
    let_pass(ran, 20)
    resumed = start(spec, store)
    output, _ = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, output
    assert len(rows(store)) == 20
    assert {count for name, count in counts(ran).items() if name in kept} == {1}


def test_two_drivers_share_a_store(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=60, gated=True), tmp_path / "a.sqlite"
    let_pass(ran, 0)
    drivers = [start(spec, store) for _ in range(2)]
    wait_for(lambda: len(counts(ran)) == 4)  # both have begun, with two workers each
    let_pass(ran, 60)
    outputs = [driver.communicate(timeout=PATIENCE)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert [row[1] for row in rows(store)] == list(range(60))
    assert set(counts(ran).values()) == {1}  # no work was done twice


# A process without PyTorch, and forks of it that wait until all are there.
CROWD = """
import os, sys
sys.path.insert(0, {tests!r})
from flattest.sweeps import Store, Trial, run, trial_function, workers
function = trial_function({reference!r})
settings = function.complete({{"folder": {folder!r}}})
todo = [Trial(function, settings, seed) for seed in range(48)]
gate, opens = os.pipe()
for _ in range(16):
    if not os.fork():
        os.close(opens)
        os.read(gate, 1)  # returns when the last writing end is closed
        with Store({store!r}) as store:
            summary = run(todo, store, workers("serial"))
        os._exit(0 if summary.done == summary.finished == 48 else 3)
os.close(opens)
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(16)]
sys.exit(repr(codes) if any(codes) else 0)
"""


def test_sixteen_drivers_start_at_once_on_a_new_store(tmp_path: Path, ran: Path) -> None:
    store = tmp_path / "a.sqlite"
    program = CROWD.format(
        tests=str(FILE.parent), reference=f"{FILE}:trial", folder=str(ran), store=str(store)
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert [row[1:3] for row in rows(store)] == [(seed, "done") for seed in range(48)]
    assert counts(ran) == {f"ran-1-{seed}": 1 for seed in range(48)}  # no work was done twice


def test_the_dead_the_stuck_and_the_unlucky_do_not_stop_the_rest(
    tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A worker that has to wait for a processor is not stuck.
    monkeypatch.setattr(engine, "_GRACE", PATIENCE)
    function = trial_function(f"{FILE}:trial")
    behaviours = ("works", "dies", "raises", "loops", "works")
    todo = [
        Trial(function, function.complete({"behaviour": what, "a": index, "folder": str(ran)}), 1)
        for index, what in enumerate(behaviours)
    ]
    with Store(tmp_path / "a.sqlite") as store:
        summary = run(todo, store, workers("processes", 2), time_limit=1.0)
        assert summary == Summary(done=2, failed=2, timed_out=1)
        found = {r.settings["a"]: r for r in store.results()}
    assert found[1].error == "The process that ran this trial died 3 times."
    assert found[1].attempts == 3
    assert "unlucky" in (found[2].error or "")
    assert "limit of 1 s" in (found[3].error or "")
    assert counts(ran)["ran-1-1"] == 3


@pytest.mark.slow
def test_a_trial_that_cannot_be_stopped_ends_its_process(tmp_path: Path) -> None:
    function = trial_function(f"{FILE}:trial")
    todo = [
        Trial(function, function.complete({"behaviour": what}), 1) for what in ("hangs", "works")
    ]
    with Store(tmp_path / "a.sqlite") as store:
        summary = run(todo, store, workers("processes", 2), time_limit=0.5)
        assert summary == Summary(done=1, timed_out=1)
        (stuck,) = (r for r in store.results() if r.status == "timed_out")
    assert "could not be stopped" in (stuck.error or "")
    assert stuck.seconds > engine._GRACE


@pytest.fixture
def scheduler() -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """Start a Dask scheduler and two workers, as processes of their own."""
    distributed = pytest.importorskip("distributed")
    environment = {**os.environ, "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    command += ["--host", "127.0.0.1", "--port", "0", "--scheduler-file"]
    del distributed
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        processes = [
            subprocess.Popen(
                [*command, str(file)], env=environment, cwd=folder, stderr=subprocess.DEVNULL
            )
        ]
        try:
            wait_for(lambda: file.exists() and file.stat().st_size)
            import json

            address = json.loads(file.read_text())["address"]
            worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"]
            worker += ["--nthreads", "1", "--no-dashboard", "--local-directory", folder]
            for _ in range(2):
                processes.append(
                    subprocess.Popen(worker, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
                )
            yield address, processes[1:]
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def test_trials_of_a_killed_dask_worker_are_run_elsewhere(
    tmp_path: Path, ran: Path, scheduler: tuple[str, list["subprocess.Popen[bytes]"]]
) -> None:
    address, (victim, _) = scheduler
    from distributed import Client

    with Client(address, timeout=PATIENCE, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
    function = trial_function(f"{FILE}:trial")
    settings = {"folder": str(ran), "seconds": 0.02}
    todo = [Trial(function, function.complete(settings), seed) for seed in range(40)]
    todo.append(Trial(function, function.complete({"behaviour": "raises"}), 7))
    todo.append(Trial(function, function.complete({"behaviour": "loops"}), 7))

    def kill(summary: Summary) -> None:
        if summary.finished == 8:
            victim.kill()

    with Store(tmp_path / "a.sqlite") as store:
        summary = run(todo, store, workers(address), time_limit=2.0, progress=kill)
        assert summary == Summary(done=40, failed=1, timed_out=1)
        done = [r.seed for r in store.results() if r.status == "done"]
    assert sorted(done) == list(range(40))
    assert len(counts(ran)) == 40


def test_overhead_is_small_and_memory_flat(tmp_path: Path) -> None:
    """A smaller version of benchmarks/bench_sweep.py.

    The driver's processor time counts, not the clock, which on a busy machine measures the others.
    """
    function = trial_function(f"{FILE}:plain")
    todo = (Trial(function, {}, seed) for seed in range(3000))
    times, sizes = [], []

    def watch(summary: Summary) -> None:
        if summary.finished in (1000, 3000):
            times.append(time.process_time())
            sizes.append(_resident())

    with Store(tmp_path / "a.sqlite") as store:
        assert run(todo, store, workers("processes", 2), progress=watch).done == 3000
    assert (times[1] - times[0]) / 2000 < 5e-3
    assert sizes[1] - sizes[0] < 8e6


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in text.split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except OSError:
        return False
