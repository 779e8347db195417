"""API tokens: found by their public lookup id, compared by hash; the secret is never stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_INSERT = sa.insert(tokens)
_BY_LOOKUP = sa.select(tokens).where(tokens.c.lookup == sa.bindparam("lookup"))
_ALL = sa.select(tokens).order_by(tokens.c.name)
_DELETE = sa.delete(tokens).where(tokens.c.name == sa.bindparam("name"))


def insert(c: Connection, row: dict[str, Any]) -> None:
    """Add a token. Raises RowRefused if its name or lookup id is taken."""
    c.execute(_INSERT, row)


def by_lookup(c: Connection, lookup: str) -> RowMapping | None:
    """The token with this public lookup id, expired or not, or None."""
    return c.execute(_BY_LOOKUP, {"lookup": lookup}).mappings().one_or_none()


def list_all(c: Connection) -> Sequence[RowMapping]:
    """Every token, by name."""
    return c.execute(_ALL).mappings().all()


def delete(c: Connection, name: str) -> bool:
    """Revoke a token. Returns False if there is no token of that name."""
    return c.execute(_DELETE, {"name": name}).rowcount == 1
