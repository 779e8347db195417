"""A token bucket: how long a sender must wait that has sent more than its share."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """Holds up to ``burst`` tokens, and gets ``per_s`` of them each second.

    What was sent can only be counted afterwards, so a bucket may owe tokens.
    """

    def __init__(self, per_s: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_s = per_s
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._filled_at = monotonic()

    def take(self, tokens: float) -> float:
        """Take tokens, also those that are not there. Returns the seconds until none is owed."""
        now = self._monotonic()
        earned = (now - self._filled_at) * self._per_s
        self._tokens = min(self._burst, self._tokens + earned) - tokens
        self._filled_at = now
        return max(0.0, -self._tokens / self._per_s)
