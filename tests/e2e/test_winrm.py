"""Whole builds on Windows workers that a hub starts by WinRM; nothing is left there."""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import os
import shutil
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from e2e.api import Api
from e2e.hub_process import HubProcess
from peers import wine
from peers.wsman import WsMan, wait_until

from hostler_hub.drivers import agent_archive

pytestmark = pytest.mark.peer("wsman")


class Fleet:
    """A hub, and a Windows machine that has its agents in one directory."""

    def __init__(self, hub: HubProcess, service: WsMan, directory: Path) -> None:
        self.hub = hub
        self.service = service
        self.directory = directory
        secrets = hub.state_dir / "secrets"
        secrets.mkdir(parents=True)
        (secrets / "password").write_text(service.password)

    def options(self, **changes: Any) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self.service.port,
            "user": self.service.user,
            "password": {"file": "password"},
            "tls": False,
            "python": wine.windows_path(wine.windows().python),
            "directory": wine.windows_path(self.directory),
            "start": "detached",
            **changes,
        }

    def api(self) -> Api:
        return Api(self.hub.url, self.hub.token)

    async def define(self, api: Api, *names: str, **more: Any) -> None:
        options = self.options(**more.pop("options", {}))
        await api.define(
            *names, driver="winrm", driver_options=options, missing_timeout=120, **more
        )

    def processes(self, *words: str) -> list[psutil.Process]:
        """Agents and what they run for us: all that is started from the directory; or those so
        called.
        """
        needle, found = self.directory.name, []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                arguments = process.cmdline()
                ours = needle in " ".join(arguments) and {*words} <= {*arguments}
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def leftovers(self) -> list[str]:
        instances = self.directory / "instances"
        kept = [each for each in instances.glob("*") if each.suffix != ".lock"]
        return [*(str(process) for process in self.processes()), *map(str, kept)]

    def services(self) -> list[str]:
        """Those that would start agents of the directory."""
        commands = wine.windows().call("service.commands")
        return [command for command in commands if self.directory.name in command]

    def close(self) -> None:
        """However the test ended."""
        self.hub.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[WsMan]:
    made = WsMan(tmp_path / "service")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def make_fleet(tmp_path: Path, service: WsMan) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(*, has_agent: bool = True) -> Fleet:
        number = len(made)
        directory = tmp_path / f"machine-{os.getpid()}-{number}"
        if has_agent:
            _install(directory, tmp_path)
        made.append(Fleet(HubProcess(tmp_path / f"hub-{number}"), service, directory))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _install(directory: Path, tmp_path: Path) -> None:
    """The agent, as after a first start."""
    packed = agent_archive.install(tmp_path / "archive")
    for each in (directory, directory / "agents"):
        each.mkdir(mode=0o700)
    with zipfile.ZipFile(packed.path) as content:
        content.extractall(directory / "agents" / packed.sha256)
    compileall.compile_dir(directory / "agents", quiet=2)


@pytest.fixture
async def fleet(make_fleet: Callable[..., Fleet]) -> AsyncIterator[Fleet]:
    """With a running hub; what it leaves behind is a failure."""
    made = make_fleet(has_agent=False)
    await asyncio.to_thread(made.hub.start)
    yield made
    assert await asyncio.to_thread(made.hub.stop) == 0
    assert made.leftovers() == []


async def _ended(api: Api, build: str) -> Any:
    """Programs start slowly in Wine, the more so side by side."""
    for _ in range(3):
        view = await api.get(f"/builds/{build}?wait_s=60")
        if view["finished_at"] is not None:
            return view
    raise AssertionError(view)


@pytest.mark.parametrize("start", ["detached", "service"])
async def test_a_build_of_cmd_on_a_worker_started_for_it(fleet: Fleet, start: str) -> None:
    """From nothing but Python on the machine to nothing of ours running there."""
    async with fleet.api() as api:
        options = {"environment": {"FLAVOUR": "plain"}, "start": start}
        await fleet.define(api, "win", options=options)
        build = await api.submit("echo %FLAVOUR%& ver", worker="win")
        assert (await _ended(api, build))["state"] == "success"
        output = await api.output(build)
        assert output.startswith(b"plain")
        assert b"Windows" in output
        worker = await api.worker("win")
        assert worker["instance"]
        (agent,) = fleet.processes("--mark")
        await api.mode("win", "stopped")
        await fleet.hub.latent(api, "win")
        # Windows tells of a process's end a moment before it is gone on this side.
        await asyncio.to_thread(wait_until, lambda: agent not in fleet.processes())
        await asyncio.to_thread(wait_until, lambda: fleet.leftovers() == [])
        assert await asyncio.to_thread(fleet.services) == []
        assert fleet.service.shells == set()


async def test_wrong_credentials_quarantine_the_worker_with_the_reason(fleet: Fleet) -> None:
    (fleet.hub.state_dir / "secrets" / "wrong").write_text("guessed wrong")
    async with fleet.api() as api:
        await fleet.define(api, "win", options={"password": {"file": "wrong"}})
        build = await api.submit("ver")
        await fleet.hub.logged(worker="win", after="insubstantiating")
        await fleet.hub.latent(api, "win")  # nothing was sent, so there is nothing to wait for
        reason = await api.quarantined("win")
        assert "winrm: builder@127.0.0.1" in reason
        assert "options user, password and auth" in reason
        await api.cancel(build)


PATIENCE_S = 120  # agents whose hubs keep dying come back ever later
CRASHES = {
    "K2, agent there": ("after push",),
    "K5": ("before attach",),
    "K3 and K11, orders on their way": ("before answer to start", "before answer to stop"),
}
"""What ssh has not got in common with this; tests/e2e/test_ssh.py has the other points."""

START = {"before attach": "service", "before answer to start": "service"}
"""How the agents of those are started, by their first points."""


@pytest.mark.timeout(600)
async def test_K2_to_K11_a_crash_at_any_point_leaks_and_doubles_no_agent(
    make_fleet: Callable[..., Fleet],
) -> None:
    """Singly and in pairs, some side by side."""
    room = asyncio.Semaphore(3)

    async def crash(points: tuple[str, ...]) -> None:
        async with room:
            try:
                await _crash(make_fleet(has_agent="push" not in points[0]), points)
            except BaseException as error:
                error.add_note(f"the hub died {', then '.join(points)}")
                raise

    async with asyncio.TaskGroup() as crashes:
        for points in CRASHES.values():
            crashes.create_task(crash(points))


async def _crash(fleet: Fleet, points: tuple[str, ...]) -> None:
    hub = fleet.hub
    hub.mortal = Path(__file__).parent / "mortal_winrm_hub.py"
    runs = hub.state_dir.with_suffix(".runs")

    async def submit(api: Api) -> str:
        command = f"echo run>> {wine.windows_path(runs)}& echo run"
        return await api.submit(command, key="once")

    for point in points:
        await asyncio.to_thread(hub.start, dies_at=point)
        if point == points[0]:
            async with fleet.api() as api:
                options = {"start": START.get(points[0], "detached")}
                await fleet.define(api, "w", build_wait_timeout=0, options=options)
                with contextlib.suppress(httpx2.TransportError):  # it may die in the middle
                    await submit(api)
        await hub.died(PATIENCE_S)
    await asyncio.to_thread(hub.start)
    async with fleet.api() as api:
        build = await submit(api)  # the same, by its key
        view = await _ended(api, build)
        assert (view["state"], view["attempts"]) == ("success", 1)
        assert (await api.output(build)).split() == [b"run"]
        assert runs.read_text().split() == ["run"]
        await hub.latent(api, "w")
        # Orders of the killed hub may be on their last steps.
        await asyncio.to_thread(wait_until, lambda: fleet.leftovers() == [])
        assert await asyncio.to_thread(fleet.services) == []
    assert await asyncio.to_thread(hub.stop) == 0
    shutil.rmtree(fleet.directory)
