"""The outbox on a clock moved by hand: order, backoff, cap, digest, giving up (D7)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hostler_hub.notify.errors import NotSent
from hostler_hub.notify.message import Message
from hostler_hub.notify.outbox import RESEND, Outbox, after_failure
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.store import deliveries, incidents
from hostler_hub.store.engine import Store
from hostler_hub.workers.incidents import GIVE_UP_S, Recipient, delivery, tell_recovery

ANN, BEN = "ann@example.org", "ben@example.org"
HOUR = 3600.0


class FakeChannel:
    """Takes messages, or refuses them as it is told; can be held up in the middle."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.tried: list[tuple[str, str]] = []
        self.down: set[str] = set()  # recipients whose server is
        self.refused: set[str] = set()  # ids of single messages
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def send(self, message: Message) -> None:
        self.tried.append((message.recipient, message.id))
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if message.recipient in self.down:
            raise NotSent("connection refused", unreachable=True)
        if message.id in self.refused:
            raise NotSent("550 no such user", unreachable=False)
        self.sent.append(message)


class Rig:
    """An outbox that is looked at by hand."""

    def __init__(self, store: Store, clock: VirtualClock, per_hour: int) -> None:
        self.store, self.clock = store, clock
        self.mail, self.hooks = FakeChannel(), FakeChannel()
        self._count = itertools.count()
        channels = {"mail": self.mail, "webhook": self.hooks}
        self.outbox = Outbox(store, clock, channels, mails_per_hour=per_hour)

    async def go(self, seconds: float = 0.0) -> None:
        """Let time pass, and send what falls due, timer by timer."""
        until = self.clock.now() + seconds
        await self._rest()
        while (due := self.clock.next_due()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.now()))
            await self._rest()
        self.clock.advance(max(0.0, until - self.clock.now()))
        await self._rest()

    async def _rest(self) -> None:
        while self.outbox._woken.is_set():
            self.outbox._woken.clear()
            await self.outbox.start_due_lanes()
            assert await self.outbox.settle(60)

    async def tell(
        self, *people: str, channel: str = "mail", worker: str = "w", about: str = "opened"
    ) -> str:
        """An incident of which people are to be told."""
        at = self.clock.now()
        row = {"id": new_ulid(int(at * 1000)), "worker": f"{worker}-{next(self._count)}"}
        row |= {"kind": "missing", "instance": None, "opened_at": at, "closed_at": None}
        row |= {"reason": "gone", "close_reason": None, "evidence": {}}
        await self.store.write(incidents.insert, row)
        rows = [delivery(about, Recipient(channel, each), at, row["id"]) for each in people]
        await self.store.write(deliveries.insert, rows)
        self.outbox.wake()
        return str(row["id"])

    async def close(self, incident: str) -> None:
        at = self.clock.now()
        await self.store.write(incidents.close, incident, at, "found")
        await self.store.write(tell_recovery, incident, at)
        self.outbox.wake()

    async def rows(self, **where: Any) -> list[dict[str, Any]]:
        found = await self.store.read(deliveries.page, limit=500, **where)
        return [dict(row) for row in reversed(found)]


@pytest.fixture
async def rig(store: Store) -> AsyncIterator[Rig]:
    made = Rig(store, VirtualClock(), per_hour=20)
    yield made
    await made.outbox.aclose()


async def test_each_recipient_gets_one_message(rig: Rig) -> None:
    await rig.tell(ANN, BEN)
    await rig.go()
    assert sorted(each.recipient for each in rig.mail.sent) == [ANN, BEN]
    assert {row["state"] for row in await rig.rows()} == {"sent"}
    await rig.go(10 * HOUR)
    assert len(rig.mail.sent) == 2


async def test_D7_a_dead_server_is_tried_less_and_less_often_and_given_up_after_48_hours(
    rig: Rig,
) -> None:
    rig.mail.down.add(ANN)
    await rig.tell(ANN)
    await rig.go(GIVE_UP_S - 1)
    (row,) = await rig.rows()
    assert row["state"] == "pending"
    assert row["last_error"] == "connection refused"
    assert 48 <= row["attempts"] <= 60
    assert await rig.store.read(deliveries.count_undelivered) == 1
    await rig.go(2)
    (row,) = await rig.rows()
    assert row["state"] == "failed"
    tries = len(rig.mail.tried)
    await rig.go(GIVE_UP_S)
    assert len(rig.mail.tried) == tries
    assert await rig.store.read(deliveries.count_undelivered) == 1


async def test_D7_it_arrives_once_the_server_is_back(rig: Rig) -> None:
    rig.mail.down.add(ANN)
    await rig.tell(ANN)
    await rig.go(5 * HOUR)
    rig.mail.down.clear()
    await rig.go(RESEND.longest_s)
    (row,) = await rig.rows()
    assert (row["state"], row["last_error"]) == ("sent", None)
    assert {each[1] for each in rig.mail.tried} == {row["id"]}  # the same id each time


async def test_a_dead_recipient_keeps_nobody_else_waiting(rig: Rig) -> None:
    rig.mail.down.add(ANN)
    await rig.tell(ANN, BEN)
    await rig.tell("hook", channel="webhook")
    await rig.go()
    assert [each.recipient for each in rig.mail.sent] == [BEN]
    assert len(rig.hooks.sent) == 1


async def test_an_unreachable_server_is_tried_once_for_all_that_wait_there(rig: Rig) -> None:
    rig.mail.down.add(ANN)
    for _ in range(5):
        await rig.tell(ANN)
    await rig.go()
    assert len(rig.mail.tried) == 1
    assert [row["attempts"] for row in await rig.rows()] == [1] * 5


async def test_a_message_that_is_refused_does_not_stop_the_others(rig: Rig) -> None:
    await rig.tell(ANN)
    (bad,) = await rig.rows()
    rig.mail.refused.add(bad["id"])
    await rig.tell(ANN)
    await rig.go()
    assert [row["state"] for row in await rig.rows()] == ["pending", "sent"]


async def test_D7_twenty_mails_an_hour_then_one_digest(rig: Rig) -> None:
    for _ in range(50):
        await rig.tell(ANN)
    await rig.go()
    assert len(rig.mail.sent) == 20
    held = [row for row in await rig.rows() if row["held"]]
    assert len(held) == 30
    await rig.tell(ANN)  # comes within the hour: into the digest too
    await rig.go(HOUR - 1)
    assert len(rig.mail.sent) == 20
    await rig.go(2)
    assert len(rig.mail.sent) == 21
    digest = rig.mail.sent[-1]
    assert digest.about == "digest"
    assert len(digest.notices) == 31
    rows = await rig.rows()
    assert {row["state"] for row in rows} == {"sent"}
    assert {row["message_id"] for row in rows if row["held"]} == {digest.id}


async def test_the_cap_is_each_recipient_s_own_and_webhooks_have_none(rig: Rig) -> None:
    for _ in range(25):
        await rig.tell(ANN)
        await rig.tell("hook", channel="webhook")
    await rig.tell(BEN)
    await rig.go()
    assert len(rig.hooks.sent) == 25
    assert BEN in {each.recipient for each in rig.mail.sent}


async def test_the_end_of_an_incident_follows_up_its_beginning(rig: Rig) -> None:
    incident = await rig.tell(ANN)
    await rig.go()
    await rig.close(incident)
    await rig.go()
    first, second = rig.mail.sent
    assert (first.about, second.about) == ("opened", "closed")
    assert second.answers == first.id
    assert second.notices[0].incident is not None
    assert second.notices[0].incident["close_reason"] == "found"


async def test_an_incident_that_is_over_before_it_was_told_is_one_message(rig: Rig) -> None:
    rig.mail.down.add(ANN)
    incident = await rig.tell(ANN)
    await rig.go()
    await rig.close(incident)
    rig.mail.down.clear()
    await rig.go(HOUR)
    (only,) = rig.mail.sent
    assert only.notices[0].incident is not None
    assert only.notices[0].incident["open"] is False


async def test_an_incident_that_ends_while_its_beginning_is_being_sent_is_told_too(
    rig: Rig,
) -> None:
    rig.mail.gate = asyncio.Event()
    incident = await rig.tell(ANN)
    await rig.outbox.start_due_lanes()
    await asyncio.wait_for(rig.mail.entered.wait(), 60)
    await rig.close(incident)
    assert len(await rig.rows()) == 1
    rig.mail.gate.set()
    assert await rig.outbox.settle(60)
    await rig.go()
    assert [each.about for each in rig.mail.sent] == ["opened", "closed"]


async def test_K12_a_hub_that_died_while_sending_sends_again_with_the_same_id(
    rig: Rig, store: Store
) -> None:
    rig.mail.gate = asyncio.Event()
    await rig.tell(ANN)
    await rig.outbox.start_due_lanes()
    await asyncio.wait_for(rig.mail.entered.wait(), 60)
    await rig.outbox.aclose()
    second = Rig(store, rig.clock, per_hour=20)
    await second.go()
    assert rig.mail.tried == second.mail.tried
    assert [row["state"] for row in await second.rows()] == ["sent"]
    await second.outbox.aclose()


async def test_a_delivery_that_was_given_up_can_be_tried_again(rig: Rig) -> None:
    rig.mail.down.add(ANN)
    await rig.tell(ANN)
    await rig.go(GIVE_UP_S + 1)
    rig.mail.down.clear()
    (row,) = await rig.rows()
    now = rig.clock.now()
    assert await rig.store.write(deliveries.retry, row["id"], now, now + GIVE_UP_S)
    rig.outbox.wake()
    await rig.go()
    assert [row["state"] for row in await rig.rows()] == ["sent"]
    assert not await rig.store.write(deliveries.retry, row["id"], now, now + GIVE_UP_S)


async def test_a_channel_that_breaks_its_contract_stops_no_other_lane(rig: Rig) -> None:
    async def broken(_message: Message) -> None:
        raise LookupError("a bug")

    rig.hooks.send = broken  # type: ignore[method-assign]
    await rig.tell("hook", channel="webhook")
    await rig.tell(ANN)
    await rig.go()
    assert len(rig.mail.sent) == 1


def test_V13_waits_double_up_to_an_hour() -> None:
    assert [RESEND.delay_s(n) for n in (1, 2, 3, 8, 100)] == [30, 60, 120, 3600, 3600]


def test_the_last_try_is_when_the_time_is_up() -> None:
    row = {"attempts": 60, "give_up_at": 1000.0}
    assert after_failure(row, 900.0, "x")["next_at"] == 1000.0
    assert after_failure(row, 1000.0, "x")["state"] == "failed"
