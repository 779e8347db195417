"""Processes in /proc, and signals that reach only the processes that they are meant for (E6)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from hostler_agent.backoff import Backoff
from hostler_agent.jobs.receipt import ProcessName

assert sys.platform != "win32"

_PROC = Path("/proc")
_PF_EXITING = 0x4
POLL_PAUSES = Backoff(first_s=0.001, longest_s=0.05)


@dataclass(frozen=True)
class ProcessStat:
    """Some fields of /proc/PID/stat. `started` counts clock ticks since boot; together with the pid
    it identifies a process until the machine restarts.
    """

    pid: int
    name: str
    state: str
    parent: int
    session: int
    started: int
    is_exiting: bool
    """Whether it is on its way out: it runs no more code, and has left its cgroup or is about
    to."""

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX"


def stat(pid: int) -> Optional[ProcessStat]:
    """The fields of a process; None if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except OSError:
        return None
    # The name may itself contain parentheses and blanks.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return ProcessStat(
        pid=pid,
        name=head.partition("(")[2],
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        is_exiting=bool(int(fields[6]) & _PF_EXITING),
        started=int(fields[19]),
    )


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir(_PROC) if name.isdigit()]  # noqa: PTH208 - cheaper


def all_processes() -> Iterator[ProcessStat]:
    for pid in all_pids():
        found = stat(pid)
        if found is not None:
            yield found


def children(pid: int) -> list[int]:
    """The children of all threads of a process; from one file where the kernel offers it."""
    found: list[int] = []
    try:
        # Asked at the end of every command: plain calls, a third of a Path's cost.
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
    except OSError:
        return [one.pid for one in all_processes() if one.parent == pid]
    return found


def names(pids: Iterable[int]) -> tuple[ProcessName, ...]:
    """The names of those of `pids` that are alive; zombies are not."""
    found = (stat(pid) for pid in sorted(pids))
    return tuple(
        ProcessName(one.pid, one.name) for one in found if one is not None and one.is_alive
    )


def environment_has(pid: int, name: str, value: str) -> bool:
    """Whether the process was started with that variable; False also if its environment may not be
    read.
    """
    # Every agent asks this of every process at its start: plain calls, a third of a Path's cost.
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = file.read()
    except OSError:
        return False
    entry = os.fsencode(f"{name}={value}")
    return entry in environment and entry in environment.split(b"\0")


def lock_limit(pid: int) -> Optional[int]:
    """The process's soft limit of file locks (RLIMIT_LOCKS); None if it is unlimited or may not be
    read.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/limits", "rb", buffering=0) as file:
        _, _, rest = file.read().partition(b"\nMax file locks")
        soft = rest.split(maxsplit=1)[:1]
        if soft and soft[0].isdigit():
            return int(soft[0])
    return None


def holds_any(pid: int, inodes: Collection[int]) -> bool:
    """Whether the process has one of these pipes open."""
    wanted = {f"pipe:[{inode}]" for inode in inodes}
    with contextlib.suppress(OSError):
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in wanted:  # noqa: PTH115 - a name, not a path
                    return True
    return False


def signal_members(members: Callable[[], Collection[int]], number: int) -> set[int]:
    """Send a signal to all processes of a set. Returns the pids that were in it.

    Each process is opened as a pidfd first and then looked for in the set again. So if a pid was
    reused in between, either it is no member any more, or the process of the pidfd is dead and the
    signal has no effect.
    """
    opened: dict[int, int] = {}
    for pid in members():
        # An OSError here is a process that has ended.
        with contextlib.suppress(OSError):
            opened[pid] = os.pidfd_open(pid)
    still = set(members())
    for pid, descriptor in opened.items():
        if pid in still:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, number)
        os.close(descriptor)
    return still


class PollDeadline:
    """A deadline with growing pauses, to poll for events that the kernel does not announce."""

    def __init__(self, deadline_s: float) -> None:
        self._ends = time.monotonic() + deadline_s
        self._polls = 0

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._ends

    def next_pause_s(self) -> float:
        """How long to sleep before the next poll, in seconds."""
        self._polls += 1
        return POLL_PAUSES.delay_s(self._polls)
