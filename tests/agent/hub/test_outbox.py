from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hostler_agent.hub.outbox import Entry, Outbox
from hostler_agent.wire import codec
from hostler_agent.wire.errors import LimitExceeded, ProtocolError
from hostler_agent.wire.limits import TO_HUB
from hostler_agent.wire.messages import Complete, Update


def update(command_id: str = "c1", size: int = 0, text: str = "") -> Update:
    return Update(command_id, [["stdout", text or "x" * size]])


async def take(outbox: Outbox, count: int) -> list[str]:
    reports = [unpacked(await outbox.next()) for _ in range(count)]
    return [report["args"][0][1] for report in reports]


def unpacked(entry: Entry) -> dict[str, Any]:
    return codec.decode(entry.report.encoded, TO_HUB)


async def test_reports_come_out_in_order_and_only_once() -> None:
    outbox = Outbox()
    for text in "abc":
        await outbox.put(update(text=text))
    assert await take(outbox, 3) == ["a", "b", "c"]
    waiting = asyncio.ensure_future(outbox.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.put(update(text="d"))
    assert unpacked(await waiting) == update(text="d").body()


async def test_what_is_unacknowledged_comes_again_after_a_rewind() -> None:
    """K8: the connection broke, the hub has answered only the second."""
    outbox = Outbox()
    for text in "abc":
        await outbox.put(update(text=text))
    entries = [await outbox.next() for _ in range(3)]
    outbox.acknowledge(entries[1])
    outbox.rewind()
    assert await take(outbox, 2) == ["a", "c"]


async def test_put_waits_while_too_much_is_unacknowledged() -> None:
    """E11: this is what makes a flooding command stop."""
    outbox = Outbox(limit_bytes=1000)
    await outbox.put(update(size=600))
    second = asyncio.ensure_future(outbox.put(update(size=600)))
    third = asyncio.ensure_future(outbox.put(update(size=100)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not second.done()
    assert third.done()
    outbox.acknowledge(await outbox.next())
    await asyncio.wait_for(second, 60)
    assert 600 < outbox.unacknowledged_bytes < 1000


async def test_a_report_over_the_limit_passes_an_empty_outbox() -> None:
    outbox = Outbox(limit_bytes=10)
    await asyncio.wait_for(outbox.put(update(size=600)), 60)


async def test_the_end_of_a_command_never_waits_for_room() -> None:
    outbox = Outbox(limit_bytes=10)
    await outbox.put(update(size=600))
    outbox.complete("c1", None)
    assert unpacked(await outbox.next()) == update(size=600).body()
    end = await outbox.next()
    assert (end.report.op, unpacked(end)) == ("complete", Complete("c1", None).body())


async def test_a_failure_is_made_sendable() -> None:
    outbox = Outbox()
    outbox.complete("c1", "no file \udcff" + "x" * 10_000)
    report = unpacked(await outbox.next())
    assert report == Complete("c1", "no file ?" + "x" * 4087).body()


async def test_what_cannot_be_sent_is_refused() -> None:
    outbox = Outbox()
    with pytest.raises(LimitExceeded):
        await outbox.put(update(size=2**20))
    with pytest.raises(ProtocolError):
        await outbox.put(update(text="\ud800"))
    assert outbox.unacknowledged_bytes == 0


async def test_discarding_a_command_makes_room_and_keeps_the_others() -> None:
    outbox = Outbox(limit_bytes=1000)
    await outbox.put(update("gone", size=600))
    await outbox.put(update("kept", text="kept"))
    waiting = asyncio.ensure_future(outbox.put(update("late", text="l" * 500)))
    await asyncio.sleep(0)
    outbox.discard("gone")
    await asyncio.wait_for(waiting, 60)
    assert not outbox.holds("gone")
    assert outbox.holds("kept")
    assert await take(outbox, 2) == ["kept", "l" * 500]


async def test_drained_waits_for_the_last_acknowledgement() -> None:
    outbox = Outbox()
    await outbox.drained()
    await outbox.put(update())
    drained = asyncio.ensure_future(outbox.drained())
    entry = await outbox.next()
    assert not drained.done()
    outbox.acknowledge(entry)
    outbox.acknowledge(entry)
    await asyncio.wait_for(drained, 60)
    assert outbox.unacknowledged_bytes == 0
