"""The shell around the lifecycle core: stores what it decided, then carries out its commands.

Theory of operation. Events of one worker are handled one at a time under its lock. ``step()``
computes the worker's next life and its commands; the new row (with its event-log row, and for a new
instance its ledger row) is committed, and only then are the commands carried out
(``command_handlers``); each outcome comes back as the next event. Nothing is done from memory
alone: after a crash ``load()`` reads the rows, and the event Recovered orders again what was in
progress (V1, V17).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import Connection

from hostler_hub.drivers.contract import Driver
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import Worker, check, check_transition, commands, events, step
from hostler_hub.lifecycle.model import Policy, State
from hostler_hub.runtime import process
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.stalls import Stalls
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.specs.isolation import Isolation, isolation_of
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store import builds, incidents, workers
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.workers.command_handlers import CommandHandlers, CommandReceivers
from hostler_hub.workers.decisions import Transition
from hostler_hub.workers.driver_calls import DriverCalls
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incidents import Alarms
from hostler_hub.workers.policy import FleetPolicy
from hostler_hub.workers.registry import Entry, Origin, Registry
from hostler_hub.workers.rows import life_of, policy_of
from hostler_hub.workers.transition import ExtraWrite, PendingTransition, write

_log = structlog.get_logger(__name__)

# The pause between two attempts to store an event, beyond the store's own retries.
RETRY_S = 1.0

# An agent that has lost its hub kills its jobs 30 s before its leases end; the hub waits 30 s more.
AGENT_MARGIN_S = 30.0


class Controller:
    """Owns the lives of the workers in the registry: nothing else changes them.

    ``policy`` is asked about every transition, ``alarms`` opens and closes incidents in its
    transaction, and ``receivers`` get the commands that neither call a driver nor set a timer.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        drivers: Mapping[str, Driver],
        lease_ttl_s: float,
        policy: FleetPolicy,
        alarms: Alarms,
        receivers: CommandReceivers,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._drivers = drivers
        self._lease_ttl_s = lease_ttl_s
        self._policy = policy
        self._alarms = alarms
        self._lost_leases = receivers.lost_leases
        self._tasks = Tasks()
        self._endings: Waiters[str] = Waiters()  # by instance
        self.stalls = Stalls(clock.monotonic)
        calls = DriverCalls(drivers, clock, Evidence(store, clock))
        self._handlers = CommandHandlers(
            clock, registry, calls, receivers, self.stalls, self._tasks, self.handle_until_stored
        )

    # --- the hub's start and end ------------------------------------------------------------

    async def load(self) -> None:
        """Fill the registry with every worker and its open leases; carry out no command yet.

        Leases that no worker holds are reported as lost: the last hub died between losing them and
        giving their builds back.
        """
        rows, open_leases, instances, is_open = await self._store.read(_load)
        origins = {row["id"]: _origin(row) for row in instances}
        processes = {row["id"]: row["process"] for row in instances}
        held: dict[tuple[str, str], list[str]] = {}
        for lease in open_leases:
            held.setdefault((lease["worker"], lease["instance"]), []).append(lease["id"])
        open_incidents: dict[str, dict[str, str]] = {}
        for row in is_open:
            open_incidents.setdefault(row["worker"], {})[row["kind"]] = row["id"]
        for row in rows:
            definition = WorkerDefinition.stored(row["definition"])
            up = row["state"] == State.SUBSTANTIATED
            leases = held.pop((row["name"], row["instance_id"]), []) if up else []
            process_id = processes.get(row["instance_id"])
            self._registry.add(
                Entry(
                    definition,
                    life_of(row, self.policy(definition), tuple(leases), process_id),
                    row["revision"],
                    password_hash=row["password_hash"],
                    facts=row["facts"],
                    started=origins.get(row["instance_id"]),
                    incidents=open_incidents.get(row["name"], {}),
                )
            )
        if held:
            ownerless = tuple(lease for left in held.values() for lease in left)
            reason = "its worker was lost when the last hub ended"
            self._lost_leases.put_nowait(commands.LoseLeases(ownerless, reason, still_running=True))

    async def recover(self) -> None:
        """Have each worker order again what was in progress when the last hub ended.

        Called once at the hub's start, after load().
        """
        at = self._clock.now()
        await self.handle_many(
            [(entry.life.name, events.Recovered(at=at)) for entry in self._registry]
        )

    async def stop(self, deadline_s: float) -> None:
        """Send every idle instance away and wait for its end; leased ones stay for the next hub.

        Returns within the deadline; what is left is logged, and kept in the store (V18).
        """
        at = self._clock.now()
        names = [entry.life.name for entry in self._registry]
        await self.handle_many([(name, events.HubStopping(at=at)) for name in names])
        await self.settle(deadline_s)
        for entry in self._registry:
            if entry.life.state is not State.LATENT and not entry.life.policy.permanent:
                life = entry.life
                _log.warning(
                    "instance outlives the hub",
                    worker=life.name,
                    state=life.state.value,
                    leases=len(life.leases),
                    error=life.last_error,
                )

    async def settle(self, deadline_s: float) -> bool:
        """Wait until no driver call or event is in progress. Returns False if the deadline passed
        first."""
        return await self._tasks.settle(deadline_s)

    async def wait_until_stopped(self, worker: str, instance: str) -> None:
        """Wait until nothing can run any more on an instance that was ordered to end (V5).

        That is when the instance is proven gone, or ``lease_ttl_s`` + AGENT_MARGIN_S seconds from
        now: by then an agent that reaches no hub has ended its jobs by itself (A7).
        """
        with self._endings.waiting(instance) as ended, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lease_ttl_s + AGENT_MARGIN_S):
                entry = self._registry.find(worker)
                if entry is not None and _has(entry.life, instance):
                    await ended.wait()

    async def aclose(self) -> None:
        await self._handlers.aclose()
        await self._tasks.aclose()

    def policy(self, definition: WorkerDefinition) -> Policy:
        capabilities = self._drivers[definition.driver].capabilities
        return policy_of(definition, capabilities, lease_ttl_s=self._lease_ttl_s)

    def is_hub_exposed(self, entry: Entry) -> bool:
        """Whether builds on the worker run as the hub's own user on the hub's machine.

        Before an agent has told its isolation, the definition and the hub's rights decide.
        """
        if not self._drivers[entry.definition.driver].capabilities.on_hub:
            return False
        isolation = isolation_of(entry.facts)
        if isolation is None:
            return entry.definition.run_as == "agent" or not process.is_root()
        return isolation is not Isolation.USER

    # --- events -------------------------------------------------------------------------------

    async def handle(
        self, name: str, event: events.Event, extra_write: ExtraWrite | None = None
    ) -> Worker:
        """Let ``event`` happen to the worker; what ``extra_write`` writes is committed with it.

        Raises NotFound for a worker that is gone, IllegalTransition, and what ``extra_write``
        raises: then nothing has happened. A caller that is cancelled during the write does not
        stop the write.
        """
        entry = self._registry.get(name)
        after = await self._happen([(entry, event)], extra_write)
        if not after:
            raise NotFound(f"worker {name} was removed meanwhile")
        return after[0]

    async def handle_until_stored(
        self, name: str, event: events.Event, extra_write: ExtraWrite | None = None
    ) -> bool:
        """Handle an event that nobody would report again: retry through an outage of the store.

        Without it the worker would wait for the event for ever (D3, V17). Returns False, with
        nothing written, if the worker was removed.
        """
        while True:
            handled = await self._try_to_handle(name, event, extra_write)
            if handled is not None:
                return handled
            await asyncio.sleep(RETRY_S)

    async def _try_to_handle(
        self, name: str, event: events.Event, extra_write: ExtraWrite | None
    ) -> bool | None:
        """True if the event was stored, False if the worker is gone, None if the store is away."""
        try:
            await self.handle(name, event, extra_write)
        except NotFound:
            return False
        except StoreUnavailable as error:
            happened = type(event).__name__
            _log.warning("event waits", worker=name, happened=happened, reason=str(error))
            return None
        return True

    async def handle_many(
        self, happened: Sequence[tuple[str, events.Event]], extra_write: ExtraWrite | None = None
    ) -> None:
        """Handle events of many workers in one transaction: all of them, or none."""
        named = sorted(dict(happened).items())
        await self._happen(
            [(self._registry.get(name), event) for name, event in named], extra_write
        )

    async def _happen(
        self, happened: Sequence[tuple[Entry, events.Event]], extra_write: ExtraWrite | None
    ) -> list[Worker]:
        """Decide the events' transitions under the workers' locks, and commit them together.

        Returns the lives after the events, without workers that were removed meanwhile.
        """
        async with contextlib.AsyncExitStack() as locks:
            for entry, _ in happened:  # in the order of names: two bulk orders cannot deadlock
                await locks.enter_async_context(entry.lock)
            decided = [
                self._decide(entry, event)
                for entry, event in happened
                if entry.life.name in self._registry
            ]
            commit = self._commit(decided, extra_write, locks.pop_all())
        await self._tasks.unbroken(commit, "commit")
        return [each.after for each in decided]

    def _decide(self, entry: Entry, event: events.Event) -> PendingTransition:
        before = entry.life
        event = self._policy.judge(entry, event)
        after, ordered = step(before, event)
        made = Transition(event, before, after, ordered, self._policy.group_of(entry))
        ordered.extend(self._policy.orders(entry, made))
        check(after)
        check_transition(before, after)
        starts = after.instance is not None and before.instance is None
        token = secrets.token_urlsafe(32) if starts and not after.policy.permanent else None
        alarms = self._alarms.of(entry, after, ordered, event.at)
        decided = self._policy.decisions(entry, made)
        return PendingTransition(entry, event, before, after, ordered, alarms, token, made, decided)

    async def _commit(
        self,
        decided: Sequence[PendingTransition],
        extra_write: ExtraWrite | None,
        locks: contextlib.AsyncExitStack,
    ) -> None:
        """Write the rows, then adopt the new lives, then start to carry out the commands.

        It must not be cancelled in between: the lives in memory would be older than their rows,
        and every next write of them would be refused as stale.
        """
        async with locks:
            changed = [each for each in decided if extra_write is not None or each.persists]
            if changed or extra_write is not None:
                with self.stalls.waiting():
                    await self._store.write(write, changed, extra_write)
            written = set(changed)
            for each in decided:
                self._adopt(each, written=each in written)
            for each in decided:
                for command in each.ordered:
                    self._handlers.carry_out(each.entry, command, each.event.at)

    def _adopt(self, each: PendingTransition, *, written: bool) -> None:
        entry = each.entry
        entry.life = each.after
        if each.after.instance is None:
            entry.started = None
            if each.before.instance is not None:
                self._endings.wake(each.before.instance.id)
        elif each.before.instance is None:
            entry.started = entry.origin
        if each.token is not None:
            entry.token = each.token
        if written:
            entry.revision += 1
        self._policy.happened(entry, each.transition, each.decisions)
        for alarm in each.alarms:
            alarm.adopt(entry.incidents)
            self._alarms.tell(alarm, entry.life.name)
        if each.before.state is not each.after.state:
            _log.info(
                "worker changed state",
                worker=entry.life.name,
                happened=type(each.event).__name__,
                before=each.before.state.value,
                after=each.after.state.value,
            )


def _has(life: Worker, instance: str) -> bool:
    return life.instance is not None and life.instance.id == instance


def _load(c: Connection) -> tuple[Sequence[Any], ...]:
    is_open = incidents.load_open(c)
    return workers.load_all(c), builds.open_leases(c), workers.live_instances(c), is_open


def _origin(row: Mapping[str, Any]) -> Origin | None:
    """How the instance of a ledger row was started.

    None for a row of an old hub that did not record it: then the worker's definition is used.
    """
    return None if row["driver"] is None else Origin(row["driver"], row["driver_options"])
