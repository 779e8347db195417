"""The shell around the lifecycle core: persists what it decided, then does what it ordered.

Theory of operation. Events of one worker are taken one at a time under its lock. An event is
stepped, the new row (with its event-log row, and for a new instance its ledger row) is committed,
and only then are the commands carried out; each outcome comes back as the next event. Nothing is
done from memory alone: after a crash ``load()`` reads the rows, and Recovered orders again what
was under way (V1, V17).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import Connection

from hostler_hub.drivers.contract import Driver
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import Worker, check, check_transition, commands, events, step
from hostler_hub.lifecycle.model import Policy, State, Timer
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.stalls import Stalls
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.runtime.waiters import Waiters
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store import builds, incidents, workers
from hostler_hub.store.engine import Store
from hostler_hub.store.errors import StoreUnavailable
from hostler_hub.workers.decisions import Transition
from hostler_hub.workers.driver_calls import DriverCalls
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.incidents import Alarms, nobody
from hostler_hub.workers.policy import FleetPolicy, NoFleetPolicy
from hostler_hub.workers.registry import Entry, Origin, Registry
from hostler_hub.workers.rows import life_of, policy_of
from hostler_hub.workers.transition import ExtraWrite, PendingTransition, write

_log = structlog.get_logger(__name__)

# How often what could not be stored is tried again, beyond the store's own patience.
RETRY_S = 1.0

# An agent that has lost its hub kills its jobs 30 s before its leases end; the hub waits 30 s more.
AGENT_MARGIN_S = 30.0

_FOR_AGENTS = frozenset({Timer.ATTACH, Timer.RECONNECT, Timer.MISSING})

T = TypeVar("T", bound=commands.Command)
DriverCall = Callable[[Entry, T], Awaitable[events.Event]]


class Outlets(Protocol):
    """Where the commands go that are not about a driver or a timer."""

    def send_away(self, connection: str, reason: str) -> None: ...
    def lose_leases(self, leases: Sequence[str], reason: str, *, still_running: bool) -> None: ...
    def offer_slots(self) -> None: ...
    def tell_person(self, lease: str) -> None: ...
    def examine(self, worker: str, order: commands.Examine) -> None: ...


class Controller:
    """Owns the registry's lives.

    ``outlets`` is set by the composition root before load(), ``alarms`` where anybody is told, and
    ``oversight`` where somebody sees the whole fleet.
    """

    outlets: Outlets

    def __init__(
        self,
        store: Store,
        clock: Clock,
        registry: Registry,
        drivers: Mapping[str, Driver],
        lease_ttl_s: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._registry = registry
        self._drivers = drivers
        self._calls = DriverCalls(drivers, clock, Evidence(store, clock))
        self._lease_ttl_s = lease_ttl_s
        self.alarms = Alarms(nobody, lambda: None)
        self.oversight: FleetPolicy = NoFleetPolicy()
        self._tasks = Tasks()
        self._endings: Waiters[str] = Waiters()  # by instance
        self.stalls = Stalls(clock.monotonic)
        self._verbs: dict[type[commands.Command], Callable[[Entry, Any], None]] = {
            commands.Create: self._create,
            commands.Inspect: self._inspect,
            commands.Destroy: self._destroy,
            commands.CancelTimer: self._cancel_timer,
            commands.SendAway: self._send_away,
            commands.Examine: self._examine,
            commands.LoseLeases: self._lose_leases,
            commands.OfferSlots: self._offer_slots,
            commands.TellPerson: self._tell_person,
            commands.Notify: _with_the_row,
            commands.Resolve: _with_the_row,
            commands.Forget: self._forget,
        }

    # --- the hub's start and end ------------------------------------------------------------

    async def load(self) -> list[str]:
        """Read every worker and its open leases; nothing is ordered yet.

        Returns the leases that no worker holds: the last hub died between losing them and giving
        their builds back.
        """
        rows, open_leases, instances, is_open = await self._store.read(_load)
        origins = {row["id"]: _origin(row) for row in instances}
        held: dict[tuple[str, str], list[str]] = {}
        for lease in open_leases:
            held.setdefault((lease["worker"], lease["instance"]), []).append(lease["id"])
        for row in rows:
            definition = WorkerDefinition.stored(row["definition"])
            up = row["state"] == State.SUBSTANTIATED
            leases = held.pop((row["name"], row["instance_id"]), []) if up else []
            entry = Entry(
                definition, life_of(row, self.policy(definition), tuple(leases)), row["revision"]
            )
            entry.password_hash = row["password_hash"]
            entry.facts = row["facts"]
            entry.started = origins.get(row["instance_id"])
            self._registry.add(entry)
        for row in is_open:
            if (found := self._registry.find(row["worker"])) is not None:
                found.incidents[row["kind"]] = row["id"]
        return [lease for left in held.values() for lease in left]

    async def recover(self) -> None:
        """Take up what was under way when the last hub ended."""
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
        """Wait until no driver call and no event is under way; whether it came to that."""
        return await self._tasks.settle(deadline_s)

    async def over(self, worker: str, instance: str) -> None:
        """Wait until nothing can run on an instance any more that was told to end (V5).

        That is when it is proven gone, or when its agent, should it hear of nobody, has ended its
        jobs by itself (A7).
        """
        with self._endings.waiting(instance) as ended, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._lease_ttl_s + AGENT_MARGIN_S):
                entry = self._registry.find(worker)
                if entry is not None and _has(entry.life, instance):
                    await ended.wait()

    async def aclose(self) -> None:
        for entry in self._registry:
            for handle in entry.timers.values():
                handle.cancel()
        await self._tasks.aclose()

    def policy(self, definition: WorkerDefinition) -> Policy:
        capabilities = self._drivers[definition.driver].capabilities
        return policy_of(definition, capabilities, lease_ttl_s=self._lease_ttl_s)

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
        """Let happen what has happened already: through an outage of the store, however long.

        Nobody would tell of it again, and the worker would wait for it for ever (D3, V17). False
        if the worker is gone: then there is nobody to tell, and nothing was written.
        """
        while (told := await self._tell(name, event, extra_write)) is None:
            await self._store_rests()
        return told

    async def _tell(
        self, name: str, event: events.Event, extra_write: ExtraWrite | None
    ) -> bool | None:
        """Whether there was somebody to tell; None if the store did not take it."""
        try:
            await self.handle(name, event, extra_write)
        except NotFound:
            return False
        except StoreUnavailable as error:
            happened = type(event).__name__
            _log.warning("event waits", worker=name, happened=happened, reason=str(error))
            return None
        return True

    @staticmethod
    async def _store_rests() -> None:
        await asyncio.sleep(RETRY_S)

    async def handle_many(
        self, happened: Sequence[tuple[str, events.Event]], extra_write: ExtraWrite | None = None
    ) -> None:
        """The same for many workers in one transaction: all of it happens, or none."""
        named = sorted(dict(happened).items())
        await self._happen(
            [(self._registry.get(name), event) for name, event in named], extra_write
        )

    async def _happen(
        self, happened: Sequence[tuple[Entry, events.Event]], extra_write: ExtraWrite | None
    ) -> list[Worker]:
        """The lives after it, but of workers that were removed before their turn."""
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
        event = self.oversight.judge(entry, event)
        after, ordered = step(before, event)
        made = Transition(event, before, after, ordered, self.oversight.group_of(entry))
        ordered.extend(self.oversight.orders(entry, made))
        check(after)
        check_transition(before, after)
        starts = after.instance is not None and before.instance is None
        token = secrets.token_urlsafe(32) if starts and not after.policy.permanent else None
        alarms = self.alarms.of(entry, after, ordered, event.at)
        decided = self.oversight.decisions(entry, made)
        return PendingTransition(entry, event, before, after, ordered, alarms, token, made, decided)

    async def _commit(
        self,
        decided: Sequence[PendingTransition],
        extra_write: ExtraWrite | None,
        locks: contextlib.AsyncExitStack,
    ) -> None:
        """Row, memory, orders. Whoever cuts it leaves a memory whose every next write is stale."""
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
                    self._execute(each, command)

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
        self.oversight.happened(entry, each.step, each.decisions)
        for alarm in each.alarms:
            alarm.adopt(entry.incidents)
            self.alarms.tell(alarm, entry.life.name)
        if each.before.state is not each.after.state:
            _log.info(
                "worker changed state",
                worker=entry.life.name,
                happened=type(each.event).__name__,
                before=each.before.state.value,
                after=each.after.state.value,
            )

    # --- commands -----------------------------------------------------------------------------

    def _execute(self, each: PendingTransition, command: commands.Command) -> None:
        if isinstance(command, commands.SetTimer):
            self._set_timer(each.entry, command.timer, command.at - each.event.at)
        else:
            self._verbs[type(command)](each.entry, command)

    def _create(self, entry: Entry, command: commands.Create) -> None:
        self._call_driver(entry, command, self._calls.create)

    def _inspect(self, entry: Entry, command: commands.Inspect) -> None:
        if not entry.driver_lock.locked():  # a create or destroy under way says more than a look
            self._call_driver(entry, command, self._calls.inspect)

    def _destroy(self, entry: Entry, command: commands.Destroy) -> None:
        self._call_driver(entry, command, self._calls.destroy)

    def _set_timer(self, entry: Entry, timer: Timer, after_s: float) -> None:
        """What the core waits for are durations: a clock that is set ends none of them (A9)."""
        self._cancel_timer(entry, commands.CancelTimer(timer))
        self._arm(entry, timer, after_s)

    def _arm(self, entry: Entry, timer: Timer, after_s: float) -> None:
        name, stalled_s = entry.life.name, self.stalls.total_s()
        entry.timers[timer] = self._clock.call_after(
            after_s, lambda: self._fire(name, timer, stalled_s)
        )

    def _cancel_timer(self, entry: Entry, command: commands.CancelTimer) -> None:
        handle = entry.timers.pop(command.timer, None)
        if handle is not None:
            handle.cancel()

    def _fire(self, name: str, timer: Timer, stalled_s: float) -> None:
        entry = self._registry.find(name)
        if entry is None:
            return
        owed_s = self.stalls.total_s() - stalled_s
        if timer in _FOR_AGENTS and owed_s > 0:
            # The hub stood still meanwhile: the agent gets that time for coming (V12, A10).
            self._arm(entry, timer, owed_s)
            return
        # The clock may have been set back meanwhile; the timer's own instant is what counts.
        at = max(self._clock.now(), entry.life.timers.get(timer, 0.0))
        event = events.TimerFired(at=at, timer=timer)
        self._tasks.spawn(self.handle_until_stored(name, event), f"timer {timer} of {name}")

    def _send_away(self, _entry: Entry, command: commands.SendAway) -> None:
        self.outlets.send_away(command.connection, command.reason)

    def _examine(self, entry: Entry, command: commands.Examine) -> None:
        self.outlets.examine(entry.life.name, command)

    def _lose_leases(self, _entry: Entry, command: commands.LoseLeases) -> None:
        self.outlets.lose_leases(
            command.leases, command.reason, still_running=command.still_running
        )

    def _offer_slots(self, _entry: Entry, _command: commands.OfferSlots) -> None:
        self.outlets.offer_slots()

    def _tell_person(self, _entry: Entry, command: commands.TellPerson) -> None:
        self.outlets.tell_person(command.lease.id)

    def _forget(self, entry: Entry, _command: commands.Forget) -> None:
        self._registry.discard(entry.life.name)
        for handle in entry.timers.values():
            handle.cancel()

    def _call_driver(self, entry: Entry, command: T, call: DriverCall[T]) -> None:
        name = f"{type(command).__name__.lower()} {entry.life.name}"
        self._tasks.spawn(self._report(entry, command, call), name)

    async def _report(self, entry: Entry, command: T, call: DriverCall[T]) -> None:
        async with entry.driver_lock:  # never two driver calls at once on one worker (P10)
            event = await call(entry, command)
        await self.handle_until_stored(entry.life.name, event)


def _with_the_row(_entry: Entry, _command: commands.Command) -> None:
    """Done already: an incident is written with the transition that orders it (K12)."""


def _has(life: Worker, instance: str) -> bool:
    return life.instance is not None and life.instance.id == instance


def _load(c: Connection) -> tuple[Sequence[Any], ...]:
    is_open = incidents.load_open(c)
    return workers.load_all(c), builds.open_leases(c), workers.live_instances(c), is_open


def _origin(row: Mapping[str, Any]) -> Origin | None:
    """None for an instance of a hub that did not record it yet: its definition says."""
    return None if row["driver"] is None else Origin(row["driver"], row["driver_options"])
