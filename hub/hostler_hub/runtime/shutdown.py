"""Shutdown: parts of the hub are closed one by one, within a deadline, and what is left is named
(V18).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)

# Also a part that is closed when the time is up may still try: most need a few milliseconds.
_LEAST_S = 1.0


class Closing:
    """Closes parts one after the other, all of them within `deadline_s` from the first close on.

    `unclosed` names the parts that did not close in time. They were cancelled, and not waited for.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._until: float | None = None
        self.unclosed: list[str] = []

    async def within(self, part: str, aclose: Callable[[], Awaitable[object]]) -> None:
        """Close one part. Its exceptions reach the caller, but for the time-out."""
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._deadline_s
        try:
            async with asyncio.timeout_at(max(self._until, now + _LEAST_S)):
                await aclose()
        except TimeoutError:
            _log.error("part did not close in time", part=part)
            self.unclosed.append(part)
