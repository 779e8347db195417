"""Time for jobs: the loop's own, or one that tests advance."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Callable, Optional, Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds; only differences mean something."""

    def now(self) -> float:
        """Seconds since 1970, for people."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Once, when monotonic() has reached `when`, in the loop's thread."""


class SystemClock:
    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        return time.time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_at(when, callback)


async def wait_any(
    clock: Clock, awaited: Iterable[asyncio.Future[Any]], limit_s: Optional[float] = None
) -> None:
    """Returns when one of `awaited` is done or `limit_s` have passed; cancels none of them."""
    futures = set(awaited)
    if limit_s is None:
        await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        return
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_at(clock.monotonic() + limit_s, lambda: over.set_result(None))
    try:
        await asyncio.wait({*futures, over}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        over.cancel()
