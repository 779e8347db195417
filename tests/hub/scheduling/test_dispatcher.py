"""When the dispatcher plans again. What it plans is the planner's, and what becomes of it the
simulation's (`tests/simulation/test_dispatch.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.scheduling.dispatcher import RETRY_S, WAKE_AGAIN_S, Dispatcher


class NothingReady:
    """A backlog without ready builds, and an idle pool; both say when to look again."""

    def __init__(self, clock: VirtualClock, after_s: float | None) -> None:
        self.clock, self.after_s, self.looks = clock, after_s, 0

    def ready(self, now: float) -> list[Any]:
        self.looks += 1
        return []

    def next_ready_at(self, now: float) -> float | None:
        return None if self.after_s is None else now + self.after_s

    async def reconcile_idle(self, shares: Any) -> float | None:
        return self.next_ready_at(self.clock.now())


async def looks_in(seconds: int, after_s: float | None) -> int:
    """How often it plans in so many seconds when it is told to do so again `after_s` from now."""
    clock, wake = VirtualClock(), asyncio.Event()
    nothing: Any = NothingReady(clock, after_s)
    unused = cast(Any, None)
    dispatcher = Dispatcher(
        clock,
        unused,
        unused,
        unused,
        unused,
        nothing,
        wake=wake,
        idle_pool=nothing,
        skips=unused,
        on_leased=unused,
    )
    running = asyncio.ensure_future(dispatcher.run())
    for _ in range(seconds * 10):
        for _ in range(5):
            await asyncio.sleep(0)
        clock.advance(0.1)
    running.cancel()
    return int(nothing.looks)


@pytest.mark.parametrize("after_s", [0.0, -1e-9, -3600.0])
async def test_an_instant_that_has_passed_does_not_keep_it_busy(after_s: float) -> None:
    """A clock that was set back, or a wrong answer: once a second, for as long as it lasts."""
    assert 9 <= await looks_in(10, after_s) <= 10 / RETRY_S + 1


async def test_it_plans_once_and_again_when_something_is_due() -> None:
    assert await looks_in(10, None) == 1
    assert await looks_in(10, 3.0) == 4
    assert await looks_in(int(WAKE_AGAIN_S) + 1, 1e9) == 2
