"""The scenarios that Buildbot tests of its latent workers, L01 to L35, on the real hub and agent.

Where Buildbot's master gives a request back and starts it again, our build was not on a worker yet:
it waits in the queue until a slot is there, and has one attempt more only if it had a lease.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from simulation.cases import simulated
from simulation.machine import script
from simulation.provider import Outcome
from simulation.world import World

KEPT = {"build_wait_timeout": -1}


async def _up(world: World, **definition: Any) -> None:
    """Worker w, substantiated and attached."""
    await world.define("w", **definition)
    await world.substantiate("w")
    await world.state("substantiated")


@simulated()
async def test_L01_two_workers_start_in_parallel_for_two_builds(world: World) -> None:
    await world.define("a", "b", driver_options={"boot_s": 10})
    builds = [await world.submit(), await world.submit()]
    rows = [await world.ended(build) for build in builds]
    assert {row["worker"] for row in rows} == {"a", "b"}
    first, second = world.provider.asked("create")
    assert second - first < 1


@simulated()
async def test_L02_a_refused_start_leaves_the_build_in_the_queue(world: World) -> None:
    world.provider.will("create", Outcome.REFUSED)
    await world.define("w")
    row = await world.ended(await world.submit())
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert world.provider.count("create") == 2


@simulated()
async def test_L03_a_failed_start_leaves_the_build_in_the_queue(world: World) -> None:
    world.provider.will("create", Outcome.FAILED)
    await world.define("w")
    row = await world.ended(await world.submit())
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert world.life().epoch == 2


@simulated()
async def test_L04_a_worker_that_can_never_start_does_not_take_the_build_with_it(
    world: World,
) -> None:
    """Buildbot ends the build with EXCEPTION. Here no worker is chosen before it is up: the build
    goes to whoever can, and says meanwhile why it waits."""
    world.provider.choose = lambda verb, worker: (
        Outcome.REFUSED if (verb, worker) == ("create", "w") else Outcome.OK
    )
    await world.define("w")
    build = await world.submit()
    await world.sleep(5)
    view = await world.ask(lambda hub: hub.builds.get(build))
    assert "create refused" in view.why
    await world.define("x")
    row = await world.ended(build)
    assert (row["state"], row["worker"]) == ("success", "x")


@simulated()
async def test_L05_a_failed_worker_is_tried_again_after_a_wait_that_doubles(world: World) -> None:
    world.provider.will("create", Outcome.FAILED, Outcome.FAILED, Outcome.FAILED)
    await world.define("w")
    await world.ended(await world.submit())
    at = world.provider.asked("create")
    waits = [round(later - earlier) for earlier, later in zip(at, at[1:], strict=False)]
    assert waits == [10, 20, 40]


@simulated()
async def test_L06_two_builds_share_one_start(world: World) -> None:
    await world.define("w", max_builds=2, driver_options={"boot_s": 10})
    builds = [await world.submit(), await world.submit()]
    rows = [await world.ended(build) for build in builds]
    assert [row["state"] for row in rows] == ["success"] * 2
    assert abs(rows[0]["started_at"] - rows[1]["started_at"]) < 1
    assert world.provider.count("create") == 1


@simulated()
async def test_L07_a_detach_that_arrives_during_the_next_start_changes_nothing(
    world: World,
) -> None:
    await _up(world, driver_options={"boot_s": 10})
    world.network.partition(world.machine().id)  # the hub's goodbye is not answered for 2 s
    await world.insubstantiate("w")
    await world.state("latent")
    build = await world.submit()
    await world.state("substantiating", within_s=1)
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)
    assert world.life().connection is not None


@simulated()
async def test_L08_a_build_that_comes_while_the_instance_stops_starts_the_next(
    world: World,
) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    await _up(world)
    await world.insubstantiate("w")
    await world.sleep(5)
    build = await world.submit()
    assert world.life().state.value == "insubstantiating"
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)


@simulated()
async def test_L09_a_build_that_waits_over_the_whole_stop_is_not_forgotten(world: World) -> None:
    """Buildbot's race is between its canStart check and the stop; ours looks again at the end."""
    world.provider.will("destroy", Outcome.FAILED, Outcome.SLOW)
    await _up(world)
    build = await world.submit(*script(5))
    await world.running(build)
    later = await world.submit()
    await world.set_mode("draining", "w")
    await world.ended(build)
    await world.state("insubstantiating")
    await world.set_mode("active", "w")
    row = await world.ended(later)
    assert (row["state"], world.life().epoch) == ("success", 2)


@simulated()
async def test_L10_an_order_to_stop_during_the_start_lets_it_start_again(world: World) -> None:
    await world.define("w", driver_options={"boot_s": 20})
    build = await world.submit()
    await world.state("substantiating")
    await world.sleep(1)
    await world.insubstantiate("w")
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)
    assert world.provider.count("create") == 2


@simulated()
async def test_L11_the_hub_s_stop_waits_for_an_instance_that_is_being_stopped(
    world: World,
) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    world.provider.slow_s = 10
    await _up(world)
    await world.insubstantiate("w")
    await world.sleep(1)
    assert 8 < await world.stop_hub() < 12
    assert world.provider.machines == {}


@pytest.mark.parametrize("start", [Outcome.FAILED, Outcome.SLOW, Outcome.LATE])
@simulated()
async def test_L12_the_hub_s_stop_during_a_start_waits_for_it_and_stops_it(
    world: World, start: Outcome
) -> None:
    """The start fails; or is done and nobody ever attaches; or somebody attaches meanwhile."""
    world.provider.will("create", start)
    world.provider.slow_s = 10
    await world.define("w", driver_options={"boot_s": 3, "attaches": start is Outcome.LATE})
    await world.substantiate("w")
    await world.sleep(0.01)
    assert await world.stop_hub() < 30
    assert world.provider.machines == {}


@simulated()
async def test_L13_a_build_cancelled_during_the_start_wants_nothing_any_more(
    world: World,
) -> None:
    """The instance is not called back: it attaches, is wanted by nobody, and goes when idle."""
    await world.define("w", build_wait_timeout=10, driver_options={"boot_s": 20})
    build = await world.submit()
    await world.state("substantiating")
    await world.cancel(build)
    assert (await world.ended(build))["state"] == "cancelled"
    await world.state("substantiated")
    assert 9 < await world.state("latent") < 12
    assert world.truth.of(build) == []


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("attaches", [False, True])
@simulated()
async def test_L14_redefined_during_the_start_it_starts_again_as_defined(
    world: World, answered: bool, attaches: bool
) -> None:
    world.provider.will("create", Outcome.OK if answered else Outcome.SLOW)
    world.provider.slow_s = 10
    await world.define("w", driver_options={"boot_s": 5, "attaches": attaches})
    build = await world.submit()
    await world.sleep(2)
    await world.define("w", driver_options={"boot_s": 1, "note": "new"})
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)


@simulated()
async def test_L14_a_change_that_is_not_the_instance_s_leaves_the_start_alone(
    world: World,
) -> None:
    await world.define("w", driver_options={"boot_s": 5})
    build = await world.submit()
    await world.sleep(2)
    await world.define("w", build_wait_timeout=1, driver_options={"boot_s": 5})
    await world.ended(build)
    assert world.life().epoch == 1
    assert await world.state("latent") < 3


@simulated()
async def test_L15_an_order_to_stop_what_stops_already_keeps_nobody_from_starting(
    world: World,
) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    await _up(world)
    await world.insubstantiate("w")
    await world.sleep(1)
    build = await world.submit()
    await world.insubstantiate("w")
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)


@pytest.mark.parametrize("hangs", [Outcome.HANGS, Outcome.HANGS_DONE])
@simulated()
async def test_L16_a_start_that_never_returns_is_given_up_at_its_deadline(
    world: World, hangs: Outcome
) -> None:
    world.provider.will("create", hangs)
    await world.define("w", driver_options={"boot_s": 500})
    build = await world.submit()
    await world.until(lambda: world.provider.count("destroy"), 70)
    await world.define("w", driver_options={"boot_s": 1})
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)
    assert any("did not answer within its deadline" in cause for cause in world.causes())


@simulated()
async def test_L17_an_instance_that_crashes_before_it_attaches_is_seen_at_the_next_check(
    world: World,
) -> None:
    await world.define("w", driver_options={"boot_s": 60})
    build = await world.submit()
    await world.until(lambda: world.provider.machines)
    world.machine().crash()
    assert await world.until(lambda: world.provider.count("destroy")) < 11
    await world.define("w", driver_options={"boot_s": 1})
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)


@simulated()
async def test_L18_a_link_cut_before_the_build_costs_time_and_nothing_else(world: World) -> None:
    """Buildbot requeues after the TCP timeout; our agent finds it within 40 s and comes back."""
    await _up(world)
    world.network.of(world.machine().id)[0].cut()
    build = await world.submit()
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)
    assert row["finished_at"] - row["submitted_at"] < 60


@pytest.mark.parametrize("fault", ["settings", "info"])
@simulated()
async def test_L19_L20_an_agent_that_cannot_be_prepared_gets_no_work(
    world: World, fault: str
) -> None:
    await world.define("w", missing_timeout=30, driver_options={"boot_s": 1})
    build = await world.submit()
    await world.until(lambda: world.provider.machines)
    world.machine().faults.add(fault)
    await world.until(lambda: "agent not prepared" in "".join(world.trace))
    assert world.life().state.value == "substantiating"
    await world.state("insubstantiating")
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)
    assert "did not attach" in str(world.life().last_error)


@simulated()
async def test_L20_an_agent_that_cannot_tell_what_it_is_gets_no_work(world: World) -> None:
    """And when it can, it is the same instance that gets it."""
    await world.define("w", driver_options={"boot_s": 1})
    build = await world.submit()
    await world.until(lambda: world.provider.machines)
    world.machine().faults.add("info")
    await world.sleep(20)
    assert not world.truth.of(build)
    world.machine().faults.clear()
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)


@simulated()
async def test_L21_an_agent_that_dies_with_a_build_has_it_run_elsewhere(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(10))
    (await world.running(build)).crash()
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 2, 2)
    assert [run.completed for run in world.truth.of(build)] == [False, True]


@simulated()
async def test_L22_a_kept_worker_that_reattaches_is_the_same(world: World) -> None:
    await _up(world, **KEPT)
    machine = world.machine()
    machine.daemon._connection.abort()  # type: ignore[union-attr]
    await world.until(lambda: not world.life().attached)
    await world.until(lambda: world.life().attached)
    assert (world.life().state.value, world.life().epoch) == ("substantiated", 1)
    assert world.machine() is machine


@simulated()
async def test_L23_a_link_cut_in_the_middle_of_a_build_does_not_run_it_again(
    world: World,
) -> None:
    await world.define("w")
    build = await world.submit(*script(90, lines=30))
    machine = await world.running(build)
    await world.sleep(10)
    world.network.of(machine.id)[0].cut()
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert len(world.truth.of(build)) == 1


@pytest.mark.parametrize("requested", [False, True])
@simulated()
async def test_L24_L25_a_link_cut_during_the_stop_holds_nobody_up(
    world: World, requested: bool
) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    world.provider.slow_s = 10
    await _up(world)
    world.network.of(world.machine().id)[0].cut()
    await world.insubstantiate("w")
    await world.sleep(1)
    if requested:
        row = await world.ended(await world.submit(), 30)
        assert (row["state"], world.life().epoch) == ("success", 2)
    else:
        assert await world.state("latent") < 12


@simulated()
async def test_L25_a_build_that_comes_while_a_cut_off_instance_stops_is_run(
    world: World,
) -> None:
    """The whole machine is cut off, for good; it goes by itself when it hears of nothing."""
    await _up(world)
    machine = world.machine()
    world.network.partition(machine.id)
    await world.insubstantiate("w")
    row = await world.ended(await world.submit())
    assert (row["state"], world.life().epoch) == ("success", 2)
    assert machine.ended


@simulated()
async def test_L26_who_reattaches_while_it_is_being_stopped_is_sent_away(world: World) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    await _up(world, **KEPT)
    machine = world.machine()
    world.network.partition(machine.id)  # it does not hear that it is to go
    await world.insubstantiate("w")
    await world.sleep(5)
    world.network.heal(machine.id)
    await world.until(lambda: machine.went_away, 35)
    assert world.life().state.value == "insubstantiating"
    await world.state("latent")


@simulated()
async def test_L27_a_kept_worker_serves_build_after_build_on_one_connection(
    world: World,
) -> None:
    await world.define("w", **KEPT)
    for _ in range(3):
        await world.ended(await world.submit())
        await world.sleep(700)
    assert world.life().epoch == 1
    assert len(world.network.connections) == 1


@simulated()
async def test_L28_a_kept_worker_is_stopped_with_the_hub(world: World) -> None:
    await _up(world, **KEPT)
    assert await world.stop_hub() < 5
    assert world.provider.machines == {}


@simulated()
async def test_L29_after_a_stop_that_failed_the_next_build_starts(world: World) -> None:
    """And not before the stop has been proven after all."""
    world.provider.will("destroy", Outcome.FAILED, Outcome.FAILED)
    await _up(world)
    await world.insubstantiate("w")
    row = await world.ended(await world.submit())
    assert (row["state"], world.life().epoch) == ("success", 2)
    assert world.provider.count("destroy") == 3


@simulated()
async def test_L30_a_build_cancelled_during_the_start_is_cancelled(world: World) -> None:
    await world.define("w", driver_options={"boot_s": 20})
    build = await world.submit()
    await world.state("substantiating")
    await world.cancel(build)
    row = await world.ended(build, 1)
    assert (row["state"], row["attempts"]) == ("cancelled", 0)


@simulated()
async def test_L31_a_build_that_waits_when_the_hub_stops_is_run_by_the_next(
    world: World,
) -> None:
    await world.define("w", driver_options={"boot_s": 20})
    build = await world.submit()
    await world.state("substantiating")
    await world.stop_hub()
    assert world.build(build)["state"] == "queued"
    assert world.provider.machines == {}
    await world.start_hub()
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)


@pytest.mark.parametrize("wait_s", [0, 600])
@simulated()
async def test_L32_L33_an_instance_of_another_type_is_replaced_not_used(
    world: World, wait_s: int
) -> None:
    """A build cannot ask for an instance type of its own; what is defined anew is another type."""
    await world.define("w", build_wait_timeout=wait_s, driver_options={"note": "small"})
    await world.ended(await world.submit())
    await world.define("w", build_wait_timeout=wait_s, driver_options={"note": "large"})
    build = await world.submit()
    row = await world.ended(build)
    assert (row["state"], world.life().epoch) == ("success", 2)
    assert world.truth.of(build)[0].machine.epoch == 2


@simulated()
async def test_L33_an_instance_of_another_type_finishes_what_it_runs(world: World) -> None:
    await world.define("w", driver_options={"note": "small"})
    build = await world.submit(*script(20))
    await world.running(build)
    await world.define("w", driver_options={"note": "large"})
    later = await world.submit()
    rows = [await world.ended(build), await world.ended(later)]
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 1)] * 2
    assert [world.truth.of(one)[0].machine.epoch for one in (build, later)] == [1, 2]


@simulated()
async def test_L34_a_worker_is_substantiated_without_a_build(world: World) -> None:
    await _up(world, build_wait_timeout=30)
    assert 29 < await world.state("latent") < 32


@simulated()
async def test_L35_a_worker_up_already_takes_the_build_at_once(world: World) -> None:
    await _up(world)
    build = await world.submit()
    assert await world.until(lambda: world.truth.of(build)) < 0.2
    await world.ended(build)
    await asyncio.sleep(0)
    assert world.life().epoch == 1
