"""kill -9 of the hub, anywhere: no build is lost or run twice, no byte of a log, no process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import httpx2
import pytest
from e2e.api import Api, sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from e2e.gates import Gate
    from e2e.hub_process import HubProcess

BUILDS = 10
PART_BYTES = 96 * 1024
PATIENCE_S = 120  # an agent whose hub has died comes back ever later


async def test_K5_K8_K9_ten_running_builds_go_on_over_a_crash(
    make_hub: Callable[..., HubProcess], make_gate: Callable[[], Gate], database_url: str | None
) -> None:
    """The hub dies while the builds write, some end while it is away, the others after."""
    hub = make_hub(database_url)
    hub.start()
    gates = [make_gate() for _ in range(BUILDS)]
    written = [os.urandom(3 * PART_BYTES) for _ in gates]

    async def send(part: int) -> None:
        parts = [data[part * PART_BYTES : (part + 1) * PART_BYTES] for data in written]
        await asyncio.gather(*(gate.send(data) for gate, data in zip(gates, parts, strict=True)))

    async with Api(hub.url, hub.token) as api:
        await api.define(*(f"w{n}" for n in range(5)), max_builds=2)
        builds = [await api.submit(gate.command) for gate in gates]
        await asyncio.gather(*(gate.entered() for gate in gates))
        await send(0)
        flowing = asyncio.gather(*(api.log_reaches(build, PART_BYTES // 2) for build in builds))
        await flowing
        killed = asyncio.create_task(asyncio.to_thread(hub.kill))
        await send(1)
        await killed
    await send(2)
    for gate in gates[:5]:
        gate.open()
    hub.start()
    for gate in gates[5:]:
        gate.open()
    async with Api(hub.url, hub.token) as api:
        views = await asyncio.gather(*(api.ended(build, PATIENCE_S) for build in builds))
        assert [(view["state"], view["attempts"]) for view in views] == [("success", 1)] * BUILDS
        assert not any(gate.has_been_entered() for gate in gates)
        outputs = [await api.output(build) for build in builds]
        assert list(map(sha256, outputs)) == list(map(sha256, written))
    assert hub.stop() == 0
    assert hub.leftovers() == []


CRASHES = {
    "K2": "before create",
    "K3": "after create",
    "K4": "before attach",
    "K5": "before lease",
    "K6": "before start",
    "K7": "after start_command",
    "K9": "before complete",
    "K10": "before release",
    "K11, before the call": "before destroy",
    "K11, after it": "after destroy",
}


@pytest.mark.timeout(500)  # a dozen crashes and starts
async def test_K2_to_K11_a_crash_at_any_point_costs_no_build_and_leaves_nothing(
    make_hub: Callable[..., HubProcess], tmp_path: Path
) -> None:
    """Side by side, since each is mostly waiting for programs to start."""
    room = asyncio.Semaphore(4)

    async def crash(fault: str, hub: HubProcess) -> None:
        async with room:
            try:
                await _crash(hub, CRASHES[fault], tmp_path / f"{hub.state_dir.name}.runs")
            except BaseException as error:
                error.add_note(f"{fault}: the hub died {CRASHES[fault]}")
                raise

    async with asyncio.TaskGroup() as crashes:
        for fault in CRASHES:
            crashes.create_task(crash(fault, make_hub()))


async def _crash(hub: HubProcess, point: str, runs: Path) -> None:
    await asyncio.to_thread(hub.start, dies_at=point)

    async def submit(api: Api) -> str:
        return await api.submit(["sh", "-c", f"echo run | tee -a {runs}"], key="once")

    async with Api(hub.url, hub.token) as api:
        await api.define("w", build_wait_timeout=0)
        with contextlib.suppress(httpx2.TransportError):  # it may die in the middle of it
            await submit(api)
        await hub.died(PATIENCE_S)
    await asyncio.to_thread(hub.start)
    async with Api(hub.url, hub.token) as api:
        build = await submit(api)  # the same, by its key
        view = await api.ended(build, PATIENCE_S)
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert await api.output(build) == b"run\n"
        assert runs.read_text() == "run\n"
        await hub.latent(api, "w")
        worker = await api.worker("w")
        starts = 2 if point == "before create" else 1  # the token died with the hub
        assert (worker["state"], worker["epoch"], worker["last_error"]) == ("latent", starts, None)
        assert hub.leftovers() == []
    assert await asyncio.to_thread(hub.stop) == 0
