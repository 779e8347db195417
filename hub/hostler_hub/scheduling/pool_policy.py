"""The policy over all workers: limits of groups, queued work, and losses of the last minute.

The controller calls it under a worker's lock (``workers.policy.FleetPolicy``), the dispatcher
before it plans. When the hub starts, open breakers and the starts of the last minute are read from
the store; which workers were lost together is not stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.model import State, Timer, why_not_usable
from hostler_hub.runtime.clock import Clock
from hostler_hub.scheduling.backlog import Backlog
from hostler_hub.scheduling.decision_log import DecisionLog
from hostler_hub.scheduling.planner import Budget, LimitKey, tightest
from hostler_hub.scheduling.pool_key import PoolKey, pool_of
from hostler_hub.scheduling.pools import FORCED_EVERY_S, MINUTE_S, Census, Pool, census
from hostler_hub.scheduling.start_breakers import StartBreakers
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.store import decisions as decision_rows
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.decisions import Decision, DecisionKind, Transition, of_transition
from hostler_hub.workers.registry import Entry, Registry

# How long an idle timer is postponed.
KEEP_S = 10.0
GROUP_LOST = "group_lost"

FAILURES_ALLOWED: int = GroupDefinition.model_fields["failures_allowed"].default


class PoolPolicy:
    """Decides for each pool: a group, or all workers of one driver that are in no group."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        backlog: Backlog,
        decision_log: DecisionLog,
        breakers: StartBreakers,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._backlog = backlog
        self._decision_log = decision_log
        self._pools: dict[PoolKey, Pool] = {}
        self._groups: dict[str, GroupDefinition] = {}
        self._counted: dict[PoolKey, Census] | None = None
        self._breakers = breakers

    async def load(self, store: Store, groups: Sequence[GroupDefinition]) -> None:
        """Define the groups, and read the open breakers and the starts of the last minute from the
        store. Called once, when the hub starts.
        """
        self.define(groups)
        for row in await store.read(decision_rows.last_of_groups, DecisionKind.BREAKER.value):
            if row["numbers"].get("open_until") is not None:
                self._breakers.load(row["group"], row["numbers"])
        for row in await store.read(workers.intended_since, self._clock.now() - MINUTE_S):
            if (entry := self._registry.find(row["worker"])) is not None:
                self._pool(pool_of(entry)).started(row["created_at"])

    def define(self, groups: Sequence[GroupDefinition]) -> None:
        """Replace the defined groups by ``groups``."""
        self._groups = {group.name: group for group in groups}
        for pool in self._pools.values():
            pool.define(self._group_of_pool(pool.key))
        self.changed()

    def changed(self) -> None:
        """Discard the counts, since workers were added, removed or moved to another group; they are
        counted again at the next use.
        """
        self._counted = None

    # --- for the dispatcher and for whoever looks -----------------------------------------------

    def pools(self) -> dict[PoolKey, tuple[Pool, Census]]:
        """Every pool with the count of its workers, defined groups without workers included."""
        counted = self._census()
        keys = dict.fromkeys([*counted, *map(PoolKey, self._groups)])
        return {key: (self._pool(key), counted.get(key) or Census()) for key in keys}

    def budgets(self, now: float) -> Mapping[LimitKey, Budget]:
        """How many instances may be started at ``now`` (seconds since the epoch): by each pool, and
        in each lane of the failure domains whose breaker is open.
        """
        made: dict[LimitKey, Budget] = {}
        for key, (pool, counted) in self.pools().items():
            made[key] = pool.budget(counted, now)
        made.update(self._breakers.budgets(now))
        return made

    def limits_of(self, entry: Entry) -> Sequence[LimitKey]:
        """The keys of the budgets that a start of the worker uses up."""
        return (pool_of(entry), *self._breakers.limits_of(entry))

    def budget_of(self, entry: Entry, now: float) -> Budget:
        """How many instances may be started for the worker at ``now`` (seconds since the epoch)."""
        pool, counted = self._of(entry)
        return tightest([*self._breakers.budgets_of(entry, now), pool.budget(counted, now)])

    def starts_paused(self, entry: Entry) -> bool:
        """Whether starts of the worker are paused after failures."""
        return bool(self._breakers.paused_domains_of(entry))

    def why_kept(self, entry: Entry, now: float) -> tuple[str, str, str | None] | None:
        """Why an idle instance is not stopped now: (rule, sentence, id of the queued build or
        None). None if it may be stopped.
        """
        life = entry.life
        if why_not_usable(life) is not None or life.person is not None:
            return None
        build = self._backlog.need(life.name)
        if build is not None:
            return "queued_work", f"queued build {build} fits it", build
        pool, counted = self._of(entry)
        spared = pool.spared(counted, now)
        return None if spared is None else ("min_idle", spared, None)

    # --- for the controller (workers.policy.FleetPolicy) ------------------------------------------

    def group_of(self, entry: Entry) -> str | None:
        return entry.definition.group

    def judge(self, entry: Entry, event: events.Event) -> events.Event:
        """Postpone the timer that ``event`` reports if it would stop an instance that is still
        needed or a lost worker that is waited for; return any other event unchanged.
        """
        life = entry.life
        if not isinstance(event, events.TimerFired) or life.state is not State.SUBSTANTIATED:
            return event
        if event.timer is Timer.IDLE:
            return self._judge_idle(entry, event)
        if event.timer is Timer.RECONNECT or (event.timer is Timer.MISSING and not life.leases):
            return self._judge_lost(entry, event)
        return event

    def _judge_idle(self, entry: Entry, event: events.TimerFired) -> events.Event:
        """Postpone an idle timer as long as a queued build or the group's min_idle needs the
        instance (V9, P20).
        """
        if entry.life.in_use:
            return event
        kept = self.why_kept(entry, event.at)
        key = ("stop", entry.life.name)
        if kept is None:
            self._decision_log.done(key)
            self._of(entry)[0].leaving.add(entry.life.name)
            return event
        rule, text, build = kept
        self._decision_log.skipped(key, self._skip(entry, event.at, rule, text, build))
        return replace(event, keep_s=KEEP_S)

    def _judge_lost(self, entry: Entry, event: events.TimerFired) -> events.Event:
        """Postpone the timer that gives up a lost worker: while most of its pool is lost, and,
        unless it is permanent, for ``FORCED_EVERY_S`` after another of the pool was given up (A11).
        """
        pool, counted = self._of(entry)
        key = ("give_up", entry.life.name)
        if pool.held(counted, event.at):
            text = f"{pool.title}: {counted.detached} of {counted.up} are lost; they are waited for"
            self._decision_log.skipped(key, self._skip(entry, event.at, "group_lost", text))
            return replace(event, keep_s=FORCED_EVERY_S)
        wait_s = pool.next_giving_up_s(event.at)
        if wait_s > 0 and not entry.life.policy.permanent:
            text = f"{pool.title}: another was given up {FORCED_EVERY_S - wait_s:.0f} s ago"
            self._decision_log.skipped(key, self._skip(entry, event.at, "one_at_a_time", text))
            return replace(event, keep_s=wait_s)
        self._decision_log.done(key)
        pool.gave_up_at = event.at
        return event

    def decisions(self, entry: Entry, transition: Transition) -> Sequence[Decision]:
        made = of_transition(transition)
        pool, counted = self._of(entry)
        made.extend(self._breakers.decisions(entry, transition, _allowed(pool)))
        if self._starts_hold(pool, counted, transition):
            text = f"{pool.title}: {len(pool.lost) + 1} of {counted.up} lost within a minute"
            numbers = {"lost": len(pool.lost) + 1, "up": counted.up}
            made.append(
                Decision(
                    at=transition.event.at,
                    kind=DecisionKind.HOLD,
                    rule=GROUP_LOST,
                    text=text,
                    worker=entry.life.name,
                    group=pool.key.label,
                    numbers=numbers,
                )
            )
        return made

    def orders(self, entry: Entry, transition: Transition) -> Sequence[commands.Command]:
        if GROUP_LOST in entry.incidents and (
            transition.after.attached or transition.after.instance is None
        ):
            return [commands.Resolve(GROUP_LOST, "the worker that showed it is no longer lost")]
        pool, counted = self._of(entry)
        if self._starts_hold(pool, counted, transition):
            detail = f"{pool.title}: most of it was lost within a minute; none is given up yet"
            return [commands.Notify(GROUP_LOST, detail)]
        return []

    def happened(self, entry: Entry, transition: Transition, decided: Sequence[Decision]) -> None:
        pool, counted = self._of(entry)
        at, name = transition.event.at, entry.life.name
        for unsaid in self._breakers.happened(entry, transition, _allowed(pool), decided):
            self._decision_log.note(unsaid)
        if self._starts_hold(pool, counted, transition):
            pool.held_since = at
        if _is_lost(transition):
            pool.lost[name] = at
        elif transition.after.attached:
            pool.lost.pop(name, None)
        if pool.lost:
            since = at - MINUTE_S
            pool.lost = {each: when for each, when in pool.lost.items() if when > since}
        if any(each.kind is DecisionKind.START for each in decided):
            pool.started(at)
        pool.leaving.discard(name)
        counted.count(transition.before, by=-1)
        if any(isinstance(each, commands.Forget) for each in transition.ordered):
            self._breakers.forget(name)
        else:
            counted.count(transition.after)

    # --- internals ------------------------------------------------------------------------------

    def _starts_hold(self, pool: Pool, counted: Census, transition: Transition) -> bool:
        """Whether with this transition most of the pool has been lost within a minute."""
        if not _is_lost(transition) or pool.held(counted, transition.event.at):
            return False
        return pool.mass_loss(transition.after.name, counted, transition.event.at) is not None

    def _skip(
        self, entry: Entry, at: float, rule: str, text: str, build: str | None = None
    ) -> Decision:
        return Decision(
            at=at,
            kind=DecisionKind.SKIP,
            rule=rule,
            text=f"not stopped: {text}",
            worker=entry.life.name,
            build=build,
            group=entry.definition.group,
        )

    def _of(self, entry: Entry) -> tuple[Pool, Census]:
        key = pool_of(entry)
        return self._pool(key), self._census().setdefault(key, Census())

    def _pool(self, key: PoolKey) -> Pool:
        if key not in self._pools:
            self._pools[key] = Pool(key, self._group_of_pool(key))
        return self._pools[key]

    def _group_of_pool(self, key: PoolKey) -> GroupDefinition | None:
        return self._groups.get(key.name) if key.is_group else None

    def _census(self) -> dict[PoolKey, Census]:
        """The counts of all pools; counted again at the first use after changed()."""
        if self._counted is None:
            self._counted = census((pool_of(entry), entry.life) for entry in self._registry)
        return self._counted


def _allowed(pool: Pool) -> int:
    """How many failed starts in a row the pool allows."""
    return pool.group.failures_allowed if pool.group else FAILURES_ALLOWED


def _is_lost(transition: Transition) -> bool:
    """Whether the transition lost the worker's agent: it was attached before and is not after,
    because of a Detached or Inspected event and not of an order.
    """
    before, after = transition.before, transition.after
    if before.state is not State.SUBSTANTIATED or not before.attached or after.attached:
        return False
    return isinstance(transition.event, events.Detached | events.Inspected)
