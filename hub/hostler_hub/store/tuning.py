"""How long the store waits and tries again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """How patient a store is. The defaults are for production; tests shorten them.

    busy_timeout_s: how long one attempt waits for another process's lock (SQLite).
    patience_s: how long a write is tried again through an outage before its caller learns of it.
    retry_min_s, retry_max_s: the pause between two tries, doubling.
    batch: how many waiting functions share one commit.
    readers: how many reads run at once.
    """

    busy_timeout_s: float = 5.0
    patience_s: float = 60.0
    retry_min_s: float = 0.02
    retry_max_s: float = 1.0
    batch: int = 256
    readers: int = 3
