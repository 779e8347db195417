"""The gate: machines that are not what their definition expects get no build, come what may."""

from __future__ import annotations

import pytest
from simulation.cases import simulated
from simulation.crashes import dies
from simulation.loop import outside
from simulation.machine import FREE_MB, script
from simulation.observer import Violated
from simulation.provider import Outcome
from simulation.world import World, simulate

from hostler_hub.lifecycle.model import Gate

EXPECTS = {"disk_free_mb": 20_000}
DIFFERS = "not as expected: free disk: expected at least 20000 MB → found 512"


def lacks_room(world: World, *names: str) -> None:
    """From now on these workers' machines come with a small disk."""
    world.provider.free_mb = lambda worker: 512 if worker in names else FREE_MB


def leases(world: World, name: str = "w") -> int:
    return len(world.observer.rows("SELECT id FROM leases WHERE worker = ?", name))


@simulated()
async def test_V11_builds_go_elsewhere_until_the_machine_is_mended(world: World) -> None:
    lacks_room(world, "w")
    await world.define("w", expects=EXPECTS, priority=5)
    await world.define("v", expects=EXPECTS)
    await world.substantiate("w")
    await world.until(lambda: world.life().quarantine_until is not None)
    assert world.life().quarantine_reason == DIFFERS
    assert f"Examined: {DIFFERS}" in world.causes()

    anywhere = await world.submit()
    assert (await world.ended(anywhere))["state"] == "success"
    assert [run.machine.worker for run in world.truth.of(anywhere)] == ["v"]
    there = await world.submit(requires={"worker": "w"})
    await world.sleep(300)
    row = world.build(there)
    assert (row["state"], row["attempts"], leases(world)) == ("queued", 0, 0)

    lacks_room(world)
    await world.state("latent")
    await world.set_mode("active", "w")
    assert (await world.ended(there, 30))["state"] == "success"
    assert (world.life().quarantine_reason, world.life().failed_starts) == (None, 0)


@simulated()
async def test_P7_a_machine_that_is_never_fit_is_replaced_ever_more_rarely(world: World) -> None:
    lacks_room(world, "w")
    await world.define("w", expects=EXPECTS)
    build = await world.submit()
    await world.sleep(1000)
    at = world.provider.asked("create")
    waits = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    assert [round(wait / 10) for wait in waits] == pytest.approx([1, 2, 4, 8, 16, 32], abs=1)
    assert len(world.provider.machines) <= 1
    assert world.build(build)["attempts"] == 0
    lacks_room(world)
    await world.ended(build, 1000)


@simulated()
async def test_V11_a_permanent_machine_is_compared_again_when_it_is_resumed(world: World) -> None:
    await world.define("w", driver="permanent", password="pw", expects=EXPECTS)
    machine = world.permanent("w", "pw")
    machine.free_mb = 512
    await world.until(lambda: world.life().quarantine_until is not None)
    build = await world.submit()
    await world.set_mode("active", "w")  # somebody's word is not enough
    await world.until(lambda: world.life().gate is Gate.SHUT)
    assert (world.life().attached, leases(world)) == (True, 0)
    machine.free_mb = FREE_MB
    await world.set_mode("active", "w")
    assert (await world.ended(build, 10))["state"] == "success"
    assert (machine.starts, world.life().gate) == (1, Gate.OPEN)


@simulated()
async def test_V11_what_is_expected_later_counts_for_who_is_attached_already(world: World) -> None:
    lacks_room(world, "w")
    await world.define("w", max_builds=2)
    running = await world.submit(*script(60))
    await world.running(running)
    await world.define("w", max_builds=2, expects=EXPECTS)
    waiting = await world.submit()
    row = await world.ended(running)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert world.build(waiting)["attempts"] == 0
    lacks_room(world)
    assert (await world.ended(waiting))["state"] == "success"


@simulated()
async def test_V11_an_agent_that_comes_back_is_compared_again_and_keeps_its_build(
    world: World,
) -> None:
    await world.define("w", expects=EXPECTS, max_builds=2)
    running = await world.submit(*script(60))
    machine = await world.running(running)
    machine.free_mb = 512
    for connection in world.network.of(machine.id):
        connection.cut()
    await world.until(lambda: world.life().quarantine_reason == DIFFERS)
    before = leases(world)
    waiting = await world.submit()
    row = await world.ended(running)
    assert (row["state"], row["attempts"], leases(world)) == ("success", 1, before)
    assert (await world.ended(waiting))["state"] == "success"
    assert machine.ended


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("free_mb", [512, FREE_MB])
@simulated()
async def test_K5_a_hub_that_dies_over_an_exam_takes_no_one_s_word(
    world: World, when: str, free_mb: int
) -> None:
    world.provider.free_mb = lambda _: free_mb
    await world.define("w", expects=EXPECTS)
    with dies(world, f"{when} commit Examined") as trap:
        build = await world.submit()
        await world.until(lambda: trap.sprung)
    await world.start_hub()
    if free_mb == 512:
        await world.sleep(60)
        assert world.build(build)["attempts"] == 0
    lacks_room(world)
    assert (await world.ended(build))["state"] == "success"


@simulated()
async def test_A6_an_agent_that_dies_over_its_exam_is_no_misfit(world: World) -> None:
    await world.define("w", expects=EXPECTS, driver_options={"boot_s": 2})
    looks = world.storage.on_commit

    def strike(when: str, names: list[str]) -> None:
        looks(when, names)
        if (when, world.machine().starts if "Attached" in names else 0) == ("after", 1):
            with outside():
                world.machine().kill_agent()

    world.storage.on_commit = strike
    build = await world.submit()
    await world.sleep(5)
    machine = world.machine()
    assert (leases(world), world.life().attached) == (0, False)
    assert world.life().quarantine_reason is None
    with outside():
        machine.start_agent()
    assert (await world.ended(build))["state"] == "success"
    assert world.provider.count("create") == 1


@simulated()
async def test_V3_an_unfit_machine_that_cannot_be_ended_is_no_reason_for_a_second(
    world: World,
) -> None:
    lacks_room(world, "w")
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "destroy" else Outcome.OK
    await world.define("w", expects=EXPECTS)
    build = await world.submit()
    await world.sleep(600)
    assert (world.life().state.value, world.provider.count("create")) == ("insubstantiating", 1)
    world.stop_faults()
    assert (await world.ended(build, 1000))["state"] == "success"


def test_V11_a_hub_without_a_gate_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostler_hub.workers.agents.examiner.differences", lambda *_: ())

    async def scenario(world: World) -> None:
        lacks_room(world, "w")
        await world.define("w", expects=EXPECTS)
        await world.ended(await world.submit())

    with pytest.raises(Violated, match=r"V11 .* not as expected"):
        simulate(scenario)
