"""Time, as one thing that tests can replace."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Callable, Protocol


class Timer(Protocol):
    """A call that has not happened yet."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Durations only; nothing here acts on what day it is."""

    def now(self) -> float:
        """Seconds that only ever grow, and grow while the machine is suspended too (A8, A9)."""

    def wall(self) -> float:
        """Seconds since 1970 as the machine has them, for the hub to compare with its own."""

    async def sleep(self, seconds: float) -> None: ...

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer: ...


class SystemClock:
    """The machine's. Sleeping does not count suspension: look at now() after waking."""

    def __init__(self) -> None:
        clock_id = getattr(time, "CLOCK_BOOTTIME", None)
        # Where there is none (Windows), monotonic() counts suspension by itself.
        read = getattr(time, "clock_gettime", None)
        self._read: Callable[[], float] = (
            time.monotonic if clock_id is None or read is None else partial(read, clock_id)
        )

    def now(self) -> float:
        return self._read()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)
