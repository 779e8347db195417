"""Dispatch on the real hub: idle timers against queued work, groups, breakers, mass losses."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest import mock

from simulation.cases import simulated
from simulation.machine import script
from simulation.provider import Outcome
from simulation.world import World

from hostler_hub.lifecycle import Timer
from hostler_hub.specs.group import GroupDefinition
from hostler_hub.workers.views import WorkerReasons


async def group(world: World, **definition: Any) -> None:
    made = GroupDefinition.model_validate({"name": "g", **definition})
    await world.ask(lambda hub: hub.groups.define([made], dry_run=False, by="ann"))


def decisions(world: World, kind: str, **where: str) -> list[dict[str, Any]]:
    """Committed decisions of a kind, oldest first."""
    sql = "SELECT * FROM decisions WHERE kind = ?"
    for column in where:
        sql += f' AND "{column}" = ?'
    return world.observer.rows(f"{sql} ORDER BY id", kind, *where.values())


def rules(world: World, kind: str, **where: str) -> list[str]:
    return [row["rule"] for row in decisions(world, kind, **where)]


def up(world: World, *names: str) -> int:
    return sum(world.life(name).state.value == "substantiated" for name in names)


def idle(world: World, *names: str) -> int:
    lives = [world.life(name) for name in names]
    return sum(life.attached and not life.in_use for life in lives)


# --- an idle timer and queued work ---------------------------------------------------------------


@simulated()
async def test_V9_P20_an_idle_timer_stops_nothing_that_queued_work_needs(world: World) -> None:
    """The build waits for its retry while the only worker that fits it becomes idle."""
    await world.define("w", build_wait_timeout=5, missing_timeout=60)
    await world.substantiate("w")
    await world.until(lambda: world.life().attached)
    epoch = world.life().epoch
    now = world.wall()
    waiting = "01J00000000000000000000000"  # queued, and not ready yet
    with mock.patch.object(world.hub.builds._backlog, "need", return_value=waiting):
        await world.sleep(60)
        assert world.life().epoch == epoch
        assert world.life().state.value == "substantiated"
        assert rules(world, "skip", worker="w") == ["queued_work"]  # once, not every ten seconds
    await world.state("insubstantiating")
    assert rules(world, "stop", worker="w") == ["idle"]
    assert world.wall() - now < 75


@simulated()
async def test_P20_a_build_and_the_idle_timer_in_one_moment(world: World) -> None:
    """Whoever comes first wins the row; the build is never lost, and never runs twice."""
    await world.define("w", build_wait_timeout=10)
    await world.substantiate("w")
    await world.until(lambda: world.life().attached)
    for offset in (-0.02, -0.001, 0.0, 0.001, 0.02):
        at = world.life().timers[Timer.IDLE]
        await world.sleep(max(0.0, at + offset - world.wall()))
        build = await world.submit()
        row = await world.ended(build)
        assert (row["state"], row["attempts"]) == ("success", 1)
        assert len(world.truth.of(build)) == 1
        await world.until(lambda: Timer.IDLE in world.life().timers)


# --- groups -------------------------------------------------------------------------------------

NAMES = [f"w{number}" for number in range(6)]


@simulated()
async def test_a_group_keeps_its_idle_instances_while_others_work(world: World) -> None:
    await group(world, min_idle=2)
    await world.define(*NAMES, group="g", build_wait_timeout=5)
    await world.until(lambda: idle(world, *NAMES) == 2)
    builds = [await world.submit(*script(duration_s=60)) for _ in range(3)]
    await world.until(lambda: len({r.machine for b in builds for r in world.truth.of(b)}) == 3)
    await world.until(lambda: idle(world, *NAMES) == 2, 30)
    for build in builds:
        await world.ended(build)
    await world.until(lambda: up(world, *NAMES) == 2, 60)
    await world.sleep(60)
    assert idle(world, *NAMES) == 2
    assert "min_idle" in rules(world, "start")
    assert "min_idle" in rules(world, "skip")


@simulated()
async def test_no_more_than_max_instances_whatever_waits(world: World) -> None:
    await group(world, max_instances=2)
    await world.define(*NAMES, group="g", build_wait_timeout=5)
    builds = [await world.submit(*script(duration_s=5)) for _ in range(8)]
    for build in builds:
        await world.ended(build)
        alive = [m for m in world.provider.machines.values() if m.worker in NAMES]
        assert len(alive) <= 2
    assert "max_instances" in str(decisions(world, "skip"))


@simulated()
async def test_the_start_throttle_spreads_starts_and_all_come_at_last(world: World) -> None:
    await group(world, max_starting=2, max_starts_per_minute=3)
    await world.define(*NAMES, group="g", driver_options={"boot_s": 5})
    builds = [await world.submit(*script(duration_s=240)) for _ in NAMES]
    await world.until(lambda: all(world.truth.of(build) for build in builds), 200)
    asked = [row["at"] for row in decisions(world, "start")]
    for at in asked:
        assert sum(at - 60 < other <= at for other in asked) <= 3
    assert asked[-1] - asked[0] >= 59


@simulated()
async def test_a_schedule_brings_instances_up_and_lets_them_go(world: World) -> None:
    """The world begins at an hour's 1000th second: the window opens at twenty past."""
    wall = world.wall()
    minute = int(wall // 60 + 2) % 60
    schedule = {"cron": f"{minute} * * * *", "duration_s": 120, "min_idle": 3}
    await group(world, schedules=[schedule])
    await world.define(*NAMES, group="g", build_wait_timeout=5)
    await world.sleep(30)
    assert up(world, *NAMES) == 0
    await world.until(lambda: idle(world, *NAMES) == 3, 130)
    view = world.hub.groups.view("g")
    assert (view.now.min_idle, view.now.schedule) == (3, schedule["cron"])
    await world.until(lambda: up(world, *NAMES) == 0, 180)


@simulated()
async def test_a_lower_maximum_stops_idle_ones_one_at_a_time_and_no_busy_one(world: World) -> None:
    await group(world, min_idle=4)
    await world.define(*NAMES, group="g", build_wait_timeout=600)
    await world.until(lambda: idle(world, *NAMES) == 4)
    build = await world.submit(*script(duration_s=120))
    machine = await world.running(build)
    await world.until(lambda: idle(world, *NAMES) == 4)
    await group(world, max_instances=2)
    began = world.wall()
    await world.until(lambda: up(world, *NAMES) == 2, 90)
    assert world.wall() - began > 15  # three of them, ten seconds apart
    assert up(world, machine.worker) == 1
    assert rules(world, "stop") == ["max_instances"] * 3
    assert (await world.ended(build))["attempts"] == 1


@simulated()
async def test_P9_an_outage_of_the_provider_costs_few_starts(world: World) -> None:
    """10,000 simulated seconds of failing creates, with work waiting all the time."""
    await group(world, failures_allowed=3)
    await world.define(*NAMES, group="g", missing_timeout=60)
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "create" else Outcome.OK
    builds = [await world.submit() for _ in range(10)]
    await world.sleep(10_000)
    asked = world.provider.asked("create")
    assert 8 <= len(asked) <= 20  # six alone would have made some fifty
    gaps = [after - before for before, after in zip(asked, asked[1:], strict=False)]
    assert max(gaps) > 1000
    assert rules(world, "breaker")[0] == "opened"
    assert world.hub.groups.view("g").breaker.state in {"open", "half-open"}
    world.provider.choose = type(world.provider).choose
    for build in builds:
        assert (await world.ended(build, 8000))["state"] == "success"
    assert rules(world, "breaker")[-1] == "closed"


@simulated()
async def test_an_open_breaker_survives_the_hub(world: World) -> None:
    await group(world, failures_allowed=2)
    await world.define(*NAMES, group="g")
    world.provider.choose = lambda verb, _: Outcome.FAILED if verb == "create" else Outcome.OK
    await world.submit()
    await world.until(lambda: rules(world, "breaker") == ["opened"], 120)
    world.kill_hub()
    await asyncio.sleep(1)
    await world.start_hub()
    before = len(world.provider.asked("create"))
    assert world.hub.groups.view("g").breaker.state == "open"
    await world.sleep(20)
    assert len(world.provider.asked("create")) == before


@simulated()
async def test_A11_when_most_of_a_group_is_lost_nobody_is_given_up(world: World) -> None:
    names = [f"w{number}" for number in range(8)]
    await world.define(*names, group="g", build_wait_timeout=-1)
    await world.substantiate(*names)
    await world.until(lambda: idle(world, *names) == 8)
    builds = [await world.submit(*script(duration_s=5000)) for _ in names]
    await world.until(lambda: all(world.truth.of(build) for build in builds))
    world.provider.choose = lambda verb, _: Outcome.UNKNOWN if verb == "inspect" else Outcome.OK
    lost = [world.machine(name) for name in names[:6]]
    for machine in lost:
        world.network.partition(machine.id)
    await world.until(lambda: rules(world, "hold"), 120)
    assert world.hub.groups.view("g").held_since is not None
    await world.sleep(400)  # beyond the time in which a lost agent is waited for
    assert up(world, *names) == 8
    assert rules(world, "stop") == []
    opened = world.observer.rows("SELECT * FROM incidents WHERE kind = 'group_lost'")
    assert len(opened) == 1
    for machine in lost:
        world.network.heal(machine.id)
    await world.until(lambda: all(world.life(name).attached for name in names), 300)
    (closed,) = world.observer.rows("SELECT * FROM incidents WHERE kind = 'group_lost'")
    assert closed["closed_at"] is not None
    for build in builds:
        await world.cancel(build)


@simulated()
async def test_A11_few_lost_ones_are_given_up_one_at_a_time(world: World) -> None:
    names = [f"w{number}" for number in range(8)]
    await world.define(*names, group="g", build_wait_timeout=-1)
    await world.substantiate(*names)
    await world.until(lambda: idle(world, *names) == 8)
    world.provider.choose = lambda verb, _: Outcome.UNKNOWN if verb == "inspect" else Outcome.OK
    for name in names[:3]:
        world.network.partition(world.machine(name).id)
    await world.until(lambda: len(rules(world, "stop")) == 3, 500)
    at = [row["at"] for row in decisions(world, "stop")]
    assert rules(world, "stop") == ["not_reconnected"] * 3
    assert at[1] - at[0] >= 10
    assert at[2] - at[1] >= 10
    assert rules(world, "hold") == []


@simulated()
async def test_A14_a_poison_build_ends_and_does_not_drain_the_group(world: World) -> None:
    """It takes three workers with it, which rest for ten seconds; the others work on."""
    await world.define(*NAMES, group="g", build_wait_timeout=-1)
    poison = await world.submit(*script(duration_s=600))
    for attempt in range(1, 4):
        await world.until(lambda n=attempt: len(world.truth.of(poison)) == n, 120)
        (run,) = [each for each in world.truth.of(poison) if each.ended_at is None]
        world.provider.take_away(run.machine.instance)
    row = await world.ended(poison)
    assert (row["state"], row["attempts"]) == ("exception", 3)
    assert len(rules(world, "quarantine")) == 3
    await world.sleep(25)
    assert [name for name in NAMES if world.life(name).quarantine_until is not None] == []
    assert (await world.ended(await world.submit()))["state"] == "success"


# --- why -----------------------------------------------------------------------------------------


@simulated()
async def test_every_decision_is_there_with_its_rule_and_the_build_says_why(world: World) -> None:
    await world.define("w", build_wait_timeout=5, max_builds=1)
    first = await world.submit(*script(duration_s=30))
    await world.running(first)
    second = await world.submit()
    view = await world.ask(lambda hub: hub.builds.get(second))
    assert view.why_workers[0].reasons == ["all 1 of its slots are leased"]
    assert view.why_workers[0].remedies == ["wait for a slot, or define more workers like it"]
    await world.until(lambda: rules(world, "skip", build=second) == ["busy"])
    worker = world.hub.workers.view("w").why
    assert worker == WorkerReasons(not_started=None, not_used=None, not_stopped="it runs 1 build")
    await world.ended(second)
    await world.state("latent")
    kinds = [row["kind"] for row in world.observer.rows("SELECT kind FROM decisions ORDER BY id")]
    assert kinds == ["start", "match", "skip", "match", "stop"]
    assert rules(world, "skip", build=second) == ["busy"]
    worker = world.hub.workers.view("w").why
    assert worker.not_started == "no queued build needs it"
