"""The program: options, exit codes, signals."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.cli import main
from hostler_agent.wire.extension import CommandTerms
from hostler_agent.wire.messages import Shutdown


@pytest.fixture
def write_config(tmp_path: Path):
    def write(hub: Any, /, **changes: Any) -> Path:
        token = tmp_path / "token"
        token.write_text("s3cret\n")
        token.chmod(0o600)
        path = tmp_path / "agent.json"
        # A name of its own: an agent ends what one of its name has left on the machine.
        name = f"w-{secrets.token_hex(6)}"
        options = {"hub": hub.url, "name": name, "workdir": "work", "token_file": "token"}
        path.write_text(json.dumps({**options, **changes}))
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
async def run():
    """Starts the program; it does not outlive the test."""
    started: list[asyncio.subprocess.Process] = []

    async def run(*arguments: Any, env: Any = None) -> asyncio.subprocess.Process:
        program = [sys.executable, "-W", "error", "-m", "hostler_agent", *map(str, arguments)]
        process = await asyncio.create_subprocess_exec(
            *program, stderr=asyncio.subprocess.PIPE, env=env
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, errors.decode()


def shell(script: str) -> dict[str, Any]:
    return {
        "command": ["/bin/sh", "-c", script],
        "workdir": "/tmp",
        "logEnviron": False,
        "hostler": CommandTerms("lease", 1).body(),
    }


async def test_sigterm_lets_an_idle_agent_end_with_0(hub, run, write_config) -> None:
    process = await run("run", "--config", write_config(hub), "--mark", "hub:instance:1")
    connection = await hub.attached()
    assert connection.info["worker_commands"]["shell"]
    assert Path(f"/proc/{process.pid}/cmdline").read_bytes().endswith(b"hub:instance:1\0")
    process.send_signal(signal.SIGTERM)
    code, log = await end(process)
    assert code == 0
    assert "s3cret" not in log
    assert "Traceback" not in log


async def test_options_instead_of_a_file(hub, run, write_config, tmp_path: Path) -> None:
    write_config(hub)
    name = f"w-{secrets.token_hex(6)}"
    options = ["--hub", hub.url, "--name", name, "--token-file", tmp_path / "token"]
    process = await run("run", *options, "--workdir", tmp_path / "elsewhere")
    connection = await hub.attached()
    assert hub.handshakes[0].name == name
    assert connection.info["basedir"] == str(tmp_path / "elsewhere")
    await connection.request(Shutdown())
    assert (await end(process))[0] == 0


async def test_410_ends_with_0(hub, run, write_config) -> None:
    hub.refusals = [(410, {})]
    config = write_config(hub, instance="01JABCDEFGHJKMNPQRSTVWXYZ0", epoch=7)
    process = await run("run", "--config", config)
    code, log = await end(process)
    assert code == 0
    assert "this instance is over" in log


def said(hub: Any) -> bytes:
    pairs = hub.updates["c1"]
    return b"".join(
        value["data"] for name, value in pairs if name == "output" and value["stream"] == "stdout"
    )


async def test_a_command_runs_and_is_told_no_secret_of_ours(hub, run, write_config) -> None:
    process = await run("run", "--config", write_config(hub))
    connection = await hub.attached()
    await connection.start("c1", "shell", **shell("echo out; env"))
    assert await hub.completed("c1") is None
    assert said(hub).startswith(b"out\n")
    assert ["rc", 0] in hub.updates["c1"]
    assert b"HOSTLER_COMMAND=c1\n" in said(hub)
    assert b"s3cret" not in said(hub)
    await connection.request(Shutdown())
    assert (await end(process))[0] == 0


async def test_sigterm_waits_for_the_running_command(hub, run, write_config, tmp_path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    process = await run("run", "--config", write_config(hub))
    connection = await hub.attached()
    await connection.start("c1", "shell", **shell(f"echo Ready; read line < {gate}"))
    await hub.until(lambda hub: said(hub) == b"Ready\n")
    process.send_signal(signal.SIGTERM)
    with gate.open("w") as file:
        file.write("go\n")
    assert await hub.completed("c1") is None
    assert ["rc", 0] in hub.updates["c1"]
    assert (await end(process))[0] == 0


@pytest.mark.parametrize("asks_first", [False, True], ids=["SIGQUIT", "SIGTERM twice"])
async def test_sigquit_and_a_second_sigterm_end_at_once(
    hub, run, write_config, asks_first: bool
) -> None:
    process = await run("run", "--config", write_config(hub))
    connection = await hub.attached()
    await connection.start("c1", "shell", **shell("echo Ready $$; exec sleep 1000"))
    await hub.until(lambda hub: said(hub).endswith(b"\n"))
    pid = int(said(hub).split()[1])
    if asks_first:
        process.send_signal(signal.SIGTERM)
        # Two that are sent before the first is handled are one to the kernel.
        await asyncio.wait_for(process.stderr.readuntil(b"stopping when"), 60)
    process.send_signal(signal.SIGTERM if asks_first else signal.SIGQUIT)
    assert (await end(process))[0] == 0
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "--config, or --hub, is missing"),
        (["run", "--config", "nowhere.json"], "nowhere.json cannot be read"),
        (["run", "--config", "x", "--name", "w1"], "exclude each other"),
        (["run", "--hub", "ws://192.0.2.1/"], "--name, is missing"),
    ],
)
def test_a_bad_configuration_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(arguments) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("hostler-agent: ")
    assert errors.count("\n") == 1


def test_a_containment_that_is_not_there_is_2(hub, write_config, capsys) -> None:
    assert main(["run", "--config", str(write_config(hub, containment="jail"))]) == 2
    assert "option 'containment'" in capsys.readouterr().err


def test_a_workdir_that_cannot_be_is_2(hub, write_config, capsys) -> None:
    assert main(["run", "--config", str(write_config(hub, workdir="/dev/null/work"))]) == 2
    assert "option 'workdir'" in capsys.readouterr().err


@pytest.fixture
def switch(tmp_path: Path):
    """Stands for the machine's power switch: (environment to find it in, what was asked of it)."""
    directory = tmp_path / "bin"
    directory.mkdir()
    asked = directory / "asked"
    switch = directory / "systemctl"
    switch.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    switch.chmod(0o755)
    return {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}, asked


INSTANCE = "01JABCDEFGHJKMNPQRSTVWXYZ0"


async def test_A3_told_to_go_away_it_switches_its_machine_off_where_asked(
    hub, run, write_config, switch
) -> None:
    environment, asked = switch
    hub.refusals = [(410, {})]
    config = write_config(hub, instance=INSTANCE, epoch=1, at_end="poweroff")
    code, _ = await end(await run("run", "--config", config, env=environment))
    assert (code, asked.read_text()) == (0, "poweroff\n")


async def test_told_to_go_away_it_leaves_the_machine_to_a_hub_that_will_see_to_it(
    hub, run, write_config, switch
) -> None:
    environment, asked = switch
    hub.refusals = [(410, {})]
    config = write_config(hub, instance=INSTANCE, epoch=1, at_end="poweroff_if_orphaned")
    code, _ = await end(await run("run", "--config", config, env=environment))
    assert (code, asked.exists()) == (0, False)


@pytest.mark.parametrize("at_end", ["poweroff", "poweroff_if_orphaned"])
async def test_P17_without_a_hub_it_switches_its_machine_off_where_asked(
    hub, run, write_config, switch, at_end
) -> None:
    environment, asked = switch
    options = {"instance": INSTANCE, "epoch": 1, "at_end": at_end, "orphan_timeout_s": 1}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"ws://127.0.0.1:{nobody.getsockname()[1]}/"
        process = await run(
            "run", "--config", write_config(hub, hub=url, **options), env=environment
        )
        code, log = await end(process)
    assert (code, asked.read_text()) == (0, "poweroff\n")
    assert "no hub for 1 s" in log


async def test_stopped_by_its_own_machine_it_leaves_the_switch_alone(
    hub, run, write_config, switch
) -> None:
    environment, asked = switch
    config = write_config(hub, instance=INSTANCE, epoch=1, at_end="poweroff")
    process = await run("run", "--config", config, env=environment)
    await hub.attached()
    process.send_signal(signal.SIGTERM)
    assert (await end(process))[0] == 0
    assert not asked.exists()
