"""Copies of a hub's database, and back: by SQLite's online backup, or PostgreSQL's own tools.

Both copies are of one moment, and neither keeps the running hub from writing. The database is
opened in another process than the hub's, through SQLite only: see files.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self
from urllib.parse import quote

import sqlalchemy as sa

from hostler_hub.errors import SettingsError
from hostler_hub.runtime import database_url
from hostler_hub.runtime.settings import Settings
from hostler_hub.store import hold as hold_row
from hostler_hub.store import identity

_ARTIFACTS = "SELECT * FROM artifacts"  # of a database of any version
_META = "SELECT value FROM meta WHERE key = {}"
_HOLD = (
    "INSERT INTO meta (key, value) VALUES ({0}, {0})"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)
_BUSY_S = 60.0
_SAID_BYTES = 2000
_QUERY = frozenset({"host", "port", "sslmode", "sslcert", "sslkey", "sslrootcert", "options"})


class StoredArtifact(NamedTuple):
    """An artifact as the database names it: ``file`` is its place beneath its attempt's."""

    build: str
    attempt: int
    file: str
    sha256: str

    @classmethod
    def all_of(cls, names: Iterable[str], rows: Iterable[Sequence[Any]]) -> list[Self]:
        """Those of rows with columns of these names. Older hubs call the file by its path."""
        columns = list(names)
        named = (dict(zip(columns, row, strict=True)) for row in rows)
        return [
            cls(each["build"], each["attempt"], each.get("file") or each["path"], each["sha256"])
            for each in named
        ]


class Copy(NamedTuple):
    """What a copied database says: the hub's id, and the artifacts that should be there."""

    hub: str
    artifacts: list[StoredArtifact]


class Database(Protocol):
    """A hub's database as a backup sees it. All methods block and raise SettingsError."""

    kind: str
    """`sqlite` or `postgresql`."""

    def copy_to(self, target: Path) -> Copy:
        """Write a copy of one moment."""

    def artifacts(self) -> list[StoredArtifact]:
        """The artifacts that the database names now."""

    def refuse_used(self, hub: str | None) -> None:
        """Raise SettingsError unless a backup can be restored into it: it is empty or, with `hub`,
        holds that hub, as after a restore that was broken off.
        """

    def restore_from(self, source: Path, hub: str, hold: str) -> None:
        """Fill it from a copy and record the hold (P18) in it, before any hub can open it."""


def database_of(settings: Settings) -> Database:
    """The database that the settings name."""
    file = database_url.file_of(settings.database_url)
    if file is not None:
        return SqliteFile(file)
    return PostgresqlServer(sa.make_url(settings.database_url))


class SqliteFile:
    """The database in a file."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path

    def copy_to(self, target: Path) -> Copy:
        try:
            with closing(self._connect()) as ours, closing(sqlite3.connect(target)) as copy:
                ours.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE").fetchall()  # one file, no log beside it
                hub = copy.execute(_META.format("?"), [identity.KEY]).fetchone()
                artifacts = _artifacts(copy.execute(_ARTIFACTS))
        except sqlite3.Error as error:
            raise SettingsError(f"{self._path} cannot be copied: {error}") from error
        return Copy(_id(hub), artifacts)

    def artifacts(self) -> list[StoredArtifact]:
        with closing(self._connect()) as ours:
            return _artifacts(ours.execute(_ARTIFACTS))

    def refuse_used(self, hub: str | None) -> None:
        if hub is None and self._path.exists():
            raise SettingsError(f"there is a database already: {self._path}; move it away first")

    def restore_from(self, source: Path, hub: str, hold: str) -> None:
        del hub
        with closing(sqlite3.connect(source, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous=FULL")
            copy.execute(_HOLD.format("?"), [hold_row.KEY, hold])
        source.chmod(0o600)
        for suffix in ("-wal", "-shm"):  # of a restore that was broken off
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        shutil.move(source, self._path)
        sync_directory(self._path.parent)

    def _connect(self) -> sqlite3.Connection:
        if not self._path.exists():
            raise SettingsError(f"there is no database {self._path}: no hub has run here")
        uri = f"file:{quote(str(self._path))}?mode=rw"
        return sqlite3.connect(uri, uri=True, timeout=_BUSY_S)


class PostgresqlServer:
    """The database on a server: copied by pg_dump and restored by pg_restore."""

    kind = "postgresql"

    def __init__(self, url: sa.URL) -> None:
        self._url = url.set(drivername="postgresql")

    def copy_to(self, target: Path) -> Copy:
        with self._connected() as connection, connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            row = connection.execute("SELECT pg_export_snapshot()").fetchone()
            hub = connection.execute(_META.format("%s"), [identity.KEY]).fetchone()
            artifacts = _artifacts(connection.execute(_ARTIFACTS))
            snapshot = f"--snapshot={row[0]}"
            self._run("pg_dump", "--format=custom", "--no-owner", snapshot, f"--file={target}")
        return Copy(_id(hub), artifacts)

    def artifacts(self) -> list[StoredArtifact]:
        with self._connected() as connection:
            return _artifacts(connection.execute(_ARTIFACTS))

    def refuse_used(self, hub: str | None) -> None:
        found = self._hub()
        if found not in {None, hub}:
            raise SettingsError(
                f"the database holds hub {found} already: name an empty one (createdb NAME)"
            )

    def restore_from(self, source: Path, hub: str, hold: str) -> None:
        if self._hub() != hub:  # else an earlier restore came this far
            self._run("pg_restore", "--no-owner", "--single-transaction", "--exit-on-error", source)
        with self._connected() as connection:
            connection.execute(_HOLD.format("%s"), [hold_row.KEY, hold])
        source.unlink()

    def _hub(self) -> str | None:
        """The id of the hub whose tables the database has; None if it has none."""
        with self._connected() as connection:
            if connection.execute("SELECT to_regclass('meta')").fetchone()[0] is None:
                return None
            row = connection.execute(_META.format("%s"), [identity.KEY]).fetchone()
        return "of nobody" if row is None else str(row[0])

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        import psycopg  # noqa: PLC0415 - not installed where nobody needs it

        try:
            with psycopg.connect(self._url.render_as_string(hide_password=False)) as connection:
                yield connection
        except psycopg.Error as error:
            said = str(error).strip().partition("\n")[0]
            raise SettingsError(f"the database cannot be used: {said}") from error

    def _run(self, program: str, *arguments: str | Path) -> None:
        """Run a tool of PostgreSQL's. The password is in its environment only (V14)."""
        if shutil.which(program) is None:
            raise SettingsError(
                f"{program} is not installed: a PostgreSQL database is copied by the server's own"
                " tools, of its version or a later one (apt-get install postgresql-client)"
            )
        target = [f"--dbname={self._url.database}"]
        done = subprocess.run(
            [program, *target, *arguments],
            env=self._environment(),
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-_SAID_BYTES:].replace("\n", "; ")
            raise SettingsError(f"{program} failed: {said}")

    def _environment(self) -> dict[str, str]:
        url = self._url
        given = {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
        given |= {name: str(value) for name, value in url.query.items() if name in _QUERY}
        named = {f"PG{name.upper()}": str(value) for name, value in given.items() if value}
        return {**os.environ, **named}


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id(row: Any) -> str:
    if row is None:
        raise SettingsError("the database holds no hub: it has never been served")
    return str(row[0])


def _artifacts(cursor: Any) -> list[StoredArtifact]:
    """The artifacts in a DB-API cursor's result."""
    names = [column[0] for column in cursor.description]
    return StoredArtifact.all_of(names, cursor)
