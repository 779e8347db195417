"""Group definitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_NAMES: sa.BindParameter[str] = sa.bindparam("b_names", expanding=True)

_ALL = sa.select(groups).order_by(groups.c.name)
_DELETE = sa.delete(groups).where(groups.c.name.in_(_NAMES))
_INSERT = sa.insert(groups)


def load_all(c: Connection) -> Sequence[RowMapping]:
    """Every group, by name."""
    return c.execute(_ALL).mappings().all()


def put(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add groups, or replace those of the same names."""
    if rows:
        c.execute(_DELETE, {"b_names": [row["name"] for row in rows]})
        c.execute(_INSERT, rows)


def delete(c: Connection, names: list[str]) -> None:
    """Delete groups; names that do not exist are ignored."""
    if names:
        c.execute(_DELETE, {"b_names": names})
