"""Attempts to attach that were refused: the name that was given, the address, why, how often.

A guesser of passwords can make as many attempts as handshakes are let in, so attempts are counted
in memory, at most ROWS of them are kept (V15), and those are stored STORE_AFTER_S seconds later. Of
what was given as a name only a part is kept, and nothing of a password (V14).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hostler_hub.runtime.clock import Clock, instant
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.store import refusals
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.workers.views import RefusalView

ROWS = 500
NAME_SIZE = 100
STORE_AFTER_S = 2.0
# After so many seconds without it the same attempt is news again.
NEWS_AFTER_S = 3600.0


@dataclass(slots=True)
class Attempt:
    """Refused attempts with the same name, address and reason, counted."""

    name: str
    client: str
    reason: str
    first_at: float
    last_at: float
    count: int

    @property
    def key(self) -> refusals.Key:
        return (self.name, self.client, self.reason)


class Refusals:
    """Counts refused attempts and stores the latest ROWS of them."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._attempts: dict[refusals.Key, Attempt] = {}
        self._changed: set[refusals.Key] = set()
        self._gone: set[refusals.Key] = set()
        self._storing = asyncio.Lock()
        self._tasks = Tasks()

    async def load(self) -> None:
        for row in await self._store.read(refusals.load_all):
            attempt = Attempt(**row)
            self._attempts[attempt.key] = attempt

    def note(self, name: str, client: str, reason: str) -> bool:
        """Count a refused attempt.

        Returns whether it is news: the first of its kind, or the first for NEWS_AFTER_S seconds.
        """
        at = self._clock.now()
        shown = "".join(each if each.isprintable() else "?" for each in name[:NAME_SIZE])
        key = (shown, client, reason)
        attempt = self._attempts.pop(key, None)
        news = attempt is None or at - attempt.last_at > NEWS_AFTER_S
        if attempt is None:
            attempt = Attempt(*key, first_at=at, last_at=at, count=0)
        attempt.last_at, attempt.count = at, attempt.count + 1
        self._attempts[key] = attempt  # the latest is the last
        if not self._changed:
            self._clock.call_at(at + STORE_AFTER_S, self._store_soon)
        self._changed.add(key)
        while len(self._attempts) > ROWS:
            oldest = next(iter(self._attempts))
            del self._attempts[oldest]
            self._changed.discard(oldest)
            self._gone.add(oldest)
        return news

    def page(self, limit: int) -> list[RefusalView]:
        """The latest attempts, at most ``limit``, latest first."""
        latest = list(self._attempts.values())[-limit:]
        return [_view(attempt) for attempt in reversed(latest)]

    async def aclose(self) -> None:
        await self._tasks.aclose()
        await self._keep()

    def _store_soon(self) -> None:
        self._tasks.spawn(self._keep(), "store refusals")

    async def _keep(self) -> None:
        async with self._storing:
            changed, gone = self._changed, self._gone
            self._changed, self._gone = set(), set()
            rows: Sequence[dict[str, Any]] = [
                dataclasses.asdict(self._attempts[key]) for key in changed if key in self._attempts
            ]
            if not rows and not gone:
                return
            try:
                await self._store.write(refusals.replace, sorted(gone), rows)
            except StoreUnavailable:  # logged by the store; the next ones are stored with these
                self._changed |= changed & self._attempts.keys()
                self._gone |= gone
                self._clock.call_at(self._clock.now() + STORE_AFTER_S, self._store_soon)


def _view(attempt: Attempt) -> RefusalView:
    return RefusalView(
        name=attempt.name,
        client=attempt.client,
        reason=attempt.reason,
        first_at=instant(attempt.first_at),
        last_at=instant(attempt.last_at),
        count=attempt.count,
    )
