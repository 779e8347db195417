"""Deadlines, pauses and sizes of the store."""

from __future__ import annotations

from dataclasses import dataclass

from hostler_hub.lifecycle.backoff import Backoff

RETRY = Backoff(first_s=0.02, longest_s=1.0)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Deadlines and sizes of a store. The defaults are for production; tests shorten them.

    busy_timeout_s: how long one attempt waits for another process's lock (SQLite).
    patience_s: how long a write is tried again through an outage before its caller learns of it.
    retry: the pause between two tries.
    batch: how many waiting functions share one commit.
    readers: how many reads run at once.
    """

    busy_timeout_s: float = 5.0
    patience_s: float = 60.0
    retry: Backoff = RETRY
    batch: int = 256
    readers: int = 3
