"""Failing starts on the real hub: what they pause, what not, and what lets it start again."""

from __future__ import annotations

from typing import Any

from simulation.cases import simulated
from simulation.provider import Outcome
from simulation.world import World

from hostler_hub.scheduling.breaker_views import OpenBreakerView


def fail(world: World, *workers: str, outcome: Outcome = Outcome.FAILED) -> None:
    """Let each create of these workers fail."""
    world.provider.choose = lambda verb, worker: (
        outcome if verb == "create" and worker in workers else Outcome.OK
    )


async def define(world: World, *names: str, image: str = "", region: str = "", **more: Any) -> None:
    options = {"image": image, "region": region}
    await world.define(*names, driver_options=options, missing_timeout=60, **more)


async def submit(world: World, worker: str) -> str:
    return await world.submit(requires={"worker": worker})


def paused(world: World) -> dict[str, OpenBreakerView]:
    return {each.domain: each for each in world.hub.breakers.listing().items}


async def two_dead_regions(world: World) -> None:
    """Builds that wait for dead workers in two regions, whose breakers and the driver's open."""
    dead = [f"dead{number}" for number in range(12)]
    for number, name in enumerate(dead):
        await define(world, name, region=f"r{number % 2}")
    fail(world, *dead)
    for name in dead:
        await submit(world, name)
    wanted = {"region r0", "region r1", "driver simulated"}
    await world.until(lambda: set(paused(world)) == wanted, 300)


@simulated()
async def test_V19_broken_places_delay_no_build_of_a_healthy_one(world: World) -> None:
    await two_dead_regions(world)
    await define(world, "well", region="good")
    alone_s = await _took_s(world, "well")
    assert alone_s < 10
    assert "driver simulated" not in paused(world)  # it was not the driver
    assert set(paused(world)) == {"region r0", "region r1"}


async def _took_s(world: World, worker: str) -> float:
    began = world.wall()
    row = await world.ended(await submit(world, worker), 600)
    assert row["state"] == "success"
    return world.wall() - began


@simulated()
async def test_V19_broken_images_delay_no_build_of_a_healthy_one(world: World) -> None:
    """In the same region, where the breaker of the region is open too."""
    bad = [f"bad{number}" for number in range(8)]
    for number, name in enumerate(bad):
        await define(world, name, image=f"i{number % 4}", region="r")
    await define(world, "well", image="good", region="r")
    fail(world, *bad)
    for name in bad:
        await submit(world, name)
    await world.until(lambda: "region r" in paused(world), 300)
    assert await _took_s(world, "well") < 10
    assert not {"region r", "driver simulated"} & set(paused(world))


@simulated()
async def test_P9_an_outage_of_everything_costs_a_bounded_number_of_starts(world: World) -> None:
    """Also where each worker is at a place of its own, that may always be tried."""
    names = [f"w{number}" for number in range(60)]
    for name in names:
        await define(world, name, region=f"of {name}")
    fail(world, *names)
    for name in names:
        await submit(world, name)
    await world.sleep(3600)
    assert len(world.provider.asked("create")) < 150  # sixty that rest alone: more than 450


@simulated()
async def test_what_is_paused_is_said_plainly(world: World) -> None:
    await two_dead_regions(world)
    shown = paused(world)["region r0"]
    assert (shown.state, shown.workers_count) == ("open", 6)
    assert shown.workers == sorted(f"dead{number}" for number in range(0, 12, 2))
    assert shown.text.startswith("starts on region r0 are paused until ")
    assert f"after {shown.failures} failures in a row, last: " in shown.text
    assert "resume one of the workers" in shown.remedy
    await world.sleep(40)
    assert "are tried one at a time after" in paused(world)["region r0"].text


@simulated()
async def test_resuming_one_of_its_workers_lets_all_of_them_start(world: World) -> None:
    names = ["a", "b", "c"]
    await define(world, *names, region="r")
    fail(world, *names)
    for name in names:
        await submit(world, name)
    await world.until(lambda: "region r" in paused(world), 300)
    await define(world, "d", region="r")
    waits = await submit(world, "d")
    await world.sleep(1)
    assert world.build(waits)["state"] == "queued"
    why = (await world.hub.builds.get(waits)).why or ""
    assert "starts on region r are paused until" in why
    fail(world)
    await world.set_mode("active", "d")  # it is active and has not failed: only its place has
    assert paused(world) == {}
    assert (await world.ended(waits, 10))["state"] == "success"


@simulated()
async def test_one_order_closes_a_breaker(world: World) -> None:
    await two_dead_regions(world)
    results = world.hub.breakers.close(["region r1", "region nowhere"], by="ann")
    assert [(each.domain, each.changed) for each in results] == [
        ("region r1", True),
        ("region nowhere", False),
    ]
    assert set(paused(world)) == {"region r0", "driver simulated"}


@simulated()
async def test_a_stuck_start_does_not_keep_the_probe_from_others(world: World) -> None:
    """L16: one that began before the pause was over is no probe."""
    names = ["a", "b", "c", "d", "e"]
    await define(world, *names, region="r")
    await world.define(
        "stuck",
        driver_options={"region": "r", "attaches": False},
        missing_timeout=5000,
    )
    fail(world, *names)
    held_up = await submit(world, "stuck")
    for name in names:
        await submit(world, name)
    await world.until(lambda: "region r" in paused(world), 300)
    fail(world)
    await world.until(lambda: paused(world) == {}, 200)
    assert world.life("stuck").state.value == "substantiating"
    await world.cancel(held_up)
    await world.remove("stuck")


@simulated()
async def test_errors_of_a_worker_s_own_options_are_that_worker_s(world: World) -> None:
    names = [f"w{number}" for number in range(8)]
    await define(world, *names, region="r")
    fail(world, *names, outcome=Outcome.REFUSED)
    for name in names:
        await submit(world, name)
    await world.until(lambda: world.provider.count("create") >= 16, 300)
    assert paused(world) == {}


@simulated()
async def test_breakers_of_places_survive_the_hub(world: World) -> None:
    await two_dead_regions(world)
    before = set(paused(world))
    world.kill_hub()
    await world.start_hub()
    assert set(paused(world)) == before


@simulated()
async def test_a_breaker_ends_with_its_last_worker(world: World) -> None:
    names = ["a", "b", "c", "d", "e"]
    await define(world, *names, region="r")
    fail(world, *names)
    builds = [await submit(world, name) for name in names]
    await world.until(lambda: "region r" in paused(world), 300)
    for build in builds:
        await world.cancel(build)
    await world.remove(*names)
    await world.until(lambda: paused(world) == {}, 60)
