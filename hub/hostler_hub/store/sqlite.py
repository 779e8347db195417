"""SQLite: one file, WAL, every write transaction begun as a writer (D1), every commit synced (D6).

The driver's own transaction handling is switched off (`isolation_level=None`), because it begins
late and deferred: a deferred transaction that turns into a writer fails at once when another
process holds the lock, whatever the busy timeout says.

One connection is opened before all others and closed after them. It has read once, and from then
on holds SQLite's shared locks on the database and on the log's index, so that no other process
deletes the log when it closes the database. Nothing but SQLite may open these files: see files.py.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from hostler_hub.store import files
from hostler_hub.store.descriptors import unavailable
from hostler_hub.store.errors import (
    RowRefused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreLost,
    StoreReadOnly,
)
from hostler_hub.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect, Engine

    from hostler_hub.store.errors import StoreUnavailable
    from hostler_hub.store.tuning import Tuning

# Primary result codes: https://www.sqlite.org/rescode.html
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNAVAILABLE = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PROTOCOL,
}


class Sqlite:
    """The database in a file on this machine. A missing file is made, for its owner only."""

    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path, tuning: Tuning) -> None:
        self.path = path
        self._url = sa.URL.create("sqlite", database=str(path))
        self._tuning = tuning
        self._opening = threading.Lock()  # the writer and the readers connect in their own threads
        self._held: sqlite3.Connection | None = None
        self._files: files.OpenFiles | None = None
        self._difference: str | None = None

    def writer(self) -> Engine:
        return self._engine("BEGIN IMMEDIATE", _set_up_writer, pool_size=1, max_overflow=0)

    def readers(self) -> Engine:
        size = self._tuning.readers
        pool = {"poolclass": QueuePool, "pool_size": size, "max_overflow": 0}
        return self._engine("BEGIN", _set_up_reader, **pool)

    def _engine(
        self, begin: str, set_up: Callable[[sqlite3.Connection], None], **pool: Any
    ) -> Engine:
        arguments = {
            "isolation_level": None,
            "timeout": self._tuning.busy_timeout_s,
            "check_same_thread": False,
            "cached_statements": 256,
        }
        engine = sa.create_engine(self._url, connect_args=arguments, **pool)

        @sa.event.listens_for(engine, "do_connect")
        def hold_first(
            dialect: Dialect, _record: object, arguments: list[Any], options: dict[str, Any]
        ) -> None:
            self._hold(lambda: cast(sqlite3.Connection, dialect.connect(*arguments, **options)))

        @sa.event.listens_for(engine, "connect")
        def connected(connection: sqlite3.Connection, _record: object) -> None:
            set_up(connection)

        @sa.event.listens_for(engine, "begin")
        def began(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _hold(self, connect: Callable[[], sqlite3.Connection]) -> None:
        """Open the connection that outlives all others, unless it is open."""
        with self._opening:
            if self._held is not None:
                return
            try:
                files.make_private(self.path)
            except OSError as error:
                raise StoreError(f"{self.path}: {error.strerror}") from error
            connection = connect()
            try:
                self._files = files.OpenFiles(_begin_to_hold(connection))
            except BaseException:
                connection.close()
                raise
            self._held = connection

    def check(self) -> None:
        with self._opening:
            if self._difference is None and self._files is not None:
                self._difference = self._files.difference()
            if self._difference is not None:
                raise StoreLost(self._difference)

    def close(self) -> None:
        with self._opening:
            held, self._held, self._files = self._held, None, None
        if held is None:
            return
        if self._difference is not None:
            # A log that is left full would be replayed into whatever file is now in the place of
            # the database, and one that was deleted would be gone with what is only in it.
            with contextlib.suppress(sqlite3.Error):
                held.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        held.close()

    def lock(self) -> FileLock:
        return FileLock(self.path)

    def failure(self, error: Exception) -> StoreError:
        cause = getattr(error, "orig", None) or error
        code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
        if code in _BUSY:
            return StoreBusy(f"{self.path} is locked by another process")
        if code == sqlite3.SQLITE_FULL:
            return StoreFull(f"no space left for {self.path}")
        if code == sqlite3.SQLITE_READONLY:
            return StoreReadOnly(f"{self.path} takes no writes: {cause}")
        if code in _UNAVAILABLE:
            return self._unusable(f"{self.path}: {cause}")
        if code == sqlite3.SQLITE_CONSTRAINT:
            return RowRefused(str(cause))
        return StoreError(f"{self.path}: {cause}")

    def _unusable(self, text: str) -> StoreUnavailable:
        """The error for a file that cannot be opened, read or written: SQLite does not say why."""
        with contextlib.suppress(OSError):
            if os.statvfs(self.path.parent).f_flag & os.ST_RDONLY:
                return StoreReadOnly(f"{text} (its file system is mounted read-only)")
        return unavailable(text)

    def run(self, connection: Connection, statement: str) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute(statement)

    def stamp(self, connection: Connection) -> str | None:  # noqa: ARG002
        # A commit that fails here did not take place: there is no wire to lose the answer on.
        return None

    def committed(self, connection: Connection, stamp: str) -> bool:  # noqa: ARG002
        return False


def _begin_to_hold(connection: sqlite3.Connection) -> str:
    """Take the shared locks, which come with the first read and stay; the database's path."""
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    paths = {name: path for _, name, path in connection.execute("PRAGMA database_list").fetchall()}
    return str(paths["main"])


def _set_up_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA journal_size_limit=67108864")


def _set_up_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only=ON")
