"""What the tests of jobs share: a clock, a sink, a maker of jobs, and looks at what is alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hostler_agent.jobs import Containment, choose_containment
from hostler_agent.jobs.errors import ContainmentUnavailable
from hostler_agent.jobs.plan import (
    COMMAND_VARIABLE,
    INSTANCE_VARIABLE,
    JobLimits,
    JobPlan,
    Resources,
)
from hostler_agent.jobs.posix import mounts, procfs
from hostler_agent.jobs.run import Job

CONTAINMENTS = ("cgroup2", "cgroup1", "subreaper")
CHILD = Path(__file__).with_name("child.py")
_PF_EXITING = 0x4


class VirtualClock:
    """A Clock that goes only when it is advanced."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._calls: list[tuple[float, Callable[[], None]]] = []
        self._changed = asyncio.Event()

    def now(self) -> float:
        return self._now

    def awake(self) -> float:
        return self._now

    def wall(self) -> float:
        return 1.7e9 + self._now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("jobs wait by timers")

    def call_later(self, seconds: float, callback: Callable[[], None]) -> _Timer:
        entry = (self._now + seconds, callback)
        self._calls.append(entry)
        self._changed.set()
        return _Timer(self._calls, entry)

    async def advance(self, seconds: float) -> None:
        self._now += seconds
        for entry in [entry for entry in self._calls if entry[0] <= self._now]:
            self._calls.remove(entry)
            entry[1]()
        await asyncio.sleep(0)

    async def timers(self, count: int) -> None:
        """Waits until that many are set: what is under test has come to wait."""
        while len(self._calls) < count:
            self._changed.clear()
            await self._changed.wait()


class _Timer:
    def __init__(self, calls: list[Any], entry: Any) -> None:
        self._calls, self._entry = calls, entry

    def cancel(self) -> None:
        if self._entry in self._calls:
            self._calls.remove(self._entry)


@dataclass
class RecordingSink:
    """Keeps what it gets. While `taking` is clear it takes nothing, as a hub that is away."""

    streams: dict[str, bytearray] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    taking: asyncio.Event = field(default_factory=asyncio.Event)
    largest: int = 0
    total: int = 0
    keep: bool = True

    def __post_init__(self) -> None:
        self.taking.set()
        self._news = asyncio.Condition()

    async def take_output(self, stream: str, data: bytes) -> None:
        self.largest = max(self.largest, len(data))
        self.total += len(data)
        async with self._news:
            if self.keep:
                self.streams.setdefault(stream, bytearray()).extend(data)
            self._news.notify_all()
        await self.taking.wait()

    async def take_log(self, name: str, data: bytes) -> None:
        await self.take_output(name, data)

    async def stopping(self, why: str) -> None:
        self.stops.append(why)

    def text(self, stream: str = "stdout") -> str:
        return self.streams.get(stream, bytearray()).decode("utf-8", "replace")

    async def until(self, text: str, stream: str = "stdout") -> None:
        async with self._news:
            await self._news.wait_for(lambda: text in self.text(stream))

    @property
    def pids(self) -> list[int]:
        """Those that the child has told of."""
        lines = self.text().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("pid ")]


class Polls:
    """In the place of procfs.PollDeadline: it passes after so many polls, however long they
    take, so that a machine that stalls does not pass for a process that cannot be killed."""

    def __init__(self, _deadline_s: float) -> None:
        self._left = 30

    @property
    def passed(self) -> bool:
        return self._left <= 0

    def next_pause_s(self) -> float:
        self._left -= 1
        return 0.02


@dataclass
class Runner:
    """Makes jobs in one containment."""

    containment: Containment
    workdir: Path
    resources: Resources = field(default_factory=Resources)
    made: int = 0

    def plan(self, argv: Sequence[str], **limits: Any) -> JobPlan:
        self.made += 1
        command_id = f"c{self.made}"
        markers = {
            INSTANCE_VARIABLE: self.containment.root_name,
            COMMAND_VARIABLE: command_id,
        }
        return JobPlan(
            command_id,
            tuple(argv),
            str(self.workdir),
            {**os.environ, **markers},
            JobLimits(**limits),
            resources=self.resources,
        )

    def child(self, *words: str, **limits: Any) -> JobPlan:
        # -S -E: a fast start; the programs need nothing but the standard library.
        return self.plan([sys.executable, "-S", "-E", str(CHILD), *words], **limits)

    def job(self, plan: JobPlan, sink: RecordingSink, **options: Any) -> Job:
        return Job(plan, self.containment, sink, **options)

    def with_pty(self, plan: JobPlan) -> JobPlan:
        return replace(plan, use_pty=True)


@contextlib.asynccontextmanager
async def contained(name: str) -> AsyncIterator[Containment]:
    """One of CONTAINMENTS, which leaves nothing."""
    root_name = f"test-{secrets.token_hex(6)}"
    try:
        chosen = choose_containment(name, root_name)
    except ContainmentUnavailable as error:
        pytest.skip(f"needs write access to this machine's cgroups: {error}")
    assert chosen.name == name
    yield chosen
    await chosen.aclose()
    assert marked(root_name) == []
    assert cgroups(root_name) == []


def missing_controllers(containment: Containment) -> set[str]:
    """Those of the kernel's that cannot limit the jobs in there, as far as anybody can look."""
    if containment.name == "subreaper":
        return {"memory", "cpu", "pids"}
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    found = {name for name, home in mounts.own_cgroups().items() if os.access(home, os.W_OK)}
    found |= set(unified.read_text().split() if unified.exists() else ())
    return {"memory", "cpu", "pids"} - found


def open_descriptors() -> int:
    return sum(1 for _one in Path("/proc/self/fd").iterdir())


def living(pids: Sequence[int]) -> list[int]:
    """Those that may still do something. Who is on its way out has left its cgroup, and closed all
    that it had, a moment before it is a zombie."""
    return [one.pid for one in procfs.names(pids) if not _is_exiting(one.pid)]


def _is_exiting(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:  # it has ended meanwhile
        return True
    return bool(int(stat.rpartition(b")")[2].split()[6]) & _PF_EXITING)


def marked(root_name: str) -> list[procfs.ProcessStat]:
    """Processes of any job of that containment that are alive (not the spawner, it is ours)."""
    return [
        one
        for one in procfs.all_processes()
        if one.state not in "ZX"
        and procfs.environment_has(one.pid, INSTANCE_VARIABLE, root_name)
        and not _is_spawner(one.pid)
    ]


def _is_spawner(pid: int) -> bool:
    try:
        return b"spawner.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def cgroups(root_name: str) -> list[Path]:
    """What is there of a containment's tree."""
    homes = set(mounts.own_cgroups().values())
    roots = [home / "hostler" / root_name for home in homes]
    return [root for root in roots if root.exists()]
