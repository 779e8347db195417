"""The decision log: each decision is written in the transaction of the transition that it explains.
Old decisions are pruned by age and number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import decisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_APPEND = sa.insert(decisions).inline()  # inline: nobody needs the generated ids
_NEWEST = sa.select(sa.func.max(decisions.c.id))
_PRUNE = sa.delete(decisions).where(
    sa.or_(decisions.c.id <= sa.bindparam("b_last"), decisions.c.at < sa.bindparam("b_before"))
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects decisions; a field that is None selects any. ``since`` is an instant, inclusive."""

    worker: str | None = None
    build: str | None = None
    group: str | None = None
    kind: str | None = None
    since: float | None = None


def append(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add decisions, in order. All rows have the same keys: columns of `decisions` without `id`."""
    if rows:
        c.execute(_APPEND, rows)


def page(c: Connection, where: Filter, limit: int, after: int | None) -> Sequence[RowMapping]:
    """Decisions newest first; ``after`` is the id of the last one of the page before."""
    query = sa.select(decisions).order_by(decisions.c.id.desc()).limit(limit)
    for name in ("worker", "build", "group", "kind"):
        if (wanted := getattr(where, name)) is not None:
            query = query.where(decisions.c[name] == wanted)
    if where.since is not None:
        query = query.where(decisions.c.at >= where.since)
    if after is not None:
        query = query.where(decisions.c.id < after)
    return c.execute(query).mappings().all()


def last_of_groups(c: Connection, kind: str) -> Sequence[RowMapping]:
    """The newest decision of a kind for each group."""
    newest = (
        sa.select(sa.func.max(decisions.c.id))
        .where(decisions.c.kind == kind, decisions.c.group.is_not(None))
        .group_by(decisions.c.group)
    )
    return c.execute(sa.select(decisions).where(decisions.c.id.in_(newest))).mappings().all()


def prune(c: Connection, *, before: float, rows: int) -> int:
    """Delete decisions made before an instant, and all but the newest ``rows``. Returns how
    many.
    """
    newest = c.execute(_NEWEST).scalar_one() or 0
    return c.execute(_PRUNE, {"b_last": newest - rows, "b_before": before}).rowcount
