"""The use cases on incidents and their deliveries: read, close, add evidence, retry, test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog
from sqlalchemy import Connection, RowMapping

from hostler_hub.errors import Conflict, NotFound
from hostler_hub.runtime.clock import Clock
from hostler_hub.store import deliveries
from hostler_hub.store import incidents as rows
from hostler_hub.store.engine import Store
from hostler_hub.workers.incident_views import (
    DeliveryPage,
    DeliveryView,
    IncidentCounts,
    IncidentDetail,
    IncidentPage,
    IncidentView,
    delivery_view,
    incident_detail,
    incident_view,
)
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
    """Reads and changes incidents and deliveries.

    ``defaults`` are the recipients in the hub's own settings. ``on_news`` is called when the outbox
    may have something to send.
    """

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

    async def page(self, where: rows.Filter, *, limit: int, after: str | None) -> IncidentPage:
        """Incidents, newest first; ``next`` is the ``after`` of the next page, or None."""
        found = await self._store.read(_read_page, where, limit, after)
        return IncidentPage(items=found[:limit], next=_next(found, limit))

    async def get(self, id: str) -> IncidentDetail:
        """One incident with its deliveries. Raises NotFound."""
        row, told = await self._store.read(_read_one, id)
        if row is None:
            raise NotFound(f"there is no incident {id}")
        return incident_detail(row, told)

    async def close(self, id: str, *, reason: str | None, by: str) -> IncidentDetail:
        """Close an incident by a person's order; one that is closed already stays as it is.

        Raises NotFound.
        """
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
    ) -> IncidentDetail:
        """Add texts, by name, to an incident's evidence.

        With ``tell``, the recipients who were told of the incident are told of a change. Raises
        NotFound, and Conflict for names that only the hub may use and for more than EVIDENCE_TEXTS.
        """
        now = self._clock.now()
        if await self._store.write(_note, id, dict(evidence), now if tell else None):
            _log.info("evidence noted", incident=id, by=by, names=sorted(evidence))
            self._on_news()
        return await self.get(id)

    async def counts(self) -> IncidentCounts:
        """Count the open incidents, and the deliveries that were given up or failed so far."""
        return await self._store.read(_counts)

    async def deliveries(
        self, *, state: str | None, incident: str | None, limit: int, after: str | None
    ) -> DeliveryPage:
        """Deliveries, newest first; ``next`` is the ``after`` of the next page, or None."""
        found = await self._store.read(
            deliveries.page, state=state, incident=incident, limit=limit + 1, after=after
        )
        views = [delivery_view(row) for row in found]
        return DeliveryPage(items=views[:limit], next=_next(views, limit))

    async def delivery(self, id: str) -> DeliveryView:
        """One delivery. Raises NotFound."""
        row = await self._store.read(deliveries.get, id)
        if row is None:
            raise NotFound(f"there is no delivery {id}")
        return delivery_view(row)

    async def retry(self, id: str) -> DeliveryView:
        """Make a delivery due at once that is pending or was given up.

        Raises NotFound, and Conflict for one that was sent.
        """
        now = self._clock.now()
        row = await self._store.write(_retry, id, now)
        self._on_news()
        return delivery_view(row)

    async def test(self) -> list[DeliveryView]:
        """Queue a test message to each recipient in the hub's own settings.

        Raises Conflict if there is none.
        """
        now = self._clock.now()
        made = [delivery("test", each, now, None) for each in self._defaults]
        if not made:
            raise Conflict("nobody is told of incidents: set notify_mail or notify_webhooks")
        await self._store.write(deliveries.insert, made)
        self._on_news()
        return [delivery_view(row) for row in made]


def _next(views: Sequence[IncidentView | DeliveryView], limit: int) -> str | None:
    """The id that the next page begins after, or None on the last page.

    ``views`` were read with a limit of one more.
    """
    return views[limit - 1].id if len(views) > limit else None


def _read_page(
    c: Connection, where: rows.Filter, limit: int, after: str | None
) -> list[IncidentView]:
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


def _counts(c: Connection) -> IncidentCounts:
    return IncidentCounts(open=rows.count_open(c), undelivered=deliveries.count_undelivered(c))


def _retry(c: Connection, id: str, now: float) -> RowMapping:
    done = deliveries.retry(c, id, now, now + GIVE_UP_S)
    row = deliveries.get(c, id)
    if row is None:
        raise NotFound(f"there is no delivery {id}")
    if not done:
        raise Conflict("it was sent already")
    return row
