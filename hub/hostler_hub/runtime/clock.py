"""The hub's clock: the system's, or one that tests advance."""

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
    """A call that is scheduled."""

    def cancel(self) -> None:
        """Cancel the call. After the call, or a second time, it does nothing."""


class Clock(Protocol):
    """The time, and calls at a time."""

    def now(self) -> float:
        """Seconds since the epoch (UTC). May jump when the clock is set."""

    def monotonic(self) -> float:
        """Seconds since some start. Never goes back, and counts the time a machine is suspended
        (A8).
        """

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call once when now() reaches `when` (seconds since the epoch), or at the next turn of the
        loop if it has.

        For instants that people name: it follows a clock that is set, which a duration must not
        (A9).
        """

    def call_after(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call once after `seconds` of monotonic(), however now() is set meanwhile."""


class SystemClock:
    """The machine's clock. Its timers run on an asyncio loop, by default the running one."""

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
    """A timer that follows `now`. A loop's own timers stop while a machine is suspended and do not
    follow a clock that is set, so a long wait is cut into short ones, and `now` is read after each.
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
    """The instant in ISO 8601, UTC, with milliseconds; None for None."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def clock_time(at: float) -> str:
    """The instant as a time of day for people: ``17:05:10 UTC``."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
