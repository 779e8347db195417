"""Refused attempts to attach: one row for each name, origin and reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import refusals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_ALL = sa.select(refusals).order_by(refusals.c.last_at)
_INSERT = sa.insert(refusals)
_DELETE = sa.delete(refusals).where(
    refusals.c.name == sa.bindparam("b_name"),
    refusals.c.client == sa.bindparam("b_client"),
    refusals.c.reason == sa.bindparam("b_reason"),
)

Key = tuple[str, str, str]


def load_all(c: Connection) -> Sequence[RowMapping]:
    """Every row, the latest last."""
    return c.execute(_ALL).mappings().all()


def replace(c: Connection, gone: Sequence[Key], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, replacing those with the same name, client and reason, and delete the rows of
    `gone`.
    """
    stale = [*gone, *((row["name"], row["client"], row["reason"]) for row in rows)]
    if stale:
        keys = [{"b_name": name, "b_client": client, "b_reason": r} for name, client, r in stale]
        c.execute(_DELETE, keys)
    if rows:
        c.execute(_INSERT, list(rows))
