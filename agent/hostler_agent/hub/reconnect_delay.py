"""How long the agent waits before its next attempt to connect."""

from __future__ import annotations

from typing import Callable, Optional

from hostler_agent.backoff import Backoff

CEILING = Backoff(first_s=1.0, longest_s=120.0)
# Longer than a hub ever asks for (A12); a proxy may ask for days.
LONGEST_RETRY_AFTER_S = 300.0


class ReconnectDelay:
    """Exponential with full jitter: after a hub's restart its agents come back spread out (A12)."""

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` gives numbers from 0 up to, but not including, 1."""
        self._random = random
        self._attempts = 0

    def succeeded(self) -> None:
        """Start again with short delays."""
        self._attempts = 0

    def next_delay_s(self, retry_after_s: Optional[float] = None) -> float:
        """The next delay in seconds, at least `retry_after_s` where the hub asked for it."""
        self._attempts += 1
        least_s = min(retry_after_s or 0.0, LONGEST_RETRY_AFTER_S)
        return least_s + self._random() * CEILING.delay_s(self._attempts)
