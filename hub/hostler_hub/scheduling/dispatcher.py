"""The loop that carries out the planner's plans: it leases slots to builds and starts instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection

from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import IllegalTransition, events
from hostler_hub.runtime.clock import Clock, Timer
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.scheduling.backlog import Backlog
from hostler_hub.scheduling.idle_pool import IdlePool
from hostler_hub.scheduling.lease import Lease
from hostler_hub.scheduling.matching import Matcher, Roster
from hostler_hub.scheduling.planner import (
    Candidate,
    LimitKey,
    Shares,
    Snapshot,
    Waiting,
    plan,
    starving,
)
from hostler_hub.scheduling.pool_policy import PoolPolicy
from hostler_hub.scheduling.skip_recorder import SkipRecorder
from hostler_hub.specs.build import BuildSpec
from hostler_hub.specs.states import StepState
from hostler_hub.store import builds
from hostler_hub.store.errors import StaleRow
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.registry import Entry, Registry

_log = structlog.get_logger(__name__)

RETRY_S = 1.0
# The longest pause before the next plan: the clock may be set meanwhile (A9).
WAKE_AGAIN_S = 60.0


class Dispatcher:
    """Makes a plan whenever ``wake`` is set, and carries it out.

    ``on_leased`` is called with the lease, the build's spec and its step rows once a lease is
    committed; it starts the attempt.
    """

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        controller: Controller,
        roster: Roster,
        policy: PoolPolicy,
        backlog: Backlog,
        *,
        wake: asyncio.Event,
        idle_pool: IdlePool,
        skips: SkipRecorder,
        on_leased: Callable[[Lease, BuildSpec, Sequence[Any]], None],
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._controller = controller
        self._backlog = backlog
        self._on_leased = on_leased
        self._roster = roster
        self._shares = Shares()
        self._policy = policy
        self._idle_pool = idle_pool
        self._skips = skips
        self._turn = 0
        self._alarm: Timer | None = None
        self._wake = wake

    async def run(self) -> None:
        """Call dispatch_once() at the start and whenever ``wake`` is set, until cancelled.

        An exception is logged, and dispatch_once() is called again after ``RETRY_S``.
        """
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.dispatch_once()
            except Exception as error:  # noqa: BLE001 - one bad plan must not end dispatching
                _log.error("dispatch failed", exc_info=error)
                self._clock.call_after(RETRY_S, self._wake.set)

    async def dispatch_once(self) -> None:
        """Plan for the builds that may start now, carry the plan out, reconcile idle instances, and
        set the alarm for the next time at which more may be possible.
        """
        now = self._clock.now()
        queue = self._backlog.ready(now)
        later = [self._backlog.next_ready_at(now)]
        if queue:
            later.extend(await self._serve(queue, now))
        later.append(await self._idle_pool.reconcile_idle(self._shares))
        self._wake_at(min((at for at in later if at is not None), default=None))

    async def _serve(self, queue: Sequence[Waiting], now: float) -> list[float | None]:
        """Make a plan for ``queue`` and carry it out.

        Returns for each budget of starts the time (seconds since the epoch) at which it allows
        more, None where that does not depend on time. Empty if every build got a slot.
        """
        snapshot = self._snapshot(now)
        made = plan(queue, snapshot, starving(queue, now))
        leasing = [self._lease(build, worker) for build, worker in made.leases]
        waking = [self._want(worker, build, len(queue)) for worker, build in made.wanted]
        await asyncio.gather(*leasing, *waking)
        if len(made.leases) == len(queue):
            return []
        self._skips.soon()
        return [budget.until for budget in snapshot.budgets.values()]

    def _wake_at(self, at: float | None) -> None:
        """Replace the alarm: set ``wake`` at ``at`` (seconds since the epoch), and after
        ``WAKE_AGAIN_S`` at the latest. None: only cancel the alarm.
        """
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if at is not None:
            wait_s = min(at - self._clock.now(), WAKE_AGAIN_S)
            if wait_s <= 0:  # the time has come, but this run found nothing to do
                wait_s = RETRY_S
            self._alarm = self._clock.call_after(wait_s, self._wake.set)

    def _snapshot(self, now: float) -> Snapshot:
        matcher = self._roster.matcher()
        candidates = [
            candidate(entry, matcher, self._policy.limits_of(entry)) for entry in self._registry
        ]
        budgets = self._policy.budgets(now)
        return Snapshot(candidates, matcher, budgets, self._shares, self._turn)

    async def _want(self, worker: str, build: Waiting, queued: int) -> None:
        """Have the controller start an instance of ``worker`` for ``build``."""
        now = self._clock.now()
        event = events.Wanted(
            at=now,
            instance=new_ulid(int(now * 1000)),
            cause=f"build {build.id}",
            because=self._because("queued_work", build, queued=queued),
        )
        try:
            await self._controller.handle(worker, event)
        except NotFound:
            self._wake.set()  # the worker was removed meanwhile: plan again

    def _because(self, rule: str, build: Waiting, **numbers: Any) -> events.Because:
        fitting = self._roster.matcher().fitting(build.kind, build.spec.requires)
        waited_s = round(max(0.0, self._clock.now() - build.submitted_at), 3)
        known = {"priority": build.priority, "waited_s": waited_s, "fitting": len(fitting)}
        return events.Because(rule, build.id, {**known, **numbers})

    async def _lease(self, build: Waiting, worker: str) -> None:
        """Lease a slot of ``worker`` to ``build``. The compare-and-set of the build's row and that
        of the worker's row are one transaction (V5, V9).

        If the build was cancelled meanwhile, it leaves the backlog; if the worker changed
        meanwhile, the dispatcher plans again.
        """
        entry = self._registry.find(worker)
        if entry is None or entry.life.instance is None:
            self._wake.set()
            return
        now = self._clock.now()
        attempt = build.attempts + 1
        lease = Lease(new_ulid(int(now * 1000)), build.id, worker, entry.life.instance.id, attempt)
        steps = _step_rows(build, attempt)

        def start(c: Connection) -> None:
            row = {
                "id": lease.id,
                "build": build.id,
                "worker": worker,
                "instance": lease.instance,
                "epoch": attempt,
                "acquired_at": now,
                "ended_at": None,
                "end_reason": None,
            }
            builds.start(c, build.id, worker, row)
            builds.insert_steps(c, steps)

        try:
            because = self._because("free_slot", build, attempt=attempt)
            leased = events.Leased(at=now, lease=lease.id, because=because)
            await self._controller.handle(worker, leased, start)
        except StaleRow:
            self._backlog.taken(build.id)  # cancelled in this moment
            return
        except (IllegalTransition, NotFound):
            self._wake.set()  # the worker changed meanwhile: plan again
            return
        self._turn += 1
        self._shares.charge(worker, float(entry.definition.weight))
        self._backlog.taken(build.id)
        self._on_leased(lease, build.spec, steps)


def candidate(entry: Entry, matcher: Matcher, limits: Sequence[LimitKey]) -> Candidate:
    definition, life = entry.definition, entry.life
    traits = matcher.traits(life.name)
    return Candidate(life, traits, limits, definition.priority, float(definition.weight))


def _step_rows(build: Waiting, attempt: int) -> list[dict[str, Any]]:
    return [
        {
            "build": build.id,
            "attempt": attempt,
            "index": index,
            "name": step.name,
            "state": StepState.PENDING.value,
            "rc": None,
            "failure_reason": None,
            "started_at": None,
            "finished_at": None,
            "log_size_bytes": 0,
            "receipt": None,
        }
        for index, step in enumerate(build.spec.steps)
    ]
