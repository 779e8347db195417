"""SQLite: one file, WAL, every write transaction begun as a writer (D1), every commit synced (D6).

The driver's own transaction handling is switched off (`isolation_level=None`), because it begins
late and deferred: a deferred transaction that turns into a writer fails at once when another
process holds the lock, whatever the busy timeout says.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from hostler_hub.store.errors import (
    RowRefused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from hostler_hub.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection, Engine

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

    def __init__(self, url: URL, tuning: Tuning) -> None:
        if not url.database or url.database == ":memory:":
            raise ValueError("the store needs a database file: sqlite:///PATH")
        self.path = Path(url.database)
        self._url = url
        self._tuning = tuning

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
        def make_private(*_arguments: object) -> None:
            _make_private(self.path)

        @sa.event.listens_for(engine, "connect")
        def connected(connection: sqlite3.Connection, _record: object) -> None:
            set_up(connection)

        @sa.event.listens_for(engine, "begin")
        def began(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

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
            return StoreUnavailable(f"{self.path}: {cause}")
        if code == sqlite3.SQLITE_CONSTRAINT:
            return RowRefused(str(cause))
        return StoreError(f"{self.path}: {cause}")

    def run(self, connection: Connection, statement: str) -> None:
        driver: Any = connection.connection.driver_connection
        driver.execute(statement)

    def stamp(self, connection: Connection) -> str | None:  # noqa: ARG002
        # A commit that fails here did not take place: there is no wire to lose the answer on.
        return None

    def committed(self, connection: Connection, stamp: str) -> bool:  # noqa: ARG002
        return False


def _make_private(path: Path) -> None:
    """Make the file before SQLite does; its WAL and its index take over this mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def _set_up_writer(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA journal_size_limit=67108864")


def _set_up_reader(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA query_only=ON")
