"""A7, A8: jobs end before the hub may give their builds to somebody else."""

from __future__ import annotations

import asyncio

import pytest

from hostler_agent.hub.lease import LeaseTimer


class Watched:
    def __init__(self, clock: object) -> None:
        self.ends = 0
        self.lease = LeaseTimer(clock, self.end)

    def end(self) -> None:
        self.ends += 1


async def test_it_runs_out_a_margin_before_the_hubs_time(clock) -> None:
    watched = Watched(clock)
    watched.lease.granted(300)
    task = asyncio.create_task(watched.lease.watch())
    await clock.advance(269.9)
    assert watched.ends == 0
    await clock.advance(0.2)
    assert watched.ends == 1
    await clock.advance(1000)
    assert watched.ends == 1
    task.cancel()


async def test_it_counts_from_when_the_answered_message_was_sent(clock) -> None:
    watched = Watched(clock)
    watched.lease.granted(300)
    task = asyncio.create_task(watched.lease.watch())
    sent_at = clock.now()
    await clock.advance(100)
    watched.lease.contacted(sent_at + 50)
    watched.lease.contacted(sent_at + 20)
    await clock.advance(219)
    assert watched.ends == 0
    await clock.advance(1.1)
    assert watched.ends == 1
    task.cancel()


async def test_a_stock_master_grants_none_and_ends_none(clock) -> None:
    watched = Watched(clock)
    watched.lease.granted(None)
    task = asyncio.create_task(watched.lease.watch())
    await clock.advance(100_000)
    assert watched.ends == 0
    task.cancel()


async def test_after_a_suspension_nothing_is_sent_before_it_is_noticed(clock) -> None:
    watched = Watched(clock)
    watched.lease.granted(300)
    clock.jump(400)
    watched.lease.check()
    assert watched.ends == 1


async def test_an_answer_that_comes_too_late_does_not_save_the_jobs(clock) -> None:
    watched = Watched(clock)
    watched.lease.granted(300)
    clock.jump(400)
    watched.lease.contacted(clock.now() - 1)
    assert watched.ends == 1
    watched.lease.check()
    assert watched.ends == 1
    clock.jump(400)
    watched.lease.check()
    assert watched.ends == 2


@pytest.mark.parametrize(("ttl_s", "lasts_s"), [(300, 270), (60, 30), (40, 20), (0, 0)])
def test_the_margin(clock, ttl_s: float, lasts_s: float) -> None:
    watched = Watched(clock)
    watched.lease.granted(ttl_s)
    assert watched.lease.remaining_s() == lasts_s
