"""Incidents are opened and closed with the transitions they tell of: real store, virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hub.workers.test_controller import START, Hub, hub_on
from hub_core import Told

from hostler_hub.drivers.fake.driver import FakeProvider
from hostler_hub.lifecycle import Mode, State, events
from hostler_hub.store import deliveries, incidents
from hostler_hub.store.errors import RowRefused
from hostler_hub.workers.incidents import Recipient

ANN = Recipient("mail", "ann@example.org")
HOOK = Recipient("webhook", "hooks.example.org")


def watch(hub: Hub, *people: Recipient) -> Told:
    """Have these people told of incidents."""
    hub.core.told.people = people
    return hub.core.told


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
async def hub(database_url: str, tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Hub]:
    async with hub_on(database_url, tmp_path, provider) as made:
        yield made


async def all_incidents(hub: Hub, **where: Any) -> list[dict[str, Any]]:
    rows = await hub.store.read(incidents.page, incidents.Filter(**where), limit=100)
    return [dict(row) for row in rows]


async def outbox(hub: Hub) -> list[tuple[str, str, str]]:
    rows = await hub.store.read(deliveries.page, limit=100)
    return sorted((row["about"], row["channel"], row["recipient"]) for row in rows)


async def go_missing(hub: Hub) -> str:
    """A first instance that never attaches may be an accident; after the second it is missing."""
    await hub.define()
    await hub.want()
    await hub.pass_time(140)
    assert hub.registry.get("w").incidents == {}
    await hub.want()
    await hub.pass_time(121)
    return hub.registry.get("w").incidents["missing"]


async def come_back(hub: Hub) -> None:
    await hub.pass_time(40)  # the quarantine
    await hub.want()
    await hub.controller.settle(60)
    await hub.attach()


async def test_V16_an_incident_opens_with_the_transition_and_everybody_is_told_once(
    hub: Hub,
) -> None:
    told = watch(hub, ANN, HOOK)
    opened = await go_missing(hub)
    (row,) = await all_incidents(hub, open=True)
    assert row["id"] == opened
    assert (row["worker"], row["kind"], row["opened_at"]) == ("w", "missing", START + 260)
    assert "did not attach within 120 s" in row["reason"]
    assert row["evidence"]["driver"] == "fake"
    assert row["evidence"]["state"] == "insubstantiating"
    assert await outbox(hub) == [
        ("opened", "mail", "ann@example.org"),
        ("opened", "webhook", "hooks.example.org"),
    ]
    assert told.news == 1


async def test_V16_a_second_loss_while_it_is_missing_tells_nobody_again(hub: Hub) -> None:
    told = watch(hub, ANN)
    await go_missing(hub)
    await hub.pass_time(40)
    await hub.want()
    await hub.pass_time(200)
    assert len(await all_incidents(hub)) == 1
    assert len(await outbox(hub)) == 1
    assert told.news == 1


async def test_an_incident_is_over_when_the_worker_is_found(hub: Hub) -> None:
    watch(hub, ANN)
    opened = await go_missing(hub)
    (row,) = await hub.store.read(deliveries.page, limit=10)
    await hub.store.write(deliveries.update, row["id"], {"state": "sent", "sent_at": START})
    await come_back(hub)
    (incident,) = await all_incidents(hub, open=False)
    assert incident["id"] == opened
    assert incident["close_reason"] == "its agent is attached"
    assert incident["closed_at"] > incident["opened_at"]
    assert hub.registry.get("w").incidents == {}
    about = [each[0] for each in await outbox(hub)]
    assert about == ["closed", "opened"]


async def test_who_was_not_told_of_the_beginning_yet_is_not_told_of_the_end_apart(
    hub: Hub,
) -> None:
    watch(hub, ANN)
    await go_missing(hub)
    await come_back(hub)
    assert await outbox(hub) == [("opened", "mail", "ann@example.org")]


async def test_K12_a_hub_that_died_right_after_the_loss_has_told_it_to_the_next(
    database_url: str, tmp_path: Path, provider: FakeProvider
) -> None:
    async with hub_on(database_url, tmp_path, provider) as hub:
        watch(hub, ANN)
        opened = await go_missing(hub)
    async with hub_on(database_url, tmp_path, provider, at=START + 500) as hub:
        watch(hub, ANN)
        await hub.controller.recover()
        assert hub.registry.get("w").incidents == {"missing": opened}
        assert len(await outbox(hub)) == 1
        await come_back(hub)
        assert [row["id"] for row in await all_incidents(hub, open=False)] == [opened]
        await go_down_again(hub)
        assert len(await all_incidents(hub)) == 2


async def go_down_again(hub: Hub) -> None:
    await hub.controller.handle("w", events.Unwanted(at=hub.clock.now(), cause="test"))
    for _ in range(2):
        await hub.pass_time(600)
        await hub.want()
        await hub.pass_time(125)


async def test_P13_an_instance_that_cannot_be_stopped_alarms_after_a_quarter_of_an_hour(
    hub: Hub,
) -> None:
    watch(hub, ANN)
    await hub.define(destroy="fail")
    await hub.want()
    await hub.controller.settle(60)
    stop = events.ModeSet(at=hub.clock.now(), mode=Mode.STOPPED, reason="x", by="ann")
    await hub.controller.handle("w", stop)
    await hub.pass_time(890)
    assert await all_incidents(hub) == []
    await hub.pass_time(900)
    (row,) = await all_incidents(hub, open=True)
    assert row["kind"] == "stop_failed"
    assert len(await outbox(hub)) == 1
    entry = hub.registry.get("w")
    entry.definition = entry.definition.model_copy(update={"driver_options": {}})
    await hub.pass_time(300)
    assert hub.life().state is State.LATENT
    (row,) = await all_incidents(hub)
    assert row["close_reason"] == "its instance is proven gone"


async def test_a_compromised_worker_s_incident_stays_open_for_people_to_judge(hub: Hub) -> None:
    watch(hub, ANN)
    await hub.define()
    instance = await hub.want()
    await hub.controller.settle(60)
    twice = events.Compromised(at=hub.clock.now(), instance=instance, cause="token used twice")
    await hub.controller.handle("w", twice)
    await hub.controller.settle(60)
    assert hub.life().state is State.LATENT
    assert list(hub.registry.get("w").incidents) == ["compromised"]
    (row,) = await all_incidents(hub, open=True, kind="compromised")
    assert row["instance"] == instance


async def test_removing_a_worker_ends_its_incidents(hub: Hub) -> None:
    watch(hub, ANN)
    await go_missing(hub)
    await hub.controller.handle("w", events.Removed(at=hub.clock.now(), by="ann"))
    await hub.controller.settle(60)
    (row,) = await all_incidents(hub)
    assert row["close_reason"] == "the worker was removed"


async def test_V16_the_database_itself_refuses_a_second_open_incident(hub: Hub) -> None:
    await go_missing(hub)
    (row,) = await all_incidents(hub)
    with pytest.raises(RowRefused):
        await hub.store.write(incidents.insert, {**row, "id": "other"})


async def test_an_alarm_is_lost_with_the_transition_it_came_with(hub: Hub) -> None:
    told = watch(hub, ANN)
    await hub.define()
    instance = await hub.want()
    await hub.controller.settle(60)

    def refuse(_c: object) -> None:
        raise LookupError("no")

    twice = events.Compromised(at=hub.clock.now(), instance=instance, cause="token used twice")
    with pytest.raises(LookupError):
        await hub.controller.handle("w", twice, refuse)
    assert await all_incidents(hub) == []
    assert hub.registry.get("w").incidents == {}
    assert told.news == 0
