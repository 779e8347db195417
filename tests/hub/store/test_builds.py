"""Compare-and-set on builds, leases (V5), results (V8) and requeues (V6)."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from hostler_hub.runtime.ids import new_ulid
from hostler_hub.specs.states import BuildState
from hostler_hub.store import builds, workers
from hostler_hub.store.errors import RowRefused, StaleRow


@pytest.fixture
async def build(store, build_row):
    row = build_row()
    await store.write(builds.insert, row)
    return row["id"]


async def test_insert_and_get_give_the_row_back(store, build_row):
    row = build_row(spec={"env": {"LANG": None}, "steps": [{"command": ["true"]}]}, name="näme")
    await store.write(builds.insert, row)
    assert dict(await store.read(builds.get, row["id"])) == row
    assert await store.read(builds.get, new_ulid()) is None


async def test_idempotency_key_is_one_submitters_own(store, build_row):
    row = build_row(idempotency_key="k", spec_digest="d")
    await store.write(builds.insert, row)
    found = await store.read(builds.by_idempotency_key, "alice", "k")
    assert found["id"] == row["id"]
    assert await store.read(builds.by_idempotency_key, "bob", "k") is None
    with pytest.raises(RowRefused):
        await store.write(builds.insert, build_row(idempotency_key="k"))
    await store.write(builds.insert, build_row(idempotency_key="k", submitted_by="bob"))
    for _ in range(2):
        await store.write(builds.insert, build_row())  # no key, no clash


async def test_start_takes_the_build_once(store, build, lease_row):
    lease = lease_row(build)
    await store.write(builds.start, build, "w1", lease)
    with pytest.raises(StaleRow):
        await store.write(builds.start, build, "w2", lease_row(build))
    with pytest.raises(StaleRow):
        await store.write(builds.start, build, "w2", lease_row(build, epoch=2))
    row = await store.read(builds.get, build)
    assert (row["state"], row["worker"], row["attempts"]) == ("running", "w1", 1)
    assert row["started_at"] == 2.0
    begun = [dict(lease) for lease in await store.read(builds.open_leases)]
    assert begun == [lease | {"process": None}]


async def test_v5_database_refuses_a_second_unexpired_lease(store, build, lease_row):
    """Even where the state's compare-and-set would let it through."""
    first = lease_row(build)
    await store.write(builds.start, build, "w1", first)
    assert await store.write(builds.requeue, build, None, "lost")
    with pytest.raises(RowRefused):
        await store.write(builds.start, build, "w2", lease_row(build, epoch=2))
    row = await store.read(builds.get, build)
    assert (row["state"], row["attempts"]) == ("queued", 1)  # undone with the lease
    assert await store.write(builds.end_lease, first["id"], 3.0, "lost")
    assert not await store.write(builds.end_lease, first["id"], 4.0, "again")
    await store.write(builds.start, build, "w2", lease_row(build, epoch=2))
    assert len(await store.read(builds.open_leases)) == 1


async def test_E9_K7_a_lease_knows_the_agent_process_it_began_with(
    store, build, lease_row, instance_row
):
    instance = instance_row()
    lease = lease_row(build, instance=instance["id"])

    async def stranded(process):
        return await store.read(builds.are_leases_stranded, instance["id"], process)

    await store.write(workers.open_instance, instance)
    await store.write(workers.note_process, instance["id"], "a")
    await store.write(builds.start, build, "w1", lease)
    assert (await stranded("a"), await stranded("b")) == (False, True)
    await store.write(workers.note_process, instance["id"], "b")
    assert await stranded("b"), "until it has ended, whoever dies in between"
    await store.write(builds.end_lease, lease["id"], 3.0, "lost")
    assert not await stranded("b")


async def test_v5_two_dispatchers_racing_in_one_group(store, build, lease_row):
    races = [store.write(builds.start, build, f"w{n}", lease_row(build)) for n in range(10)]
    outcomes = await asyncio.gather(*races, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(StaleRow) == 9
    assert len(await store.read(builds.open_leases)) == 1


async def test_v8_first_result_wins(store, build, lease_row):
    await store.write(builds.start, build, "w1", lease_row(build))
    results = [state for state in BuildState if state.is_terminal]
    writes = [store.write(builds.finish, build, state, f"by {state}", 9.0) for state in results]
    assert await asyncio.gather(*writes) == [True, False, False, False]
    row = await store.read(builds.get, build)
    assert (row["state"], row["result_text"]) == ("success", "by success")
    assert not await store.write(builds.requeue, build, None, "late")
    assert not await store.write(builds.request_cancel, build, "late")


async def test_v5_given_up_attempt_can_neither_finish_nor_requeue(store, build, lease_row):
    first = lease_row(build)
    await store.write(builds.start, build, "w1", first)
    await store.write(builds.requeue, build, 50.0, "lost", attempt=1)
    await store.write(builds.end_lease, first["id"], 3.0, "lost")
    await store.write(builds.start, build, "w2", lease_row(build, epoch=2))
    assert not await store.write(builds.finish, build, BuildState.SUCCESS, None, 9.0, attempt=1)
    assert not await store.write(builds.requeue, build, None, None, attempt=1)
    assert await store.write(builds.finish, build, BuildState.FAILURE, None, 9.0, attempt=2)


async def test_v6_requeue_waits_for_its_backoff(store, build, lease_row):
    assert not await store.write(builds.requeue, build, None, None)  # it is queued
    await store.write(builds.start, build, "w1", lease_row(build))
    assert await store.write(builds.requeue, build, 50.0, "worker lost")
    assert await store.read(builds.queued, 49.9, 10) == []
    (row,) = await store.read(builds.queued, 50.0, 10)
    assert (row["id"], row["worker"], row["started_at"]) == (build, None, None)


async def test_queue_gives_the_highest_priority_then_the_oldest(store, build_row, lease_row):
    rows = [build_row(priority=priority) for priority in (0, 5, 0, -1, 5)]
    for row in rows:
        await store.write(builds.insert, row)
    expected = [rows[n]["id"] for n in (1, 4, 0, 2, 3)]
    assert [row["id"] for row in await store.read(builds.queued, 1.0, 10)] == expected
    await store.write(builds.start, expected[0], "w1", lease_row(expected[0]))
    assert [row["id"] for row in await store.read(builds.queued, 1.0, 2)] == expected[1:3]


async def test_cancel_reason_is_kept_once(store, build):
    assert await store.write(builds.request_cancel, build, "first")
    assert not await store.write(builds.request_cancel, build, "second")
    assert (await store.read(builds.get, build))["cancel_reason"] == "first"
    assert await store.write(builds.finish, build, BuildState.CANCELLED, None, 1.0)


async def test_pages_go_back_in_time_without_gaps(store, build_row):
    rows = [
        build_row(worker=f"w{n % 2}", state="queued" if n % 3 else "success") for n in range(12)
    ]
    for row in rows:
        await store.write(builds.insert, row)
    newest_first = [row["id"] for row in reversed(rows)]
    pages, after = [], None
    while part := await store.read(builds.page, limit=5, after=after):
        pages += [row["id"] for row in part]
        after = pages[-1]
    assert pages == newest_first
    chosen = await store.read(builds.page, state="success", worker="w0", limit=100)
    assert [row["id"] for row in chosen] == [rows[6]["id"], rows[0]["id"]]


async def test_counts_are_of_open_builds(store, build_row):
    assert await store.read(builds.count_by_state) == {"queued": 0, "running": 0}
    for state in ("queued", "queued", "running", "success"):
        await store.write(builds.insert, build_row(state=state))
    assert await store.read(builds.count_by_state) == {"queued": 2, "running": 1}


async def test_steps_of_an_attempt_in_order(store, build, step_row):
    await store.write(builds.insert_steps, [])
    await store.write(builds.insert_steps, [step_row(build, 1, n) for n in (2, 0, 1)])
    await store.write(builds.insert_steps, [step_row(build, 2, 0)])
    windows_access_violation = 0xC0000005  # does not fit 32 bits with a sign
    receipt = {"pids_seen": 3, "ended": "exited"}
    values = {"state": "failure", "rc": windows_access_violation, "receipt": receipt}
    await store.write(builds.update_step, build, 1, 1, values)
    rows = await store.read(builds.steps, build, 1)
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert (rows[1]["rc"], rows[1]["receipt"]) == (windows_access_violation, receipt)
    assert (rows[0]["state"], rows[0]["receipt"]) == ("pending", None)
    with pytest.raises(StaleRow):
        await store.write(builds.update_step, build, 3, 0, {"state": "running"})


async def test_no_terminal_obeys_a_stored_text(store, build_row):
    """Also of a hub that stored it as it came."""
    row = build_row(result_text="\x1b[2Jgone\u202e")
    await store.write(builds.insert, row)
    old = build_row(id="0" * 26)
    await store.write(builds.insert, old)
    raw = sa.text("UPDATE builds SET result_text = :text WHERE id = :id")

    def as_an_older_hub(c):
        c.execute(raw, {"text": "\x1b]0;root\x07", "id": old["id"]})

    await store.write(as_an_older_hub)
    found = [await store.read(builds.get, each["id"]) for each in (row, old)]
    assert [each["result_text"] for each in found] == ["\\x1b[2Jgone\\u202e", "\\x1b]0;root\\x07"]
