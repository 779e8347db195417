"""Time as the hub sees it: the system's, or one that tests move by hand."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol, overload

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


@overload
def instant(at: float) -> str: ...
@overload
def instant(at: None) -> None: ...
@overload
def instant(at: float | None) -> str | None: ...
def instant(at: float | None) -> str | None:
    """ISO 8601 in UTC, with milliseconds."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
