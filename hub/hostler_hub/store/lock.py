"""The lock that admits one hub per database (P18).

The lock is taken on the writer's own connection, each time it connects. So whoever writes holds it,
and a hub that lost its session cannot write again before it has the lock again.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from hostler_hub.runtime import private_files
from hostler_hub.store.errors import StoreHeld, StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

SESSION = f"hostler-hub {socket.gethostname()[:24]} {os.getpid()} {secrets.token_hex(4)}"
"""What this process's sessions call themselves in PostgreSQL (63 bytes at most)."""

_KEY = 0x486F73746C6572  # "Hostler": advisory locks are numbered, and the number is ours to choose
_TRY = sa.text("SELECT pg_try_advisory_lock(:key)").bindparams(key=_KEY)
_HOLDER = sa.text(
    "SELECT a.pid, a.application_name, coalesce(host(a.client_addr), 'this machine') AS address,"
    " to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS since"
    " FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND CAST(l.classid AS bigint) = :high AND CAST(l.objid AS bigint) = :low"
).bindparams(high=_KEY >> 32, low=_KEY & 0xFFFFFFFF)
_END_SESSION = sa.text("SELECT pg_terminate_backend(:pid)")


class HubLock(Protocol):
    """The writer takes it at each connect; it is released when the store closes or the process
    dies.
    """

    def take(self, connection: Connection) -> None:
        """Take or confirm the lock. Raises StoreHeld, which names the other hub."""

    def release(self) -> None:
        """Release the lock. A second call does nothing."""


class FileLock:
    """flock on `<database>.lock` beside an SQLite file; the kernel frees it when a process dies.

    The file stays: removing it would let two hubs lock two different files of one name.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._descriptor: int | None = None

    def take(self, connection: Connection | None = None) -> None:  # noqa: ARG002
        if self._descriptor is not None:
            return
        descriptor = private_files.open_or_create(self._path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _described(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise StoreHeld(str(self._database), holder) from error
        holding = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now_text()}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holding).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class AdvisoryLock:
    """A session-level advisory lock; PostgreSQL frees it with the session."""

    def __init__(self, database: str) -> None:
        self._database = database

    def take(self, connection: Connection) -> None:
        if connection.execute(_TRY).scalar_one():
            return
        holder = connection.execute(_HOLDER).mappings().first()
        if holder is None:
            raise StoreUnavailable(f"the lock on {self._database} is just changing hands")
        if holder["application_name"] == SESSION:
            # Our own session from before the connection broke: the server has not noticed yet.
            connection.execute(_END_SESSION, {"pid": holder["pid"]})
            raise StoreUnavailable(f"waiting for our old session on {self._database} to end")
        described = "{application_name} (session {pid} from {address}, since {since})"
        raise StoreHeld(self._database, described.format(**holder))

    def release(self) -> None:
        """Do nothing: the lock is released when the writer's connection closes."""


def _now_text() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _described(content: bytes) -> str:
    """A description of the process that wrote the lock file, which is empty for an instant between
    locking and writing.
    """
    try:
        holding = json.loads(content)
        return f"process {holding['pid']} on {holding['host']}, since {holding['since']}"
    except (ValueError, KeyError, TypeError):
        return "a hub that is just starting"
