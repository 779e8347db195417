"""The whole agent on Windows, attached to a real hub, running cmd.exe builds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from e2e.api import Api, sha256
from e2e.hub_process import HubProcess
from peers import wine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.peer("wine")

READY_S = 60.0


class Agent:
    """A permanent worker's agent in Windows; its workdir is on this side's disk."""

    def __init__(self, windows: wine.Windows, hub: HubProcess, directory: Path, name: str) -> None:
        self.workdir = directory / "work"
        self._output = wine.Output()
        directory.mkdir()
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text("secret password\n")
        self._options = (
            *("--hub", hub.agents_url, "--name", name),
            *("--token-file", wine.windows_path(token)),
            *("--workdir", wine.windows_path(self.workdir)),
        )
        self.process = windows.start(
            *("-m", "hostler_agent", "run", *self._options),
            stdout=self._output.target,
            stderr=self._output.target,
        )

    async def ended(self) -> int:
        async with asyncio.timeout(READY_S):
            return await asyncio.to_thread(self.process.wait)

    def close(self) -> str:
        """Kills it; what it has logged."""
        self.process.kill()
        self.process.wait()
        return self._output.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess.running(tmp_path_factory.mktemp("windows") / "hub") as hub:
        yield hub


@pytest.fixture
async def api(hub: HubProcess) -> AsyncIterator[Api]:
    async with Api(hub.url, hub.token) as made:
        yield made


@pytest.fixture
async def attach(
    windows: wine.Windows, hub: HubProcess, api: Api, tmp_path: Path
) -> AsyncIterator[Callable[[str], Agent]]:
    """Starts an agent for a worker of that name."""
    agents: list[Agent] = []

    async def start(name: str) -> Agent:
        await api.define(name, driver="permanent", password="secret password")
        agents.append(Agent(windows, hub, tmp_path / name, name))
        await hub.logged(event="worker changed state", worker=name, after="substantiated")
        return agents[-1]

    yield start  # type: ignore[misc]
    for agent in agents:
        print(agent.close())


def python(windows: wine.Windows, program: str) -> list[str]:
    return [wine.windows_path(windows.python), "-c", program]


async def test_tools_are_found_with_their_extension_and_asked_in_a_job(
    hub: HubProcess, api: Api, attach: Callable[[str], Agent]
) -> None:
    """What a definition expects of a Windows machine is compared before its first build."""
    await attach("win-fit")
    expects = {"tools": {"cmd": "*", "no-such-tool": "*"}, "facts": ["os_id == windows"]}
    given = {"driver": "permanent", "password": "secret password"}
    await api.define("win-fit", **given, expects=expects)
    await hub.logged(event="incident opened", worker="win-fit", incident="unfit")
    admission = (await api.worker("win-fit"))["admission"]
    assert admission["tools"]["cmd"]["path"].lower().endswith("cmd.exe")
    assert admission["tools"]["no-such-tool"]["path"] is None
    assert [each["what"] for each in admission["differences"]] == ["no-such-tool"]
    await api.define("win-fit", **given, expects={"tools": {"cmd": "*"}})
    await api.mode("win-fit", "active")
    build = await api.submit("echo fit", worker="win-fit")
    assert (await api.ended(build))["state"] == "success"
    assert (await api.worker("win-fit"))["admission"]["state"] == "met"


async def test_builds_of_cmd(api: Api, attach: Callable[[str], Agent]) -> None:
    """Steps share a workspace; each has its output, its code and an empty receipt."""
    agent = await attach("win-builds")
    build = await api.submit(
        "echo first> file.txt& type file.txt",
        ["cmd", "/d", "/c", "type", "file.txt"],
        "echo %GREETING% & set",
        {"name": "fails", "command": "echo before& exit /b 5", "halt_on_failure": True},
        "echo never",
        worker="win-builds",
        env={"Greeting": "größer"},
    )
    view = await api.ended(build)
    assert view["state"] == "failure"
    states = [(step["state"], step["rc"]) for step in view["steps"]]
    assert states == [
        ("success", 0),
        ("success", 0),
        ("success", 0),
        ("failure", 5),
        ("skipped", None),
    ]
    assert await api.output(build, 0) == b"first\r\n"
    assert await api.output(build, 1) == b"first\r\n"
    # A console's own code page, as raw bytes.
    environment = await api.output(build, 2)
    assert environment.startswith("größer".encode("cp437"))
    assert b"HOSTLER_INSTANCE=" in environment
    assert await api.output(build, 3) == b"before\r\n"
    for step in view["steps"][:4]:
        assert step["receipt"]["survivors"] == []
        assert step["receipt"]["containment"] == "job_object"
    worker = await api.worker("win-builds")
    assert worker["facts"]["platform"] == "win32"
    assert worker["facts"]["os_id"] == "windows"
    assert agent.process.poll() is None


async def test_any_bytes_reach_the_log(
    windows: wine.Windows, api: Api, attach: Callable[[str], Agent]
) -> None:
    await attach("win-bytes")
    program = "import os; [os.write(1, bytes(range(256)) * 256) for _ in range(16)]"
    build = await api.submit(python(windows, program), worker="win-bytes")
    assert (await api.ended(build))["state"] == "success"
    assert sha256(await api.output(build)) == sha256(bytes(range(256)) * 4096)


async def test_batch_files_run_where_a_step_asks_for_them(
    api: Api, attach: Callable[[str], Agent]
) -> None:
    """BatBadBut: in a list, cmd.exe would read their arguments once more."""
    await attach("win-batch")
    batch = "@echo off\r\necho got %1\r\n"
    steps: list[dict[str, Any]] = [
        {"name": "write", "download": {"to": "run.bat", "content": batch}},
        {"name": "asked", "command": [".\\run.bat", "a&echo owned"], "batch_files": True},
        {"name": "not asked", "command": [".\\run.bat", "x"]},
    ]
    build = await api.submit(*steps, worker="win-batch")
    view = await api.ended(build)
    assert [step["state"] for step in view["steps"]] == ["success", "success", "failure"]
    assert await api.output(build, 1) == b'got "a&echo owned"\r\n'
    assert view["result_text"].startswith(
        "step not asked: cannot start the command: '.\\\\run.bat' is a batch file"
    )
    assert "ask for it with 'batch_files'" in view["result_text"]


async def test_a_step_on_a_terminal(api: Api, attach: Callable[[str], Agent]) -> None:
    """To CON, since Wine does not make a pseudo console a program's standard output."""
    await attach("win-terminal")
    step = {"name": "shown", "command": "echo on a terminal>CON", "use_pty": True}
    build = await api.submit(step, worker="win-terminal")
    assert (await api.ended(build))["state"] == "success"
    log = await api.log(build)
    _, _, told = log.partition(b" using PTY: True\n")
    assert b"on a terminal" in told


async def test_limits_reach_the_job_object(api: Api, attach: Callable[[str], Agent]) -> None:
    """That they are set is all that Wine can show: it enforces none of them, and the rate of the
    processors it does not know, which is refused as by an old Windows."""
    await attach("win-limits")
    steps: list[dict[str, Any]] = [
        {"name": "within", "command": "echo within"},
        {"name": "rate", "command": "echo never", "limits": {"cpu_percent": 50}},
    ]
    limits = {"memory_mb": 512, "processes": 20}
    build = await api.submit(*steps, worker="win-limits", limits=limits)
    view = await api.ended(build)
    assert [step["state"] for step in view["steps"]] == ["success", "failure"]
    assert b"(limits: memory 512 MiB, processes 20)" in await api.log(build)
    refusal = "cannot be limited on this worker: controller Job Object is refused by Windows: "
    assert refusal in view["result_text"]


async def test_a_cancelled_build_leaves_nothing(
    windows: wine.Windows, api: Api, attach: Callable[[str], Agent]
) -> None:
    agent = await attach("win-cancel")
    program = "import time; print('Rea' + 'dy', flush=True); time.sleep(1000)"
    build = await api.submit(python(windows, program), worker="win-cancel")
    await api.log_says(build, b"Ready")
    await api.cancel(build)
    view = await api.ended(build)
    assert view["state"] == "cancelled"
    assert view["steps"][0]["receipt"]["ended"] == "killed"
    assert view["steps"][0]["receipt"]["survivors"] == []
    # The slot is free: the next build runs.
    again = await api.submit("echo again", worker="win-cancel")
    assert (await api.ended(again))["state"] == "success"
    assert agent.process.poll() is None


def test_a_console_stops_it(windows: wine.Windows, tmp_path: Path) -> None:
    """There is no SIGTERM in Windows: whoever runs it in a console presses CTRL_C or CTRL_BREAK
    (the second Wine 8 does not have)."""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("secret")
    paths = [wine.windows_path(path) for path in (token, tmp_path / "work")]
    told = windows.call("console.interrupted", *paths)
    assert told["code"] == 0
    assert "stopping when the running commands have ended" in told["said"]


async def test_a_killed_agent_s_build_runs_again(
    windows: wine.Windows, hub: HubProcess, api: Api, attach: Callable[[str], Agent], tmp_path: Path
) -> None:
    """E9: what the dead agent ran is lost, once, and run again by the next one."""
    first = await attach("win-killed")
    marker = tmp_path / "second"
    exists = f"os.path.exists({wine.windows_path(marker)!r})"
    program = f"import os, time; print('Rea' + 'dy', flush=True); {exists} or time.sleep(1000)"
    build = await api.submit(python(windows, program), worker="win-killed")
    await api.log_says(build, b"Ready")
    first.process.kill()
    marker.touch()
    second = Agent(windows, hub, tmp_path / "again", "win-killed")
    try:
        view = await api.ended(build)
        assert (view["state"], view["attempts"]) == ("success", 2)
    finally:
        print(second.close())


async def test_a_worker_that_is_stopped_sends_its_agent_away(
    api: Api, attach: Callable[[str], Agent]
) -> None:
    agent = await attach("win-stopped")
    await api.mode("win-stopped", "stopped", "enough")
    assert await agent.ended() == 0
