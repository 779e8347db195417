"""What providers do to those who trust them: the faults P1 to P21."""

from __future__ import annotations

import asyncio

import pytest
from simulation.cases import simulated
from simulation.machine import script
from simulation.provider import Outcome
from simulation.world import HubDied, World

from hostler_hub.store.errors import StoreHeld


async def _up(world: World, **definition: object) -> None:
    await world.define("w", **definition)
    await world.substantiate("w")
    await world.state("substantiated")


@simulated()
async def test_P1_a_create_that_failed_and_was_done_leaves_no_second_machine(
    world: World,
) -> None:
    world.provider.will("create", Outcome.FAILED_DONE)
    await world.define("w")
    row = await world.ended(await world.submit())
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert len(world.provider.machines) == 1
    assert world.provider.count("destroy") == 1


@simulated()
async def test_P2_every_try_to_create_has_an_identity_of_its_own(world: World) -> None:
    """Tokens of idempotent requests are the EC2 driver's; here no instance is asked for twice."""
    world.provider.will("create", *[Outcome.FAILED] * 3)
    await world.define("w")
    await world.ended(await world.submit())
    asked = [instance for _, verb, instance in world.provider.calls if verb == "create"]
    assert len(set(asked)) == len(asked) == 4


@simulated()
async def test_P3_what_the_provider_does_not_list_yet_is_not_gone(world: World) -> None:
    world.provider.choose = lambda verb, _: Outcome.UNKNOWN if verb == "inspect" else Outcome.OK
    await world.define("w", driver_options={"boot_s": 100})
    row = await world.ended(await world.submit())
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 1, 1)
    assert world.provider.count("inspect") > 5


@simulated()
async def test_P4_throttled_calls_are_repeated_at_growing_distances(world: World) -> None:
    """Patience within one call is the driver's; what still fails is waited for longer each time."""
    world.provider.will("create", *[Outcome.THROTTLED] * 4)
    await world.define("w")
    await world.ended(await world.submit())
    at = world.provider.asked("create")
    waits = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    assert waits == sorted(waits)
    assert waits[-1] > 60


@simulated()
async def test_P5_without_capacity_here_the_build_goes_there(world: World) -> None:
    world.provider.choose = lambda verb, worker: (
        Outcome.FAILED if (verb, worker) == ("create", "a") else Outcome.OK
    )
    await world.define("a", "b")
    row = await world.ended(await world.submit(), 30)
    assert (row["state"], row["worker"]) == ("success", "b")
    assert "create failed" in str(world.life("a").quarantine_reason)


@pytest.mark.parametrize("said", [Outcome.UNKNOWN, Outcome.FAILED, Outcome.HANGS])
@simulated()
async def test_P6_a_provider_that_says_nothing_costs_no_instance(
    world: World, said: Outcome
) -> None:
    await _up(world, build_wait_timeout=-1)
    world.provider.choose = lambda verb, _: said if verb == "inspect" else Outcome.OK
    await world.sleep(600)
    assert (world.life().state.value, world.life().epoch) == ("substantiated", 1)
    assert world.provider.count("destroy") == 0


@simulated()
async def test_P7_a_machine_that_dies_before_it_attaches_is_found_within_10_s(
    world: World,
) -> None:
    await world.define("w", driver_options={"boot_s": 60})
    build = await world.submit()
    for wait_s in (10, 20):
        await world.until(lambda: world.provider.machines)
        world.machine().crash()
        await world.state("insubstantiating", within_s=11)
        assert world.life().backoff_s == wait_s
        await world.until(lambda: world.life().quarantine_until is None)
    await world.define("w", driver_options={"boot_s": 1})
    assert (await world.ended(build))["attempts"] == 1


@simulated()
async def test_P8_a_machine_that_never_attaches_is_stopped_and_missing(world: World) -> None:
    await world.define("w", missing_timeout=120, driver_options={"attaches": False})
    build = await world.submit()
    await world.sleep(119)
    assert world.life().state.value == "substantiating"
    await world.state("latent", within_s=5)
    assert world.life().missing_since is not None
    await world.define("w", missing_timeout=120, driver_options={})
    assert (await world.ended(build))["state"] == "success"
    assert world.life().missing_since is None


@simulated()
async def test_P9_a_start_that_always_fails_is_tried_ever_more_rarely(world: World) -> None:
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "create" else Outcome.OK
    await world.define("w")
    build = await world.submit()
    await world.sleep(10_000)
    assert 8 <= world.provider.count("create") <= 12
    world.stop_faults()
    await world.set_mode("paused", "w")
    await world.set_mode("active", "w")
    assert (await world.ended(build))["state"] == "success"


@pytest.mark.parametrize(
    "start", [Outcome.OK, Outcome.FAILED_DONE, Outcome.SLOW, Outcome.LATE, Outcome.HANGS_DONE]
)
@pytest.mark.parametrize("order", ["stopped", "draining", "removed"])
@simulated()
async def test_P10_a_stop_during_the_start_is_done_when_the_start_is(
    world: World, start: Outcome, order: str
) -> None:
    world.provider.will("create", start)
    world.provider.slow_s = 20
    await world.define("w", driver_options={"boot_s": 5})
    build = await world.submit()
    await world.sleep(0.01)
    await (world.remove("w") if order == "removed" else world.set_mode(order, "w"))
    await world.sleep(70)
    assert world.provider.machines == {}
    assert world.truth.of(build) == []
    overlapping = [verb for _, verb, _ in world.provider.calls if verb != "inspect"]
    assert overlapping == ["create", "destroy"]
    await world.define("w")
    if order != "removed":
        await world.set_mode("active", "w")
    assert (await world.ended(build))["attempts"] == 1


@simulated()
async def test_P11_a_start_during_the_stop_waits_and_is_another_instance(world: World) -> None:
    world.provider.will("destroy", Outcome.SLOW)
    await _up(world)
    first = world.machine()
    await world.insubstantiate("w")
    build = await world.submit()
    await world.sleep(20)
    assert world.provider.count("create") == 1
    row = await world.ended(build)
    assert (row["state"], world.life().epoch) == ("success", 2)
    assert world.truth.of(build)[0].machine is not first


@simulated()
async def test_P12_fifty_who_wait_share_one_create(world: World) -> None:
    await world.define("w", max_builds=50, driver_options={"boot_s": 10})
    builds = await asyncio.gather(*(world.submit() for _ in range(50)))
    rows = [await world.ended(build) for build in builds]
    assert {row["state"] for row in rows} == {"success"}
    assert world.provider.count("create") == 1


@pytest.mark.parametrize("fault", [Outcome.FAILED, Outcome.HANGS, Outcome.THROTTLED])
@simulated()
async def test_P13_a_stop_is_tried_until_it_works_over_hours_and_restarts(
    world: World, fault: Outcome
) -> None:
    await _up(world)
    world.provider.choose = lambda verb, _: fault if verb == "destroy" else Outcome.OK
    await world.insubstantiate("w")
    build = await world.submit()
    await world.sleep(3600)
    await world.restart_hub()
    await world.sleep(3600)
    at = world.provider.asked("destroy")
    waits = [later - earlier for earlier, later in zip(at, at[1:], strict=False)]
    assert max(waits) < 300 + 61
    assert 20 < len(at) < 60
    assert world.life().state.value == "insubstantiating"
    assert world.provider.count("create") == 1
    world.stop_faults()
    assert (await world.ended(build, 400))["state"] == "success"


@simulated()
async def test_P14_an_instance_that_shuts_down_is_not_gone_yet(world: World) -> None:
    """The driver's destroy fails until it is proven; a look says that it is still there."""
    world.provider.will("destroy", *[Outcome.FAILED] * 5)
    await _up(world)
    await world.insubstantiate("w")
    await world.submit()
    await world.until(lambda: world.provider.count("destroy") == 5)
    assert world.life().state.value == "insubstantiating"
    assert world.provider.count("create") == 1
    await world.until(lambda: world.life().epoch == 2)


@pytest.mark.parametrize("silently", [False, True])
@simulated()
async def test_P15_an_idle_instance_deleted_by_others_is_gone(world: World, silently: bool) -> None:
    await _up(world)
    world.provider.take_away(world.machine().instance or "", silently=silently)
    assert await world.state("latent") < 12
    assert world.life().quarantine_until is None


@pytest.mark.parametrize("silently", [False, True])
@simulated()
async def test_P15_a_leased_instance_deleted_by_others_has_its_build_run_again(
    world: World, silently: bool
) -> None:
    await world.define("w")
    build = await world.submit(*script(30))
    machine = await world.running(build)
    world.provider.take_away(machine.instance or "", silently=silently)
    row = await world.ended(build)
    assert (row["state"], row["attempts"], world.life().epoch) == ("success", 2, 2)


@simulated()
async def test_P16_an_interruption_is_the_infrastructure_s_retry(world: World) -> None:
    """The notice itself is the EC2 driver's: drained, and taken away two minutes later."""
    await world.define("w")
    build = await world.submit(*script(300, lines=10))
    machine = await world.running(build)
    await world.set_mode("draining", "w")
    await world.sleep(120)
    world.provider.take_away(machine.instance or "")
    await world.define("x")
    row = await world.ended(build, 400)
    assert (row["state"], row["attempts"], row["worker"]) == ("success", 2, "x")
    await world.set_mode("active", "w")


@simulated()
async def test_P17_an_agent_whose_hub_is_dead_for_days_ends_its_instance(world: World) -> None:
    await _up(world, build_wait_timeout=-1)
    machine = world.machine()
    world.kill_hub()
    await world.sleep(2 * 86400)
    assert machine.ended
    await world.start_hub()
    row = await world.ended(await world.submit())
    assert (row["state"], world.life().epoch) == ("success", 2)


@simulated()
async def test_P18_a_second_hub_on_the_same_database_is_refused(world: World) -> None:
    await world.define("w")
    first = world.run
    with pytest.raises(StoreHeld):
        await world.start_hub()
    world.errors.clear()
    world.loop.failures.clear()
    world.run = first
    assert first is not None
    world.network.listen(world.hub, first.process)
    assert (await world.ended(await world.submit()))["state"] == "success"


@simulated()
async def test_P19_at_the_hub_s_stop_idle_instances_go_and_leased_ones_are_handed_over(
    world: World,
) -> None:
    await world.define("a", "b")
    short, long = await world.submit(), await world.submit(*script(60))
    await world.ended(short)
    machine = await world.running(long)
    assert await world.stop_hub() < 30
    assert list(world.provider.machines.values()) == [machine]
    await world.start_hub()
    row = await world.ended(long)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert len(world.truth.of(long)) == 1


@pytest.mark.parametrize("offset_ms", range(-8, 9, 2))
@simulated()
async def test_P20_of_the_idle_timer_and_a_lease_one_wins(world: World, offset_ms: int) -> None:
    await world.define("w", build_wait_timeout=10)
    first = await world.submit()
    await world.ended(first)
    await world.until(lambda: not world.life().leases)
    lease = world.observer.row("SELECT ended_at FROM leases WHERE build = ?", first)
    await world.sleep(lease["ended_at"] + 10 + offset_ms / 1000 - world.wall())
    build = await world.submit()
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1)
    assert len(world.truth.of(build)) == 1


@simulated()
async def test_P21_an_instance_of_the_wrong_type_is_stopped_before_a_build_gets_it(
    world: World,
) -> None:
    await _up(world, driver_options={"note": "small"})
    await world.define("w", driver_options={"note": "large"})
    build = await world.submit()
    await world.ended(build)
    assert world.truth.of(build)[0].machine.epoch == 2


@simulated()
async def test_P21_a_failed_machine_is_no_capacity(world: World) -> None:
    world.provider.will("create", Outcome.FAILED_DONE)
    world.provider.will("destroy", *[Outcome.FAILED] * 3)
    await world.define("w")
    build = await world.submit()
    await world.until(lambda: world.provider.count("destroy") == 3)
    assert world.truth.of(build) == []
    await world.ended(build)
    assert world.truth.of(build)[0].machine.epoch == 2


@simulated()
async def test_a_request_over_which_the_hub_dies_says_so(world: World) -> None:
    await world.define("w")
    world.storage.frozen = True
    asked = asyncio.ensure_future(world.submit(key="k"))
    await world.sleep(1)
    world.kill_hub()
    with pytest.raises(HubDied):
        await asked
