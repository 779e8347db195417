"""Carries out the commands of the lifecycle core, once the transition that ordered them is stored.

A driver call, a timer and an examination each end in an event, which is handed back to the
controller. Most other commands are only passed to objects that exist before the controller does
(``CommandReceivers``), where the parts of the hub that act on them wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from hostler_hub.lifecycle import commands, events
from hostler_hub.lifecycle.model import Timer
from hostler_hub.runtime.clock import Clock
from hostler_hub.runtime.stalls import Stalls
from hostler_hub.runtime.tasks import Tasks
from hostler_hub.workers.agents.examiner import Examiner
from hostler_hub.workers.agents.sessions import Sessions
from hostler_hub.workers.driver_calls import DriverCalls
from hostler_hub.workers.lease_index import LeaseIndex
from hostler_hub.workers.registry import Entry, Registry

# Timers that wait for agents: while the hub itself stands still no agent can come.
_FOR_AGENTS = frozenset({Timer.ATTACH, Timer.RECONNECT, Timer.MISSING})

T = TypeVar("T", bound=commands.Command)
DriverCall = Callable[[Entry, T], Awaitable[events.Event]]
Handle = Callable[[str, events.Event], Coroutine[Any, Any, object]]
"""Hands an event of the named worker to the controller. Arguments: worker name, event."""


@dataclass(frozen=True, slots=True)
class CommandReceivers:
    """The receivers of commands that neither call a driver nor set a timer.

    ``lost_leases`` holds the orders to give builds back; each event of ``offers`` is set when a
    slot or a worker may have become available.
    """

    sessions: Sessions
    examiner: Examiner
    leases: LeaseIndex
    lost_leases: asyncio.Queue[commands.LoseLeases]
    offers: tuple[asyncio.Event, ...]


class CommandHandlers:
    """One handler per type of command. ``tasks`` run driver calls and the events of timers."""

    def __init__(
        self,
        clock: Clock,
        registry: Registry,
        calls: DriverCalls,
        receivers: CommandReceivers,
        stalls: Stalls,
        tasks: Tasks,
        handle: Handle,
    ) -> None:
        self._clock = clock
        self._registry = registry
        self._calls = calls
        self._receivers = receivers
        self._stalls = stalls
        self._tasks = tasks
        self._handle = handle
        self._examinations = Tasks()  # these wait for agents: a hub that stops does not
        self._handlers: dict[type[commands.Command], Callable[[Entry, Any], None]] = {
            commands.Create: self._create,
            commands.Inspect: self._inspect,
            commands.Destroy: self._destroy,
            commands.CancelTimer: self._cancel_timer,
            commands.SendAway: self._send_away,
            commands.TurnAway: self._turn_away,
            commands.Examine: self._examine,
            commands.LoseLeases: self._lose_leases,
            commands.OfferSlots: self._offer_slots,
            commands.TellPerson: self._lease_changed,
            commands.Notify: _stored_already,
            commands.Resolve: _stored_already,
            commands.Forget: self._forget,
        }

    def carry_out(self, entry: Entry, command: commands.Command, ordered_at: float) -> None:
        """Start to carry out a command, without waiting for its end.

        ``ordered_at``: the time of the event that ordered it, from which a timer is counted.
        """
        if isinstance(command, commands.SetTimer):
            self._set_timer(entry, command.timer, command.at - ordered_at)
        else:
            self._handlers[type(command)](entry, command)

    async def aclose(self) -> None:
        """Cancel all timers and examinations."""
        for entry in self._registry:
            _cancel_timers(entry)
        await self._examinations.aclose()

    # --- drivers ------------------------------------------------------------------------------

    def _create(self, entry: Entry, command: commands.Create) -> None:
        self._call_driver(entry, command, self._calls.create)

    def _inspect(self, entry: Entry, command: commands.Inspect) -> None:
        # The event that a create or destroy in progress ends in says more than an inspection.
        if not entry.driver_lock.locked():
            self._call_driver(entry, command, self._calls.inspect)

    def _destroy(self, entry: Entry, command: commands.Destroy) -> None:
        self._call_driver(entry, command, self._calls.destroy)

    def _call_driver(self, entry: Entry, command: T, call: DriverCall[T]) -> None:
        name = f"{type(command).__name__.lower()} {entry.life.name}"
        self._tasks.spawn(self._report(entry, command, call), name)

    async def _report(self, entry: Entry, command: T, call: DriverCall[T]) -> None:
        async with entry.driver_lock:  # never two driver calls at once on one worker (P10)
            event = await call(entry, command)
        await self._handle(entry.life.name, event)

    # --- timers -------------------------------------------------------------------------------

    def _set_timer(self, entry: Entry, timer: Timer, after_s: float) -> None:
        """Set a timer to fire after ``after_s`` seconds, in place of an earlier one.

        Timers are durations: setting the wall clock neither ends nor prolongs one (A9).
        """
        self._cancel_timer(entry, commands.CancelTimer(timer))
        self._arm(entry, timer, after_s)

    def _arm(self, entry: Entry, timer: Timer, after_s: float) -> None:
        name, stalled_s = entry.life.name, self._stalls.total_s()
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
        owed_s = self._stalls.total_s() - stalled_s
        if timer in _FOR_AGENTS and owed_s > 0:
            # The hub stood still meanwhile: the agent gets that time in addition (V12, A10).
            self._arm(entry, timer, owed_s)
            return
        # The clock may have been set back meanwhile; the timer's own instant is what counts.
        at = max(self._clock.now(), entry.life.timers.get(timer, 0.0))
        event = events.TimerFired(at=at, timer=timer)
        self._tasks.spawn(self._handle(name, event), f"timer {timer} of {name}")

    # --- agents, leases, the registry -----------------------------------------------------------

    def _send_away(self, _entry: Entry, command: commands.SendAway) -> None:
        self._receivers.sessions.send_away(command.connection, command.reason)

    def _turn_away(self, _entry: Entry, command: commands.TurnAway) -> None:
        self._receivers.sessions.turn_away(command.connection, command.reason)

    def _examine(self, entry: Entry, command: commands.Examine) -> None:
        name = entry.life.name
        self._examinations.spawn(self._examined(name, command), f"examine {name}")

    async def _examined(self, worker: str, command: commands.Examine) -> None:
        event = await self._receivers.examiner.examine(worker, command)
        if event is not None:
            await self._handle(worker, event)

    def _lose_leases(self, _entry: Entry, command: commands.LoseLeases) -> None:
        self._receivers.lost_leases.put_nowait(command)

    def _offer_slots(self, _entry: Entry, _command: commands.OfferSlots) -> None:
        for offer in self._receivers.offers:
            offer.set()

    def _lease_changed(self, _entry: Entry, command: commands.TellPerson) -> None:
        self._receivers.leases.changed(command)

    def _forget(self, entry: Entry, _command: commands.Forget) -> None:
        self._registry.discard(entry.life.name)
        _cancel_timers(entry)


def _cancel_timers(entry: Entry) -> None:
    for handle in entry.timers.values():
        handle.cancel()


def _stored_already(_entry: Entry, _command: commands.Command) -> None:
    """Do nothing: an incident is stored in the transaction of the transition it is in (K12)."""
