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
SPEC = """
trial = "{file}:trial"
seeds = {seeds}
[settings]
folder = "{folder}"
seconds = {seconds}
"""


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the folder in which trials leave a mark each time that they are run."""
    folder = tmp_path / "ran"
    folder.mkdir()
    return folder


def counts(ran: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in ran.iterdir()}


def start(spec: Path, store: Path, *options: str) -> "subprocess.Popen[str]":
    """Start `flattest sweep` in a process group of its own."""
    command = [sys.executable, "-c", "from flattest.commands import main; main()"]
    return subprocess.Popen(
        [*command, "sweep", str(spec), "--store", str(store), "--workers", "2", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def write_spec(tmp_path: Path, ran: Path, seeds: int, seconds: float) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(file=FILE, seeds=seeds, folder=ran, seconds=seconds))
    return path


def rows(store: Path) -> list[tuple[Any, ...]]:
    with Store(store, read_only=True) as opened:
        return [(r.key, r.seed, r.status, r.record and r.record["value"]) for r in opened.results()]


def wait_for(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def finished(store: Path) -> int:
    return len(rows(store)) if store.exists() and store.stat().st_size else 0


def test_a_driver_killed_in_the_middle_loses_nothing(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=60, seconds=0.05), tmp_path / "a.sqlite"
    driver = start(spec, store)
    wait_for(lambda: finished(store) >= 10)
    children = _children(driver.pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(_alive(child) for child in children))  # no orphans go on
    kept = rows(store)
    assert 10 <= len(kept) < 60
    before = counts(ran)

    resumed = start(spec, store)
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    final = rows(store)
    assert set(kept) <= set(final)
    assert [row[1] for row in final] == sorted(range(60))
    assert [row[3] for row in final] == [float(seed) for seed in range(60)]
    # What was filed is not run again; what was under way is, once.
    filed = {f"ran-1-{row[1]}" for row in kept}
    after = counts(ran)
    assert all(after[name] == 1 for name in filed)
    assert all(after[name] <= before.get(name, 0) + 1 for name in after)


def test_ctrl_c_ends_cleanly_and_the_same_command_continues(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=40, seconds=0.1), tmp_path / "a.sqlite"
    driver = start(spec, store)
    wait_for(lambda: finished(store) >= 4)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the workers as well
    output, _ = driver.communicate(timeout=30)
    assert driver.returncode == 130, output
    assert "continues" in output
    assert "Traceback" not in output
    kept = {f"ran-1-{row[1]}" for row in rows(store)}
    assert 4 <= len(kept) < 40
    resumed = start(spec, store)
    output, _ = resumed.communicate(timeout=60)
    assert resumed.returncode == 0, output
    assert len(rows(store)) == 40
    assert {count for name, count in counts(ran).items() if name in kept} == {1}


def test_two_drivers_share_a_store(tmp_path: Path, ran: Path) -> None:
    spec, store = write_spec(tmp_path, ran, seeds=120, seconds=0.02), tmp_path / "a.sqlite"
    drivers = [start(spec, store) for _ in range(2)]
    outputs = [driver.communicate(timeout=120)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    assert [row[1] for row in rows(store)] == list(range(120))
    assert set(counts(ran).values()) == {1}  # no work was done twice


def test_the_dead_the_stuck_and_the_unlucky_do_not_stop_the_rest(
    tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    with Client(address, timeout=30, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
    function = trial_function(f"{FILE}:trial")
    settings = {"folder": str(ran), "seconds": 0.1}
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
    """A smaller version of benchmarks/bench_sweep.py, with a bar that a busy machine meets."""
    function = trial_function(f"{FILE}:plain")
    todo = (Trial(function, {}, seed) for seed in range(3000))
    times, sizes = [], []

    def watch(summary: Summary) -> None:
        if summary.finished in (1000, 3000):
            times.append(time.perf_counter())
            sizes.append(_resident())

    with Store(tmp_path / "a.sqlite") as store:
        assert run(todo, store, workers("processes", 2), progress=watch).done == 3000
    assert 2000 / (times[1] - times[0]) > 200
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
