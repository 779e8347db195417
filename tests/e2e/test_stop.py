"""`hostler-hub stop` ends in time, takes idle instances along, and leaves leased ones running."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING

from e2e.api import Api, until
from stopping import stop

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.gates import Gate
    from e2e.hub_process import HubProcess

DEADLINE_S = 45.0


async def test_V18_stop_leaves_no_idle_instance(make_hub: Callable[..., HubProcess]) -> None:
    hub = make_hub()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        await api.define("a", "b")
        builds = [await api.submit("true", worker=worker) for worker in ("a", "b")]
        assert {(await api.ended(build))["state"] for build in builds} == {"success"}
        assert hub.leftovers()
    code, took_s = await _stop(hub)
    assert code == 0
    assert took_s < DEADLINE_S
    assert hub.leftovers() == []
    assert json.loads((hub.state_dir / "last-stop.json").read_text())["instances"] == []


async def test_V18_a_slot_that_is_being_cleaned_when_the_hub_stops_is_given_back(
    make_hub: Callable[..., HubProcess],
) -> None:
    """The build has its result; its workspace, which is large, is still being removed."""
    hub = make_hub()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        await api.define("littered")

        async def is_being_cleaned() -> bool:
            build = await api.submit("seq 10000 | xargs touch", worker="littered")
            assert (await api.ended(build))["state"] == "success"
            return bool((await api.worker("littered"))["builds"] == [build])

        await until(is_being_cleaned)  # else it was faster than our look
    assert await asyncio.to_thread(hub.stop) == 0
    assert json.loads((hub.state_dir / "last-stop.json").read_text())["instances"] == []
    assert hub.leftovers() == []


async def test_V9_a_leased_instance_outlives_the_hub_and_is_taken_up_by_the_next(
    make_hub: Callable[..., HubProcess], make_gate: Callable[[], Gate]
) -> None:
    hub, gate = make_hub(), make_gate()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        await api.define("busy", "idle")
        await api.ended(await api.submit("true", worker="idle"))
        build = await api.submit(gate.command, worker="busy")
        await gate.entered()
    code, took_s = await _stop(hub)
    assert code == 0
    assert took_s < DEADLINE_S
    assert json.loads((hub.state_dir / "last-stop.json").read_text())["instances"] == ["busy"]
    await gate.send(b"while nobody listened\n")
    gate.open()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert await api.output(build) == b"while nobody listened\n"
        await api.mode("busy", "stopped")
        await hub.latent(api, "busy")
    assert hub.stop() == 0
    assert hub.leftovers() == []


async def test_V18_agents_that_are_stopped_hold_up_neither_their_workers_nor_the_hub(
    make_hub: Callable[..., HubProcess],
) -> None:
    """The connection stands, and nobody answers on it any more."""
    hub = make_hub()
    hub.start()
    async with Api(hub.url, hub.token) as api:
        await api.define("frozen", "colder")
        for worker in ("frozen", "colder"):
            await api.ended(await api.submit("true", worker=worker))
            await api.idle(worker)  # else the slot could not be cleaned any more
            stop(hub.agent_of(worker))
        started = time.monotonic()
        await api.mode("frozen", "draining")
        await hub.latent(api, "frozen")
        assert time.monotonic() - started < DEADLINE_S
    code, took_s = await _stop(hub)
    assert code == 0
    assert took_s < DEADLINE_S
    assert hub.leftovers() == []
    assert json.loads((hub.state_dir / "last-stop.json").read_text())["instances"] == []


async def _stop(hub: HubProcess) -> tuple[int, float]:
    """As an operator does it; what the hub itself ended with, and how long it took."""
    options = ["stop", "--state-dir", str(hub.state_dir)]
    started = time.monotonic()
    command = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hostler_hub", *options, stdout=asyncio.subprocess.DEVNULL
    )
    assert await command.wait() in (0, 1)
    took_s = time.monotonic() - started
    return hub.stop(), took_s
