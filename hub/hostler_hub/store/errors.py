"""What the store can answer instead of a result.

StoreError
├── StaleRow          a compare-and-set matched nothing: somebody else was first; reload the row
├── LogGap            log bytes arrived beyond the durable end; resend from `end`
├── RowRefused        a constraint of the database refused the row (V4, V5, unique names)
├── SchemaTooNew      a newer hub wrote this database (D5); run that hub, or restore a backup
├── SchemaOutdated    the database lacks this version's migrations; start the hub once
├── StoreHeld         another hub holds this database (P18)
├── StoreClosed       asked after aclose()
└── StoreUnavailable  the database, not the caller, is at fault (V12); asking again may help
    ├── StoreBusy     locked by another process, or chosen as a deadlock's victim
    ├── StoreExhausted the hub has no file descriptors left to open the database with
    ├── StoreFull     no space left (D2)
    ├── StoreLost     another program deleted or replaced the database's files (V22)
    └── StoreReadOnly written to by a read, or on a standby, or a volume mounted so
"""

from __future__ import annotations

from typing import ClassVar

from hostler_hub.errors import Outage


class StoreError(Exception):
    """Whatever the store refuses or fails at."""


class StaleRow(StoreError):
    """The row is not in the state the caller expected, or is gone."""

    def __init__(self, table: str, key: str, expected: str) -> None:
        super().__init__(f"{table} {key} is no longer {expected}")
        self.table = table
        self.key = key


class LogGap(StoreError):
    """Bytes at `offset` cannot be stored: the log ends at `end`."""

    def __init__(self, offset: int, end: int) -> None:
        super().__init__(f"log bytes at offset {offset} leave a gap: the log ends at {end}")
        self.offset = offset
        self.end = end


class RowRefused(StoreError):
    """A unique, foreign-key or not-null constraint refused the row."""


class SchemaTooNew(StoreError):
    """The database's schema is newer than this version of the hub."""


class SchemaOutdated(StoreError):
    """The database's schema is older than this version of the hub and was not upgraded."""


class StoreHeld(StoreError):
    """Another hub has this database open; `holder` says which."""

    def __init__(self, database: str, holder: str) -> None:
        super().__init__(f"another hub holds {database}: {holder}")
        self.holder = holder


class StoreClosed(StoreError):
    """The store was used after aclose()."""


class StoreUnavailable(StoreError, Outage):
    """The database cannot be reached or used now.

    `summary` says what is wrong without a path, host or user: anybody may read it.
    """

    summary: ClassVar[str] = "the database does not answer"


class StoreBusy(StoreUnavailable):
    """The database is locked, or asks for the transaction to be run again."""

    summary = "the database is locked by another process"


class StoreExhausted(StoreUnavailable):
    """The process, or the system, has no file descriptors left."""

    summary = "the hub has no file descriptors left"


class StoreFull(StoreUnavailable):
    """The database has no space left."""

    summary = "there is no space left for the database"


class StoreLost(StoreUnavailable):
    """Another program deleted or replaced a file of the database: what is written now would not be
    found again. It stays so until the store is opened anew.
    """

    summary = "the database's files were deleted or replaced by another program"


class StoreReadOnly(StoreUnavailable):
    """The session, the server or the file takes no writes."""

    summary = "the database takes no writes"
