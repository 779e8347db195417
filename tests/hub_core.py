"""A controller for tests that need no whole hub, with what its commands reach."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from hostler_hub.drivers.contract import Driver
from hostler_hub.lifecycle import commands, events
from hostler_hub.runtime.clock import Clock
from hostler_hub.store.engine import Store
from hostler_hub.workers.agents.examiner import Examiner
from hostler_hub.workers.agents.sessions import Sessions
from hostler_hub.workers.command_handlers import CommandReceivers
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.decisions import Decision, Transition, of_transition
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.incidents import Alarms, Recipient
from hostler_hub.workers.lease_index import LeaseIndex
from hostler_hub.workers.policy import FleetPolicy
from hostler_hub.workers.registry import Entry, Registry


class EachAlone:
    """A `FleetPolicy` without groups and queued work: each worker lives by its own timers."""

    def judge(self, entry: Entry, event: events.Event) -> events.Event:
        return event

    def group_of(self, entry: Entry) -> str | None:
        return None

    def decisions(self, entry: Entry, transition: Transition) -> Sequence[Decision]:
        return of_transition(transition)

    def orders(self, entry: Entry, transition: Transition) -> Sequence[commands.Command]:
        return ()

    def happened(self, entry: Entry, transition: Transition, decided: Sequence[Decision]) -> None:
        """Nothing is kept."""


class Told:
    """The people who are told of incidents, and how often the outbox was woken for them."""

    def __init__(self) -> None:
        self.people: tuple[Recipient, ...] = ()
        self.news = 0

    def recipients(self, _entry: Entry) -> Sequence[Recipient]:
        return self.people

    def on_news(self) -> None:
        self.news += 1


class NoAgents(Sessions):
    """No agent ever connects; the connections that are to be sent away are recorded."""

    def __init__(self, store: Store, registry: Registry) -> None:
        super().__init__(store, registry)
        self.sent_away: list[str] = []

    def send_away(self, connection: str, reason: str, *, for_good: bool) -> None:
        self.sent_away.append(connection)


class Core:
    """A controller on a store of the test's. Nobody acts on what its commands leave word of."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        drivers: Mapping[str, Driver],
        policy: FleetPolicy | None = None,
        hold: Hold | None = None,
    ) -> None:
        self.registry = Registry()
        self.sessions = NoAgents(store, self.registry)
        self.offered = asyncio.Event()
        self.told = Told()
        self.receivers = CommandReceivers(
            sessions=self.sessions,
            examiner=Examiner(clock, self.registry, self.sessions),
            leases=LeaseIndex(),
            lost_leases=asyncio.Queue(),
            offers=(self.offered,),
        )
        self.controller = Controller(
            store,
            clock,
            self.registry,
            drivers,
            lease_ttl_s=300,
            policy=policy or EachAlone(),
            alarms=Alarms(self.told.recipients, self.told.on_news),
            receivers=self.receivers,
            hold=hold or Hold(),
        )

    async def aclose(self) -> None:
        await self.sessions.aclose()
        await self.controller.aclose()
