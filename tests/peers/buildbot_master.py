"""A stock Buildbot master in a process of its own, and our agent as its worker."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peers import buildbot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

CONTROL = Path(__file__).parent / "buildbot_control.py"
WORKER, PASSWORD = "stranger", "a password"
PATIENCE_S = 60.0

SUCCESS, FAILURE, EXCEPTION, CANCELLED = 0, 2, 4, 6

_CONFIGURATION = f"""
import importlib.util
from buildbot.plugins import worker
# Not by sys.path: beside it lies a module that is called buildbot.
spec = importlib.util.spec_from_file_location("control", {str(CONTROL)!r})
control = importlib.util.module_from_spec(spec)
spec.loader.exec_module(control)
BuildmasterConfig = control.configuration(worker)
"""


@dataclass(frozen=True)
class Step:
    """One step of a build. Its logs have a letter before each line: o, e or h."""

    name: str
    results: int
    logs: dict[str, str]

    @property
    def log(self) -> str:
        return self.logs.get("stdio", "")

    def lines(self, stream: str, log: str = "stdio") -> list[str]:
        return [line[1:] for line in self.logs[log].split("\n") if line.startswith(stream)]


@dataclass(frozen=True)
class Build:
    """A build's end; `builds` counts its runs."""

    results: int
    steps: list[Step]
    builds: int
    properties: dict[str, Any]


class Master:
    """A running master."""

    def __init__(self, basedir: Path, process: subprocess.Popen[bytes]) -> None:
        self.basedir = basedir
        self.port = 0
        self._process = process
        self._numbers = itertools.count(1)

    async def connect(self, control: socket.socket) -> None:
        """Wait until it listens."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=control, limit=1 << 24)
        self.port = (await self._answer())["port"]

    async def build(
        self, *steps: tuple[str, dict[str, Any]], patience_s: float = PATIENCE_S
    ) -> Build:
        """Run a build of these steps (Buildbot's classes and their arguments) and wait for it."""
        number = next(self._numbers)
        self._say(id=number, steps=steps)
        answer = await self._answer(patience_s)
        while answer["id"] != number:  # of a build that somebody gave up waiting for
            answer = await self._answer(patience_s)
        made = [Step(**step) for step in answer["steps"]]
        return Build(answer["results"], made, answer["builds"], answer["properties"])

    def stop_build(self, reason: str) -> None:
        self._say(stop=reason)

    def cut(self) -> None:
        """Drop the worker's connection without a word."""
        self._say(cut=True)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def _say(self, **order: Any) -> None:
        self._writer.write(json.dumps(order).encode() + b"\n")

    async def _answer(self, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        async with asyncio.timeout(patience_s):
            line = await self._reader.readline()
        assert line, f"the master has ended:\n{_tail(self.basedir / 'twistd.log')}"
        answer: dict[str, Any] = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer


@contextlib.asynccontextmanager
async def master(basedir: Path) -> AsyncIterator[Master]:
    """A master on a free port, gone afterwards."""
    program = str(buildbot.program("buildbot"))
    command = [program, "create-master", "--quiet", str(basedir)]
    await asyncio.to_thread(subprocess.run, command, check=True)
    (basedir / "master.cfg").write_text(_CONFIGURATION)
    ours, theirs = socket.socketpair()
    process = _start(program, basedir, theirs.fileno())
    theirs.close()
    running = Master(basedir, process)
    try:
        await running.connect(ours)
        yield running
    finally:
        await running.close()
        end(process)


def _start(program: str, basedir: Path, control_fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program, "start", "--nodaemon", str(basedir)],
        env={**os.environ, "CONTROL_FD": str(control_fd)},
        pass_fds=(control_fd,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def agent(running: Master, directory: Path) -> Iterator[None]:
    """Our agent, told of a master as it would be of a hub. Its builds run as it does: they meet the
    tests at files that no user for builds could reach.
    """
    token_file = directory / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(PASSWORD)
    options = ["--hub", f"ws://127.0.0.1:{running.port}", "--name", WORKER]
    options += ["--token-file", str(token_file), "--workdir", str(directory / "work")]
    options += ["--run-as", "agent"]
    with open(directory / "agent.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hostler_agent", "run", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            end(process, signal.SIGQUIT)


def end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    """Ask it to end, then see to it."""
    process.send_signal(how)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-3000:] if path.exists() else "no log"
