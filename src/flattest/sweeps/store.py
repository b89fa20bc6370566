"""The store: every result of a sweep in one SQLite file, which several drivers may share."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from flattest.sweeps.trial import Result, Trial
from flattest.sweeps.trial_function import SweepError

_VERSION = 1
_MARK = 0x666C6174  # application_id: "flat"
_LEASE = 60.0
_PATIENCE = 60.0  # seconds to wait for other drivers
_TABLES = """
CREATE TABLE environments (id INTEGER PRIMARY KEY, content TEXT NOT NULL UNIQUE);
CREATE TABLE results (
    key TEXT PRIMARY KEY,
    function TEXT NOT NULL,
    settings TEXT NOT NULL,
    seed INTEGER NOT NULL,
    code TEXT NOT NULL,
    status TEXT NOT NULL,
    record TEXT,
    error TEXT,
    warnings TEXT,
    seconds REAL NOT NULL,
    attempts INTEGER NOT NULL,
    finished_at TEXT NOT NULL,
    environment INTEGER NOT NULL REFERENCES environments (id)
) WITHOUT ROWID;
CREATE INDEX results_by_trial ON results (function, settings, seed);
CREATE TABLE leases (key TEXT PRIMARY KEY, driver TEXT NOT NULL, expires REAL NOT NULL)
    WITHOUT ROWID;
"""
_RESULTS = (
    "SELECT key, function, settings, seed, code, status, record, error, warnings, seconds, "
    "attempts, finished_at, content FROM results JOIN environments ON environments.id = environment"
)
_OF_ANY_CODE = (
    " WHERE function = ? AND settings = ? AND seed = ? AND status = 'done' "
    "ORDER BY finished_at DESC LIMIT 1"
)


class StoreError(SweepError):
    """The store cannot be read or written; the message says why."""


class StoredResult(NamedTuple):
    """One row of the store."""

    key: str
    function: str
    settings: dict[str, Any]
    seed: int
    code: str
    status: str
    record: dict[str, Any] | None
    error: str | None
    warnings: str | None
    seconds: float
    attempts: int
    finished_at: str
    environment: dict[str, Any]


class Store:
    """Results of trials by their keys, in SQLite with a write-ahead log.

    Each result is a transaction of its own, so a driver that is killed loses none that it wrote.
    Drivers that share a store lease the trials they are about to run; the lease of a driver that
    died ends at once on its own machine, and after a minute elsewhere.

    Parameters
    ----------
    path : path
        The file; it is created if need be, unless `read_only`.
    read_only : bool
        Open an existing store without the right to change it.

    Raises
    ------
    StoreError
        If the file is no store, cannot be opened, or was made by a newer version.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flattest.sweeps import Store
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "a.sqlite") as store:
    ...     len(list(store.results()))
    0
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._driver = f"{socket.gethostname()}:{os.getpid()}:{time.time_ns()}"
        self._environments: dict[str, int] = {}
        if read_only and not self.path.is_file():
            raise StoreError(f"There is no store {str(path)!r}; check --store.")
        if self.path.is_dir():
            raise StoreError(f"The store {str(path)!r} is a folder; give the name of a file.")
        with self._explained():
            self._connection = self._open_to_read() if read_only else self._open_to_write()

    def __enter__(self) -> Store:
        """Use the store in a `with` block, which closes it."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Give up this driver's leases and close the file."""
        with suppress(sqlite3.Error):
            self._connection.execute("DELETE FROM leases WHERE driver = ?", (self._driver,))
        self._connection.close()

    def _connect(self, address: str) -> sqlite3.Connection:
        # Autocommit: a statement is a transaction unless one is begun.
        return sqlite3.connect(address, uri=True, timeout=_PATIENCE, isolation_level=None)

    def _open_to_write(self) -> sqlite3.Connection:
        connection = self._connect(f"file:{quote(str(self.path.absolute()))}?mode=rwc")
        try:
            self._check_kind(connection)
            _keep_log(connection)
            # Safe against the death of the process; a power cut may cost the last results.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
                _create(connection)
                connection.execute(f"PRAGMA application_id = {_MARK}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open_to_read(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        try:
            connection = self._connect(address)
            self._check_kind(connection)
        except sqlite3.OperationalError:
            # Read-only media do not even let SQLite make its index of the log.
            log = self.path.with_name(self.path.name + "-wal")
            if log.is_file() and log.stat().st_size:
                raise StoreError(
                    f"The store {str(self.path)!r} was not closed and cannot be recovered where "
                    f"it is read-only; copy it with {log.name!r} to where it can be written."
                ) from None
            connection = self._connect(address + "&immutable=1")
            self._check_kind(connection)
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            # A driver is about to make its tables: there is nothing to read yet.
            connection.close()
            connection = self._connect("file::memory:")
            _create(connection)
        return connection

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        # In one statement: between two, another driver may make its tables.
        version, mark, n_tables = connection.execute(
            "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
            "FROM pragma_user_version, pragma_application_id"
        ).fetchone()
        if n_tables and mark != _MARK:
            raise StoreError(
                f"{str(self.path)!r} is a database, but no store of results; choose another file."
            )
        if version > _VERSION:
            raise StoreError(
                f"The store {str(self.path)!r} was made by a newer flattest; update flattest."
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into sentences."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            advice = {
                "database or disk is full": "the disk is full; make room and run it again, "
                "finished trials are kept",
                "attempt to write a readonly database": "it is read-only; choose a file that can "
                "be written",
                "unable to open database file": "it cannot be opened or created there; choose "
                "another file",
                "file is not a database": "it is no SQLite file; choose another file",
                "database is locked": "another program has locked it; try again later",
            }.get(reason, f"{reason}; choose another file")
            raise StoreError(f"The store {str(self.path)!r} cannot be used: {advice}.") from error

    def write(self, trial: Trial, result: Result, attempts: int = 1) -> None:
        """File a result and end the lease of its trial, in one transaction.

        Parameters
        ----------
        trial : Trial
            What was run.
        result : Result
            What came of it. One that succeeded is never replaced.
        attempts : int
            How often it was begun.
        """
        row = (
            trial.key,
            trial.function.name,
            trial.settings_json,
            trial.seed,
            trial.function.code,
            result.status,
            None if result.record is None else json.dumps(result.record),
            result.error,
            result.warnings,
            result.seconds,
            attempts,
            datetime.now(UTC).isoformat(timespec="seconds"),
        )
        with self._transaction() as connection:
            number = self._environment(connection, result.environment)
            connection.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET status = excluded.status, "
                "record = excluded.record, error = excluded.error, warnings = excluded.warnings, "
                "seconds = excluded.seconds, "
                "attempts = excluded.attempts, finished_at = excluded.finished_at, "
                "environment = excluded.environment WHERE results.status != 'done'",
                (*row, number),
            )
            connection.execute("DELETE FROM leases WHERE key = ?", (trial.key,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # a full disk ends the transaction by itself
                    self._connection.execute("ROLLBACK")
                self._environments.clear()
                raise

    def _environment(self, connection: sqlite3.Connection, content: dict[str, Any]) -> int:
        text = json.dumps(content, sort_keys=True)
        if text not in self._environments:
            connection.execute("INSERT OR IGNORE INTO environments (content) VALUES (?)", (text,))
            found = connection.execute("SELECT id FROM environments WHERE content = ?", (text,))
            self._environments[text] = found.fetchone()[0]
        return self._environments[text]

    def statuses(self, trials: Sequence[Trial], *, any_code: bool = False) -> dict[str, str]:
        """Look up how trials ended.

        Parameters
        ----------
        trials : sequence of Trial
            Up to some hundreds.
        any_code : bool
            Accept what another version of the code has done.

        Returns
        -------
        dict
            From the keys of those that have a result to its status.
        """
        with self._explained():
            marks = ",".join("?" * len(trials))
            query = f"SELECT key, status FROM results WHERE key IN ({marks})"
            found = dict(self._connection.execute(query, [trial.key for trial in trials]))
            for trial in trials if any_code else ():
                if trial.key not in found:
                    parts = (trial.function.name, trial.settings_json, trial.seed)
                    if self._connection.execute(_RESULTS + _OF_ANY_CODE, parts).fetchone():
                        found[trial.key] = "done"
        return found

    def lease(self, trials: Iterable[Trial]) -> set[str]:
        """Reserve trials for this driver.

        Parameters
        ----------
        trials : iterable of Trial
            Those it is about to run.

        Returns
        -------
        set of str
            The keys of those that no living driver had reserved.
        """
        now = time.time()
        granted = set()
        with self._transaction() as connection:
            for trial in trials:
                query = "SELECT driver, expires FROM leases WHERE key = ?"
                row = connection.execute(query, (trial.key,)).fetchone()
                if row is None or row[0] == self._driver or _is_over(row[0], row[1], now):
                    connection.execute(
                        "INSERT OR REPLACE INTO leases VALUES (?, ?, ?)",
                        (trial.key, self._driver, now + _LEASE),
                    )
                    granted.add(trial.key)
        return granted

    def renew(self) -> None:
        """Extend this driver's leases."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE leases SET expires = ? WHERE driver = ?",
                (time.time() + _LEASE, self._driver),
            )

    def results(
        self, trials: Iterable[Trial] | None = None, *, any_code: bool = False
    ) -> Iterator[StoredResult]:
        """Read results one by one.

        Parameters
        ----------
        trials : iterable of Trial, optional
            Only their results, in their order; by default all, in the order of function,
            settings and seed.
        any_code : bool
            For trials without a result take the newest success of another version of the code.

        Yields
        ------
        StoredResult
            One row.
        """
        with self._explained():
            if trials is None:
                order = " ORDER BY function, settings, seed, finished_at"
                yield from map(_stored, self._connection.execute(_RESULTS + order))
            for trial in trials or ():
                row = self._connection.execute(_RESULTS + " WHERE key = ?", (trial.key,)).fetchone()
                if row is None and any_code:
                    parts = (trial.function.name, trial.settings_json, trial.seed)
                    row = self._connection.execute(_RESULTS + _OF_ANY_CODE, parts).fetchone()
                if row is not None:
                    yield _stored(row)


def _keep_log(connection: sqlite3.Connection) -> None:
    """Turn the write-ahead log on, for which SQLite itself does not wait for other drivers."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _create(connection: sqlite3.Connection) -> None:
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)


def _stored(row: tuple[Any, ...]) -> StoredResult:
    stored = StoredResult(*row)
    return stored._replace(
        settings=json.loads(row[2]),
        record=None if row[6] is None else json.loads(row[6]),
        environment=json.loads(row[12]),
    )


def _is_over(driver: str, expires: float, now: float) -> bool:
    """Tell whether a lease has ended: with its driver's death here, with time elsewhere."""
    host, pid, _ = driver.rsplit(":", 2)
    if host != socket.gethostname():
        return expires < now
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
