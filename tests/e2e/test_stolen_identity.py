"""What a build gets that has stolen what its agent attaches with: real agents on both sides.

The thief is a process of the agent's own user, and has its token and its session secret, but not
the id of its process, which is in the agent's memory alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from e2e import stolen_agent
from e2e.api import Api, until
from e2e.hub_process import HubProcess
from stopping import resume, stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from e2e.gates import Gate

STOLEN_AGENT = stolen_agent.__file__
PASSWORD = "correct horse"
FILES = {"workdir": "work", "token_file": "token"}


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """It asks a silent agent for a moment only."""
    state = tmp_path_factory.mktemp("stolen") / "hub"
    with HubProcess.running(state, rival_deadline_s="0.5", ping_interval_s="3600") as hub:
        yield hub


class Cable:
    """A way to the hub that can be cut: then both ends' connections stay open, and are silent."""

    def __init__(self, server: asyncio.Server, whole: asyncio.Event) -> None:
        self.port: int = server.sockets[0].getsockname()[1]
        self._whole = whole

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Cable]:
        whole = asyncio.Event()
        whole.set()

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await whole.wait()
                target.write(data)
            target.close()

        async def serve(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(pump(source, back), pump(there, target))
            back.close()
            target.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            yield cls(server, whole)


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts an agent with this configuration; it does not outlive the test."""
    started: list[asyncio.subprocess.Process] = []

    async def run(
        where: str, /, *program: str, env: dict[str, str] | None = None, **config: Any
    ) -> asyncio.subprocess.Process:
        directory = tmp_path / where
        directory.mkdir()
        (directory / "token").touch(mode=0o600)
        (directory / "token").write_text(PASSWORD)
        path = directory / "agent.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps({"run_as": "agent", **config, **FILES}))
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "-m", "hostler_agent", "run", "--config", str(path)),
            env={**os.environ, **(env or {})},
            stderr=asyncio.subprocess.PIPE,
        )
        started.append(agent)
        return agent

    yield run
    for agent in started:
        if agent.returncode is None:
            agent.kill()
        await agent.communicate()


@pytest.fixture
def thief(tmp_path: Path) -> dict[str, str]:
    """The environment of a thief that has a permanent worker's password."""
    (tmp_path / "loot").write_text(json.dumps([PASSWORD, "s" * 43]))
    return {"STOLEN": str(tmp_path / "loot")}


class Robbed:
    """A latent worker with a build on it, and what was stolen from its agent."""

    def __init__(self, hub: HubProcess, worker: str, loot: Path) -> None:
        self.config = json.loads((hub.instance_of(worker) / "agent.json").read_text())
        self.agent = hub.agent_of(worker)
        self.env = {"STOLEN": str(loot)}


@pytest.fixture
async def rob(
    shared_hub: HubProcess, api: Api, tmp_path: Path, make_gate: Callable[[], Gate]
) -> Callable[[str], Any]:
    """Starts a worker and a build on it, and steals from its agent."""

    async def rob(name: str) -> tuple[Robbed, Gate, str]:
        (options, loot), gate = stolen_agent.leaking(tmp_path, name), make_gate()
        await api.define(name, driver_options=options, run_as="agent", labels=[name])
        build = await api.submit(gate.command, requires={"labels": [name]})
        await gate.entered()
        return Robbed(shared_hub, name, loot), gate, build

    return rob


async def test_V4_V20_a_thief_gets_nothing_of_a_latent_agent_that_is_stopped(
    shared_hub: HubProcess, api: Api, rob: Callable[..., Any], run: Callable[..., Any]
) -> None:
    robbed, gate, build = await rob("stopped")
    stop(robbed.agent)
    thief = await run("thief", STOLEN_AGENT, env=robbed.env, **robbed.config)
    async with asyncio.timeout(60):
        _, said = await thief.communicate()
    assert (thief.returncode, b"going away" in said) == (0, True)
    opened = await shared_hub.logged(event="incident opened", worker="stopped")
    assert opened["incident"] == "compromised"
    await api.define("beside", labels=["stopped"])  # the first worker is quarantined for a while
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "beside")


async def test_E9_V20_a_thief_is_not_the_restart_of_an_agent_that_was_killed(
    shared_hub: HubProcess, api: Api, rob: Callable[..., Any], run: Callable[..., Any]
) -> None:
    robbed, gate, build = await rob("killed")
    os.kill(robbed.agent, signal.SIGKILL)
    thief = await run("thief", STOLEN_AGENT, env=robbed.env, **robbed.config)
    async with asyncio.timeout(60):
        _, said = await thief.communicate()
    assert (thief.returncode, b"going away" in said) == (0, True)
    await api.define("besides", labels=["killed"])
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"], view["worker"]) == ("success", 2, "besides")


async def test_V19_a_thief_ends_no_permanent_worker_whose_network_is_cut(
    shared_hub: HubProcess,
    api: Api,
    run: Callable[..., Any],
    thief: dict[str, str],
    make_gate: Callable[[], Gate],
) -> None:
    gate = make_gate()
    await api.define("cut", driver="permanent", password=PASSWORD)
    path = urlsplit(shared_hub.agents_url).path
    async with Cable.to(shared_hub.port) as cable:
        await run("own", name="cut", hub=f"ws://127.0.0.1:{cable.port}{path}")
        build = await api.submit(gate.command, worker="cut")
        await gate.entered()
        cable.cut()
        await run("thief", STOLEN_AGENT, env=thief, name="cut", hub=shared_hub.agents_url)
        await shared_hub.logged(event="incident opened", worker="cut", incident="duplicate")
        cable.mend()
        gate.open()
        view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("success", 1)


async def test_A4_an_agent_that_was_stopped_goes_on_though_a_thief_has_come(
    shared_hub: HubProcess,
    api: Api,
    run: Callable[..., Any],
    thief: dict[str, str],
    make_gate: Callable[[], Gate],
) -> None:
    gate = make_gate()
    await api.define("paused", driver="permanent", password=PASSWORD)
    own = await run("own", name="paused", hub=shared_hub.agents_url)
    build = await api.submit(gate.command, worker="paused")
    await gate.entered()
    stop(own.pid)
    await run("thief", STOLEN_AGENT, env=thief, name="paused", hub=shared_hub.agents_url)
    await shared_hub.logged(event="incident opened", worker="paused", incident="duplicate")
    resume(own.pid)
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("success", 1)


async def test_A5_a_permanent_agent_s_next_process_is_let_in_when_the_first_one_has_ended(
    shared_hub: HubProcess, api: Api, run: Callable[..., Any], make_gate: Callable[[], Gate]
) -> None:
    gate = make_gate()
    await api.define("again", driver="permanent", password=PASSWORD)
    own = await run("own", name="again", hub=shared_hub.agents_url)
    build = await api.submit(gate.command, worker="again")
    await gate.entered()
    own.kill()
    await own.wait()
    await run("next", name="again", hub=shared_hub.agents_url)
    await gate.entered()
    gate.open()
    view = await api.ended(build)
    assert (view["state"], view["attempts"]) == ("success", 2)
    assert not await until(lambda: _incidents(api, "again"), lambda found: not found)


async def _incidents(api: Api, worker: str) -> dict[str, str]:
    found: dict[str, str] = (await api.worker(worker))["incidents"]
    return found
