"""A bucket of tokens, so that a fleet's calls stay below the provider's own limits (P4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bucket:
    """``rate`` calls a second in the long run, ``burst`` at once."""

    def __init__(self, rate: float, burst: int, now: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._now = now
        self._level = float(burst)
        self._at = now()

    async def take(self) -> None:
        """Returns when a call may be made."""
        self._fill()
        self._level -= 1
        if self._level < 0:  # in debt: who comes later waits longer
            await asyncio.sleep(-self._level / self._rate)

    def penalise(self) -> None:
        """The provider has said that it was too much: begin again with nothing."""
        self._fill()
        self._level = min(self._level, 0.0)

    def _fill(self) -> None:
        now = self._now()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
