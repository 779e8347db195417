"""Time, behind an interface that tests can replace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Callable, Optional, Protocol


class Timer(Protocol):
    """A scheduled call that has not been made yet."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Three readings, all in seconds. The agent never acts on the calendar time.

    `now()` is for times that the hub counts too: a lease goes on while a machine is suspended.
    `awake()` is for the limits of commands: a command that was suspended with its machine has not
    been silent.
    """

    def now(self) -> float:
        """A monotonic time that goes on while the machine is suspended (A8, A9)."""

    def awake(self) -> float:
        """A monotonic time that stands still while the machine is suspended, as timers do."""

    def wall(self) -> float:
        """Seconds since 1970 by the machine's clock, for the hub and for people."""

    async def sleep(self, seconds: float) -> None: ...

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call `call` once after `seconds` of `awake()`, in the event loop's thread."""


class SystemClock:
    """The machine's clock. `sleep` does not count suspension, so check now() after it."""

    def __init__(self) -> None:
        clock_id = getattr(time, "CLOCK_BOOTTIME", None)
        # Where there is none (Windows), monotonic() counts suspension by itself.
        read = getattr(time, "clock_gettime", None)
        self._read: Callable[[], float] = (
            time.monotonic if clock_id is None or read is None else partial(read, clock_id)
        )

    def now(self) -> float:
        return self._read()

    def awake(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, call)


async def wait_any(
    clock: Clock, awaited: Iterable[asyncio.Future[Any]], limit_s: Optional[float] = None
) -> None:
    """Return when one of `awaited` is done or `limit_s` have passed; cancels none of them."""
    futures = set(awaited)
    if limit_s is None:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(limit_s, lambda: over.set_result(None))
    try:
        await asyncio.wait({*futures, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        over.cancel()
