"""Incidents: an incident is opened and closed in the transaction of the transition that causes it
(V16).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import incidents

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection, RowMapping

_ID: sa.BindParameter[str] = sa.bindparam("b_id")
_STILL_OPEN = incidents.c.closed_at.is_(None)

_INSERT = sa.insert(incidents)
_CLOSE = sa.update(incidents).where(incidents.c.id == _ID, _STILL_OPEN)
_EVIDENCE = sa.update(incidents).where(incidents.c.id == _ID)
_GET = sa.select(incidents).where(incidents.c.id == _ID)
_OPEN = sa.select(incidents).where(_STILL_OPEN).order_by(incidents.c.id)
_COUNT_OPEN = sa.select(sa.func.count()).select_from(incidents).where(_STILL_OPEN)


@dataclass(frozen=True, slots=True)
class Filter:
    """Selects incidents; a field that is None selects any."""

    open: bool | None = None
    worker: str | None = None
    kind: str | None = None


def insert(c: Connection, row: dict[str, Any]) -> None:
    """Open an incident. Raises RowRefused if one of this kind is open for the worker."""
    c.execute(_INSERT, row)


def close(c: Connection, incident_id: str, at: float, reason: str) -> bool:
    """Close an incident. Returns False if it was closed before."""
    closed = {"b_id": incident_id, "closed_at": at, "close_reason": reason}
    return c.execute(_CLOSE, closed).rowcount == 1


def set_evidence(c: Connection, incident_id: str, evidence: dict[str, Any]) -> None:
    """Replace the evidence of an incident."""
    c.execute(_EVIDENCE, {"b_id": incident_id, "evidence": evidence})


def get(c: Connection, incident_id: str) -> RowMapping | None:
    """One incident, or None."""
    return c.execute(_GET, {"b_id": incident_id}).mappings().one_or_none()


def by_ids(c: Connection, ids: Iterable[str]) -> dict[str, RowMapping]:
    """The incidents with these ids, by id; ids that do not exist are left out."""
    query = sa.select(incidents).where(incidents.c.id.in_(list(ids)))
    return {row["id"]: row for row in c.execute(query).mappings()}


def load_open(c: Connection) -> Sequence[RowMapping]:
    """Every open incident, oldest first."""
    return c.execute(_OPEN).mappings().all()


def count_open(c: Connection) -> int:
    return c.execute(_COUNT_OPEN).scalar_one()


def page(
    c: Connection, where: Filter, *, limit: int, after: str | None = None
) -> Sequence[RowMapping]:
    """Incidents newest first, at most `limit`; `after` is the id the page before ended with."""
    query = sa.select(incidents).order_by(incidents.c.id.desc()).limit(limit)
    if where.open is not None:
        query = query.where(_STILL_OPEN if where.open else sa.not_(_STILL_OPEN))
    if where.worker is not None:
        query = query.where(incidents.c.worker == where.worker)
    if where.kind is not None:
        query = query.where(incidents.c.kind == where.kind)
    if after is not None:
        query = query.where(incidents.c.id < after)
    return c.execute(query).mappings().all()
