"""The contract between the store and its two databases, implemented in sqlite.py and
postgresql.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from hostler_hub.runtime import database_url
from hostler_hub.store.tuning import Tuning

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from hostler_hub.store.errors import StoreError
    from hostler_hub.store.lock import HubLock


class Backend(Protocol):
    """One kind of database. Called from the store's threads only."""

    driver_errors: tuple[type[Exception], ...]
    """What the driver raises where SQLAlchemy does not wrap it."""

    def writer(self) -> Engine:
        """An engine for the one connection that writes; every transaction of it takes the write
        lock.
        """

    def readers(self) -> Engine:
        """A pooled engine whose transactions read one snapshot and cannot write."""

    def lock(self) -> HubLock:
        """The lock that admits one hub per database (P18), not yet taken."""

    def check(self) -> None:
        """Raise StoreLost if what is written now would not be found again under the URL. Cheap:
        the writer calls it before each transaction and after each commit. From any thread.
        """

    def close(self) -> None:
        """Release the database after both engines are disposed of. A second call does nothing."""

    def failure(self, error: Exception) -> StoreError:
        """Translate a driver's error, wrapped by SQLAlchemy or not, into a StoreError."""

    def run(self, connection: Connection, statement: str) -> None:
        """Run a plain statement directly in the driver. A group of writes needs two or three per
        function, and SQLAlchemy's overhead counts there.
        """

    def stamp(self, connection: Connection) -> str | None:
        """The first statement of a transaction. Returns the transaction's id for `committed` (D4);
        None where a commit's answer cannot be lost.
        """

    def committed(self, connection: Connection, stamp: str) -> bool:
        """Whether the transaction with that id was committed. Raises StoreUnavailable while it is
        undecided.
        """


def backend_for(url: str, tuning: Tuning) -> Backend:
    """The backend of a database URL: `sqlite:///PATH` or `postgresql+psycopg://...`."""
    # Imported here so that neither database's driver is loaded for the other.
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        from hostler_hub.store.sqlite import Sqlite  # noqa: PLC0415

        file = database_url.file_of(url)
        if file is None:
            raise ValueError("the store needs a database file: sqlite:///PATH")
        return Sqlite(file, tuning)
    if parsed.get_backend_name() == "postgresql":
        from hostler_hub.store.postgresql import Postgresql  # noqa: PLC0415

        return Postgresql(parsed.set(drivername="postgresql+psycopg"), tuning)
    raise ValueError(f"the store runs on sqlite or postgresql, not {parsed.get_backend_name()!r}")
