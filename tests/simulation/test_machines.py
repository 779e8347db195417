"""M01 to M10 and W01 to W04: Buildbot's latent machines with several workers, and its worker side.

What is a machine with several workers there is here an instance with several slots: the machine
starts for the first build that needs a slot and stops when none is used any more.
"""

from __future__ import annotations

import pytest
from simulation.cases import simulated
from simulation.machine import script
from simulation.provider import Outcome
from simulation.world import World

HOST = {"max_builds": 2, "build_wait_timeout": 5}


@pytest.mark.parametrize(("rc", "state"), [(0, "success"), (1, "failure")])
@simulated()
async def test_M01_M02_the_machine_starts_and_stops_around_a_build(
    world: World, rc: int, state: str
) -> None:
    await world.define("w", **HOST)
    row = await world.ended(await world.submit(*script(rc=rc)))
    assert row["state"] == state
    await world.state("latent")
    assert (world.provider.count("create"), world.provider.machines) == (1, {})


@simulated()
async def test_M02_a_failed_build_is_no_fault_of_its_machine(world: World) -> None:
    await world.define("w", **HOST)
    await world.ended(await world.submit(*script(rc=3)))
    assert world.life().quarantine_until is None
    assert world.life().state.value == "substantiated"


@simulated()
async def test_M03_the_machine_stops_after_its_idle_time_and_not_before(world: World) -> None:
    await world.define("w", **HOST)
    build = await world.submit()
    await world.ended(build)
    await world.until(lambda: not world.life("w").leases)  # a slot is cleaned after the result
    idle_at = world.observer.row("SELECT ended_at FROM leases WHERE build = ?", build)["ended_at"]
    await world.state("insubstantiating")
    stopped_at = world.observer.row(
        "SELECT at FROM events WHERE to_state = 'insubstantiating' AND event = 'TimerFired'"
    )["at"]
    assert stopped_at - idle_at == pytest.approx(5.0, abs=0.01)


@simulated()
async def test_M04_the_idle_time_does_not_run_during_a_build(world: World) -> None:
    await world.define("w", **HOST)
    long, short = await world.submit(*script(60)), await world.submit()
    await world.ended(short)
    row = await world.ended(long)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)


@simulated()
async def test_M05_a_machine_that_fails_to_start_leaves_its_slots_latent(world: World) -> None:
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "create" else Outcome.OK
    await world.define("w", **HOST)
    builds = [await world.submit(), await world.submit()]
    await world.sleep(5)
    assert world.life().state.value == "latent"
    assert "create failed" in str(world.life().last_error)
    world.stop_faults()
    assert [(await world.ended(build))["state"] for build in builds] == ["success"] * 2


@simulated()
async def test_M06_a_start_that_raises_anything_does_no_harm_to_the_hub(world: World) -> None:
    async def broken(spec: object) -> None:
        raise KeyError("a driver's own mistake")

    whole = world.provider.create
    world.provider.create = broken  # type: ignore[assignment, method-assign]
    await world.define("w", **HOST)
    build = await world.submit()
    await world.sleep(5)
    assert "KeyError" in str(world.life().last_error)
    world.provider.create = whole  # type: ignore[method-assign]
    assert (await world.ended(build))["state"] == "success"
    # A driver that breaks its contract is an error in the hub's log.
    assert "driver broke its contract" in world.errors.pop()
    world.errors.clear()


@simulated()
async def test_M07_a_stop_that_raises_is_not_taken_for_a_stop(world: World) -> None:
    """Buildbot logs it and says STOPPED; here it is stopping until it is gone (V3)."""
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "destroy" else Outcome.OK
    await world.define("w", **HOST)
    await world.substantiate("w")
    await world.state("substantiated")
    await world.insubstantiate("w")
    await world.sleep(120)
    assert world.life().state.value == "insubstantiating"
    assert "destroy failed" in str(world.life().last_error)
    assert len(world.provider.machines) == 1


@simulated()
async def test_M08_one_build_starts_and_stops_the_machine_for_all_its_slots(
    world: World,
) -> None:
    await world.define("w", **HOST)
    await world.ended(await world.submit())
    await world.until(lambda: world.life().free_slots == 2)
    await world.state("latent")
    assert world.provider.count("create") == world.provider.count("destroy") == 1


@simulated()
async def test_M09_two_builds_start_the_machine_once(world: World) -> None:
    await world.define("w", **HOST, driver_options={"boot_s": 10})
    builds = [await world.submit(*script(5)) for _ in range(2)]
    rows = [await world.ended(build) for build in builds]
    assert abs(rows[0]["started_at"] - rows[1]["started_at"]) < 1
    assert world.provider.count("create") == 1


@simulated()
async def test_M10_when_the_start_fails_both_builds_wait_for_the_next(world: World) -> None:
    world.provider.will("create", Outcome.FAILED_DONE)
    await world.define("w", **HOST)
    builds = [await world.submit(), await world.submit()]
    rows = [await world.ended(build) for build in builds]
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 1)] * 2
    assert world.provider.count("create") == 2


# --- the worker's side -----------------------------------------------------------------------


@simulated()
async def test_W01_a_permanent_worker_connects_and_leaves(world: World) -> None:
    await world.define("w", driver="permanent", password="pw")
    machine = world.permanent("w", "pw")
    await world.until(lambda: world.life().attached)
    assert (await world.ended(await world.submit()))["state"] == "success"
    machine.daemon.stop()  # type: ignore[union-attr]
    await world.state("latent")
    assert machine.went_away


@simulated()
async def test_W02_a_permanent_worker_comes_back_after_the_network_was_away(
    world: World,
) -> None:
    await world.define("w", driver="permanent", password="pw")
    world.permanent("w", "pw")
    await world.until(lambda: world.life().attached)
    build = await world.submit(*script(100))
    await world.running(build)
    world.network.partition("w")
    await world.until(lambda: not world.life().attached)
    await world.sleep(30)
    world.network.heal("w")
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)


@simulated()
async def test_W03_a_wrong_password_is_let_in_once_the_hub_knows_it(world: World) -> None:
    await world.define("w", driver="permanent", password="another")
    world.permanent("w", "pw")
    await world.sleep(60)
    assert not world.life().attached
    assert any("401" in line for line in world.trace)
    await world.define("w", driver="permanent", password="pw")
    await world.until(lambda: world.life().attached, 130)


@simulated()
async def test_W04_both_ends_ping_each_interval(world: World) -> None:
    await world.define("w", build_wait_timeout=-1)
    await world.substantiate("w")
    await world.state("substantiated")
    await world.sleep(200)
    for who in ("hub 1", "agent w#1.1"):
        at = [when for when, name in world.network.pings if name == who]
        waits = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
        assert len(at) in {9, 10}
        assert max(waits) < 20.1
