"""The outbox: a message is in the store until it is sent or visibly given up (D7).

Theory of operation. Each recipient on a channel is a lane of its own, so that a dead server or a
slow webhook delays nobody else. A lane's due messages are sent one after the other. One that fails
is sent again after 30 s, doubling to an hour, and is given up after 48 hours. A message is recorded
as sent after it was handed over: a hub that dies in between sends it again with the same id (at
least once).

A person gets a limited number of mails per hour; further ones wait until the limit allows one more,
and are sent as one digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection, RowMapping

from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.notify.errors import NotSent
from hostler_hub.notify.message import Channel, Message, Notice
from hostler_hub.runtime.clock import Clock, Timer
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.store import deliveries, incidents
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.store.health import Use
from hostler_hub.store.rows import Row
from hostler_hub.workers.incident_views import incident_view
from hostler_hub.workers.incidents import Recipient, delivery

_log = structlog.get_logger(__name__)

RESEND = Backoff(first_s=30.0, longest_s=3600.0)
HOUR_S = 3600.0
_AT_ONCE = 4  # lanes: a hundred dead recipients open no hundred connections
_BATCH = 200
_STORE_RETRY_S = 30.0

Lane = tuple[str, str]


class Outbox:
    """Sends pending messages for as long as the hub runs."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        channels: Mapping[str, Channel],
        *,
        mails_per_hour: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._channels = channels
        self._caps = {"mail": mails_per_hour}
        self._woken = asyncio.Event()
        self._woken.set()
        self._timer: Timer | None = None
        self._tasks = Tasks()
        self._busy: set[Lane] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Send due deliveries until cancelled: start the lanes that are due, then sleep until the
        next is due or wake() is called.
        """
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.start_due_lanes()
            except StoreUnavailable:  # logged by the store
                self._wake_at(self._clock.now() + _STORE_RETRY_S)
            except Exception as error:  # noqa: BLE001 - one bad look must not end notifications
                _log.error("outbox failed", exc_info=error)
                self._wake_at(self._clock.now() + _STORE_RETRY_S)

    async def aclose(self) -> None:
        """Cancel what is being sent; the next hub sends it again."""
        if self._timer is not None:
            self._timer.cancel()
        await self._tasks.aclose()

    async def settle(self, deadline_s: float) -> bool:
        """Wait until nothing is being sent. Returns False if the deadline passed first."""
        return await self._tasks.settle(deadline_s)

    async def start_due_lanes(self) -> None:
        """Start sending in every lane with a delivery that is due.

        Nothing is sent while the store takes no writes: what cannot be noted as sent would be sent
        again and again.
        """
        if self._store.health.is_failing(Use.WRITE):
            self._wake_at(self._clock.now() + _STORE_RETRY_S)
            return
        lanes, next_at = await self._store.read(_due_lanes, self._clock.now())
        if next_at is not None:
            self._wake_at(next_at)
        for lane in lanes:
            if lane not in self._busy:
                self._busy.add(lane)
                self._tasks.spawn(self._serve(lane), f"notify {lane[0]} {lane[1]}")

    def _wake_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(at, self.wake)

    async def _serve(self, lane: Lane) -> None:
        try:
            async with self._slots:
                await self._send_due(lane)
        except StoreUnavailable:  # logged by the store
            self._clock.call_at(self._clock.now() + _STORE_RETRY_S, self.wake)
        except Exception as error:  # noqa: BLE001 - a lane's boundary: the others go on
            _log.error("delivery failed", channel=lane[0], recipient=lane[1], exc_info=error)
            self._clock.call_at(self._clock.now() + _STORE_RETRY_S, self.wake)
        else:
            self.wake()  # more may have come meanwhile
        finally:
            self._busy.discard(lane)

    async def _send_due(self, lane: Lane) -> None:
        now = self._clock.now()
        rows, recent = await self._store.read(_due, lane, now)
        cap = self._caps.get(lane[0])
        room = len(rows) if cap is None else cap - len(recent)
        if rows and room <= 0:
            await self._store.write(_hold, [row["id"] for row in rows], recent[0] + HOUR_S)
            return
        if any(row["held"] for row in rows):
            await self._send(lane, rows)
            return
        for position, row in enumerate(rows[:room]):
            if not await self._send(lane, [row], others=rows[position + 1 :]):
                return

    async def _send(
        self, lane: Lane, rows: Sequence[RowMapping], others: Sequence[RowMapping] = ()
    ) -> bool:
        """Send rows as one message. Returns False if the lane's `others` need not be tried now, as
        the recipient is unreachable.
        """
        known, answers = await self._store.read(_incidents_of, rows)
        message = self._message(rows, known, answers)
        try:
            await self._channel(lane).send(message)
        except NotSent as failure:
            affected = [*rows, *others] if failure.unreachable else rows
            error = str(failure)
            _log.warning("message not sent", channel=lane[0], recipient=lane[1], error=error)
            await self._store.insist(_note_failure, affected, self._clock.now(), error)
            return not failure.unreachable
        said_open = {each for each, row in known.items() if row["closed_at"] is None}
        await self._store.insist(_note_sent, rows, self._clock.now(), message.id, said_open)
        return True

    def _channel(self, lane: Lane) -> Channel:
        channel = self._channels.get(lane[0])
        if channel is None:
            raise NotSent(f"this hub has no channel {lane[0]}", unreachable=True)
        return channel

    def _message(
        self, rows: Sequence[RowMapping], known: Mapping[str, RowMapping], answers: str | None
    ) -> Message:
        first = rows[0]
        digest = len(rows) > 1
        notices = []
        for row in rows:
            incident = known.get(row["incident"])
            notices.append(
                Notice(row["about"], None if incident is None else incident_view(incident, {}))
            )
        return Message(
            # A digest that grows until it is sent keeps its first one's name.
            id=f"digest.{first['id']}" if digest else first["id"],
            recipient=first["recipient"],
            about="digest" if digest else first["about"],
            notices=tuple(notices),
            answers=None if digest else answers,
        )


def after_failure(row: Row, now: float, error: str) -> dict[str, Any]:
    """The columns of a delivery after one more failure. The last try is at the instant
    `give_up_at`.
    """
    attempts = row["attempts"] + 1
    values: dict[str, Any] = {"attempts": attempts, "last_error": error}
    if now >= row["give_up_at"]:
        return {**values, "state": deliveries.FAILED}
    return {**values, "next_at": min(now + RESEND.delay_s(attempts), row["give_up_at"])}


def _due_lanes(c: Connection, now: float) -> tuple[list[Lane], float | None]:
    return deliveries.due_lanes(c, now), deliveries.next_at(c, now)


def _due(c: Connection, lane: Lane, now: float) -> tuple[Sequence[RowMapping], list[float]]:
    recent = deliveries.sent_since(c, lane, now - HOUR_S)
    return deliveries.due(c, lane, now, _BATCH), recent


def _hold(c: Connection, ids: Sequence[str], until: float) -> None:
    for each in ids:
        deliveries.update(c, each, {"held": True, "next_at": until})


def _incidents_of(
    c: Connection, rows: Sequence[RowMapping]
) -> tuple[dict[str, RowMapping], str | None]:
    """The incidents of the rows by id, and the id of the message that the first row's message
    follows.
    """
    known = incidents.by_ids(c, {row["incident"] for row in rows if row["incident"]})
    first = rows[0]
    if first["about"] not in {"evidence", "closed"}:
        return known, None
    to = (first["channel"], first["recipient"])
    for earlier in deliveries.sent(c, first["incident"]):
        if (earlier["channel"], earlier["recipient"]) == to:
            return known, earlier["message_id"]
    return known, None


def _note_failure(c: Connection, rows: Sequence[RowMapping], now: float, error: str) -> None:
    for row in rows:
        deliveries.update(c, row["id"], after_failure(row, now, error))


def _note_sent(
    c: Connection, rows: Sequence[RowMapping], now: float, message_id: str, said_open: set[str]
) -> None:
    """Record the rows as sent. If an incident that the message called open was closed meanwhile,
    queue a message that says so.
    """
    for row in rows:
        sent = {"state": deliveries.SENT, "sent_at": now, "message_id": message_id}
        done = deliveries.update(
            c, row["id"], {**sent, "attempts": row["attempts"] + 1, "last_error": None}
        )
        if done and row["about"] == "opened" and row["incident"] in said_open:
            incident = incidents.get(c, row["incident"])
            if incident is not None and incident["closed_at"] is not None:
                to = Recipient(row["channel"], row["recipient"])
                deliveries.insert(c, [delivery("closed", to, now, row["incident"])])
