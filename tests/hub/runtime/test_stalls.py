"""What counts as the hub's own standing still."""

from __future__ import annotations

import asyncio

from hostler_hub.runtime import stalls
from hostler_hub.runtime.stalls import Stalls


class Elapsed:
    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


def test_short_waits_are_ordinary() -> None:
    elapsed = Elapsed()
    counted = Stalls(elapsed)
    for _ in range(10):
        with counted.waiting():
            elapsed.s += stalls.TOLERATED_S
    assert counted.total_s() == 0


def test_a_wait_counts_while_it_lasts_and_once() -> None:
    elapsed = Elapsed()
    counted = Stalls(elapsed)
    with counted.waiting(), counted.waiting():
        elapsed.s += 30
        assert counted.total_s() == 30
        elapsed.s += 30
    assert counted.total_s() == 60
    elapsed.s += 1000
    assert counted.total_s() == 60


def test_waits_that_overlap_are_one_stall() -> None:
    elapsed = Elapsed()
    counted = Stalls(elapsed)
    first, second = counted.waiting(), counted.waiting()
    first.__enter__()
    elapsed.s += 10
    second.__enter__()
    elapsed.s += 10
    first.__exit__(None, None, None)
    elapsed.s += 10
    second.__exit__(None, None, None)
    assert counted.total_s() == 30


async def test_A10_a_loop_that_stood_still_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(stalls, "BEAT_S", 0.0)
    elapsed = Elapsed()
    counted = Stalls(elapsed)
    watching = asyncio.create_task(counted.watch())
    await asyncio.sleep(0)
    elapsed.s += 60
    for _ in range(5):
        await asyncio.sleep(0)
    watching.cancel()
    assert counted.total_s() == 60
