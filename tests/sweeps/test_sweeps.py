"""Sweeps: keys, the store, specifications, the engine and its command line."""

import itertools
import json
import math
import sqlite3
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import trials_for_sweeps
from typer.testing import CliRunner

from flattest.commands.app import app
from flattest.sweeps import (
    Result,
    Store,
    StoreError,
    Summary,
    SweepError,
    Trial,
    TrialFunction,
    n_found,
    read_spec,
    run,
    trial_function,
    workers,
)
from flattest.sweeps.trial import perform

FILE = Path(trials_for_sweeps.__file__)
CLAIMS = {"symmetry": "flattest.study.claims.symmetry:trial"}
SERIAL = workers("serial")


@pytest.fixture(scope="module")
def function() -> TrialFunction:
    return trial_function(f"{FILE}:trial")


def trials(function: TrialFunction, n: int = 3, **settings: Any) -> list[Trial]:
    complete = function.complete(settings)
    return [Trial(function, complete, seed) for seed in range(n)]


def outcomes(store: Store) -> list[tuple[Any, ...]]:
    return [
        (r.settings["a"], r.seed, r.status, r.record and r.record["value"]) for r in store.results()
    ]


# Keys


def test_equal_settings_have_one_key_however_they_are_written(function: TrialFunction) -> None:
    one = Trial(function, function.complete({"a": 1, "b": 2}), 0)
    same = Trial(function, function.complete({"b": 2, "a": 1.0, "behaviour": "works"}), 0)
    assert one.key == same.key
    others = [
        Trial(function, function.complete({"a": 1, "b": 3}), 0),
        Trial(function, one.settings, 1),
        Trial(trial_function(function.reference, code="other"), one.settings, 0),
    ]
    assert len({one.key, *(other.key for other in others)}) == 4


def _module(folder: Path, name: str, **files: str) -> TrialFunction:
    """Write a package and look its trial up as a new process would."""
    package = folder / name
    package.mkdir()
    for stem, text in files.items():
        (package / f"{stem}.py").write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    try:
        return trial_function(f"{name}.main:trial")
    finally:
        sys.path.remove(str(folder))


MAIN = """
    from {name} import near
    from {name}.drawing import draw
    LIMIT = 3
    UNITS = {{}}
    UNITS['m'] = 1
    print(end='')
    def trial(settings, seed):
        return {{"x": near.twice(seed) + LIMIT * UNITS['m']}}
    def figure(records):
        return draw(records)
"""
NEAR = "from .far import TWO\ndef twice(x):\n    return TWO * x\n"


@pytest.mark.parametrize(
    ("change", "file", "old", "new"),
    [
        (False, "main", "figure(records):", "figure(records, size=3):"),
        (False, "main", "LIMIT = 3", "LIMIT = 3  # why"),
        (False, "drawing", "pass", "return 1"),
        (False, "near", "def twice(x):", 'def twice(x):\n    """Twice."""'),
        (True, "main", "LIMIT = 3", "LIMIT = 4"),
        (True, "main", "UNITS['m'] = 1", "UNITS['m'] = 2"),
        (True, "main", "print(end='')", "print(end=' ')"),
        (True, "__init__", "THREE = 3", "THREE = 4"),
        (True, "near", "TWO * x", "x * TWO"),
        (True, "far", "TWO = 2", "TWO = 3"),
    ],
)
def test_the_code_version_follows_what_the_trial_can_reach(
    tmp_path: Path, change: bool, file: str, old: str, new: str
) -> None:
    codes = []
    for index, edited in enumerate((False, True)):
        # The same package in two states; names differ only because Python caches imports.
        folder = tmp_path / str(index)
        folder.mkdir()
        name = f"pkg_{abs(hash((file, old, new)))}"
        files = {
            "__init__": "THREE = 3\n",
            "main": MAIN.format(name=name),
            "near": NEAR,
            "far": "TWO = 2\n",
            "drawing": "def draw(records):\n    pass\n",
        }
        if edited:
            assert old in files[file]
            files[file] = files[file].replace(old, new)
        codes.append(_module(folder, name, **files).code)
        for loaded in [module for module in sys.modules if module.startswith(name)]:
            del sys.modules[loaded]
        from flattest.sweeps.trial_function import _code_version, load

        load.cache_clear()
        _code_version.cache_clear()
    assert (codes[0] != codes[1]) is change


def test_a_worker_with_other_code_is_told_so(function: TrialFunction, tmp_path: Path) -> None:
    stale = TrialFunction(function.reference, function.name, "other", digest="other")
    todo = [Trial(stale, stale.complete({}), 0)]
    with Store(tmp_path / "a.sqlite") as store:
        with pytest.raises(SweepError, match="restart the workers"):
            run(todo, store, SERIAL)
        assert list(store.results()) == []


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_trial.py").write_text("ONE = 1\n")
    text = "from neighbour_of_trial import ONE\ndef trial(settings, seed):\n    return {'x': ONE}\n"
    (tmp_path / "main_trial.py").write_text(text)
    function = trial_function(f"{tmp_path / 'main_trial.py'}:trial")
    assert perform(function.reference, {}, 0).record == {"x": 1}
    from flattest.sweeps.trial_function import _code_version

    before = function.code
    _code_version.cache_clear()
    (tmp_path / "neighbour_of_trial.py").write_text("ONE = 2\n")
    assert trial_function(function.reference).code != before


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nothing", "write it as"),
        ("no.such.module:trial", "cannot be imported"),
        ("math:nothing", "no function 'nothing'"),
        ("nowhere.py:trial", "does not exist"),
    ],
)
def test_a_trial_that_is_not_there_is_named(reference: str, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        trial_function(reference)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"c": 1}, "no setting 'c'"),
        ({"a": "one"}, "'a' of .* must be float"),
        ({"b": 1.5}, "'b' of .* must be int"),
        ({"b": True}, "'b' of .* must be int"),
        ({"b": {1, 2}}, "use numbers, texts and lists"),
    ],
)
def test_wrong_settings_are_refused(
    function: TrialFunction, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SweepError, match=message):
        function.complete(settings)


def test_settings_need_no_class() -> None:
    loose = trial_function(f"{FILE}:plain")
    result = perform(loose.reference, loose.complete({"anything": [1, 2]}), 4)
    assert result.record == {"seen": 1, "twice": 8}


# Trials


def test_what_a_trial_does_wrong_stays_inside(function: TrialFunction) -> None:
    raised = perform(function.reference, {"behaviour": "raises"}, 1)
    assert raised.status == "failed"
    assert raised.error is not None
    assert raised.error.strip().endswith("ValueError: seed 1 is unlucky")
    nested = perform(function.reference, {"behaviour": "nests"}, 1)
    assert "must return scalars" in str(nested.error)
    slow = perform(function.reference, {"behaviour": "loops"}, 1, time_limit=0.2)
    assert slow.status == "timed_out"
    assert slow.seconds < 300  # it was stopped, and would have gone on for ever


def test_lists_of_a_specification_become_tuples_again(function: TrialFunction) -> None:
    settings = function.complete({"sizes": [1, 2]})
    assert perform(function.reference, json.loads(json.dumps(settings)), 0).status == "done"


# Store


def test_records_come_back_as_they_were(function: TrialFunction, tmp_path: Path) -> None:
    with Store(tmp_path / "a.sqlite") as store:
        record = {"x": 0.1 + 0.2, "n": 3, "s": "ü", "b": True, "none": None, "inf": math.inf}
        trial = trials(function, 1)[0]
        store.write(trial, Result("done", record, None, 1.5, {"host": "h"}))
        store.write(trial, Result("failed", None, "late", 1.0, {}))
        (found,) = store.results()
        assert found.record == record  # a success is never replaced
        assert found.environment == {"host": "h"}
        assert store.statuses([trial]) == {trial.key: "done"}
    with (
        Store(tmp_path / "a.sqlite", read_only=True) as store,
        pytest.raises(StoreError, match="read-only"),
    ):
        store.write(trial, Result("done", record, None, 1.5, {"host": "h"}))


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("no database, but a long enough text " * 100)
    with pytest.raises(StoreError, match="no SQLite file"):
        Store(tmp_path / "text.sqlite")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StoreError, match="no store of results"):
        Store(tmp_path / "other.sqlite")
    Store(tmp_path / "new.sqlite").close()
    newer = sqlite3.connect(tmp_path / "new.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StoreError, match="newer flattest"):
        Store(tmp_path / "new.sqlite")
    with pytest.raises(StoreError, match="is a folder"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path / "missing.sqlite", read_only=True)
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "no" / "folder.sqlite")


def test_a_store_that_is_just_being_made_is_empty(tmp_path: Path) -> None:
    made = sqlite3.connect(tmp_path / "a.sqlite")
    made.execute("PRAGMA journal_mode = WAL")
    made.close()
    with Store(tmp_path / "a.sqlite", read_only=True) as store:
        assert list(store.results()) == []


def test_a_full_disk_is_one_sentence_and_loses_nothing(
    function: TrialFunction, tmp_path: Path
) -> None:
    todo = trials(function, 400)
    with Store(tmp_path / "a.sqlite") as store:
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        # SQLite's own limit raises the error that a full disk does.
        store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
        with pytest.raises(StoreError, match="the disk is full; make room") as caught:
            run(todo, store, SERIAL)
        assert "\n" not in str(caught.value)
        kept = len(list(store.results()))
        assert 0 < kept < 400
    with Store(tmp_path / "a.sqlite") as store:
        assert run(todo, store, SERIAL) == Summary(done=400, found=kept)


def test_drivers_lease_what_they_run(function: TrialFunction, tmp_path: Path) -> None:
    todo = trials(function, 4)
    with Store(tmp_path / "a.sqlite") as one, Store(tmp_path / "a.sqlite") as two:
        assert one.lease(todo[:2]) == {trial.key for trial in todo[:2]}
        assert two.lease(todo) == {trial.key for trial in todo[2:]}
        one._connection.execute(
            "UPDATE leases SET driver = ? WHERE driver = ?", (_dead(one), one._driver)
        )
        assert two.lease(todo) == {trial.key for trial in todo}


def _dead(store: Store) -> str:
    host, _, started = store._driver.rsplit(":", 2)
    return f"{host}:{2**22 + 1}:{started}"


# Engine


def test_a_second_run_finds_everything(function: TrialFunction, tmp_path: Path) -> None:
    seen: list[Summary] = []
    with Store(tmp_path / "a.sqlite") as store:
        todo = trials(function, 5)
        assert run(todo, store, SERIAL, progress=seen.append) == Summary(done=5)
        assert [summary.finished for summary in seen] == [1, 2, 3, 4, 5]
        assert run(todo, store, SERIAL) == Summary(done=5, found=5)
        assert [r.record["value"] for r in store.results() if r.record] == [0, 1, 2, 3, 4]
        assert all(r.record and math.isnan(r.record["nan"]) for r in store.results())


def test_edited_settings_rerun_only_what_changed(function: TrialFunction, tmp_path: Path) -> None:
    with Store(tmp_path / "a.sqlite") as store:
        run(trials(function, 3, a=1) + trials(function, 3, a=2), store, SERIAL)
        edited = trials(function, 3, a=1) + trials(function, 3, a=3)
        assert n_found(edited, store) == 3
        assert run(edited, store, SERIAL) == Summary(done=6, found=3)
        other = trial_function(function.reference, code="edited")
        changed = [Trial(other, t.settings, t.seed) for t in edited]
        assert (n_found(changed, store), n_found(iter(changed), store, any_code=True)) == (0, 6)
        assert run(changed, store, SERIAL, any_code=True).found == 6
        assert len(list(store.results(changed))) == 0
        assert [r.seed for r in store.results(changed, any_code=True)] == [0, 1, 2] * 2
        assert run(changed, store, SERIAL).found == 0


def test_failures_stay_until_they_are_retried(function: TrialFunction, tmp_path: Path) -> None:
    todo = trials(function, 2, behaviour="raises") + trials(function, 1)
    with Store(tmp_path / "a.sqlite") as store:
        assert run(todo, store, SERIAL) == Summary(done=1, failed=2)
        assert run(todo, store, SERIAL) == Summary(done=1, failed=2, found=3)
        assert (n_found(todo, store), n_found(todo, store, retry_failed=True)) == (3, 1)
        assert run(todo, store, SERIAL, retry_failed=True) == Summary(done=1, failed=2, found=1)


def test_trials_are_taken_as_they_are_needed(function: TrialFunction, tmp_path: Path) -> None:
    complete = function.complete({})
    taken = itertools.count()
    endless = (Trial(function, complete, next(taken)) for _ in itertools.count())

    def stop(summary: Summary) -> None:
        if summary.finished == 3:
            raise KeyboardInterrupt

    with Store(tmp_path / "a.sqlite") as store:
        summary = run(endless, store, SERIAL, progress=stop)
        assert summary == Summary(done=3, interrupted=True)
        assert len(list(store.results())) == 3
        assert next(taken) <= 256
        assert store._connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_unknown_executors_are_refused() -> None:
    with pytest.raises(SweepError, match="executor 'cluster' is unknown"):
        workers("cluster")


# Specifications


def _spec(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(textwrap.dedent(text))
    return path


def test_a_specification_lists_each_combination_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.read_text())
    path = _spec(
        tmp_path,
        """
        trial = "mine.py:trial"
        seeds = {start = 2, stop = 5}
        time_limit = 3
        [settings]
        folder = ""
        [[grid]]
        a = [1, 2]
        b = [0, 1]
        [[grid]]
        a = [1.0]
        """,
    )
    spec = read_spec(path, CLAIMS)
    assert len(spec) == 4 * 3 == len({trial.key for trial in spec.trials()})
    assert spec.time_limit == 3.0
    assert [trial.seed for trial in spec.trials()][:5] == [2, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trial = ", "no TOML file"),
        ("seeds = 3", "give either trial"),
        ('claim = "nothing"', "there is no claim 'nothing'"),
        ('claim = "symmetry"\nsedes = 3', "there is no key 'sedes'"),
        ('claim = "symmetry"\nseeds = 0', "seeds must be"),
        ('claim = "symmetry"\nseeds = [1, -1]', "seeds must be"),
        ('claim = "symmetry"\ntime_limit = 0', "time_limit must be"),
        ('claim = "symmetry"\n[grid]\nfactor = 3', "grid.factor must be a list"),
        ('claim = "symmetry"\n[grid]\nfactor = []', "grid.factor must be a list"),
        ('claim = "symmetry"\n[settings]\nfactr = 3', "no setting 'factr'"),
        ('claim = "symmetry"\n[settings]\nfactor = 3\n[grid]\nfactor = [1]', "leave one out"),
        ("trial = 3", "trial must be a text"),
        ('claim = "symmetry"\nseeds = [9223372036854775808]', "seeds must be"),
        ('claim = "symmetry"\n[settings]\nfactor = 2026-01-01', "use numbers, texts and lists"),
    ],
)
def test_a_wrong_specification_is_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = _spec(tmp_path, text)
    with pytest.raises(SweepError, match=message) as caught:
        read_spec(path, CLAIMS)
    assert str(caught.value).startswith(repr(str(path)))
    assert "\n" not in str(caught.value)


# Command line


def test_run_status_and_export(tmp_path: Path) -> None:
    spec = _spec(
        tmp_path,
        f"""
        trial = "{FILE}:trial"
        seeds = 2
        [grid]
        behaviour = ["works", "raises"]
        """,
    )
    store = ["--store", str(tmp_path / "a.sqlite")]
    runner = CliRunner()
    result = runner.invoke(app, ["sweep", str(spec), *store, "--executor", "serial"])
    assert result.exit_code == 1
    assert "seed 0 is unlucky" in result.output
    assert result.stderr.startswith("4 trials, 0 of them found, 4 to do.\n")
    result = runner.invoke(app, ["sweep", "status", *store, str(spec)])
    assert result.exit_code == 0
    assert "0 of 4 trials have no result yet" in result.output
    import pandas as pd

    for ending, read in ((".csv", pd.read_csv), (".parquet", pd.read_parquet)):
        out = tmp_path / f"table{ending}"
        result = runner.invoke(app, ["sweep", "export", *store, "--out", str(out)])
        assert result.exit_code == 0
        table = read(out)
        assert sorted(table["status"]) == ["done", "done", "failed", "failed"]
        assert table.loc[table["status"] == "done", "value"].tolist() == [0, 1]
    result = runner.invoke(app, ["sweep", "export", *store, "--out", str(tmp_path / "a.txt")])
    assert result.exit_code == 2
    result = runner.invoke(app, ["sweep", str(tmp_path / "none.toml"), *store])
    assert result.exit_code == 2
    assert "cannot be read" in result.output
