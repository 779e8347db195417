"""The log of decisions: written, pruned, read.

Decisions that change something are written by the controller with the change. A skip changes
nothing and is found again by every plan, so it is written only when its rule differs from the one
found before; ``done`` and ``keep`` forget what is no longer skipped.
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
    """``keep_s`` and ``keep_rows``: how old, and how many, decisions may become."""

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
        """Something was possible and is not done now; ``key`` is what it is that was not done."""
        if self._rules.get(key) == decision.rule:
            return
        if len(self._rules) >= _REMEMBERED:
            self._rules.clear()
        self._rules[key] = decision.rule
        self.note(decision)

    def note(self, decision: Decision) -> None:
        """Write a decision that no transition carries."""
        if len(self._waiting) < _WAITING:
            self._waiting.append(decision.row())
        self._news.set()

    def done(self, key: Hashable) -> None:
        """It was done, or is no longer possible: when it is skipped again, that is news."""
        self._rules.pop(key, None)

    def keep(self, about: str, names: Collection[Hashable]) -> None:
        """Forget all keys ``(about, name)`` but those of ``names``."""
        gone = [
            key
            for key in self._rules
            if isinstance(key, tuple) and key[0] == about and key[1] not in names
        ]
        for key in gone:
            del self._rules[key]

    async def run(self) -> None:
        """Write what was noted, and prune, until cancelled; first what the last hub left."""
        self._news.set()
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits, and prune if it is time to."""
        rows, self._waiting = self._waiting, []
        try:
            if rows:
                await self._store.write(decision_rows.append, rows)
            if self._clock.monotonic() >= self._prune_at:
                await self._prune()
        except StoreError as error:
            # A log of what was not done is worth no second try: the hub has other worries now.
            _log.warning("decisions not written", count=len(rows), exc_info=error)

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
