"""D1 to D8 as far as the hub's work shows them; the store's own tests have the rest."""

from __future__ import annotations

import asyncio

import pytest
from simulation.cases import simulated
from simulation.machine import script
from simulation.observer import Violated
from simulation.world import World, simulate
from sqlalchemy import Connection

from hostler_hub.builds import runner
from hostler_hub.errors import Conflict, InvalidRequest
from hostler_hub.lifecycle.model import State
from hostler_hub.store.errors import StoreFull, StoreUnavailable
from hostler_hub.workers.agents import session


@pytest.mark.parametrize("locked_s", [30, 55])
@simulated()
async def test_D1_a_locked_database_delays_and_drops_nothing(world: World, locked_s: int) -> None:
    await world.define("w", build_wait_timeout=5)
    builds = [await world.submit(*script(20, lines=10)) for _ in range(3)]
    await world.running(builds[0])
    world.storage.frozen = True
    await world.sleep(locked_s)
    world.storage.frozen = False
    rows = [await world.ended(build) for build in builds]
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 1)] * 3


@simulated()
async def test_D2_a_full_disk_refuses_new_work_and_keeps_what_runs(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(100, lines=10))
    await world.running(build)
    world.storage.outage = StoreFull("no space left")
    with pytest.raises(StoreFull):
        await world.submit()
    await world.sleep(40)
    world.storage.outage = None
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert (await world.ended(await world.submit()))["state"] == "success"
    world.errors.clear()  # what could not be written was said


@simulated()
async def test_D2_agents_stay_attached_over_a_long_outage(world: World) -> None:
    """Longer than an agent waits for an answer, and than a lease lasts without its agent (A7)."""
    await world.define("w")
    build = await world.submit(*script(60, lines=30))
    await world.running(build)
    world.storage.outage = StoreFull("no space left")
    await world.sleep(600)
    world.storage.outage = None
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    lost = world.observer.rows("SELECT cause FROM events WHERE event = 'Detached'")
    assert [each["cause"] for each in lost] == []
    world.errors.clear()  # what could not be written was said


@simulated()
async def test_D2_V12_an_outage_is_not_counted_against_agents_that_could_not_attach(
    world: World,
) -> None:
    await world.define("w", missing_timeout=150)  # an agent waits up to 120 s between its tries
    build = await world.submit(*script(1, lines=1))
    await world.until(lambda: world.life("w").state is State.SUBSTANTIATING)
    world.storage.outage = StoreFull("no space left")
    await world.sleep(600)
    world.storage.outage = None
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert world.life("w").epoch == 1  # its first instance was waited for
    world.errors.clear()


async def _outage_over_the_last_line(world: World, more_s: float) -> str:
    """The line is given up after the store's minute, the step's end after it is written in time."""
    world.storage.latency_s = lambda: 0.0  # so that they are not written together
    await world.define("w")
    build = await world.submit(*script(30, lines=2))
    await world.running(build)
    await world.sleep(20)
    world.storage.outage = StoreUnavailable("the server is restarting")
    await world.sleep(70 + more_s)
    world.storage.outage = None
    assert (await world.ended(build))["state"] == "success"
    world.errors.clear()
    return build


@pytest.mark.parametrize("more_s", [0.5, 5, 30])
@simulated()
async def test_D3_V7_a_step_ends_when_all_that_it_said_is_stored(
    world: World, more_s: float
) -> None:
    build = await _outage_over_the_last_line(world, more_s)
    assert world.build(build)["attempts"] == 1


def test_D3_V7_what_nobody_tells_again_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "RESENT_S", 1)
    monkeypatch.setattr(
        session, "AGAIN_VERSION", 99
    )  # the agent is an older one, or Buildbot's own
    told: list[bytes] = []

    async def scenario(world: World) -> None:
        build = await _outage_over_the_last_line(world, 0.5)
        await world.sleep(5)
        rows = world.observer.rows("SELECT data FROM log_chunks WHERE build = ?", build)
        told.extend(row["data"] for row in rows)

    with pytest.raises(Violated, match="V7"):
        simulate(scenario)
    assert told[-1] == b"\n[the rest was lost in an outage of the hub's database]\n"


@pytest.mark.parametrize("away_s", [40, 200])
@simulated()
async def test_D3_when_the_database_comes_back_everything_goes_on(
    world: World, away_s: int
) -> None:
    await world.define("a", "b")
    builds = [await world.submit(*script(20, lines=10)) for _ in range(4)]
    await world.running(builds[0])
    world.storage.outage = StoreUnavailable("the server is restarting")
    await world.sleep(away_s)
    world.storage.outage = None
    rows = [await world.ended(build) for build in builds]
    assert {row["state"] for row in rows} == {"success"}
    world.errors.clear()


@simulated()
async def test_D8_a_bad_definition_leaves_the_old_one(world: World) -> None:
    await world.define("w", driver_options={"note": "good"})
    with pytest.raises(InvalidRequest, match="nonsense"):
        await world.define("w", driver_options={"nonsense": 1})
    with pytest.raises((InvalidRequest, Conflict)):
        await world.define("w", driver="teleport")
    definition = world.hub.workers._registry.get("w").definition  # type: ignore[attr-defined]
    assert definition.driver_options == {"note": "good"}
    assert (await world.ended(await world.submit()))["state"] == "success"


@simulated()
async def test_D6_what_is_acknowledged_is_on_the_disk(world: World) -> None:
    """SQLite is told to wait for the disk at each commit, and the answer waits for the commit."""

    def how(c: Connection) -> int:
        return int(c.exec_driver_sql("PRAGMA synchronous").scalar_one())

    full = 2
    assert await world.ask(lambda hub: hub.store.insist(how)) == full
    await world.define("w")
    world.storage.frozen = True
    asked = asyncio.ensure_future(world.submit())
    await world.sleep(10)
    assert not asked.done()
    world.storage.frozen = False
    await world.ended(await asked)
