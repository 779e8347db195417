"""V10, E7: what a build leaves alive is told by name where its worker is quarantined."""

from __future__ import annotations

from simulation.cases import simulated
from simulation.machine import script
from simulation.world import World


def _told(world: World) -> list[str]:
    return [cause for cause in world.causes() if "survived its end" in cause]


@simulated()
async def test_V10_survivors_quarantine_the_worker_with_their_names(world: World) -> None:
    await world.define("w")
    build = await world.submit(*script(survivors=2))
    assert (await world.ended(build))["state"] == "success"
    await world.until(lambda: world.life().quarantine_until is not None, 60)
    (cause, *_) = _told(world)
    names = "processes of the build survived its end: daemon (2), daemon (3)"
    assert names in cause
    await world.state("latent")
    assert world.provider.machines == {}


@simulated()
async def test_V10_a_hub_that_restarts_knows_the_survivors_of_earlier_steps(world: World) -> None:
    await world.define("w")
    steps = [
        {"name": "leaves", "command": script(survivors=1)},
        {"name": "long", "command": script(duration_s=20)},
    ]
    build = await world.submit(steps=steps)
    await world.until(lambda: len(world.truth.of(build)) == 2, 60)
    await world.restart_hub()
    assert (await world.ended(build))["state"] == "success"
    await world.until(lambda: bool(_told(world)), 60)
    assert "survived its end: daemon (2)" in _told(world)[0]


@simulated()
async def test_a_crowd_of_survivors_is_cut_short(world: World) -> None:
    await world.define("w")
    await world.submit(*script(survivors=14))
    await world.until(lambda: bool(_told(world)), 60)
    assert _told(world)[0].endswith("daemon (10), daemon (11) and 4 more")
