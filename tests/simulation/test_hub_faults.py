"""K1 to K11: the hub dies, at every step of its work; the next one takes everything up."""

from __future__ import annotations

import asyncio
import functools

import pytest
from crash_points import POINTS
from simulation.cases import simulated
from simulation.crashes import dies
from simulation.world import HubDied, World, simulate

from hostler_hub.lifecycle.model import State

COMMITS = [
    "_insert_once",
    "Wanted",
    "Created",
    "bind_session",
    "Attached",
    "Leased",
    "append",
    "update_step",
    "Runner._finish",
    "Released",
    "TimerFired",
    "Destroyed",
]
"""What a build on a latent worker writes, in order."""


async def _one_build(world: World, point: str, then: str = "") -> str:
    """A build whose hub dies at the point, and the next one ``then``; hubs come after 5 s."""
    await world.define("w", build_wait_timeout=2)
    with dies(world, point) as trap:
        try:
            build = await world.submit(key="once")
        except HubDied:
            build = ""
        try:
            await world.until(lambda: trap.sprung, 60)
        except AssertionError:
            raise AssertionError(f"the hub never came to the point {point}") from None
        await asyncio.sleep(5)
    if then:
        await _dies_again(world, then)
    else:
        await world.start_hub()
    return build or await world.submit(key="once")


async def _dies_again(world: World, point: str) -> None:
    """Where the first one left little to do, the second does not come to the point."""
    with dies(world, point) as trap:
        await world.start_hub()
        await world.until(lambda: trap.sprung or _is_over(world), 120)
        await asyncio.sleep(5)
    if trap.sprung:
        await world.start_hub()


def _is_over(world: World) -> bool:
    ended = all(world.build(build)["state"] == "success" for build in world.builds)
    return ended and world.hub_lives and world.life().state is State.LATENT


async def _crash(world: World, point: str, then: str = "") -> None:
    build = await _one_build(world, point, then)
    row = await world.ended(build)
    assert (row["state"], row["attempts"]) == ("success", 1), row["result_text"]
    assert len(world.truth.of(build)) == 1
    await world.state("latent")
    assert world.provider.machines == {}
    assert world.life().quarantine_until is None


@pytest.mark.parametrize("what", COMMITS)
@pytest.mark.parametrize("when", ["before", "after"])
@simulated()
async def test_K1_to_K11_the_hub_dies_around_each_commit(
    world: World, when: str, what: str
) -> None:
    await _crash(world, f"{when} commit {what}")


@pytest.mark.parametrize("point", POINTS)
@simulated()
async def test_K2_to_K11_the_hub_dies_at_each_named_point(world: World, point: str) -> None:
    await _crash(world, point)


@pytest.mark.parametrize("first", POINTS)
def test_K2_to_K11_the_next_hub_dies_at_each_named_point_too(first: str) -> None:
    for second in POINTS:
        simulate(functools.partial(_crash, point=first, then=second))
