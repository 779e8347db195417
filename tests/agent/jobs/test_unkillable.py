"""E7: a process that waits for a dead disk cannot be killed; it is told of, never passed over."""

from __future__ import annotations

import asyncio

import pytest
from jobkit import Polls, RecordingSink, living, marked
from peers import hanging_disk
from peers.hanging_disk import HangingDisk

from hostler_agent.jobs.receipt import Ended

pytestmark = pytest.mark.skipif(not hanging_disk.is_available(), reason=hanging_disk.MISSING)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("hostler_agent.jobs.posix.procfs.PollDeadline", Polls)


@pytest.fixture
def disk(tmp_path):
    with HangingDisk(tmp_path) as disk:
        yield disk


async def hung(runner, sink, disk, script: str):
    """A job of which somebody waits for the disk; then there is the file $2."""
    seen = disk.path.with_name("seen")
    plan = runner.plan(["/bin/sh", "-c", script, "sh", str(disk.path / "file"), str(seen)])
    job = runner.job(plan, sink)
    running = asyncio.ensure_future(job.run())
    assert await asyncio.to_thread(disk.touched.wait, 60)
    seen.touch()
    return job, running


async def test_e7_who_cannot_be_killed_stands_in_the_receipt_by_name(runner, sink, disk):
    job, running = await hung(runner, sink, disk, 'cat "$1"; true')
    job.interrupt(Ended.KILLED, "enough")
    outcome = await asyncio.wait_for(running, 60)
    (survivor,) = outcome.receipt.survivors
    assert survivor.name == "cat"
    assert living([survivor.pid]) == [survivor.pid]
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.KILLED, -1)
    # Others are started and end beside it.
    other = await runner.job(runner.plan(["/bin/true"]), RecordingSink()).run()
    assert (other.return_code, other.receipt.survivors) == (0, ())
    disk.release()
    while marked(runner.containment.root_name):  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(0.01)


async def test_e7_also_when_it_is_not_the_command_itself(runner, sink, disk):
    leave = 'cat "$1" >/dev/null 2>&1 & until [ -e "$2" ]; do sleep 0.01; done'
    _, running = await hung(runner, sink, disk, leave)
    outcome = await asyncio.wait_for(running, 60)
    assert [one.name for one in outcome.receipt.survivors] == ["cat"]
    assert (outcome.receipt.ended, outcome.return_code) == (Ended.EXITED, 0)
    disk.release()


async def test_e7_a_containment_that_closes_does_not_wait_for_ever(runner, sink, disk):
    job, running = await hung(runner, sink, disk, 'cat "$1"; true')
    job.interrupt(Ended.KILLED, "enough")
    await running
    closing = asyncio.ensure_future(runner.containment.aclose())
    await asyncio.sleep(0)
    disk.release()
    await asyncio.wait_for(closing, 60)
