"""How long to wait before the next attempt to connect."""

from __future__ import annotations

from typing import Callable, Optional

FIRST_S = 1.0
LONGEST_S = 120.0
LONGEST_RETRY_AFTER_S = 3600.0


class Backoff:
    """Exponential with full jitter: after a hub's restart its agents come back spread out (A12)."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 up to, but not including, 1."""
        self._random = random
        self._attempts = 0

    def succeeded(self) -> None:
        """The next wait is a short one again."""
        self._attempts = 0

    def next_delay_s(self, retry_after_s: Optional[float] = None) -> float:
        """The next wait; never shorter than what the hub asked for."""
        # Beyond 2**7 the ceiling has long been reached; the exponent need not grow for ever.
        ceiling_s = min(LONGEST_S, FIRST_S * float(1 << min(self._attempts, 7)))
        self._attempts += 1
        asked_s = min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S)
        return asked_s + self._random() * ceiling_s
