"""The virtual clock's order, and the system clock on a loop."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler_hub.runtime import clock as clock_module
from hostler_hub.runtime.clock import SystemClock
from hostler_hub.runtime.virtual_clock import VirtualClock


def test_time_stands_still_until_advanced():
    clock = VirtualClock(100.0)
    called = []
    clock.call_at(105.0, lambda: called.append(clock.now()))
    assert (clock.now(), called) == (100.0, [])
    clock.advance(4.9)
    assert called == []
    clock.advance(0.1 + 1e-9)
    assert called == [105.0]
    assert clock.now() == pytest.approx(105.0)
    assert clock.monotonic() == pytest.approx(5.0)


def test_exactly_due_is_due():
    clock = VirtualClock(0.0)
    called = []
    clock.call_at(5.0, lambda: called.append(1))
    clock.advance(5.0)
    assert called == [1]


@given(st.lists(st.integers(0, 10), max_size=30), st.lists(st.integers(0, 4), max_size=10))
def test_timers_run_by_instant_and_then_by_call(instants, advances):
    clock = VirtualClock(0.0)
    ran = []
    for number, instant in enumerate(instants):
        clock.call_at(
            float(instant), lambda pair=(instant, number): ran.append((clock.now(), *pair))
        )
    for seconds in advances:
        clock.advance(float(seconds))
    reached = sum(advances)
    due = sorted((at, number) for number, at in enumerate(instants) if at <= reached)
    expected = due if advances else []
    assert [(at, number) for _, at, number in ran] == expected
    assert all(now == at for now, at, _ in ran)


def test_callbacks_may_set_timers_that_are_due_in_the_same_advance():
    clock = VirtualClock(0.0)
    ticks = []

    def tick():
        ticks.append(clock.now())
        clock.call_at(clock.now() + 10, tick)

    clock.call_at(10.0, tick)
    clock.advance(35.0)
    assert ticks == [10.0, 20.0, 30.0]
    assert clock.next_due() == 40.0


def test_cancelled_timers_are_not_called():
    clock = VirtualClock(0.0)
    called = []
    other = clock.call_at(2.0, lambda: called.append("other"))
    clock.call_at(1.0, other.cancel)
    first = clock.call_at(1.0, lambda: called.append("first"))
    first.cancel()
    first.cancel()
    clock.advance(5.0)
    assert called == []
    assert clock.next_due() is None


def test_raising_callback_stops_there_and_the_rest_stays_due():
    clock = VirtualClock(0.0)
    called = []

    def fail():
        raise RuntimeError("on purpose")

    clock.call_at(1.0, fail)
    clock.call_at(2.0, lambda: called.append(clock.now()))
    with pytest.raises(RuntimeError, match="on purpose"):
        clock.advance(5.0)
    assert clock.now() == 1.0
    clock.advance(4.0)
    assert called == [2.0]


def test_overdue_timers_run_at_the_next_advance():
    clock = VirtualClock(100.0)
    called = []
    clock.call_at(50.0, lambda: called.append(clock.now()))
    clock.advance(0.0)
    assert called == [100.0]


def test_jumps_move_the_wall_clock_alone():
    clock = VirtualClock(100.0)
    called = []
    clock.call_at(200.0, lambda: called.append(clock.now()))
    clock.jump(-50.0)
    clock.advance(100.0)
    assert (clock.now(), called) == (150.0, [])
    clock.jump(1000.0)
    clock.advance(0.0)
    assert called == [1150.0]
    assert clock.monotonic() == 100.0
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1.0)


def test_A9_durations_take_no_notice_of_a_clock_that_is_set():
    clock = VirtualClock(100.0)
    called = []
    clock.call_after(50.0, lambda: called.append(clock.monotonic()))
    clock.call_after(10.0, lambda: called.append(clock.monotonic())).cancel()
    clock.jump(-86400.0)
    clock.advance(49.0)
    clock.jump(2 * 86400.0)
    clock.advance(0.0)
    assert called == []
    clock.advance(1.0)
    assert called == [50.0]


class WallClock(SystemClock):
    """A system clock whose wall time is set by hand, and whose loop is not waited for."""

    wall = 1000.0

    def now(self):
        return self.wall


async def test_system_clock_calls_what_is_due_at_the_next_turn():
    clock = SystemClock()
    done = asyncio.Event()
    clock.call_at(clock.now() - 1, done.set)
    clock.call_at(clock.now() - 1, lambda: pytest.fail("cancelled")).cancel()
    assert not done.is_set()
    await asyncio.wait_for(done.wait(), 60)


async def test_system_clock_calls_later():
    clock = SystemClock()
    when = clock.now() + 0.01
    done = asyncio.get_running_loop().create_future()
    clock.call_at(when, lambda: done.set_result(clock.now()))
    assert await asyncio.wait_for(done, 60) >= when
    assert clock.monotonic() <= clock.monotonic()


async def test_system_timers_follow_a_clock_that_is_set(monkeypatch):
    """A machine that slept, or an NTP step: the instant counts, not the time waited."""
    monkeypatch.setattr(clock_module, "_RECHECK_S", 0.001)
    clock = WallClock()
    called, looked = asyncio.Event(), asyncio.Event()
    clock.call_at(1500.0, called.set)
    asyncio.get_running_loop().call_later(0.02, looked.set)
    await looked.wait()
    assert not called.is_set()
    clock.wall = 1501.0
    await asyncio.wait_for(called.wait(), 60)


async def test_A9_system_timers_of_a_duration_do_not_follow_a_clock_that_is_set():
    clock = WallClock()
    called, passed = asyncio.Event(), asyncio.Event()
    clock.call_after(3600.0, called.set).cancel()
    clock.call_after(0.0, passed.set)
    clock.wall = 1e10
    await asyncio.wait_for(passed.wait(), 60)
    assert not called.is_set()
