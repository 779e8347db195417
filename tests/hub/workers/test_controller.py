"""The shell around the core: a real store, a virtual clock, a provider that misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hub_core import Core

from hostler_hub.drivers.contract import Environment
from hostler_hub.drivers.fake.driver import FakeDriver, FakeProvider
from hostler_hub.errors import NotFound
from hostler_hub.lifecycle import Mode, State, Worker, events
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.passwords import hash_of
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store import events as event_rows
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.store.tables import leases
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.rows import columns_of

START = 1_000_000_000.0


@dataclass
class Hub:
    """One hub's controller; the provider and the database outlive it."""

    store: Store
    clock: VirtualClock
    registry: Registry
    controller: Controller
    core: Core
    provider: FakeProvider

    def life(self) -> Worker:
        return self.registry.get("w").life

    async def define(self, **options: Any) -> None:
        definition = WorkerDefinition.model_validate(
            {"name": "w", "driver": "fake", "driver_options": options}
        )
        life = Worker("w", self.controller.policy(definition), state_since=START)
        entry = Entry(definition, life, revision=1)
        row = {
            "name": "w",
            "definition": definition.public(),
            "password_hash": None,
            "facts": {},
            "revision": 1,
            **columns_of(life),
        }
        await self.store.write(workers.insert, row)
        self.registry.add(entry)

    async def want(self) -> str:
        instance = new_ulid()
        wanted = events.Wanted(at=self.clock.now(), instance=instance, cause="build b")
        await self.controller.handle("w", wanted)
        return instance

    async def attach(self, connection: str = "c") -> None:
        life = self.life()
        assert life.instance is not None
        came = events.Attached(
            at=self.clock.now(),
            instance=life.instance.id,
            epoch=life.epoch,
            connection=connection,
            resumable=True,
        )
        await self.controller.handle("w", came)

    async def pass_time(self, seconds: float) -> None:
        """Let the clock run, timer by timer, and everything it sets off come to rest."""
        until = self.clock.now() + seconds
        assert await self.controller.settle(60)
        while (due := self.clock.next_due()) is not None and due <= until:
            self.clock.advance(max(0.0, due - self.clock.now()))
            assert await self.controller.settle(60)
        self.clock.advance(max(0.0, until - self.clock.now()))
        assert await self.controller.settle(60)


@asynccontextmanager
async def hub_on(
    url: str, tmp_path: Path, provider: FakeProvider, at: float = START
) -> AsyncIterator[Hub]:
    clock = VirtualClock(at)
    environment = Environment("HUB", tmp_path, "ws://127.0.0.1:9/")
    driver = FakeDriver(environment, provider)
    async with Store(url, exclusive=True) as store:
        core = Core(store, clock, {"fake": driver})
        await core.controller.load()
        yield Hub(store, clock, core.registry, core.controller, core, provider)
        await core.aclose()
        await driver.aclose()


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
async def hub(sqlite_url: str, tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Hub]:
    async with hub_on(sqlite_url, tmp_path, provider) as made:
        yield made


async def test_V1_the_intent_is_in_the_ledger_with_the_token_s_hash_only(hub: Hub) -> None:
    await hub.define()
    entry = hub.registry.get("w")
    async with entry.driver_lock:  # the driver is not asked before
        instance = await hub.want()
        token = entry.token
    row = await hub.store.read(workers.instance, instance)
    assert row is not None
    assert (row["worker"], row["epoch"], row["ended_at"]) == ("w", 1, None)
    assert token is not None
    assert row["token_hash"] == hash_of(token)
    assert await hub.controller.settle(60)
    assert entry.token is None
    assert [call for call in hub.provider.calls if call[0] == "create"] == [("create", instance)]


async def test_P1_failed_but_done_is_destroyed_and_the_worker_backs_off(hub: Hub) -> None:
    await hub.define(create="fail_done")
    instance = await hub.want()
    await hub.controller.settle(60)
    assert hub.life().state is State.LATENT
    assert hub.provider.instances == {}
    assert "gateway timeout" in str(hub.life().quarantine_reason)
    row = await hub.store.read(workers.instance, instance)
    assert row is not None
    assert row["ended_at"] is not None


async def test_L16_a_create_that_never_answers_is_given_up_at_its_deadline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = FakeDriver.capabilities.__class__(create_deadline_s=0.01)
    monkeypatch.setattr(FakeDriver, "capabilities", hasty)
    await hub.define(create="hang")
    await hub.want()
    await hub.controller.settle(60)
    assert hub.life().state is State.LATENT
    assert "deadline" in str(hub.life().last_error)


async def test_P13_a_destroy_is_retried_until_it_succeeds(hub: Hub) -> None:
    await hub.define(destroy="fail")
    await hub.want()
    await hub.controller.settle(60)
    stop = events.ModeSet(at=hub.clock.now(), mode=Mode.STOPPED, reason="x", by="ann")
    await hub.controller.handle("w", stop)
    await hub.pass_time(60)
    assert hub.life().state is State.INSUBSTANTIATING
    tries = [call for call in hub.provider.calls if call[0] == "destroy"]
    assert 4 <= len(tries) <= 8
    entry = hub.registry.get("w")
    entry.definition = entry.definition.model_copy(update={"driver_options": {}})
    await hub.pass_time(300)
    assert hub.life().state is State.LATENT


async def test_P8_an_instance_whose_agent_never_comes_is_stopped_and_missing(hub: Hub) -> None:
    await hub.define()
    await hub.want()
    await hub.pass_time(119)
    assert hub.life().state is State.SUBSTANTIATING
    await hub.pass_time(2)
    assert hub.life().state is State.LATENT
    assert hub.life().missing_since is not None
    assert hub.provider.instances == {}


async def test_A10_an_agent_gets_the_time_that_the_hub_stood_still(hub: Hub) -> None:
    await hub.define()
    await hub.want()
    await hub.pass_time(60)
    with hub.controller.stalls.waiting():  # for a store that answers after 100 s
        hub.clock.advance(100)
    await hub.pass_time(59)
    assert hub.life().state is State.SUBSTANTIATING
    await hub.pass_time(2)
    assert hub.life().missing_since is not None


async def test_P7_a_vanished_instance_is_seen_at_the_next_check(hub: Hub) -> None:
    await hub.define()
    instance = await hub.want()
    await hub.controller.settle(60)
    del hub.provider.instances[instance]
    await hub.pass_time(10)
    assert hub.life().state is State.LATENT
    assert "no such instance" in str(hub.life().quarantine_reason)


async def test_idle_stops_the_instance_at_the_timeout(hub: Hub) -> None:
    await hub.define()
    await hub.want()
    await hub.controller.settle(60)
    await hub.attach()
    await hub.pass_time(599)
    assert hub.life().state is State.SUBSTANTIATED
    await hub.pass_time(1)
    assert hub.life().state is State.LATENT
    assert hub.core.sessions.sent_away == ["c"]


async def test_P20_of_a_lease_and_the_idle_timer_one_wins(hub: Hub) -> None:
    await hub.define()
    await hub.want()
    await hub.controller.settle(60)
    await hub.attach()
    leased = events.Leased(at=hub.clock.now(), lease="L1")
    await hub.controller.handle("w", leased, lambda c: None)
    await hub.pass_time(601)
    assert hub.life().leases == ("L1",)


async def test_what_comes_with_an_event_is_committed_with_it_or_not_at_all(hub: Hub) -> None:
    await hub.define()

    def refuse(_c: object) -> None:
        raise LookupError("no")

    wanted = events.Wanted(at=START, instance=new_ulid(), cause="b")
    with pytest.raises(LookupError):
        await hub.controller.handle("w", wanted, refuse)
    assert hub.life().state is State.LATENT
    assert hub.provider.calls == []
    assert await hub.store.read(event_rows.recent, "w", 10) == []


async def test_V16_transitions_are_recorded_with_their_cause(hub: Hub) -> None:
    await hub.define(create="fail")
    await hub.want()
    await hub.controller.settle(60)
    rows = await hub.store.read(event_rows.recent, "w", 10)
    said = [(row["event"], row["to_state"], row["cause"]) for row in reversed(rows)]
    assert said[0] == ("Wanted", "substantiating", "build b")
    assert said[1][:2] == ("CreateFailed", "insubstantiating")
    assert "out of capacity" in said[1][2]
    assert said[2][:2] == ("Destroyed", "latent")


async def test_a_removed_worker_is_gone_when_its_instance_is(hub: Hub) -> None:
    await hub.define()
    await hub.want()
    await hub.controller.settle(60)
    await hub.controller.handle("w", events.Removed(at=hub.clock.now(), by="ann"))
    await hub.controller.settle(60)
    assert hub.provider.instances == {}
    assert await hub.store.read(workers.load_all) == []
    with pytest.raises(NotFound):
        hub.life()


# --- kill -9 and start again ----------------------------------------------------------------------


async def test_K2_an_intent_without_a_create_comes_to_rest(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define(create="hang")
        await hub.want()  # the create is under way for ever; this hub dies with it
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 50) as hub:
        await hub.controller.recover()
        await hub.controller.settle(60)
        assert hub.life().state is State.LATENT
        assert hub.life().epoch == 1
        assert await hub.store.read(workers.live_instances) == []


async def test_K3_a_create_that_was_done_is_adopted(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define()
        instance = await hub.want()
        await hub.controller.settle(60)
        entry = hub.registry.get("w")
        forgotten = {**columns_of(entry.life), "handle": None}
        await hub.store.write(workers.update, "w", entry.revision, forgotten)
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 50) as hub:
        await hub.controller.recover()
        await hub.controller.settle(60)
        assert hub.life().instance is not None
        assert hub.life().instance.handle == {"version": 1, "instance": instance}
        assert sum(call[0] == "create" for call in provider.calls) == 1
        await hub.pass_time(100)  # V12: the wait began anew with this hub
        assert hub.life().state is State.SUBSTANTIATING


async def test_K11_a_stop_that_was_under_way_is_finished(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define(destroy="fail")
        await hub.want()
        await hub.controller.settle(60)
        await hub.controller.handle("w", events.Unwanted(at=START, cause="x"))
        await hub.controller.settle(60)
        assert hub.life().state is State.INSUBSTANTIATING
        row = (await hub.store.read(workers.load_all))[0]
        works = {**row["definition"], "driver_options": {}}
        await hub.store.write(workers.redefine, "w", works, None)
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 50) as hub:
        await hub.controller.recover()
        await hub.controller.settle(60)
        assert hub.life().state is State.LATENT
        assert provider.instances == {}


@pytest.mark.parametrize("restarts", [False, True])
async def test_V3_an_instance_is_stopped_where_it_was_started_whatever_was_redefined_since(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider, restarts: bool
) -> None:
    moved = WorkerDefinition.model_validate(
        {"name": "w", "driver": "fake", "driver_options": {"region": "north"}}
    )
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define(region="south")
        await hub.want()
        await hub.controller.settle(60)
        await hub.store.write(workers.redefine, "w", moved.public(), None)
        hub.registry.get("w").definition = moved
        if not restarts:
            await hub.controller.handle("w", events.Unwanted(at=START, cause="x"))
            await hub.controller.settle(60)
            assert (hub.life().state, provider.instances) == (State.LATENT, {})
            await hub.want()
            await hub.controller.settle(60)
            assert [each.region for each in provider.instances.values()] == ["north"]
            return
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 50) as hub:
        await hub.controller.recover()
        await hub.controller.handle("w", events.Unwanted(at=START + 51, cause="x"))
        await hub.controller.settle(60)
        assert (hub.life().state, provider.instances) == (State.LATENT, {})


async def test_K10_a_lease_without_a_holder_is_handed_to_whoever_gives_builds_back(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    """The last hub persisted that the instance goes, and died before it gave the build back."""
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define()
        instance = await hub.want()
        await hub.controller.settle(60)
        lease = {"id": "L1", "build": "B1", "worker": "w", "instance": instance, "epoch": 1}
        times = {"acquired_at": START, "ended_at": None, "end_reason": None}
        await hub.store.write(lambda c: c.execute(leases.insert(), {**lease, **times}) and None)
        await hub.attach()
        await hub.controller.handle("w", events.Unwanted(at=START, cause="x"))
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 50) as hub:
        order = hub.core.receivers.lost_leases.get_nowait()
        assert (order.leases, order.still_running) == (("L1",), True)
        assert hub.life().leases == ()


async def test_modes_quarantines_and_errors_survive_a_restart(
    sqlite_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    async with hub_on(sqlite_url, tmp_path, provider) as hub:
        await hub.define(create="fail")
        await hub.want()
        await hub.controller.settle(60)
        pause = events.ModeSet(
            at=START + 1, mode=Mode.PAUSED, reason="patching", by="ann", until=START + 3600
        )
        await hub.controller.handle("w", pause)
        before = hub.life()
    async with hub_on(sqlite_url, tmp_path, provider, at=START + 5) as hub:
        await hub.controller.recover()
        after = hub.life()
        assert (after.mode, after.mode_reason, after.mode_by) == (Mode.PAUSED, "patching", "ann")
        assert (after.mode_at, after.mode_until) == (START + 1, START + 3600)
        assert after.quarantine_until == before.quarantine_until
        await hub.pass_time(10)
        assert hub.life().quarantine_until is None
        assert hub.life().backoff_s == 10
        await hub.pass_time(3600)
        assert hub.life().mode is Mode.ACTIVE


async def test_a_commit_goes_on_when_who_asked_for_it_is_cut_off(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and row agree afterwards: else every later event of the worker would be stale."""
    await hub.define()
    begun, write = asyncio.Event(), hub.store.write

    def noticed(*args: Any) -> Any:
        begun.set()
        return write(*args)

    monkeypatch.setattr(hub.store, "write", noticed)
    asking = asyncio.create_task(hub.want())
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await hub.controller.settle(60)
    assert hub.life().instance is not None
    await hub.attach()
    assert hub.life().state is State.SUBSTANTIATED


async def test_nothing_happens_for_who_is_cut_off_before_his_turn(hub: Hub) -> None:
    await hub.define()
    async with hub.registry.get("w").lock:
        asking = asyncio.create_task(hub.want())
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert hub.life().state is State.LATENT
    await hub.want()
