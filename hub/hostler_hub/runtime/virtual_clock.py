"""A clock that tests and simulations advance by hand."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from hostler_hub.runtime.clock import Timer


class VirtualClock:
    """A clock that stands still until it is advanced. The same calls give the same history.

    Timers run inside advance(), ordered by their instants and then by their call_at(). Each sees
    its own instant as now() and may set further timers, which run in the same advance() if they are
    due. Exceptions of a callback leave advance().
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
        """The instant of the next timer; None if there is none."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass and run the timers that become due, up to and including the instant
        reached.
        """
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
        """Set the wall clock forward or back, as an administrator or NTP does. Runs no timer."""
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
