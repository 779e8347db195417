"""Passes over a provider that leaks, lags and lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hub_core import Core

from hostler_hub.drivers.contract import Environment, InstanceSpec, Owned
from hostler_hub.drivers.errors import ProviderFailed
from hostler_hub.drivers.fake.driver import FakeDriver, FakeProvider
from hostler_hub.errors import Conflict
from hostler_hub.lifecycle import Mode, State, Worker, events
from hostler_hub.runtime.ids import new_ulid
from hostler_hub.runtime.virtual_clock import VirtualClock
from hostler_hub.specs.worker import WorkerDefinition
from hostler_hub.store import workers
from hostler_hub.store.engine import Store
from hostler_hub.workers.controller import Controller
from hostler_hub.workers.evidence import Evidence
from hostler_hub.workers.hold import Hold
from hostler_hub.workers.reconcile.diff import Action, DriftKind
from hostler_hub.workers.reconcile.reconciler import Reconciler
from hostler_hub.workers.reconcile.report import Checked, Report, Unanswered
from hostler_hub.workers.reconcile.views import Forgotten
from hostler_hub.workers.registry import Entry, Registry
from hostler_hub.workers.rows import columns_of

START = 1_000_000_000.0


@dataclass
class Hub:
    """As much of a hub as reconciling needs."""

    store: Store
    clock: VirtualClock
    registry: Registry
    controller: Controller
    reconciler: Reconciler
    driver: FakeDriver
    evidence: Evidence

    async def start(self, name: str, **options: Any) -> str:
        """A worker whose instance is up (but no agent attached); the instance."""
        definition = WorkerDefinition.model_validate(
            {
                "name": name,
                "driver": "fake",
                "driver_options": options,
                "missing_timeout": 10_000,
                "check_instance_interval": 10_000,
            }
        )
        life = Worker(name, self.controller.policy(definition), state_since=START)
        row = {"name": name, "definition": definition.public(), "password_hash": None}
        row |= {"facts": {}, "revision": 1, **columns_of(life)}
        await self.store.write(workers.insert, row)
        self.registry.add(Entry(definition, life, revision=1))
        instance = new_ulid()
        wanted = events.Wanted(at=self.clock.now(), instance=instance, cause="a test")
        await self.controller.handle(name, wanted)
        assert await self.controller.settle(60)
        return instance

    async def stop(self, name: str) -> None:
        event = events.Unwanted(at=self.clock.now(), cause="a test")
        await self.controller.handle(name, event)
        assert await self.controller.settle(60)

    def life(self, name: str) -> Worker:
        return self.registry.get(name).life

    async def stray(self, worker: str = "w") -> str:
        """Something with our mark that no intent was ever written for."""
        spec = InstanceSpec(worker, new_ulid(), 9, "token", {})
        await self.driver.create(spec)
        return spec.instance

    async def settle(self, **terms: Any) -> Report:
        report = await self.reconciler.settle(**terms)
        assert await self.controller.settle(60)
        return report


@asynccontextmanager
async def hub_on(
    url: str, tmp_path: Path, provider: FakeProvider, hold: Hold | None = None
) -> AsyncIterator[Hub]:
    clock = VirtualClock(START)
    driver = FakeDriver(Environment("HUB", tmp_path, "ws://127.0.0.1:9/"), provider)
    drivers = {"fake": driver}
    async with Store(url, exclusive=True) as store:
        hold = hold or Hold()
        core = Core(store, clock, drivers, hold=hold)
        registry, controller = core.registry, core.controller
        reconciler = Reconciler(store, clock, registry, controller, drivers, 300.0, hold)
        evidence = Evidence(store, clock)
        yield Hub(store, clock, registry, controller, reconciler, driver, evidence)
        await core.aclose()
        await driver.aclose()


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
async def hub(sqlite_url: str, tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Hub]:
    async with hub_on(sqlite_url, tmp_path, provider) as made:
        yield made


def kinds(report: Report) -> list[tuple[DriftKind, Action, bool]]:
    return [(each.finding.kind, each.finding.action, each.done) for each in report.outcomes]


async def resurrect(hub: Hub, provider: FakeProvider) -> str:
    """An instance the ledger saw end, and which is there all the same."""
    instance = await hub.start("w")
    kept = provider.instances[instance]
    await hub.stop("w")
    provider.instances[instance] = kept
    hub.clock.advance(10)
    return instance


async def test_V2_an_orphan_is_destroyed_with_evidence(hub: Hub, provider: FakeProvider) -> None:
    instance = await resurrect(hub, provider)
    other = await hub.start("v")
    report = await hub.settle()
    assert kinds(report) == [(DriftKind.ORPHAN, Action.DESTROY, True)]
    assert report.outcomes[0].finding.name == f"fake-{instance}"
    assert report.checked == {"fake": Checked(listed=2, expected=1)}
    assert list(provider.instances) == [other]
    (kept,) = await hub.evidence.of_worker("w")
    assert kept["texts"] == {"console": f"fake: last words of {instance}\n"}
    assert (await hub.settle()).outcomes == []


async def test_a_dry_run_says_it_and_does_nothing(hub: Hub, provider: FakeProvider) -> None:
    instance = await resurrect(hub, provider)
    report = await hub.settle(dry_run=True)
    assert kinds(report) == [(DriftKind.ORPHAN, Action.DESTROY, False)]
    assert list(provider.instances) == [instance]


async def test_P13_a_destroy_that_fails_is_told_and_tried_again(
    hub: Hub, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await resurrect(hub, provider)
    with monkeypatch.context() as context:

        async def refuse(ref: Any) -> None:
            raise ProviderFailed("fake: not today")

        context.setattr(hub.driver, "destroy", refuse)
        (outcome,) = (await hub.settle()).outcomes
        assert (outcome.done, outcome.error) == (False, "fake: not today")
        assert instance in provider.instances
    assert kinds(await hub.settle()) == [(DriftKind.ORPHAN, Action.DESTROY, True)]
    assert provider.instances == {}


async def test_V3_what_was_said_to_be_destroyed_is_believed_only_when_it_is_not_listed(
    hub: Hub, provider: FakeProvider
) -> None:
    instance = await resurrect(hub, provider)
    provider.instances[instance].region = "elsewhere"  # a destroy without it finds nothing
    assert kinds(await hub.settle()) == [(DriftKind.ORPHAN, Action.DESTROY, True)]
    provider.instances[instance].region = ""
    assert kinds(await hub.settle()) == [(DriftKind.ORPHAN, Action.DESTROY, True)]
    assert provider.instances == {}


async def test_P18_what_the_ledger_does_not_know_is_held_until_confirmed(
    hub: Hub, provider: FakeProvider
) -> None:
    stray = await hub.stray()
    assert kinds(await hub.settle()) == [(DriftKind.UNKNOWN, Action.HOLD, False)]
    assert stray in provider.instances
    assert kinds(await hub.settle(confirmed=True)) == [(DriftKind.UNKNOWN, Action.DESTROY, True)]
    assert provider.instances == {}


async def test_P18_a_restored_hub_reports_and_ends_nothing_until_confirmed(
    database_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    """Nobody's instance, one of a worker that should go, and one that is not listed any more."""
    hold = Hold()
    async with hub_on(database_url, tmp_path, provider, hold) as hub:
        gone, going = await hub.start("gone"), await hub.start("going")
        hold.reason = "the hub was restored"
        for name in ("gone", "going"):  # as load() makes them
            entry = hub.registry.get(name)
            policy = hub.controller.policy(entry.definition)
            event = events.Redefined(at=hub.clock.now(), policy=policy, restart=False)
            await hub.controller.handle(name, event)
        stray = await hub.stray()
        provider.hidden.add(gone)
        await hub.settle()
        hub.clock.advance(4000)  # longer than anything is held
        stop = events.ModeSet(at=hub.clock.now(), mode=Mode.STOPPED, reason=None, by="ann")
        await hub.controller.handle("going", stop)
        report = await hub.settle(confirmed=True)
        assert report.hold == "the hub was restored"
        assert kinds(report) == [
            (DriftKind.UNKNOWN, Action.HOLD, False),
            (DriftKind.ABSENT, Action.HOLD, False),
        ]
        assert all("the hub was restored" in each.finding.reason for each in report.outcomes)
        assert provider.instances.keys() == {gone, going, stray}
        await hub.reconciler.lift_hold("ann")
        report = await hub.settle(confirmed=True)
        assert report.hold is None
        assert provider.instances == {}
        assert {hub.life(name).state for name in ("gone", "going")} == {State.LATENT}


async def test_P18_it_is_not_held_for_ever(hub: Hub, provider: FakeProvider) -> None:
    await hub.stray()
    await hub.settle()
    hub.clock.advance(3600)
    assert kinds(await hub.settle()) == [(DriftKind.UNKNOWN, Action.DESTROY, True)]


async def test_P6_a_worker_whose_instance_is_not_listed_twice_learns_it(
    hub: Hub, provider: FakeProvider
) -> None:
    instance = await hub.start("w")
    provider.hidden.add(instance)
    assert kinds(await hub.settle()) == [(DriftKind.ABSENT, Action.WAIT, False)]
    assert hub.life("w").state is State.SUBSTANTIATING
    hub.clock.advance(61)
    assert kinds(await hub.settle()) == [(DriftKind.ABSENT, Action.GIVE_UP, True)]
    assert hub.life("w").state is State.LATENT
    assert provider.instances == {}, "its destroy went out all the same"


async def test_P6_one_that_shows_up_again_is_forgotten_as_absent(
    hub: Hub, provider: FakeProvider
) -> None:
    instance = await hub.start("w")
    provider.hidden.add(instance)
    await hub.settle()
    provider.hidden.clear()
    hub.clock.advance(61)
    assert (await hub.settle()).outcomes == []
    provider.hidden.add(instance)
    hub.clock.advance(61)
    assert kinds(await hub.settle()) == [(DriftKind.ABSENT, Action.WAIT, False)]


async def test_P6_a_provider_that_does_not_answer_proves_nothing(
    hub: Hub, provider: FakeProvider
) -> None:
    await hub.start("w")
    provider.mute = True
    report = await hub.settle()
    assert report.unanswered == [Unanswered("fake", "", "fake: the provider does not answer")]
    assert report.outcomes == []


async def test_V19_a_silent_place_hides_no_orphan_of_the_others_and_proves_nothing(
    hub: Hub, provider: FakeProvider
) -> None:
    gone = await resurrect_beside(hub, provider, "v")
    there = await hub.start("w", region="far")
    provider.mute_regions.add("far")
    for _ in range(2):
        hub.clock.advance(61)
        report = await hub.settle()
        assert report.unanswered == [
            Unanswered("fake", "far", "fake: the provider does not answer")
        ]
        assert report.checked["fake"].expected == 1
    assert gone not in provider.instances, "what was found is dealt with"
    assert there in provider.instances
    assert hub.life("w").state is State.SUBSTANTIATING, "not listed is not absent there"
    provider.mute_regions.clear()
    assert (await hub.settle()).unanswered == []


async def test_V19_options_that_no_longer_are_valid_hide_nothing(
    hub: Hub, provider: FakeProvider
) -> None:
    gone = await resurrect_beside(hub, provider, "v")
    await hub.start("w")
    await redefine(hub, "w", region="near", of_an_earlier_version=True)
    report = await hub.settle()
    assert gone not in provider.instances
    assert report.outcomes[0].done


async def test_V19_a_driver_that_breaks_or_is_slow_holds_up_no_other(
    hub: Hub, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await resurrect(hub, provider)
    broken = FakeDriver(Environment("HUB", Path("/"), "ws://127.0.0.1:9/"), FakeProvider())
    listed = asyncio.Event()

    async def explode(_places: object) -> list[Owned]:
        await listed.wait()
        raise ZeroDivisionError

    async def take(places: Any) -> Any:
        listed.set()
        return await FakeDriver.list_owned(hub.driver, places)

    monkeypatch.setattr(broken, "list_owned", explode)
    monkeypatch.setattr(hub.driver, "list_owned", take)
    hub.reconciler._drivers = {"broken": broken, "fake": hub.driver}
    report = await hub.settle()
    assert [each.driver for each in report.unanswered] == ["broken"]
    assert gone not in provider.instances


async def test_what_the_ledger_knows_as_another_driver_s_is_left_to_that_one(
    hub: Hub, provider: FakeProvider
) -> None:
    """Several drivers use one machine, and an earlier hub's marks do not name theirs."""
    instance = await resurrect(hub, provider)
    hub.reconciler._drivers = {"other": hub.driver}
    assert (await hub.settle(confirmed=True)).outcomes == []
    assert instance in provider.instances


async def test_V2_a_copy_is_told_and_stays(
    hub: Hub, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = await resurrect(hub, provider)
    listed = [replace(each, copy="of an image") for each in await hub.driver.list_owned([])]

    async def copies(_places: object) -> list[Owned]:
        return listed

    monkeypatch.setattr(hub.driver, "list_owned", copies)
    for confirmed in (False, True):
        report = await hub.settle(confirmed=confirmed)
        assert kinds(report) == [(DriftKind.COPY, Action.REPORT, False)]
    assert instance in provider.instances


async def test_K3_a_lost_handle_is_recorded(hub: Hub, provider: FakeProvider) -> None:
    instance = await hub.start("w")
    entry = hub.registry.get("w")
    assert entry.life.instance is not None
    forgotten = {**columns_of(entry.life), "handle": None}
    entry.revision = await hub.store.write(workers.update, "w", entry.revision, forgotten)
    entry.life = replace(entry.life, instance=replace(entry.life.instance, handle=None))
    assert kinds(await hub.settle()) == [(DriftKind.UNRECORDED, Action.ADOPT, True)]
    assert hub.life("w").instance is not None
    assert hub.life("w").instance.handle == {"version": 1, "instance": instance}


async def test_P13_forget_takes_a_persons_word_only_where_the_destroy_failed(
    hub: Hub, provider: FakeProvider
) -> None:
    instance = await hub.start("w", destroy="fail")
    with pytest.raises(Conflict, match="usual way"):
        await hub.reconciler.forget(["w"], reason="gone", by="ann", dry_run=False)
    await hub.stop("w")
    assert hub.life("w").state is State.INSUBSTANTIATING
    planned = await hub.reconciler.forget(["w"], reason="gone", by="ann", dry_run=True)
    assert planned == [Forgotten(name="w", changed=True)]
    assert hub.life("w").state is State.INSUBSTANTIATING
    await hub.reconciler.forget(["w"], reason="sold the host", by="ann", dry_run=False)
    assert hub.life("w").state is State.LATENT
    row = await hub.store.read(workers.instance, instance)
    assert row is not None
    assert row["end_reason"] == "forgotten by ann: sold the host"
    hub.clock.advance(1)
    # Should it turn up again, it is an orphan like any other.
    assert kinds(await hub.settle()) == [(DriftKind.ORPHAN, Action.DESTROY, False)]
    again = await hub.reconciler.forget(["w"], reason="gone", by="ann", dry_run=False)
    assert again == [Forgotten(name="w", changed=False)]


async def test_the_hub_makes_passes_by_itself(hub: Hub, provider: FakeProvider) -> None:
    instance = await resurrect(hub, provider)
    task = asyncio.create_task(hub.reconciler.run())
    await the_next_nap(hub)
    assert instance not in provider.instances
    stray = await hub.stray()
    for _ in range(12):
        hub.clock.advance(300)
        await the_next_nap(hub)
        assert stray in provider.instances
    hub.clock.advance(300)
    await the_next_nap(hub)
    assert stray not in provider.instances
    task.cancel()


async def the_next_nap(hub: Hub) -> None:
    """Until a pass is over: only then a timer is set."""
    while hub.clock.next_due() is None:  # noqa: ASYNC110 - the loop's turns are what is waited for
        await asyncio.sleep(0)


async def test_evidence_is_gathered_of_a_failed_start_and_bounded(
    hub: Hub, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talkative(ref: Any) -> dict[str, str]:
        return {f"text {number}": "x" * 100_000 + "the end" for number in range(20)}

    monkeypatch.setattr(hub.driver, "evidence", talkative)
    await hub.start("w", create="fail_done")
    (kept,) = await hub.evidence.of_worker("w")
    assert kept["why"].startswith("create failed: fake: gateway timeout")
    assert len(kept["texts"]) == 16
    assert all(len(text) < 66_000 for text in kept["texts"].values())
    assert all(text.endswith("the end") for text in kept["texts"].values())
    assert provider.instances == {}


async def test_no_evidence_keeps_no_instance_alive(
    hub: Hub, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(ref: Any) -> dict[str, str]:
        raise ZeroDivisionError

    monkeypatch.setattr(hub.driver, "evidence", broken)
    await hub.start("w", create="fail_done")
    assert await hub.evidence.of_worker("w") == []
    assert provider.instances == {}


async def test_a_routine_end_is_no_incident(hub: Hub, provider: FakeProvider) -> None:
    await hub.start("w")
    await hub.stop("w")
    assert not [call for call in provider.calls if call[0] == "evidence"]


async def rest(hub: Hub, name: str) -> None:
    """As an idle instance in good order does."""
    instance = hub.life(name).instance
    assert instance is not None
    attached = events.Attached(
        at=hub.clock.now(),
        instance=instance.id,
        epoch=instance.epoch,
        connection="c",
        resumable=True,
    )
    await hub.controller.handle(name, attached)
    await hub.stop(name)
    assert hub.life(name).state is State.LATENT
    hub.clock.advance(10)


async def redefine(hub: Hub, name: str, **options: Any) -> None:
    entry = hub.registry.get(name)
    entry.definition = entry.definition.model_copy(update={"driver_options": options})


async def test_what_is_to_go_is_destroyed_as_its_worker_s_place_is_reached_today(
    hub: Hub, provider: FakeProvider
) -> None:
    """It may be old: the credentials it was started with are not those of today."""
    await hub.start("w", keep="recipe", region="near", destroy="fail")
    await rest(hub, "w")
    await redefine(hub, "w", region="near")
    assert kinds(await hub.settle()) == [(DriftKind.SPARE, Action.DESTROY, True)]
    assert not provider.instances


async def remove(hub: Hub, name: str) -> None:
    await hub.controller.handle(name, events.Removed(at=hub.clock.now(), by="ann"))
    assert await hub.controller.settle(60)


async def test_a_machine_that_its_worker_keeps_is_no_orphan_and_is_taken_up(
    hub: Hub, provider: FakeProvider
) -> None:
    first = await hub.start("w", keep="recipe")
    await rest(hub, "w")
    assert list(provider.instances) == [first]
    report = await hub.settle()
    assert report.outcomes == []
    assert report.checked == {"fake": Checked(listed=1, expected=0, spares=1)}
    wanted = events.Wanted(at=hub.clock.now(), instance=new_ulid(), cause="a test")
    await hub.controller.handle("w", wanted)
    assert await hub.controller.settle(60)
    assert list(provider.instances) == [wanted.instance]
    assert (await hub.settle()).outcomes == []


@pytest.mark.parametrize("now", [{"keep": "other"}, {}, {"region": "far", "keep": "recipe of far"}])
async def test_V2_a_machine_that_was_kept_goes_when_its_worker_is_defined_otherwise(
    hub: Hub, provider: FakeProvider, now: dict[str, Any]
) -> None:
    await hub.start("w", keep="recipe", region="near")
    await rest(hub, "w")
    await redefine(hub, "w", **now)
    assert kinds(await hub.settle()) == [(DriftKind.SPARE, Action.DESTROY, True)]
    assert not provider.instances
    assert (await hub.settle()).outcomes == []


async def test_V2_a_machine_that_was_kept_goes_with_its_worker_wherever_it_is(
    hub: Hub, provider: FakeProvider
) -> None:
    """No definition leads to its region any more: the ledger does."""
    await hub.start("w", keep="recipe", region="far")
    await hub.start("v", region="near")
    await rest(hub, "w")
    await remove(hub, "w")
    assert len(provider.instances) == 2
    assert kinds(await hub.settle()) == [(DriftKind.SPARE, Action.DESTROY, True)]
    assert [each.worker for each in provider.instances.values()] == ["v"]


async def test_a_place_of_former_times_that_does_not_answer_is_told_and_asked_again(
    hub: Hub, provider: FakeProvider
) -> None:
    await hub.start("w", keep="recipe", region="far")
    gone = await resurrect_beside(hub, provider, "v")
    await rest(hub, "w")
    await remove(hub, "w")
    provider.mute_regions.add("far")
    report = await hub.settle()
    (silent,) = report.unanswered
    assert (silent.driver, silent.place) == ("fake", "far")
    assert "machines were kept before: fake: the provider does not" in silent.reason
    assert [each.finding.instance for each in report.outcomes] == [gone], "others are settled"
    provider.mute_regions.clear()
    assert kinds(await hub.settle()) == [(DriftKind.SPARE, Action.DESTROY, True)]


async def resurrect_beside(hub: Hub, provider: FakeProvider, name: str) -> str:
    instance = await hub.start(name)
    left = provider.instances[instance]
    await hub.stop(name)
    provider.instances[instance] = left
    hub.clock.advance(10)
    return instance


async def test_of_two_machines_that_were_kept_the_newer_one_stays(
    hub: Hub, provider: FakeProvider
) -> None:
    await hub.start("w", keep="recipe")
    await rest(hub, "w")
    (older,) = provider.instances.values()
    provider.instances.clear()  # the provider could not start it, say
    wanted = events.Wanted(at=hub.clock.now(), instance=new_ulid(), cause="a test")
    await hub.controller.handle("w", wanted)
    assert await hub.controller.settle(60)
    await rest(hub, "w")
    provider.instances[older.instance] = older
    report = await hub.settle()
    assert [each.finding.instance for each in report.outcomes] == [older.instance]
    assert list(provider.instances) == [wanted.instance]


async def test_what_was_kept_is_looked_for_until_it_has_long_not_been_listed(
    hub: Hub, provider: FakeProvider
) -> None:
    """Not for ever: the account may be closed some day."""
    await hub.start("w", keep="recipe", region="far")
    await rest(hub, "w")
    await remove(hub, "w")
    kept = dict(provider.instances)
    provider.instances.clear()
    assert (await hub.settle()).outcomes == []
    provider.instances.update(kept)  # the list had lagged
    assert kinds(await hub.settle()) == [(DriftKind.SPARE, Action.DESTROY, True)]
    hub.clock.advance(3700)
    await hub.settle()
    assert await hub.store.read(workers.kept, "fake") == []


async def test_an_instance_whose_options_have_no_recipe_is_destroyed(
    hub: Hub, provider: FakeProvider
) -> None:
    instance = await hub.start("w")
    await rest(hub, "w")
    verbs = [verb for verb, each in provider.calls if each == instance]
    assert verbs[-1] == "destroy"
    assert "keep" not in verbs
