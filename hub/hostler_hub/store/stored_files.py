"""Who has stored which files for builds to download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import stored_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

_ONE = sa.and_(
    stored_files.c.sha256 == sa.bindparam("b_sha256"),
    stored_files.c.stored_by == sa.bindparam("b_stored_by"),
)
_IS_THERE = sa.select(sa.literal(1)).where(_ONE)
_INSERT = sa.insert(stored_files)
_DELETE = sa.delete(stored_files).where(_ONE)
_ALL = sa.select(stored_files.c.sha256, stored_files.c.stored_by, stored_files.c.size_bytes)


def put(c: Connection, row: dict[str, Any]) -> bool:
    """Note that somebody has stored a file. Returns False if they had done so before."""
    one = {"b_sha256": row["sha256"], "b_stored_by": row["stored_by"]}
    if c.execute(_IS_THERE, one).first() is not None:
        return False
    c.execute(_INSERT, row)
    return True


def put_all(c: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Note files that nobody has noted."""
    if rows:
        c.execute(_INSERT, list(rows))


def remove(c: Connection, files: Sequence[tuple[str, str]]) -> None:
    """Forget files, given by sha256 and who stored them."""
    if files:
        keys = [{"b_sha256": sha256, "b_stored_by": by} for sha256, by in files]
        c.execute(_DELETE, keys)


def everything(c: Connection) -> list[tuple[str, str, int]]:
    """The sha256 of each file, who stored it, and its size in bytes."""
    return [(row.sha256, row.stored_by, int(row.size_bytes)) for row in c.execute(_ALL)]
