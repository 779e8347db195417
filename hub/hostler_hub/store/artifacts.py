"""Artifacts: the files that an attempt of a build gave to the hub, with their sizes and digests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import artifacts, builds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

_OF_ATTEMPT = sa.and_(
    artifacts.c.build == sa.bindparam("b_build"), artifacts.c.attempt == sa.bindparam("b_attempt")
)
_ONE = sa.and_(_OF_ATTEMPT, artifacts.c.path == sa.bindparam("b_path"))
_INSERT = sa.insert(artifacts)
_THESE = sa.and_(_OF_ATTEMPT, artifacts.c.path.in_(sa.bindparam("b_paths", expanding=True)))
_REPLACED = sa.select(artifacts.c.path, artifacts.c.file, artifacts.c.size_bytes).where(_THESE)
_DELETE = sa.delete(artifacts).where(_THESE)
_PATHS_AT_ONCE = 1000
_GET = sa.select(artifacts).where(_ONE)
_PAGE = (
    sa.select(artifacts)
    .where(_OF_ATTEMPT, artifacts.c.path > sa.bindparam("b_after"))
    .order_by(artifacts.c.path)
    .limit(sa.bindparam("b_limit"))
)
_EARLIER = sa.and_(
    artifacts.c.build == sa.bindparam("b_build"), artifacts.c.attempt < sa.bindparam("b_attempt")
)
_FORGET = sa.delete(artifacts).where(_EARLIER)
_SIZE = sa.func.coalesce(sa.func.sum(artifacts.c.size_bytes), 0)
_SIZE_OF_EARLIER = sa.select(_SIZE).where(_EARLIER)
_SIZES = (
    sa.select(artifacts.c.build, builds.c.submitted_by, _SIZE.label("size_bytes"))
    .join(builds, builds.c.id == artifacts.c.build)
    .group_by(artifacts.c.build, builds.c.submitted_by)
)
_ABOVE = sa.select(artifacts.c.path).where(_THESE)
# Not by comparison: a database orders texts by its locale.
_BENEATH = sa.select(artifacts.c.path).where(
    _OF_ATTEMPT,
    sa.func.substr(artifacts.c.path, 1, sa.bindparam("b_length")) == sa.bindparam("b_prefix"),
)
_FILES = sa.select(
    artifacts.c.attempt, sa.func.coalesce(artifacts.c.file, artifacts.c.path).label("file")
).where(artifacts.c.build == sa.bindparam("b_build"))


@dataclass(frozen=True, slots=True)
class Replaced:
    """An artifact whose row was replaced: its path, its file (None: as in Artifact), its size."""

    path: str
    file: str | None
    size_bytes: int


def put(c: Connection, rows: list[dict[str, Any]]) -> list[Replaced]:
    """Add artifacts of one attempt; one of the same path is replaced. Returns those."""
    replaced: list[Replaced] = []
    for start in range(0, len(rows), _PATHS_AT_ONCE):
        some = rows[start : start + _PATHS_AT_ONCE]
        these = {
            "b_build": some[0]["build"],
            "b_attempt": some[0]["attempt"],
            "b_paths": [row["path"] for row in some],
        }
        found = [Replaced(*row) for row in c.execute(_REPLACED, these)]
        if found:
            c.execute(_DELETE, these)
        c.execute(_INSERT, some)
        replaced += found
    return replaced


def related(c: Connection, build: str, attempt: int, path: str) -> list[str]:
    """The paths of the attempt's artifacts that are ``path``, one of its directories, or beneath
    it.
    """
    parts = path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    wanted = {"b_build": build, "b_attempt": attempt}
    prefix = f"{path}/"
    beneath = {**wanted, "b_prefix": prefix, "b_length": len(prefix)}
    found = list(c.execute(_ABOVE, {**wanted, "b_paths": above}).scalars())
    return found + list(c.execute(_BENEATH, beneath).scalars())


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


def forget(c: Connection, build: str, before_attempt: int) -> int:
    """Remove the artifacts of a build's earlier attempts. Returns the bytes that they had."""
    earlier = {"b_build": build, "b_attempt": before_attempt}
    size_bytes = int(c.execute(_SIZE_OF_EARLIER, earlier).scalar_one())
    c.execute(_FORGET, earlier)
    return size_bytes


def sizes(c: Connection) -> list[tuple[str, str, int]]:
    """For each build with artifacts its id, who submitted it, and the bytes of its artifacts."""
    return [(row.build, row.submitted_by, int(row.size_bytes)) for row in c.execute(_SIZES)]


def files(c: Connection, build: str) -> set[tuple[int, str]]:
    """The files of a build's artifacts, each with its attempt; an older hub's are their paths."""
    return {(row.attempt, row.file) for row in c.execute(_FILES, {"b_build": build})}
