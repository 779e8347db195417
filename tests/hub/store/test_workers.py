"""Workers' rows by revision, the ledger of instances (V4), sessions bound once (U5)."""

from __future__ import annotations

import asyncio

import pytest

from hostler_hub.store import events, workers
from hostler_hub.store.errors import RowRefused, StaleRow


async def test_rows_come_back_by_name(store, worker_row):
    rows = [worker_row(name) for name in ("b", "a", "c-1")]
    for row in rows:
        await store.write(workers.insert, row)
    assert [dict(row) for row in await store.read(workers.load_all)] == [rows[1], rows[0], rows[2]]
    with pytest.raises(RowRefused):
        await store.write(workers.insert, worker_row("a"))


async def test_update_moves_the_revision_and_refuses_an_old_one(store, worker_row):
    await store.write(workers.insert, worker_row())
    values = {"state": "substantiating", "handle": {"pid": 7}}
    assert await store.write(workers.update, "w1", 1, values) == 2
    with pytest.raises(StaleRow, match="revision 1"):
        await store.write(workers.update, "w1", 1, {"state": "latent"})
    with pytest.raises(StaleRow):
        await store.write(workers.update, "w2", 1, {"state": "latent"})
    (row,) = await store.read(workers.load_all)
    assert (row["state"], row["handle"], row["revision"]) == ("substantiating", {"pid": 7}, 2)


async def test_refused_transition_leaves_no_event(store, worker_row):
    """Style rule 7: the update and its event-log row are one transaction."""
    await store.write(workers.insert, worker_row())

    def transition(c, revision):
        event = {"at": 1.0, "worker": "w1", "instance": None, "epoch": 1, "event": "wanted"}
        event |= {"from_state": "latent", "to_state": "substantiating", "cause": None}
        events.append(c, [event])
        workers.update(c, "w1", revision, {"state": "substantiating"})

    await store.write(transition, 1)
    with pytest.raises(StaleRow):
        await store.write(transition, 1)
    assert len(await store.read(events.recent, "w1", 10)) == 1


async def test_facts_take_no_part_in_the_revision(store, worker_row):
    await store.write(workers.insert, worker_row())
    assert await store.write(workers.set_facts, "w1", {"os": "linux"})
    assert not await store.write(workers.set_facts, "w2", {})
    (row,) = await store.read(workers.load_all)
    assert (row["facts"], row["revision"]) == ({"os": "linux"}, 1)


async def test_text_of_strangers_cannot_stop_a_transition(store, worker_row):
    """E12: a provider's or a worker's words may hold NUL and halves of surrogate pairs."""
    await store.write(workers.insert, worker_row())
    said = "boot\x00 failed \ud800 ☃ 𝄞"
    await store.write(workers.update, "w1", 1, {"last_error": said, "facts": {"os": said}})
    (row,) = await store.read(workers.load_all)
    assert row["last_error"] == "boot\ufffd failed \ufffd ☃ 𝄞"
    assert row["facts"] == {"os": said}


async def test_redefining_keeps_the_password_unless_one_is_given(store, worker_row):
    await store.write(workers.insert, worker_row(password_hash="old"))
    await store.write(workers.redefine, "w1", {"driver": "local"}, None)
    (row,) = await store.read(workers.load_all)
    assert (row["definition"], row["password_hash"]) == ({"driver": "local"}, "old")
    await store.write(workers.redefine, "w1", {"driver": "local"}, "new")
    (row,) = await store.read(workers.load_all)
    assert row["password_hash"] == "new"
    with pytest.raises(StaleRow):
        await store.write(workers.redefine, "w2", {"driver": "local"}, None)


async def test_delete_keeps_the_ledger(store, worker_row, instance_row):
    await store.write(workers.insert, worker_row())
    await store.write(workers.open_instance, instance_row(epoch=7))
    assert await store.write(workers.delete, "w1")
    assert not await store.write(workers.delete, "w1")
    assert await store.read(workers.load_all) == []
    assert await store.read(workers.last_epoch, "w1") == 7
    assert await store.read(workers.last_epoch, "w2") == 0


async def test_v4_database_refuses_a_second_live_instance(store, instance_row):
    first, second = instance_row(epoch=1), instance_row(epoch=2)
    await store.write(workers.open_instance, first)
    with pytest.raises(RowRefused):
        await store.write(workers.open_instance, second)
    assert await store.write(workers.end_instance, first["id"], 5.0, "idle")
    assert not await store.write(workers.end_instance, first["id"], 6.0, "again")
    await store.write(workers.open_instance, second)
    assert [row["id"] for row in await store.read(workers.live_instances)] == [second["id"]]
    ended = await store.read(workers.instance, first["id"])
    assert (ended["ended_at"], ended["end_reason"]) == (5.0, "idle")


async def test_first_session_is_bound_for_good(store, instance_row):
    row = instance_row()
    await store.write(workers.open_instance, row)
    sessions = [f"session-{n}" for n in range(5)]
    binds = [store.write(workers.bind_session, row["id"], session) for session in sessions]
    assert await asyncio.gather(*binds) == [True, False, False, False, False]
    assert await store.write(workers.bind_session, row["id"], "session-0")  # a reconnect
    await store.write(workers.end_instance, row["id"], 5.0, "gone")
    assert not await store.write(workers.bind_session, row["id"], "session-0")
    assert not await store.write(workers.bind_session, "no such", "session-0")


async def test_events_newest_first(store):
    def event(worker, number):
        row = {"at": float(number), "worker": worker, "instance": None, "epoch": 1, "event": "e"}
        return row | {"from_state": "a", "to_state": "b", "cause": f"cause {number}"}

    await store.write(events.append, [])
    await store.write(events.append, [event("w1", n) for n in range(5)] + [event("w2", 9)])
    found = await store.read(events.recent, "w1", 3)
    assert [row["cause"] for row in found] == ["cause 4", "cause 3", "cause 2"]
