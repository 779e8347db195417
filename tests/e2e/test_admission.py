"""Who may attach as an agent: the wire's own client, with headers as a thief would make them."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from e2e import stolen_agent
from e2e.api import until
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hostler_agent.wire.extension import Handshake

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.api import Api
    from e2e.hub_process import HubProcess

SESSION = "s" * 43


@dataclass
class Attached:
    """A worker that is up, and what its agent was given."""

    worker: str
    handshake: Handshake


async def up(hub: HubProcess, api: Api, worker: str, tmp_path: Path) -> Attached:
    options, loot = stolen_agent.leaking(tmp_path, worker)
    await api.define(worker, driver_options=options)
    assert (await api.ended(await api.submit("true", worker=worker)))["state"] == "success"
    directory = hub.instance_of(worker)
    config = json.loads((directory / "agent.json").read_text())
    token, _ = json.loads(loot.read_text())
    handshake = Handshake(worker, token, SESSION, config["instance"], config["epoch"])
    return Attached(worker, handshake)


async def answer(hub: HubProcess, headers: dict[str, str]) -> int:
    """The status the handshake was refused with; 101 when it was not."""
    try:
        async with connect(hub.agents_url, additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_a_token_is_good_for_one_session_only(
    shared_hub: HubProcess, api: Api, tmp_path: Path
) -> None:
    """U5: the second use of a bootstrap token is refused, told, and ends the instance."""
    own = await up(shared_hub, api, "one-session", tmp_path)
    assert await answer(shared_hub, own.handshake.headers()) == 401
    await shared_hub.logged(event="incident opened", worker="one-session", incident="compromised")
    await shared_hub.latent(api, "one-session")
    assert "second time" in await api.quarantined("one-session")
    assert await answer(shared_hub, own.handshake.headers()) == 410


async def test_A2_A3_an_instance_that_is_over_is_ordered_away(
    shared_hub: HubProcess, api: Api, tmp_path: Path
) -> None:
    own = await up(shared_hub, api, "replaced", tmp_path)
    await api.mode("replaced", "draining")
    await shared_hub.latent(api, "replaced")
    assert await answer(shared_hub, own.handshake.headers()) == 410
    await api.mode("replaced", "active")
    successor = await up(shared_hub, api, "replaced", tmp_path)
    assert await answer(shared_hub, own.handshake.headers()) == 410
    stolen = replace(successor.handshake, epoch=own.handshake.epoch)
    assert await answer(shared_hub, stolen.headers()) == 410
    view = await api.worker("replaced")
    assert (view["attached"], view["epoch"]) == (True, 2)

    async def refused() -> list[str]:
        events = (await api.get("/workers/replaced/events"))["items"]
        return [each["cause"] for each in events if each["event"] == "Refused"]

    # The first one came twice and is told of once; the stolen epoch is another one's. Who is
    # refused does not wait until that is written.
    told = await until(refused, lambda told: len(told) >= 2)
    assert all("is over" in each for each in told)
    assert len(told) == len(set(told)) == 2


async def test_A3_a_stale_agent_obeys_and_ends(
    shared_hub: HubProcess, api: Api, tmp_path: Path
) -> None:
    """A real agent of an instance that is over: told 410 it ends by itself, with 0."""
    own = await up(shared_hub, api, "stale", tmp_path)
    directory = shutil.copytree(shared_hub.instance_of("stale"), tmp_path / "stale")
    config = json.loads((directory / "agent.json").read_text())
    config |= {"token_file": str(directory / "token"), "workdir": str(directory / "work")}
    (directory / "agent.json").write_text(json.dumps(config))
    (directory / "token").touch(mode=0o600)
    (directory / "token").write_text(own.handshake.password)
    await api.mode("stale", "stopped")
    await shared_hub.latent(api, "stale")
    command = ["-m", "hostler_agent", "run", "--config", str(directory / "agent.json")]
    agent = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            _, said = await agent.communicate()
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
    assert agent.returncode == 0
    assert b"410" in said


@pytest.mark.parametrize(
    "change",
    [
        {"password": "wrong"},
        {"name": "nobody"},
        {"instance": "0" * 26},
        {"instance": None, "epoch": None},
    ],
    ids=["token", "name", "instance", "no-instance"],
)
async def test_wrong_credentials_are_all_told_the_same(
    shared_hub: HubProcess, api: Api, tmp_path: Path, change: dict[str, str]
) -> None:
    own = await up(shared_hub, api, "guarded", tmp_path)
    assert await answer(shared_hub, replace(own.handshake, **change).headers()) == 401


async def test_no_credentials_and_no_browsers(
    shared_hub: HubProcess, api: Api, tmp_path: Path
) -> None:
    """CVE-2024-23898: a page of another site cannot open an agent's WebSocket."""
    own = await up(shared_hub, api, "unbrowsed", tmp_path)
    assert await answer(shared_hub, {}) == 401
    assert await answer(shared_hub, {"Authorization": "Basic !!!"}) == 401
    headers = {**own.handshake.headers(), "Origin": "https://evil.example"}
    assert await answer(shared_hub, headers) == 403
