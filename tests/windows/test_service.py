"""The agent as a Windows service, attached to a real hub."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from e2e.api import Api
from e2e.hub_process import HubProcess
from peers.wine import windows_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peers.wine import Windows

pytestmark = pytest.mark.peer("wine")

NAME = "hostler-test"
RUNNING, STOP_PENDING, DOES_NOT_EXIST = 4, 3, 1060


def _configuration(directory: Path, hub_url: str) -> Path:
    directory.mkdir(exist_ok=True)
    token, config = directory / "token", directory / "agent.json"
    for path in (token, config):
        path.touch(mode=0o600)
    token.write_text("secret password")
    options = {"hub": hub_url, "name": "served", "workdir": "work", "token_file": "token"}
    config.write_text(json.dumps(options))
    return config


def _said(windows: Windows, *arguments: str) -> str:
    """What `hostler-agent service` says it did."""
    done = windows.call("service.command", *arguments)
    assert done["code"] == 0, done
    return str(done["said"]).strip()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess.running(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def installed(windows: Windows, hub: HubProcess, tmp_path: Path) -> Iterator[Path]:
    """The service, installed; its workdir."""
    config = _configuration(tmp_path, hub.agents_url)
    where = ("--name", NAME, "--config", windows_path(config))
    assert _said(windows, "install", *where) == "installed"
    yield tmp_path / "work"
    assert _said(windows, "remove", "--name", NAME) == "removed"
    assert windows.call("service.exists", NAME) == DOES_NOT_EXIST


async def test_a_service_runs_builds_and_drains(
    windows: Windows, hub: HubProcess, installed: Path
) -> None:
    """Stopped in the middle of a build, it finishes that first, and takes no other."""
    found = windows.call("service.configuration", NAME)
    assert found["account"] == f"NT SERVICE\\{NAME}"
    assert "-m hostler_agent service run" in found["command"]
    async with Api(hub.url, hub.token) as api:
        await api.define("served", driver="permanent", password="secret password")
        await asyncio.to_thread(windows.call, "service.start", NAME)
        gate = installed.parent / "gate"
        program = (
            "import os, time; print('Rea' + 'dy', flush=True)\n"
            f"while not os.path.exists({windows_path(gate)!r}): time.sleep(0.05)"
        )
        python = windows_path(windows.python)
        build = await api.submit([python, "-c", program], "echo last", worker="served")
        await api.log_reaches(build, 1)
        pending = await asyncio.to_thread(windows.call, "service.stop", NAME)
        assert pending == STOP_PENDING
        gate.touch()
        code = await asyncio.to_thread(windows.call, "service.stopped", NAME)
        assert code == 0
        view = await api.get(f"/builds/{build}")
        assert view["steps"][0]["state"] == "success"
    log = (installed / ".hostler" / "agent.log").read_text()
    assert "stopping when the running commands have ended" in log


async def test_a_service_waits_for_its_commands_until_a_deadline(
    windows: Windows, hub: HubProcess, installed: Path
) -> None:
    """Then what still runs is killed, and the build is the hub's to run elsewhere."""
    assert windows.call("service.make_hasty", NAME)
    async with Api(hub.url, hub.token) as api:
        await api.define("served", driver="permanent", password="secret password")
        await asyncio.to_thread(windows.call, "service.start", NAME)
        program = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(1000)"
        command = [windows_path(windows.python), "-c", program]
        build = await api.submit(command, worker="served", retry={"on_loss": 0})
        said = await api.log_says(build, rb"\npid (\d+)\r\n")
        pid = int(said[1])
        await asyncio.to_thread(windows.call, "service.stop", NAME)
        assert await asyncio.to_thread(windows.call, "service.stopped", NAME) == 0
        assert windows.call("jobs.living_of", [pid]) == []
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("exception", 1)


def test_it_is_installed_once_and_removed_once(windows: Windows, tmp_path: Path) -> None:
    """What is there already, or is gone already, is left alone; a trial changes nothing."""
    config = _configuration(tmp_path, "ws://127.0.0.1:9")
    where = ("--name", NAME, "--config", windows_path(config))
    (tmp_path / "open").mkdir(mode=0o755)
    refused = windows.call("service.command", "prepare", windows_path(tmp_path / "open"))
    assert refused["code"] == 2
    assert "icacls" in refused["said"]
    assert _said(windows, "install", *where, "--check") == "installed"
    assert windows.call("service.exists", NAME) == DOES_NOT_EXIST
    assert _said(windows, "install", *where) == "installed"
    assert _said(windows, "install", *where) == "unchanged"
    other = (*where[:3], windows_path(_configuration(tmp_path / "other", "ws://127.0.0.1:9")))
    assert _said(windows, "install", *other, "--check") == "changed"
    assert _said(windows, "install", *other) == "changed"
    assert other[3] in windows.call("service.configuration", NAME)["command"]
    assert _said(windows, "remove", "--name", NAME, "--check") == "removed"
    assert windows.call("service.exists", NAME) != DOES_NOT_EXIST
    assert _said(windows, "remove", "--name", NAME) == "removed"
    assert _said(windows, "remove", "--name", NAME) == "unchanged"
