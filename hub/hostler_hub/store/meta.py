"""Single values: the hub's identity, its incarnation, and flags of work that is done once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from hostler_hub.store.tables import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection

_GET = sa.select(meta.c.value).where(meta.c.key == sa.bindparam("key"))
_PUT = sa.text(
    "INSERT INTO meta (key, value) VALUES (:key, :value)"
    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)

_DELETE = sa.delete(meta).where(meta.c.key == sa.bindparam("key"))


def get(c: Connection, key: str) -> str | None:
    """The value under `key`, or None."""
    return c.execute(_GET, {"key": key}).scalar_one_or_none()


def delete(c: Connection, key: str) -> None:
    """Remove `key`, whether or not it is set."""
    c.execute(_DELETE, {"key": key})


def put(c: Connection, key: str, value: str) -> None:
    """Set `key`, whether or not it was set before."""
    c.execute(_PUT, {"key": key, "value": value})
