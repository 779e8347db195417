"""Workers that can really be leased: the real use cases, controller and core, and a fake driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.fake.driver import FakeDriver, FakeProvider
from hostler_hub.lifecycle import Worker, commands, events
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.leases import Leases
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.rows import columns_of


class Leasing:
    """A registry of its own. Also the outlets of its controller, where leases are concerned."""

    def __init__(self, store: Store, clock: VirtualClock, directory: Path) -> None:
        self._store = store
        self._clock = clock
        self.registry = Registry()
        self.driver = FakeDriver(Environment("HUB", directory, "ws://127.0.0.1:9/"), FakeProvider())
        drivers = {"fake": self.driver}
        self.controller = Controller(store, clock, self.registry, drivers, lease_ttl_s=300)
        self.controller.outlets = self
        self.leases = Leases(store, clock, self.registry, self.controller)

    async def aclose(self) -> None:
        await self.leases.aclose()
        await self.controller.aclose()
        await self.driver.aclose()

    # --- what a test does ---------------------------------------------------------------------

    async def define(self, name: str) -> None:
        definition = WorkerDefinition.model_validate({"name": name, "driver": "fake"})
        life = Worker(name, self.controller.policy(definition), state_since=self._clock.now())
        row = {
            "name": name,
            "definition": definition.public(),
            "password_hash": None,
            "facts": {},
            "revision": 1,
            **columns_of(life),
        }
        await self._store.write(workers.insert, row)
        self.registry.add(Entry(definition, life, revision=1))

    async def attach(self, name: str) -> None:
        """The agent of the instance that was started, once it was."""
        assert await self.leases.settle(60)
        assert await self.controller.settle(60)
        life = self.registry.get(name).life
        assert life.instance is not None
        came = events.Attached(
            at=self._clock.now(),
            instance=life.instance.id,
            epoch=life.epoch,
            connection="c",
            resumable=True,
        )
        await self.controller.handle(name, came)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)
        assert await self.controller.settle(60)

    # --- what the controller orders -----------------------------------------------------------

    def send_away(self, connection: str, reason: str) -> None: ...

    def lose_leases(self, leases: Sequence[str], reason: str, *, still_running: bool) -> None: ...

    def offer_slots(self) -> None:
        self.leases.offer()

    def tell_person(self, lease: str) -> None:
        self.leases.tell(lease)

    def examine(self, worker: str, order: commands.Examine) -> None:
        raise AssertionError(worker)  # nothing is expected of them
