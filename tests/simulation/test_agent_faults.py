"""Attaching, leasing and running: the faults A1 to A16."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from simulation.cases import simulated
from simulation.loop import outside
from simulation.machine import Machine, script
from simulation.provider import Outcome
from simulation.world import World

DAY_S = 86400.0
HASTY = {"lease_ttl_s": 90.0}


async def _up(world: World, **definition: object) -> Machine:
    await world.define("w", **definition)
    await world.substantiate("w")
    await world.state("substantiated")
    return world.machine()


def _twin(world: World, machine: Machine) -> Machine:
    """Somebody else with the same token: a copy of its disk, or a thief."""
    site = replace(world.site, directory=world.site.directory / "twin")
    return Machine(
        site, machine.worker, machine.instance, machine.epoch, machine.token, exits=False
    )


@simulated()
async def test_A1_an_agent_may_be_faster_than_the_create(world: World) -> None:
    world.provider.will("create", Outcome.LATE)
    await world.define("w", driver_options={"boot_s": 1})
    build = await world.submit()
    row = await world.ended(build, 10)
    assert row["state"] == "success"
    assert world.life().instance.handle is None  # type: ignore[union-attr]
    await world.until(lambda: world.life().instance.handle is not None)  # type: ignore[union-attr]
    assert world.life().epoch == 1


@simulated()
async def test_A2_who_attaches_while_it_is_being_stopped_is_told_to_go(world: World) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    await world.define("w", driver_options={"boot_s": 5})
    await world.substantiate("w")
    await world.until(lambda: world.provider.machines)
    machine = world.machine()
    await world.insubstantiate("w")
    assert not machine.attached
    await world.until(lambda: machine.went_away, 20)
    assert world.life().state.value == "insubstantiating"
    assert world.life().connection is None
    await world.state("latent")


@simulated()
async def test_A3_an_instance_that_was_replaced_is_refused_and_ends(world: World) -> None:
    machine = await _up(world)
    world.network.partition(machine.id)
    world.provider.overlook(machine.id)  # say: the provider has lost track of it
    await world.until(lambda: world.life().state.value == "latent", 60)
    build = await world.submit(*script(60))
    current = await world.running(build)
    world.network.heal(machine.id)
    await world.until(lambda: machine.went_away, 130)
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 2)
    assert any("410" in line or "asked for it" in line for line in world.trace)
    assert current is world.machine()


@simulated()
async def test_A4_a_half_open_connection_is_replaced_by_a_new_one_of_the_same_agent(
    world: World,
) -> None:
    await world.define("w")
    build = await world.submit(*script(60))
    machine = await world.running(build)
    before = world.life().connection
    old = world.network.of(machine.id)[0]
    old.cut()
    old.agent.transport.abort()  # the agent knows; the hub does not
    await world.until(lambda: world.life().connection not in {before, None}, 10)
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert len(world.truth.of(build)) == 1


@simulated()
async def test_A5_a_second_agent_with_the_same_token_ends_the_instance(world: World) -> None:
    """Which of the two is the thief nobody can tell: neither gets another build."""
    machine = await _up(world)
    twin = _twin(world, machine)
    with outside():
        twin.start_agent()
    await world.state("latent")
    assert world.life().quarantine_until is not None
    assert any("used a second time" in cause for cause in world.causes())
    assert (await world.ended(await world.submit()))["state"] == "success"
    twin.end()


@pytest.mark.parametrize("after_s", [0, 5])
@simulated()
async def test_A6_a_silent_cut_shorter_than_the_lease_is_resumed(
    world: World, after_s: int
) -> None:
    machine = await _up(world)
    build = await world.submit(*script(100, lines=20))
    await world.sleep(after_s)
    world.network.partition(machine.id)
    await world.sleep(90)
    world.network.heal(machine.id)
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)
    assert len(world.truth.of(build)) == 1


@simulated()
async def test_A6_a_silent_cut_during_the_stop_is_no_obstacle(world: World) -> None:
    machine = await _up(world)
    world.network.partition(machine.id)
    await world.insubstantiate("w")
    assert await world.state("latent") < 5


@pytest.mark.parametrize("cut_at_s", [1, 7, 13, 19])
@simulated(**HASTY)
async def test_A7_beyond_the_lease_the_agent_ends_its_jobs_before_the_hub_gives_them_away(
    world: World, cut_at_s: int
) -> None:
    await world.define("a", "b")
    build = await world.submit(*script(600, lines=3))
    machine = await world.running(build)
    await world.sleep(cut_at_s)
    world.network.partition(machine.id)
    first = world.truth.of(build)[0]
    await world.until(lambda: first.ended_at is not None, 120)
    await world.until(lambda: len(world.truth.of(build)) == 2, 120)
    assert first.ended_at is not None
    assert world.truth.of(build)[1].started_at - first.ended_at > 30
    row = await world.ended(build, 700)
    assert (row["state"], row["attempts"]) == ("success", 2)


@pytest.mark.parametrize("asleep_s", [30, 400])
@simulated(**HASTY)
async def test_A8_a_suspended_machine_resumes_within_its_lease_and_not_beyond(
    world: World, asleep_s: int
) -> None:
    await world.define("a", "b")
    build = await world.submit(*script(50, lines=10))
    machine = await world.running(build)
    await world.sleep(5)
    assert machine.process is not None
    machine.process.suspend()
    await world.sleep(asleep_s)
    machine.process.wake()
    row = await world.ended(build)
    runs = world.truth.of(build)
    await world.until(lambda: all(run.ended_at is not None for run in runs), 10)
    assert (row["state"], row["attempts"]) == ("success", 1 if asleep_s == 30 else 2)


@pytest.mark.parametrize("jump_s", [-DAY_S, DAY_S])
@simulated()
async def test_A9_the_hub_s_clock_set_by_a_day_hurts_nobody(world: World, jump_s: float) -> None:
    """Idle, leased, disconnected, booting, quarantined: none of it ends sooner or later."""
    await world.define("idle", "leased", "lost", build_wait_timeout=100)
    await world.substantiate("idle")
    builds = [
        await world.submit(*script(60, lines=3), requires={"worker": name})
        for name in ("leased", "lost")
    ]
    machine = [await world.running(build) for build in builds][1]
    world.network.partition(machine.id)
    await world.until(lambda: not world.life("lost").attached)
    await world.define("boots", driver_options={"boot_s": 20})
    await world.substantiate("boots")
    world.jump_s = jump_s
    await world.sleep(35)
    world.network.heal(machine.id)
    for build in builds:
        row = await world.ended(build)
        assert (row["state"], row["attempts"]) == ("success", 1)
    assert {world.life(name).epoch for name in ("idle", "leased", "lost", "boots")} == {1}
    await world.state("latent", "idle", within_s=75)


@simulated()
async def test_A9_a_retried_build_does_not_wait_for_the_clock_to_come_back(
    world: World,
) -> None:
    await world.define("w")
    build = await world.submit(*script(10))
    (await world.running(build)).crash()
    await world.until(lambda: world.build(build)["state"] == "queued")
    world.jump_s = -DAY_S
    row = await world.ended(build, 60)
    assert (row["state"], row["attempts"]) == ("success", 2)


@simulated()
async def test_A10_a_hub_that_stands_still_for_a_minute_loses_no_worker(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(200, lines=40))
    await world.running(build)
    assert world.run is not None
    world.run.process.stop()
    await world.sleep(60)
    world.run.process.resume()
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)
    assert len(world.truth.of(build)) == 1


@simulated()
async def test_A10_a_database_that_stands_still_for_a_minute_loses_no_worker(
    world: World,
) -> None:
    await world.define("w")
    build = await world.submit(*script(200, lines=40))
    await world.running(build)
    world.storage.frozen = True
    await world.sleep(50)
    world.storage.frozen = False
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)


@simulated(**HASTY)
async def test_A11_when_the_whole_pool_is_cut_off_nothing_is_lost_for_good(
    world: World,
) -> None:
    """There is no breaker over a pool: each of its builds is lost and run again, once."""
    names = [f"w{n}" for n in range(8)]
    await world.define(*names)
    builds = [await world.submit(*script(200, lines=2)) for _ in names]
    machines = [await world.running(build) for build in builds]
    for machine in machines:
        world.network.partition(machine.id)
    await world.sleep(300)
    for machine in machines:
        world.network.heal(machine.id)
    rows = [await world.ended(build, 600) for build in builds]
    assert {(row["state"], row["attempts"]) for row in rows} == {("success", 2)}


@simulated(handshakes_per_s=5)
async def test_A12_a_storm_of_agents_is_let_in_at_the_hub_s_rate(world: World) -> None:
    names = [f"w{n}" for n in range(60)]
    await world.define(*names, build_wait_timeout=-1)
    await world.substantiate(*names)
    await world.until(lambda: all(world.life(name).attached for name in names), 300)
    await world.restart_hub()
    took_s = await world.until(lambda: all(world.life(name).attached for name in names), 180)
    assert took_s > 60 / 5 - 2
    assert {world.life(name).epoch for name in names} == {1}


@pytest.mark.parametrize("offset_ms", range(-6, 7, 2))
@simulated()
async def test_A13_of_a_cancel_and_the_end_the_first_one_wins(world: World, offset_ms: int) -> None:
    await world.define("w")
    build = await world.submit(*script(10))
    await world.running(build)
    run = world.truth.of(build)[0]
    await world.sleep(run.started_at + 10 + offset_ms / 1000 - world.loop.now)
    await asyncio.gather(world.cancel(build), world.cancel(build))
    row = await world.ended(build)
    assert row["state"] in {"success", "cancelled"}
    await world.cancel(build)
    assert world.build(build)["state"] == row["state"]
    assert (await world.ended(await world.submit()))["state"] == "success"


@simulated()
async def test_A14_a_build_that_kills_every_worker_is_given_up(world: World) -> None:
    await world.define("a", "b", "c", "d")
    build = await world.submit(*script(10))
    for attempt in range(1, 4):
        await world.until(lambda n=attempt: len(world.truth.of(build)) == n)  # type: ignore[misc]
        world.truth.of(build)[-1].machine.crash()
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("exception", 3)
    assert "3 times" in row["result_text"]
    assert (await world.ended(await world.submit(), 30))["state"] == "success"


@simulated()
async def test_A15_a_slot_that_cannot_be_reset_is_not_used_again(world: World) -> None:
    machine = await _up(world)
    machine.faults.add("reset")
    first, second = await world.submit(), await world.submit()
    assert (await world.ended(first))["state"] == "success"
    assert (await world.ended(second))["state"] == "success"
    assert world.truth.of(second)[0].machine is not machine
    assert any("workspace could not be removed" in cause for cause in world.causes())


@simulated()
async def test_A15_a_slot_with_a_live_process_is_not_used_again(world: World) -> None:
    await world.define("w")
    first = await world.submit(*script(survivors=2))
    second = await world.submit()
    assert (await world.ended(first))["state"] == "success"
    await world.ended(second)
    machines = [world.truth.of(build)[0].machine for build in (first, second)]
    assert machines[0] is not machines[1]


@pytest.mark.parametrize("order", ["redefined", "drained", "left alone"])
@simulated()
async def test_E9_V17_an_agent_that_restarts_with_a_build_holds_nothing_up(
    world: World, order: str
) -> None:
    """Kept for its lease only, an instance goes when the lease is lost with the agent's process."""
    await world.define("w", build_wait_timeout=-1)
    build = await world.submit(*script(60))
    machine = await world.running(build)
    machine.exits = False
    if order == "redefined":
        await world.define("w", build_wait_timeout=-1, driver_options={"note": "new"})
    elif order == "drained":
        await world.set_mode("draining", "w")
    machine.kill_agent()
    with outside():
        machine.start_agent()
    if order == "drained":
        await world.state("latent")
        await world.set_mode("active", "w")
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 2)
    assert world.life().epoch == (1 if order == "left alone" else 2)
    assert machine.workspaces <= {build}


@simulated(**HASTY)
async def test_A7_V10_a_slot_whose_lease_ran_out_is_cleaned_before_it_is_used_again(
    world: World,
) -> None:
    """The agent is back after it has ended its jobs, and before the hub has given it up."""
    await world.define("w")
    build = await world.submit(*script(300, lines=3), retry={"on_loss": 0})
    machine = await world.running(build)
    world.network.partition(machine.id)
    await world.until(lambda: not machine.running, 100)
    world.network.heal(machine.id)
    next_one = await world.submit()
    assert (await world.ended(build))["state"] == "exception"
    assert (await world.ended(next_one))["state"] == "success"
    assert machine.workspaces == set()
    assert world.life().epoch == 1


@simulated(**HASTY)
async def test_A8_V10_a_job_that_takes_its_time_to_end_is_alone_in_its_slot(world: World) -> None:
    """The machine wakes when its lease is over: its agent is back before its job has ended."""
    await world.define("w")
    build = await world.submit(*script(300, lines=3, term_s=8), retry={"on_loss": 0})
    machine = await world.running(build)
    process = machine.process
    assert process is not None
    process.suspend()
    await world.sleep(80)
    process.wake()
    (connection,) = world.network.of(machine.id)
    connection.agent.transport.abort()  # the network has forgotten it meanwhile
    next_one = await world.submit()
    assert (await world.ended(build))["state"] == "exception"
    assert (await world.ended(next_one))["state"] == "success"
    (first,), (second,) = world.truth.of(build), world.truth.of(next_one)
    assert first.machine is second.machine
    assert first.ended_at is not None
    assert second.started_at >= first.ended_at


@pytest.mark.parametrize("order", ["stopped", "removed"])
@simulated()
async def test_V5_a_build_runs_elsewhere_only_when_its_stopped_instance_is_gone(
    world: World, order: str
) -> None:
    await world.define("w", "other")
    build = await world.submit(*script(60))
    machine = await world.running(build)
    world.network.partition(machine.id)  # it does not hear that it is to go
    world.provider.will("destroy", Outcome.SLOW)
    if order == "stopped":
        await world.set_mode("stopped", machine.worker)
    else:
        await world.remove(machine.worker, force=True)
    await world.sleep(world.provider.slow_s - 10)
    assert machine.running, "the test shows nothing"
    row = await world.ended(build)
    first, second = world.truth.of(build)
    assert (row["state"], row["attempts"]) == ("success", 2)
    assert first.ended_at is not None
    assert second.started_at >= first.ended_at
    assert second.machine.worker != machine.worker


@simulated(**HASTY)
async def test_V5_A7_of_an_instance_that_cannot_be_stopped_the_agent_ends_the_build(
    world: World,
) -> None:
    """Nobody waits for ever for a provider: then it is the lease that ends."""
    await world.define("w", "other")
    build = await world.submit(*script(600, lines=3), timeout_s=300)
    machine = await world.running(build)
    world.network.partition(machine.id)
    world.provider.will("destroy", *[Outcome.FAILED] * 50)
    stopped_at = world.loop.now
    await world.set_mode("stopped", machine.worker)
    await world.until(lambda: len(world.truth.of(build)) == 2, 180)
    first, second = world.truth.of(build)
    assert first.ended_at is not None
    assert first.ended_at <= second.started_at
    assert second.started_at - stopped_at < world.settings.lease_ttl_s + 40
    await world.cancel(build)


@simulated()
async def test_V5_K11_a_hub_that_dies_over_a_forced_stop_does_not_run_the_build_twice(
    world: World,
) -> None:
    await world.define("w", "other")
    build = await world.submit(*script(60))
    machine = await world.running(build)
    world.network.partition(machine.id)
    world.provider.will("destroy", Outcome.FAILED, Outcome.SLOW, Outcome.SLOW)
    await world.set_mode("stopped", machine.worker)
    await world.restart_hub()
    row = await world.ended(build)
    first, second = world.truth.of(build)
    assert (row["state"], row["attempts"]) == ("success", 2)
    assert first.ended_at is not None
    assert second.started_at >= first.ended_at


@simulated()
async def test_E20_a_command_that_the_agent_lost_is_a_loss_of_its_attempt(world: World) -> None:
    """Something killed the process that starts the jobs: no fault of any of them."""
    await world.define("w", max_builds=2)
    builds = [await world.submit(*script(lost=2)), await world.submit(*script(lost=1))]
    rows = [await world.ended(build) for build in builds]
    assert [(row["state"], row["attempts"]) for row in rows] == [("success", 3), ("success", 2)]
    assert world.life().epoch == 1  # the agent is well
    assert world.life().quarantine_until is None
    assert world.machine().workspaces == set()


@simulated()
async def test_E20_a_loss_too_many_ends_as_an_exception(world: World) -> None:
    await world.define("w")
    row = await world.ended(await world.submit(*script(lost=9), retry={"on_loss": 1}))
    assert (row["state"], row["attempts"]) == ("exception", 2)
    assert "the process that ran the command on its worker was killed" in row["result_text"]


@simulated()
async def test_E20_a_hub_that_dies_over_a_lost_command_hears_of_it_again(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(5, lost=1))
    await world.running(build)
    world.kill_hub()
    await world.sleep(10)
    await world.start_hub()
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 2)


@simulated()
async def test_E20_V10_survivors_of_a_lost_command_keep_their_slot(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(lost=1, survivors=1))
    row = await world.ended(build)
    first, second = world.truth.of(build)
    assert (row["state"], row["attempts"]) == ("success", 2)
    assert first.machine is not second.machine
    assert "processes of the build survived its end: daemon (2)" in " ".join(world.causes())
