"""Keeps ``min_idle`` instances of each group idle, and at most ``max_instances`` up.

The dispatcher calls it after it has carried out a plan, so that builds come first: an instance that
is idle then has no work, and the starts that are left may be used for idle instances.
"""

from __future__ import annotations

import asyncio

from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import events
from hostler_hub.lifecycle.model import State, why_not_startable
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.planner import Budget, Shares, Starts
from hostler_hub.scheduling.pool_key import pool_of
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.pools import FORCED_EVERY_S, Census, Pool
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.decisions import Decision, DecisionKind
from hostler_hub.workers.registry import Entry, Registry


class IdlePool:
    """Starts and stops idle instances of the defined groups. A group that is not defined has no
    numbers to keep.
    """

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
        """Start missing idle instances and stop surplus ones, in each defined group.

        Returns the time (seconds since the epoch) at which to call it again, or None.
        """
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
        """Start as many of the ``missing`` instances as the pool's budget allows; log why
        others are not.

        Returns, as a list of at most one, the time (seconds since the epoch) at which the budget
        allows more; an empty list if all were started or no time is known.
        """
        now = self._clock.now()
        chosen, refusal = self._choose(pool, missing, shares, now)
        least = pool.numbers(now).min_idle
        numbers = {"min_idle": least, "idle": len(counted.idle), "starting": counted.starting}
        cause = f"{pool.title} keeps {least} idle"
        await asyncio.gather(*(self._want(entry, cause, numbers) for entry in chosen))
        if len(chosen) == missing:
            self._decision_log.done(("min_idle", pool.key.name))
            return []
        rule = refusal.rule if refusal else "no_startable_worker"
        why = refusal.why if refusal else f"{pool.title} has no other worker to start"
        skipped = Decision(
            at=now,
            kind=DecisionKind.SKIP,
            rule=rule,
            text=f"not kept idle: {missing - len(chosen)} of {least}: {why}",
            group=pool.key.name,
            numbers=numbers,
        )
        self._decision_log.skipped(("min_idle", pool.key.name), skipped)
        return [] if refusal is None or refusal.until is None else [refusal.until]

    def _choose(
        self, pool: Pool, missing: int, shares: Shares, now: float
    ) -> tuple[list[Entry], Budget | None]:
        """The workers to start, at most ``missing``, and the budget that allows no more, if one
        does not.
        """
        starts, refusal = Starts(self._policy.budgets(now)), None
        chosen: list[Entry] = []
        for entry in self._startable(pool, shares):
            if len(chosen) == missing:
                break
            refused = starts.take(self._policy.limits_of(entry))
            if refused is None:
                chosen.append(entry)
            refusal = refusal or refused
        return chosen, refusal

    def _startable(self, pool: Pool, shares: Shares) -> list[Entry]:
        """The pool's workers that may be started: highest priority first, then the one with the
        smallest share of builds.
        """
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
        """Stop one surplus idle instance, that of the lowest priority, then the one up longest, at
        most every ``FORCED_EVERY_S``. If the worker is leased meanwhile, the lease wins (V9, P20).

        Returns the time (seconds since the epoch) at which the next one may be stopped.
        """
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
