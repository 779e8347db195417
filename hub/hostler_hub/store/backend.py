"""What differs between the two databases, behind one contract: see sqlite.py and postgresql.py."""

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
        """An engine for the one writing connection; its transactions begin as writers."""

    def readers(self) -> Engine:
        """A pooled engine whose transactions read one snapshot and cannot write."""

    def lock(self) -> HubLock:
        """The one-hub-per-database lock, not yet taken (P18)."""

    def check(self) -> None:
        """Raise StoreLost if what is written now would not be found again under the URL. Cheap:
        the writer calls it before each transaction and after each commit. From any thread.
        """

    def close(self) -> None:
        """Let go of the database, when both engines are disposed of. Twice is fine."""

    def failure(self, error: Exception) -> StoreError:
        """What a driver's error means, whether SQLAlchemy wrapped it or not."""

    def run(self, connection: Connection, statement: str) -> None:
        """Run a plain statement straight in the driver: a group needs two or three per function,
        and they need none of SQLAlchemy's care.
        """

    def stamp(self, connection: Connection) -> str | None:
        """The first statement of a transaction: its mark, for `committed` to find it by (D4)."""

    def committed(self, connection: Connection, stamp: str) -> bool:
        """Whether the transaction of that mark took place; StoreUnavailable while undecided."""


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
