"""Keeps as many instances idle as groups want, and no more than they allow.

The dispatcher calls it after it has carried out a plan, so that builds come first: instances that
are idle then have no work, and starts that are left may be used for the pool.
"""

from __future__ import annotations

import asyncio

from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.lifecycle.model import State, why_not_startable
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.planner import Shares
from hostler_hub.scheduling.pool_policy import PoolPolicy, pool_of
from hostler_hub.scheduling.pools import FORCED_EVERY_S, Census, Pool
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.decisions import Decision, DecisionKind
from hostler_hub.workers.registry import Entry, Registry


class IdlePool:
    """Handles every defined group; an undefined one wants and forbids nothing."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        policy: PoolPolicy,
        decision_log: DecisionLog,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._policy = policy
        self._decision_log = decision_log

    async def reconcile_idle(self, shares: Shares) -> float | None:
        """Start missing idle instances, stop surplus ones. Returns when to do so again, or None."""
        now = self._clock.now()
        later: list[float] = []
        for pool, counted in self._policy.pools().values():
            if pool.group is None:
                continue
            if (until := pool.numbers(now).until) is not None:
                later.append(until)
            if pool.surplus(counted, now):
                later.append(await self._stop_one(pool, counted, now))
            elif missing := pool.missing_idle(counted, now):
                later.extend(await self._start(pool, counted, missing, shares))
            else:
                self._decision_log.done(("min_idle", pool.key.name))
        return min(later, default=None)

    async def _start(
        self, pool: Pool, counted: Census, missing: int, shares: Shares
    ) -> list[float]:
        """As many as are missing and may be started; when more may be, where that is known."""
        now = self._clock.now()
        budget = pool.budget(counted, now)
        may = missing if budget.starts is None else min(missing, budget.starts)
        chosen = self._startable(pool, shares)[:may]
        least = pool.numbers(now).min_idle
        numbers = {"min_idle": least, "idle": len(counted.idle), "starting": counted.starting}
        cause = f"{pool.title} keeps {least} idle"
        await asyncio.gather(*(self._want(entry, cause, numbers) for entry in chosen))
        if len(chosen) == missing:
            self._decision_log.done(("min_idle", pool.key.name))
            return []
        short = len(chosen) < may
        rule = "no_startable_worker" if short else budget.rule
        why = f"{pool.title} has no other worker to start" if short else budget.why
        skipped = Decision(
            at=now,
            kind=DecisionKind.SKIP,
            rule=rule,
            text=f"not kept idle: {missing - len(chosen)} of {least}: {why}",
            group=pool.key.name,
            numbers=numbers,
        )
        self._decision_log.skipped(("min_idle", pool.key.name), skipped)
        return [] if budget.until is None or short else [budget.until]

    def _startable(self, pool: Pool, shares: Shares) -> list[Entry]:
        entries = [
            entry
            for entry in self._registry
            if pool_of(entry) == pool.key
            and entry.life.state is State.LATENT
            and why_not_startable(entry.life) is None
        ]
        return sorted(
            entries,
            key=lambda each: (
                -each.definition.priority,
                shares.of(each.life.name),
                each.life.name,
            ),
        )

    async def _want(self, entry: Entry, cause: str, numbers: dict[str, int]) -> None:
        now = self._clock.now()
        event = events.Wanted(
            at=now,
            instance=new_ulid(int(now * 1000)),
            cause=cause,
            because=events.Because("min_idle", numbers=numbers),
        )
        await self._handle(entry, event)

    async def _stop_one(self, pool: Pool, counted: Census, now: float) -> float:
        """Of too many one at a time, the least wanted; a lease always wins (V9, P20)."""
        if wait_s := pool.next_surplus_s(now):
            return now + wait_s
        idle = [self._registry.get(name) for name in counted.idle if name in self._registry]
        idle.sort(key=lambda each: (each.definition.priority, each.life.state_since))
        most = pool.numbers(now).max_instances
        for entry in idle[:1]:
            pool.surplus_at = now
            up = counted.starting + counted.up
            because = events.Because("max_instances", numbers={"max_instances": most, "up": up})
            cause = f"{pool.title}: {up} of at most {most} instances are up"
            await self._handle(entry, events.Unwanted(at=now, cause=cause, because=because))
        return now + FORCED_EVERY_S

    async def _handle(self, entry: Entry, event: events.Event) -> None:
        try:
            await self._controller.handle(entry.life.name, event)
        except NotFound:
            return  # removed in this moment: there is nothing to do any more
