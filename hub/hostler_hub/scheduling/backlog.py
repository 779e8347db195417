"""The builds that wait for a worker, in order of precedence. The store's rows are authoritative.

A build is added when it is submitted, when its worker was lost, and when the hub starts; it is
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

# The retry delay of a build, by the number of its attempts that lost their worker.
RETRY = Backoff(first_s=1.0, longest_s=60.0)


class Backlog:
    """The waiting builds. ``wake`` is set when one is added."""

    def __init__(self, roster: Roster, wake: asyncio.Event) -> None:
        self._roster = roster
        self._wake = wake
        self._waiting: dict[str, Waiting] = {}
        self._kinds: dict[str, dict[str, Waiting]] = {}  # by kind, then by id
        self._order: list[tuple[int, str]] = []

    async def load(self, store: Store) -> None:
        """Add the builds that are queued in the store."""
        for row in await store.read(_load_queue):
            self.put(_waiting(row))

    def put(self, build: Waiting) -> None:
        """Add a build and wake the dispatcher. A build that is in the backlog already
        is not replaced.
        """
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
        """All builds in the backlog in the order they were added, also those that may not
        be retried yet.
        """
        return self._waiting.values()

    def ready(self, now: float) -> list[Waiting]:
        """The builds that may start at ``now`` (seconds since the epoch): highest priority first,
        then the oldest.
        """
        waiting = (self._waiting[build_id] for _, build_id in self._order)
        return [build for build in waiting if not _rests(build, now)]

    def next_ready_at(self, now: float) -> float | None:
        """The time at which the next retry delay ends (seconds since the epoch); None if no
        build has one.
        """
        later = [build.not_before for build in self._waiting.values() if _rests(build, now)]
        return min(later, default=None)

    def need(self, worker: str) -> str | None:
        """The id of the oldest queued build that the worker fits, or None. Builds that may not be
        retried yet count, too.
        """
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
    """Whether the build's retry delay is not over at ``now``. A rest longer than any delay means
    that the clock was set back; the build need not wait then (A9).
    """
    return 0 < build.not_before - now <= RETRY.longest_s


def _waiting(row: Row) -> Waiting:
    spec = BuildSpec.model_validate(row["spec"])
    return Waiting(row["id"], spec, row["attempts"], row["priority"], row["not_before"] or 0.0)


def _load_queue(c: Connection) -> Sequence[RowMapping]:
    return builds.queued(c, float("inf"), 1_000_000)
