"""The use cases on incidents and their deliveries: look at them, close, try again, test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from hostler_hub.errors import Conflict, NotFound
from hostler_hub.runtime.clock import Clock, instant
from hostler_hub.store import deliveries
from hostler_hub.store import incidents as rows
from hostler_hub.store.engine import Store
from hostler_hub.store.rows import Row
from hostler_hub.workers.incidents import (
    GIVE_UP_S,
    OWN_EVIDENCE,
    Recipient,
    delivery,
    tell_evidence,
    tell_recovery,
)
from hostler_hub.workers.registry import Registry

_log = structlog.get_logger(__name__)

EVIDENCE_TEXTS = 32


class Incidents:
    """Answers about incidents. ``on_news``: the outbox has something to send."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        defaults: Sequence[Recipient],
        on_news: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._defaults = defaults
        self._on_news = on_news

    async def page(self, where: rows.Filter, *, limit: int, after: str | None) -> dict[str, Any]:
        """Incidents, newest first; ``next`` is the ``after`` of the next page, or None."""
        return _page(await self._store.read(_read_page, where, limit, after), limit)

    async def get(self, id: str) -> dict[str, Any]:
        """One incident with its deliveries. Raises NotFound."""
        row, told = await self._store.read(_read_one, id)
        if row is None:
            raise NotFound(f"there is no incident {id}")
        return incident_view(row, _count(told)) | {"deliveries": [delivery_view(d) for d in told]}

    async def close(self, id: str, *, reason: str | None, by: str) -> dict[str, Any]:
        """A person says that it is over. One that is over already stays as it ended."""
        now = self._clock.now()
        why = f"closed by {by}" + (f": {reason}" if reason else "")
        row = await self._store.write(_close, id, now, why)
        if row is None:
            raise NotFound(f"there is no incident {id}")
        entry = self._registry.find(row["worker"])
        if entry is not None and entry.incidents.get(row["kind"]) == id:
            del entry.incidents[row["kind"]]
        self._on_news()
        return await self.get(id)

    async def note(
        self, id: str, evidence: Mapping[str, str], *, tell: bool, by: str
    ) -> dict[str, Any]:
        """Add texts to an incident's evidence, and let those know who know of it.

        What is there already changes nothing. Raises NotFound, and Conflict for what only the hub
        may say and for more than an incident can hold.
        """
        now = self._clock.now()
        if await self._store.write(_note, id, dict(evidence), now if tell else None):
            _log.info("evidence noted", incident=id, by=by, names=sorted(evidence))
            self._on_news()
        return await self.get(id)

    async def counts(self) -> dict[str, int]:
        """How many incidents are open, and how many messages do not get through."""
        return await self._store.read(_counts)

    async def deliveries(
        self, *, state: str | None, incident: str | None, limit: int, after: str | None
    ) -> dict[str, Any]:
        """Deliveries, newest first; ``next`` is the ``after`` of the next page, or None."""
        found = await self._store.read(
            deliveries.page, state=state, incident=incident, limit=limit + 1, after=after
        )
        return _page([delivery_view(row) for row in found], limit)

    async def delivery(self, id: str) -> dict[str, Any]:
        """One delivery. Raises NotFound."""
        row = await self._store.read(deliveries.get, id)
        if row is None:
            raise NotFound(f"there is no delivery {id}")
        return delivery_view(row)

    async def retry(self, id: str) -> dict[str, Any]:
        """Send a delivery at once that waits or was given up. Raises NotFound, Conflict."""
        now = self._clock.now()
        row = await self._store.write(_retry, id, now)
        self._on_news()
        return delivery_view(row)

    async def test(self) -> list[dict[str, Any]]:
        """A message to every recipient of the hub's own settings; Conflict where there is none."""
        now = self._clock.now()
        made = [delivery("test", each, now, None) for each in self._defaults]
        if not made:
            raise Conflict("nobody is told of incidents: set notify_mail or notify_webhooks")
        await self._store.write(deliveries.insert, made)
        self._on_news()
        return [delivery_view(row) for row in made]


def incident_view(row: Row, states: Mapping[str, int]) -> dict[str, Any]:
    """One incident; ``states`` counts its deliveries."""
    return {
        "id": row["id"],
        "worker": row["worker"],
        "kind": row["kind"],
        "instance": row["instance"],
        "open": row["closed_at"] is None,
        "opened_at": instant(row["opened_at"]),
        "closed_at": instant(row["closed_at"]),
        "reason": row["reason"],
        "close_reason": row["close_reason"],
        "evidence": row["evidence"],
        "notification": _notification(states),
    }


def delivery_view(row: Row) -> dict[str, Any]:
    """One delivery."""
    pending = row["state"] == deliveries.PENDING
    return {
        "id": row["id"],
        "incident": row["incident"],
        "about": row["about"],
        "channel": row["channel"],
        "recipient": row["recipient"],
        "state": row["state"],
        "attempts": row["attempts"],
        "held": row["held"],
        "created_at": instant(row["created_at"]),
        "next_at": instant(row["next_at"]) if pending else None,
        "give_up_at": instant(row["give_up_at"]) if pending else None,
        "sent_at": instant(row["sent_at"]),
        "message_id": row["message_id"],
        "last_error": row["last_error"],
    }


def _notification(states: Mapping[str, int]) -> str:
    """none where nobody was to be told; failed as soon as somebody was given up (V16)."""
    for state in (deliveries.FAILED, deliveries.PENDING, deliveries.SENT):
        if states.get(state):
            return state
    return "none"


def _count(told: Sequence[RowMapping]) -> dict[str, int]:
    states = [row["state"] for row in told]
    return {state: states.count(state) for state in set(states)}


def _page(views: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Of views read with one more than the limit."""
    full = len(views) > limit
    return {"items": views[:limit], "next": views[limit - 1]["id"] if full else None}


def _read_page(
    c: Connection, where: rows.Filter, limit: int, after: str | None
) -> list[dict[str, Any]]:
    found = rows.page(c, where, limit=limit + 1, after=after)
    states = deliveries.states_of(c, [row["id"] for row in found])
    return [incident_view(row, states.get(row["id"], {})) for row in found]


def _read_one(c: Connection, id: str) -> tuple[RowMapping | None, Sequence[RowMapping]]:
    return rows.get(c, id), deliveries.page(c, incident=id, limit=500)


def _close(c: Connection, id: str, now: float, why: str) -> RowMapping | None:
    if rows.close(c, id, now, why):
        tell_recovery(c, id, now)
    return rows.get(c, id)


def _note(c: Connection, id: str, texts: dict[str, str], tell_at: float | None) -> bool:
    row = rows.get(c, id)
    if row is None:
        raise NotFound(f"there is no incident {id}")
    own = sorted(OWN_EVIDENCE & set(texts))
    if own:
        raise Conflict(f"{', '.join(own)}: this the hub itself says", pointer="/evidence")
    evidence = {**row["evidence"], **texts}
    if len(evidence) > EVIDENCE_TEXTS:
        raise Conflict(
            f"an incident holds {EVIDENCE_TEXTS} pieces of evidence", pointer="/evidence"
        )
    if evidence == row["evidence"]:
        return False
    rows.set_evidence(c, id, evidence)
    if tell_at is not None:
        tell_evidence(c, id, tell_at)
    return True


def _counts(c: Connection) -> dict[str, int]:
    return {"open": rows.count_open(c), "undelivered": deliveries.count_undelivered(c)}


def _retry(c: Connection, id: str, now: float) -> RowMapping:
    done = deliveries.retry(c, id, now, now + GIVE_UP_S)
    row = deliveries.get(c, id)
    if row is None:
        raise NotFound(f"there is no delivery {id}")
    if not done:
        raise Conflict("it was sent already")
    return row
