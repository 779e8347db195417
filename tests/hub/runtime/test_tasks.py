"""Background tasks of one part: named, waited for, ended with it, and their failures logged."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from hostler_hub.runtime.tasks import Tasks


class Fault(Exception):
    pass


async def fail() -> None:
    raise Fault


async def test_a_task_that_fails_is_logged_once_by_its_name_and_the_others_go_on() -> None:
    tasks, gate = Tasks(), asyncio.Event()
    with capture_logs() as logs:
        other = tasks.spawn(gate.wait(), "other")
        with pytest.raises(Fault):
            await tasks.spawn(fail(), "poll w1")
        assert not other.done()
        gate.set()
        assert await tasks.settle(5)
    (said,) = logs
    assert (said["event"], said["task"], type(said["exc_info"])) == (
        "task failed",
        "poll w1",
        Fault,
    )


async def test_what_is_cancelled_is_no_failure() -> None:
    tasks = Tasks()
    with capture_logs() as logs:
        tasks.spawn(asyncio.Event().wait(), "waits for ever")
        await tasks.aclose()
    assert logs == []


async def test_settle_waits_also_for_what_is_started_meanwhile() -> None:
    tasks, done = Tasks(), []

    async def second() -> None:
        await asyncio.sleep(0)
        done.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        tasks.spawn(second(), "second")
        done.append("first")

    tasks.spawn(first(), "first")
    assert await tasks.settle(5)
    assert done == ["first", "second"]


async def test_settle_says_when_its_deadline_is_over_and_ends_nothing() -> None:
    tasks, gate = Tasks(), asyncio.Event()
    task = tasks.spawn(gate.wait(), "slow")
    assert not await tasks.settle(0)
    assert not task.done()
    gate.set()
    assert await tasks.settle(5)


async def test_what_is_unbroken_goes_on_when_who_waits_for_it_is_cancelled() -> None:
    tasks, gate, done = Tasks(), asyncio.Event(), []

    async def write() -> None:
        await gate.wait()
        done.append("written")

    waiter = asyncio.create_task(tasks.unbroken(write(), "write"))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    gate.set()
    assert await tasks.settle(5)
    assert done == ["written"]


async def test_the_errors_of_what_is_unbroken_are_the_waiter_s_and_not_logged_too() -> None:
    with capture_logs() as logs, pytest.raises(Fault):
        await Tasks().unbroken(fail(), "write")
    assert logs == []


async def test_aclose_waits_until_what_it_cancelled_has_ended() -> None:
    tasks, ended, begun = Tasks(), [], asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    tasks.spawn(work(), "work")
    await begun.wait()
    await tasks.aclose()
    assert ended == ["cleaned up"]


@pytest.mark.parametrize("start", ["spawn", "unbroken"])
async def test_nothing_starts_after_its_owner_has_closed(start: str) -> None:
    tasks = Tasks()
    await tasks.aclose()
    with pytest.raises(asyncio.CancelledError, match="late was started after its owner had closed"):
        await getattr(tasks, start)(fail(), "late")
