"""The rows of the outbox: one delivery is one message to one recipient, pending until it is sent or
given up (D7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from hostler_hub.store.tables import deliveries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, RowMapping

PENDING, SENT, FAILED = "pending", "sent", "failed"

_ID: sa.BindParameter[str] = sa.bindparam("b_id")
_NOW: sa.BindParameter[float] = sa.bindparam("b_now")
_LIMIT: sa.BindParameter[int] = sa.bindparam("b_limit")
_CHANNEL: sa.BindParameter[str] = sa.bindparam("b_channel")
_RECIPIENT: sa.BindParameter[str] = sa.bindparam("b_recipient")
# Spelled out rather than bound: a partial index serves only a condition the planner can read.
_PENDING = deliveries.c.state == sa.literal_column("'pending'")
_TO = sa.and_(deliveries.c.channel == _CHANNEL, deliveries.c.recipient == _RECIPIENT)

_INSERT = sa.insert(deliveries)
_GET = sa.select(deliveries).where(deliveries.c.id == _ID)
_LANES = (
    sa.select(deliveries.c.channel, deliveries.c.recipient)
    .where(_PENDING, deliveries.c.next_at <= _NOW)
    .distinct()
)
_DUE = (
    sa.select(deliveries)
    .where(_PENDING, deliveries.c.next_at <= _NOW, _TO)
    .order_by(deliveries.c.id)
    .limit(_LIMIT)
)
_NEXT_AT = sa.select(sa.func.min(deliveries.c.next_at)).where(_PENDING, deliveries.c.next_at > _NOW)
_UPDATE = sa.update(deliveries).where(deliveries.c.id == _ID, _PENDING)
_SENT_TO = (
    sa.select(deliveries.c.message_id, sa.func.min(deliveries.c.sent_at).label("sent_at"))
    .where(_TO, deliveries.c.sent_at > sa.bindparam("b_since"))
    .group_by(deliveries.c.message_id)
)
_TOLD = sa.select(deliveries).where(
    deliveries.c.incident == sa.bindparam("b_incident"),
    deliveries.c.about == "opened",
    deliveries.c.state == SENT,
)
_RETRY = sa.update(deliveries).where(deliveries.c.id == _ID, deliveries.c.state != SENT)
_UNDELIVERED = (
    sa.select(sa.func.count())
    .select_from(deliveries)
    .where(
        sa.or_(
            deliveries.c.state == FAILED,
            sa.and_(_PENDING, deliveries.c.last_error.is_not(None)),
        )
    )
)


def insert(c: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        c.execute(_INSERT, rows)


def get(c: Connection, delivery_id: str) -> RowMapping | None:
    """One delivery, or None."""
    return c.execute(_GET, {"b_id": delivery_id}).mappings().one_or_none()


def due_lanes(c: Connection, now: float) -> list[tuple[str, str]]:
    """The lanes, as (channel, recipient), with a delivery that is due now."""
    return [(channel, recipient) for channel, recipient in c.execute(_LANES, {"b_now": now})]


def due(c: Connection, lane: tuple[str, str], now: float, limit: int) -> Sequence[RowMapping]:
    """The deliveries to one recipient that are due now, oldest first."""
    bound = {"b_now": now, "b_limit": limit, **_lane(lane)}
    return c.execute(_DUE, bound).mappings().all()


def next_at(c: Connection, now: float) -> float | None:
    """The next instant after ``now`` at which a delivery becomes due, or None."""
    at: float | None = c.execute(_NEXT_AT, {"b_now": now}).scalar_one()
    return at


def update(c: Connection, delivery_id: str, values: dict[str, Any]) -> bool:
    """Set columns of a pending delivery. Returns False if it is no longer pending."""
    return c.execute(_UPDATE, {**values, "b_id": delivery_id}).rowcount == 1


def sent_since(c: Connection, lane: tuple[str, str], since: float) -> list[float]:
    """The instants at which messages were sent to a recipient, oldest first; a digest counts as
    one.
    """
    rows = c.execute(_SENT_TO, {"b_since": since, **_lane(lane)})
    return sorted(sent_at for _, sent_at in rows)


def sent(c: Connection, incident_id: str) -> Sequence[RowMapping]:
    """The deliveries of an incident that were sent and say that it is open."""
    return c.execute(_TOLD, {"b_incident": incident_id}).mappings().all()


def retry(c: Connection, delivery_id: str, now: float, give_up_at: float) -> bool:
    """Make a delivery pending again from now on. Returns False if it is unknown or was sent."""
    values = {"state": PENDING, "next_at": now, "give_up_at": give_up_at}
    return c.execute(_RETRY, {**values, "b_id": delivery_id}).rowcount == 1


def page(
    c: Connection,
    *,
    state: str | None = None,
    incident: str | None = None,
    limit: int,
    after: str | None = None,
) -> Sequence[RowMapping]:
    """Deliveries newest first, at most `limit`; `after` is the id the page before ended with."""
    query = sa.select(deliveries).order_by(deliveries.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if incident is not None:
        query = query.where(deliveries.c.incident == incident)
    if after is not None:
        query = query.where(deliveries.c.id < after)
    return c.execute(query).mappings().all()


def states_of(c: Connection, incident_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """For each incident, how many of its deliveries are in which state."""
    query = (
        sa.select(deliveries.c.incident, deliveries.c.state, sa.func.count())
        .where(deliveries.c.incident.in_(incident_ids))
        .group_by(deliveries.c.incident, deliveries.c.state)
    )
    counts: dict[str, dict[str, int]] = {}
    for incident, state, count in c.execute(query):
        counts.setdefault(incident, {})[state] = count
    return counts


def count_undelivered(c: Connection) -> int:
    """The number of deliveries that were given up, or failed at least once and are still tried."""
    return c.execute(_UNDELIVERED).scalar_one()


def _lane(lane: tuple[str, str]) -> dict[str, str]:
    return {"b_channel": lane[0], "b_recipient": lane[1]}
