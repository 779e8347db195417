"""The transition log (V16): append-only; an event is written in the transaction of its
transition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_APPEND = sa.insert(events).inline()  # inline: nobody needs the generated ids
_RECENT = (
    sa.select(events)
    .where(events.c.worker == sa.bindparam("worker"))
    .order_by(events.c.id.desc())
    .limit(sa.bindparam("limit"))
)


def append(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add events, in order. All rows have the same keys: columns of `events` without `id`."""
    if rows:
        c.execute(_APPEND, rows)


def recent(c: Connection, worker: str, limit: int) -> Sequence[RowMapping]:
    """The last `limit` events of a worker, newest first."""
    return c.execute(_RECENT, {"worker": worker, "limit": limit}).mappings().all()
