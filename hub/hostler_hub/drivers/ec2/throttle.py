"""A token bucket that keeps a fleet's calls below the provider's own rate limits (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bucket:
    """Allows ``rate`` calls per second on average, and ``burst`` calls at once."""

    def __init__(self, rate: float, burst: int, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._now = now
        self._level = float(burst)
        self._at = now()

    async def take(self) -> None:
        """Wait until a call may be made."""
        self._fill()
        self._level -= 1
        if self._level < 0:  # in debt: who comes later waits longer
            await asyncio.sleep(-self._level / self._rate)

    def penalise(self) -> None:
        """Empty the bucket, because the provider has refused a call as one too many."""
        self._fill()
        self._level = min(self._level, 0.0)

    def _fill(self) -> None:
        now = self._now()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
