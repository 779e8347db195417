"""Time as the hub sees it: the system's, or one that tests move by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_RECHECK_S = 30.0


class Timer(Protocol):
    """A callback that is still to come."""

    def cancel(self) -> None:
        """Do not call. After the call, or twice, is fine."""


class Clock(Protocol):
    """What the hub asks of time."""

    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump."""

    def monotonic(self) -> float:
        """Seconds since some start; never goes back, and grows in a suspended machine too (A8)."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call once, when now() has reached `when` (epoch seconds); at the next turn if it has.

        For instants that people name. It follows a clock that is set; durations must not (A9).
        """

    def call_after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call once, when monotonic() has grown by so much, wherever now() is set meanwhile."""


class SystemClock:
    """The machine's clock, its timers on an asyncio loop (the running one by default)."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()
        clock_id = getattr(time, "CLOCK_BOOTTIME", None)
        # Where there is none, monotonic() counts suspension by itself.
        self._read = time.monotonic if clock_id is None else partial(time.clock_gettime, clock_id)

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return self._read()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return _SystemTimer(self._loop, self.now, when, callback)

    def call_after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return _SystemTimer(self._loop, self.monotonic, self.monotonic() + seconds, callback)


class _SystemTimer:
    """A loop's timers count time that stands still in a suspended machine and does not follow a
    clock that is set; so long waits are cut, and the clock meant (`now`) is looked at in between.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        when: float,
        callback: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._now = now
        self._when = when
        self._callback = callback
        self._handle = self._arm()

    def _arm(self) -> asyncio.Handle:
        left_s = self._when - self._now()
        if left_s <= 0:
            return self._loop.call_soon(self._callback)
        return self._loop.call_later(min(left_s, _RECHECK_S), self._wake)

    def _wake(self) -> None:
        if self._when <= self._now():
            self._callback()
        else:
            self._handle = self._arm()

    def cancel(self) -> None:
        self._handle.cancel()


class VirtualClock:
    """A clock that stands still until it is advanced; the same calls give the same history.

    Timers run inside advance(), in the order of their instants and, at one instant, of their
    call_at(); each sees now() at its own instant and may set further timers, which run in the same
    advance() if they are due. What a callback raises leaves advance() there.
    """

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._now = start
        self._monotonic = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _VirtualTimer]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return self._add(when, _VirtualTimer(callback))

    def call_after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._add(self._now + seconds, _VirtualTimer(callback, counts_seconds=True))

    def _add(self, when: float, timer: _VirtualTimer) -> _VirtualTimer:
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """The instant of the next timer, None when there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let time pass, and call what falls due, up to and including the instant reached."""
        if seconds < 0:
            raise ValueError("time passes forward; jump() sets the clock back")
        until = self._now + seconds
        while (due := self.next_due()) is not None and due <= until:
            self._move(max(due, self._now))
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            assert callback is not None
            callback()
        self._move(max(until, self._now))

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does; calls nothing."""
        self._now += seconds
        moved = [
            (when + seconds if timer.counts_seconds else when, order, timer)
            for when, order, timer in self._timers
        ]
        heapq.heapify(moved)
        self._timers = moved

    def _move(self, instant: float) -> None:
        self._monotonic += instant - self._now
        self._now = instant


class _VirtualTimer:
    __slots__ = ("callback", "counts_seconds")

    def __init__(self, callback: Callable[[], object], *, counts_seconds: bool = False) -> None:
        self.callback: Callable[[], object] | None = callback
        self.counts_seconds = counts_seconds

    def cancel(self) -> None:
        self.callback = None
