"""The log of decisions: writes, prunes and reads them.

The controller writes a decision that changes something, together with the change. A skip, which is
something possible that is not done, changes nothing and is found again by every plan. So it is
written only if its rule differs from the last one for the same key; ``done`` and ``keep`` forget
the rules of what is no longer skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Hashable
from typing import Any

import structlog

from hostler_hub.runtime.clock import Clock
from hostler_hub.scheduling.decision_views import DecisionPage, decision_view
from hostler_hub.store import decisions as decision_rows
from hostler_hub.store.decisions import Filter
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreError
from hostler_hub.workers.decisions import Decision

_log = structlog.get_logger(__name__)

PRUNE_S = 600.0
# Skips that wait to be written, and things whose last rule is remembered: bounds on memory (V15).
_WAITING = 20_000
_REMEMBERED = 100_000


class DecisionLog:
    """The log of decisions. Pruning removes those older than ``keep_s`` seconds, and all but
    the newest ``keep_rows``.
    """

    def __init__(self, store: Store, clock: Clock, keep_s: float, keep_rows: int) -> None:
        self._store = store
        self._clock = clock
        self._keep_s = keep_s
        self._keep_rows = keep_rows
        self._rules: dict[Hashable, str] = {}
        self._waiting: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._prune_at = 0.0

    def skipped(self, key: Hashable, decision: Decision) -> None:
        """Write that something possible is not done, unless ``key`` was last skipped by
        the same rule.

        ``key`` names what was not done, for example ("build", the build's id).
        """
        if self._rules.get(key) == decision.rule:
            return
        if len(self._rules) >= _REMEMBERED:
            self._rules.clear()
        self._rules[key] = decision.rule
        self.note(decision)

    def note(self, decision: Decision) -> None:
        """Queue a decision that belongs to no transition, for run() to write. It is dropped if
        ``_WAITING`` decisions are queued already.
        """
        if len(self._waiting) < _WAITING:
            self._waiting.append(decision.row())
        self._news.set()

    def done(self, key: Hashable) -> None:
        """Forget the rule that ``key`` was last skipped by, since it was done or is no longer
        possible; the next skip is written again.
        """
        self._rules.pop(key, None)

    def keep(self, about: str, names: Collection[Hashable]) -> None:
        """Forget the rules of all keys ``(about, name)`` whose name is not in ``names``."""
        gone = [
            key
            for key in self._rules
            if isinstance(key, tuple) and key[0] == about and key[1] not in names
        ]
        for key in gone:
            del self._rules[key]

    async def run(self) -> None:
        """Write queued decisions as they come, and prune at the start and every
        ``PRUNE_S``, until cancelled.
        """
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write the queued decisions, and prune if it is due. If the store fails, they are dropped
        with a warning.
        """
        rows, self._waiting = self._waiting, []
        try:
            if rows:
                await self._store.write(decision_rows.append, rows)
            if self._clock.monotonic() >= self._prune_at:
                await self._prune()
        except StoreError as error:
            # A log of what was not done is worth no second try: the hub has other worries now.
            _log.warning("decisions not written", count=len(rows), reason=str(error))

    async def _prune(self) -> None:
        now = self._clock.now()
        self._prune_at = self._clock.monotonic() + PRUNE_S
        self._clock.call_after(PRUNE_S, self._news.set)
        gone = await self._store.write(
            decision_rows.prune, before=now - self._keep_s, rows=self._keep_rows
        )
        if gone:
            _log.info("decisions pruned", count=gone)

    async def page(self, where: Filter, limit: int, after: int | None) -> DecisionPage:
        """Decisions newest first; ``next`` is the ``after`` of the next page, or None."""
        rows = await self._store.read(decision_rows.page, where, limit, after)
        items = [decision_view(row) for row in rows]
        return DecisionPage(items=items, next=items[-1].id if len(items) == limit else None)
