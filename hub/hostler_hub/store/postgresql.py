"""PostgreSQL through psycopg 3: lost sessions, serialization failures, commits of unknown outcome.

There is no pre-ping: both the writer and the readers run a function again when its session turns
out to be gone (D3), which also covers a session that dies between the ping and the function, and
saves a round trip on every read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from hostler_hub.store.descriptors import unavailable
from hostler_hub.store.errors import (
    RowRefused,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from hostler_hub.store.lock import SESSION, AdvisoryLock

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

    from hostler_hub.store.tuning import Tuning

# A server that vanishes without a word is noticed within half a minute, not after two hours.
_CONNECT = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": SESSION,
}
# https://www.postgresql.org/docs/15/errcodes-appendix.html
_RUN_AGAIN = {"40001", "40P01", "55P03"}  # serialization, deadlock, lock not available
_DISK_FULL = "53100"
_READ_ONLY = "25006"  # a standby answered: a failover is going on
_OUTAGES = ("08", "53", "57", "58", "XX")  # connection, resources, intervention, system, internal
_CONSTRAINT = "23"

_STAMP = sa.text("SELECT pg_current_xact_id()::text")
_STATUS = sa.text("SELECT pg_xact_status(CAST(:stamp AS xid8))")


class Postgresql:
    """A PostgreSQL 13 or newer database (`pg_xact_status` settles a commit of unknown outcome)."""

    driver_errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, url: URL, tuning: Tuning) -> None:
        self._url = url
        self._tuning = tuning

    def writer(self) -> Engine:
        return self._engine({}, pool_size=1, max_overflow=0)

    def readers(self) -> Engine:
        size = self._tuning.readers
        pool = {"poolclass": QueuePool, "pool_size": size, "max_overflow": 0}
        options = "-c default_transaction_read_only=on"
        isolation = "REPEATABLE READ"
        return self._engine({"options": options}, isolation_level=isolation, **pool)

    def _engine(self, arguments: dict[str, Any], **engine: Any) -> Engine:
        # The URL's own parameters win over our defaults.
        defaults = {key: value for key, value in _CONNECT.items() if key not in self._url.query}
        return sa.create_engine(self._url, connect_args=defaults | arguments, **engine)

    def lock(self) -> AdvisoryLock:
        return AdvisoryLock(self._url.render_as_string(hide_password=True))

    def check(self) -> None:
        """Do nothing: the server looks after its files."""

    def close(self) -> None:
        """Do nothing: there are no sessions beside the engines' own."""

    def failure(self, error: Exception) -> StoreError:
        cause = getattr(error, "orig", None) or error
        state = getattr(cause, "sqlstate", None)
        text = str(cause).strip()
        if state is None:
            lost = isinstance(cause, psycopg.OperationalError | psycopg.InterfaceError)
            return unavailable(text) if lost else StoreError(text)
        if state in _RUN_AGAIN:
            return StoreBusy(text)
        if state == _DISK_FULL:
            return StoreFull(text)
        if state == _READ_ONLY:
            return StoreReadOnly(text)
        if state.startswith(_OUTAGES):
            return StoreUnavailable(text)
        return RowRefused(text) if state.startswith(_CONSTRAINT) else StoreError(text)

    def run(self, connection: Connection, statement: str) -> None:
        # libpq's blocking call: a third of the time of a cursor's execute, and nobody else uses
        # the writer's connection. (psycopg itself has begun the transaction with the stamp.)
        driver: Any = connection.connection.driver_connection
        result = driver.pgconn.exec_(statement.encode())
        if driver.pgconn.status != psycopg.pq.ConnStatus.OK:
            raise psycopg.OperationalError("the session ended")
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)

    def stamp(self, connection: Connection) -> str | None:
        return str(connection.execute(_STAMP).scalar_one())

    def committed(self, connection: Connection, stamp: str) -> bool:
        status = connection.execute(_STATUS, {"stamp": stamp}).scalar_one()
        if status == "in progress":
            raise StoreUnavailable(f"the server has not yet decided on transaction {stamp}")
        return bool(status == "committed")
