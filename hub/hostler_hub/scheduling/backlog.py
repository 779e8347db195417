"""The builds that wait for a worker, in order of precedence. Their rows in the store are the truth.

A build is added when it is submitted, when it has lost its worker, and at the hub's start; it is
removed when it is leased or cancelled. Each build that is added wakes the dispatcher.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, RowMapping

from hostler_hub.lifecycle.backoff import Backoff
from hostler_hub.scheduling.matching import Roster
from hostler_hub.scheduling.planner import Waiting
from hostler_hub.specs.build import BuildSpec
from hostler_hub.store import builds
from hostler_hub.store.engine import Store
from hostler_hub.store.rows import Row

# How long a build waits after so many attempts that lost their worker.
RETRY = Backoff(first_s=1.0, longest_s=60.0)


class Backlog:
    """The waiting builds. ``wake`` is set when one is added."""

    def __init__(self, roster: Roster, wake: asyncio.Event) -> None:
        self._roster = roster
        self._wake = wake
        self._waiting: dict[str, Waiting] = {}
        self._kinds: dict[str, dict[str, Waiting]] = {}  # the same by what they require
        self._order: list[tuple[int, str]] = []

    async def load(self, store: Store) -> None:
        """Add the builds that are queued in the store."""
        for row in await store.read(_load_queue):
            self.put(_waiting(row))

    def put(self, build: Waiting) -> None:
        """Add a build; one that waits already is left as it is."""
        if build.id not in self._waiting:
            self._waiting[build.id] = build
            bisect.insort(self._order, build.order)
            self._kinds.setdefault(build.kind, {})[build.id] = build
        self._wake.set()

    def taken(self, build: str) -> None:
        """Remove a build that was leased or cancelled; an unknown one is ignored."""
        waiting = self._waiting.pop(build, None)
        if waiting is None:
            return
        del self._order[bisect.bisect_left(self._order, waiting.order)]
        alike = self._kinds[waiting.kind]
        del alike[build]
        if not alike:
            del self._kinds[waiting.kind]

    def get(self, build: str) -> Waiting | None:
        return self._waiting.get(build)

    def waiting(self) -> Iterable[Waiting]:
        """All waiting builds, also those that may not be retried yet, in the order they came."""
        return self._waiting.values()

    def ready(self, now: float) -> list[Waiting]:
        """Builds that may start, highest priority first, then the oldest."""
        waiting = (self._waiting[build_id] for _, build_id in self._order)
        return [build for build in waiting if not _rests(build, now)]

    def next_ready_at(self, now: float) -> float | None:
        """When the next build that waits after a loss may start; None if none does."""
        later = [build.not_before for build in self._waiting.values() if _rests(build, now)]
        return min(later, default=None)

    def need(self, worker: str) -> str | None:
        """The oldest queued build that fits the worker, one that waits to be retried too."""
        if not self._waiting:
            return None
        matcher = self._roster.matcher()
        found = (
            next(iter(alike))
            for kind, alike in self._kinds.items()
            if worker in matcher.fitting(kind, next(iter(alike.values())).spec.requires)
        )
        return min(found, default=None)

    def __len__(self) -> int:
        return len(self._waiting)


def _rests(build: Waiting, now: float) -> bool:
    """Whether the build waits after a loss. A longer wait means the clock was set back (A9)."""
    return 0 < build.not_before - now <= RETRY.longest_s


def _waiting(row: Row) -> Waiting:
    spec = BuildSpec.model_validate(row["spec"])
    return Waiting(row["id"], spec, row["attempts"], row["priority"], row["not_before"] or 0.0)


def _load_queue(c: Connection) -> Sequence[RowMapping]:
    return builds.queued(c, float("inf"), 1_000_000)
