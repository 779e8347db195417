"""The workers that the small master drives, each in a process of its own, and what they hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import buildbot
from benchmarks.processes import running
from benchmarks.worker_master import Master, Worker


@dataclass(frozen=True)
class Kind:
    """A sort of worker, and how it is spoken to."""

    name: str
    ours: bool
    raw: bool = False
    nagle: bool = False


TEXT = Kind("agent", ours=True)
RAW = Kind("agent-raw", ours=True, raw=True)
TUNED = Kind("tuned", ours=False)
SHIPPED = Kind("shipped", ours=False, nagle=True)


@dataclass(frozen=True)
class Attached:
    """A worker, and the process that it is."""

    worker: Worker
    process: subprocess.Popen[bytes]

    def processes(self) -> list[int]:
        """Itself, and the one that starts jobs for it where there is such a one."""
        below = psutil.Process(self.process.pid).children()
        return [
            self.process.pid,
            *(child.pid for child in below if "spawner.py" in "".join(child.cmdline())),
        ]

    def forget_peak(self) -> None:
        for pid in self.processes():
            Path(f"/proc/{pid}/clear_refs").write_text("5")

    def peak_mib(self) -> float:
        """The most that was resident since then, of each process, summed: shared pages twice."""
        return sum(_peak_mib(pid) for pid in self.processes())


@contextlib.asynccontextmanager
async def attached(master: Master, kind: Kind, directory: Path) -> AsyncIterator[Attached]:
    """Start one and wait for it; it is ended afterwards."""
    name = _name(master, kind)
    master.expect(name, raw=kind.raw)
    home = directory / kind.name
    argv = _ours(master, kind, home) if kind.ours else _stock(master, kind, home)
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(running(argv, home))
        try:
            yield Attached(await master.attached(name), process)
        finally:
            # In a thread, since ending it takes a master that answers.
            await asyncio.to_thread(stack.close)


def _name(master: Master, kind: Kind) -> str:
    """Nobody else's: an agent of ours kills what another of its name has left on the machine."""
    return f"benchmark-{kind.name}-{master.run}"


def _ours(master: Master, kind: Kind, home: Path) -> list[str]:
    home.mkdir(parents=True, exist_ok=True)
    token = home / "token"
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(master.password)
    return [
        *(sys.executable, "-m", "hostler_agent", "run", "--name", _name(master, kind)),
        *("--hub", f"ws://127.0.0.1:{master.port}/", "--token-file", str(token)),
        *("--workdir", str(home / "work")),
    ]


def _stock(master: Master, kind: Kind, home: Path) -> list[str]:
    home.parent.mkdir(parents=True, exist_ok=True)
    name = _name(master, kind)
    buildbot.make_worker(home, master.port, name, master.password, nagle=kind.nagle)
    return buildbot.twistd()


def _peak_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
