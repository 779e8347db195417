"""Operators' leases that have ended. A row is written in the transaction that ends the lease, and
never changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import past_leases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_APPEND = sa.insert(past_leases)
_GET = sa.select(past_leases).where(past_leases.c.id == sa.bindparam("b_id"))
_RECENT = sa.select(past_leases).order_by(past_leases.c.id.desc()).limit(sa.bindparam("b_limit"))


def append(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add leases that have ended."""
    if rows:
        c.execute(_APPEND, rows)


def get(c: Connection, lease: str) -> RowMapping | None:
    """One lease that has ended, or None."""
    return c.execute(_GET, {"b_id": lease}).mappings().one_or_none()


def recent(
    c: Connection, worker: str | None, holder: str | None, limit: int
) -> Sequence[RowMapping]:
    """The last `limit` leases that have ended, newest first; of one worker or holder, or of all."""
    query = _RECENT
    if worker is not None:
        query = query.where(past_leases.c.worker == worker)
    if holder is not None:
        query = query.where(past_leases.c.lease["holder"].as_string() == holder)
    return c.execute(query, {"b_limit": limit}).mappings().all()
