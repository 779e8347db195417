"""Artifacts: the files that an attempt of a build gave to the hub, with their sizes and digests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import artifacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_OF_ATTEMPT = sa.and_(
    artifacts.c.build == sa.bindparam("b_build"), artifacts.c.attempt == sa.bindparam("b_attempt")
)
_ONE = sa.and_(_OF_ATTEMPT, artifacts.c.path == sa.bindparam("b_path"))
_INSERT = sa.insert(artifacts)
_DELETE = sa.delete(artifacts).where(_ONE)
_GET = sa.select(artifacts).where(_ONE)
_PAGE = (
    sa.select(artifacts)
    .where(_OF_ATTEMPT, artifacts.c.path > sa.bindparam("b_after"))
    .order_by(artifacts.c.path)
    .limit(sa.bindparam("b_limit"))
)
_FORGET = sa.delete(artifacts).where(
    artifacts.c.build == sa.bindparam("b_build"), artifacts.c.attempt < sa.bindparam("b_attempt")
)


def put(c: Connection, rows: list[dict[str, Any]]) -> None:
    """Add artifacts; one of the same build, attempt and path is replaced."""
    if rows:
        keys = [
            {"b_build": row["build"], "b_attempt": row["attempt"], "b_path": row["path"]}
            for row in rows
        ]
        c.execute(_DELETE, keys)
        c.execute(_INSERT, rows)


def get(c: Connection, build: str, attempt: int, path: str) -> RowMapping | None:
    """One artifact, or None."""
    key = {"b_build": build, "b_attempt": attempt, "b_path": path}
    return c.execute(_GET, key).mappings().one_or_none()


def page(c: Connection, build: str, attempt: int, limit: int, after: str) -> Sequence[RowMapping]:
    """At most ``limit`` artifacts of an attempt, ordered by path, starting after the path
    ``after``.
    """
    wanted = {"b_build": build, "b_attempt": attempt, "b_limit": limit, "b_after": after}
    return c.execute(_PAGE, wanted).mappings().all()


def forget(c: Connection, build: str, before_attempt: int) -> None:
    """Remove the artifacts of a build's earlier attempts."""
    c.execute(_FORGET, {"b_build": build, "b_attempt": before_attempt})
