"""The hub's end: part by part, within a deadline, and with a word about what is left (V18)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger(__name__)

# Also a part that is closed when the time is up may still try: most need a few milliseconds.
_LEAST_S = 1.0


class Closing:
    """Closes parts one after the other; all of them together get `deadline_s`, from the first on.

    `unclosed` names those that did not end in time. They were cancelled, not waited for.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._until: float | None = None
        self.unclosed: list[str] = []

    async def within(self, part: str, aclose: Callable[[], Awaitable[object]]) -> None:
        """Closes one part; what it raises besides its time running out reaches the caller."""
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._deadline_s
        try:
            async with asyncio.timeout_at(max(self._until, now + _LEAST_S)):
                await aclose()
        except TimeoutError:
            _log.error("part did not close in time", part=part)
            self.unclosed.append(part)
