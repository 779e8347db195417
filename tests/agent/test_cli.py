"""The program: options, exit codes, signals."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
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
        options["run_as"] = "agent"  # these builds meet the test in its directory
        path.write_text(json.dumps({**options, **changes}))
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
async def run():
    """Starts the program; it does not outlive the test."""
    started: list[asyncio.subprocess.Process] = []

    async def run(
        *arguments: Any, env: Any = None, within: tuple[str, ...] = ()
    ) -> asyncio.subprocess.Process:
        agent = [sys.executable, "-W", "error", "-m", "hostler_agent", *map(str, arguments)]
        program = [*within, *agent]
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


# A process of the agent's user that looks for these texts wherever that user may look.
THIEF = """
import os, re, sys
pid, directory, *secrets = sys.argv[1:]
found = set()
def search(path, data):
    found.update((path, secret) for secret in secrets if secret.encode() in data)
def read(path):
    try:
        if not os.path.isfile(path):  # a pipe would never end
            return
        with open(path, "rb") as file:
            search(path, file.read())
    except OSError:
        pass
for name in ("environ", "cmdline", "status", "auxv", "stack"):
    read(f"/proc/{pid}/{name}")
for top, _, names in os.walk(directory):
    for name in names:
        read(os.path.join(top, name))
try:
    for name in os.listdir(f"/proc/{pid}/fd"):
        read(f"/proc/{pid}/fd/{name}")
except OSError:
    pass
try:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            first, last = (int(each, 16) for each in line.split()[0].split("-"))
            if " rw" in line:
                memory.seek(first)
                search(f"/proc/{pid}/mem", memory.read(last - first))
except OSError:
    pass
print(*sorted(f"{path} has {secret}" for path, secret in found), sep="\\n", end="")
"""


# Ordinary users have no capabilities, which root has.
POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()


async def stolen(agent: asyncio.subprocess.Process, directory: Path, *secrets: str) -> str:
    """Where a build that runs as the agent's user finds these secrets."""
    thief = await asyncio.create_subprocess_exec(
        *POWERLESS,
        *(sys.executable, "-c", THIEF, str(agent.pid), str(directory), *secrets),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await asyncio.wait_for(thief.communicate(), 60)
    assert thief.returncode == 0
    return told.decode()


LATENT = {"instance": "01JABCDEFGHJKMNPQRSTVWXYZ0", "epoch": 7, "run_as": "agent"}


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="no setpriv: apt-get install util-linux"
)
async def test_V20_a_build_finds_nothing_to_attach_as_its_agent_with(
    hub: Any, run: Any, write_config: Any, tmp_path: Path
) -> None:
    agent = await run("run", "--config", write_config(hub, **LATENT), within=POWERLESS)
    connection = await hub.attached()
    handshake, process = hub.handshakes[0], connection.report.process
    assert handshake.password == "s3cret"
    assert not (tmp_path / "token").exists()
    secrets = (handshake.password, handshake.session, process)
    assert await stolen(agent, tmp_path, *secrets) == ""
    # The thief would find them, were they there to be found.
    (tmp_path / "token").write_text(handshake.session)
    assert handshake.session in await stolen(agent, tmp_path, *secrets)


async def test_E9_V20_systemd_s_descriptor_store_carries_the_identity_over_a_kill(
    hub: Any, run: Any, write_config: Any, tmp_path: Path
) -> None:
    config, address = write_config(hub, **LATENT), tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        env = {**os.environ, "NOTIFY_SOCKET": str(address)}
        first = await run("run", "--config", config, env=env)
        before = (await hub.attached()).report
        # Once for its own process, and again when the hub has accepted that.
        handed = [received(manager) for _ in range(4)]
    assert [message for message, _ in handed] == [
        b"FDSTOREREMOVE=1\nFDNAME=hostler",
        b"FDSTORE=1\nFDNAME=hostler",
    ] * 2
    os.close(handed[1][1])
    kept = handed[3][1]
    first.kill()
    await first.wait()
    # systemd passes the descriptors from 3 on, and the pid that they are meant for.
    script = (
        f'exec 3</proc/self/fd/{kept}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=hostler exec "$@"'
    )
    program = [sys.executable, "-m", "hostler_agent", "run", "--config", str(config)]
    second = await asyncio.create_subprocess_exec(
        *("sh", "-c", script, "sh", *program), pass_fds=(kept,), stderr=asyncio.subprocess.PIPE
    )
    os.close(kept)
    try:
        after = (await hub.attached()).report
    finally:
        second.kill()
        await second.communicate()
    assert hub.handshakes[0] == hub.handshakes[1]
    assert after.process != before.process == after.former


def received(manager: socket.socket) -> tuple[bytes, int]:
    """The next message to the service manager, and the descriptor that came with it, or -1."""
    message, descriptors, _, _ = socket.recv_fds(manager, 4096, 1)
    return message, descriptors[0] if descriptors else -1
