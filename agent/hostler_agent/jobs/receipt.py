"""The kill receipt: what is known of a job after its end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional


class Ended(enum.Enum):
    """How a job ended. The value is the receipt's word for it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    """Ended by a signal that was not sent by the agent."""
    KILLED = "killed"
    """Interrupted: by the hub, by the command, or because its output could not be delivered."""
    TIMEOUT = "timeout"
    SILENT = "timeout_without_output"
    TALKATIVE = "max_lines"
    NOT_STARTED = "not_started"
    OOM_KILLED = "oom_killed"
    """The kernel killed the main process because memory ran out."""
    LOST = "lost"
    """The spawner was killed, so it is unknown how the job ended."""


@dataclass(frozen=True)
class ProcessName:
    """The pid and name of a process, for people: `pid` may be another process's by the time this is
    read.
    """

    pid: int
    name: str


@dataclass(frozen=True)
class Exit:
    """How a main process ended. `exit_code` is None if a signal or the agent ended it."""

    exit_code: Optional[int]
    signal: Optional[int]
    cpu_s: float
    peak_resident_bytes: Optional[int]
    """The peak of the largest process among the main process and those it waited for (at least that
    of the spawner itself). On Windows that of the main process alone, None if unknown."""


@dataclass(frozen=True)
class Usage:
    """The resources that a job used; None for those that this machine does not measure."""

    peak_memory_bytes: Optional[int] = None
    cpu_s: Optional[float] = None
    oom_kills: int = 0
    """The number of its processes that the kernel killed because memory ran out, as far
    as known."""


@dataclass(frozen=True)
class Leftovers:
    """The processes that were left when a job was ended: `found` were alive, `survivors` could not
    be killed. `escaped` are those of `found` that had left the job's cgroup.
    """

    found: tuple[ProcessName, ...] = ()
    survivors: tuple[ProcessName, ...] = ()
    escaped: tuple[ProcessName, ...] = ()


@dataclass(frozen=True)
class KillReceipt:
    """The last record of a job. A slot may be used again only if `survivors` is empty (V10)."""

    ended: Ended
    exit_code: Optional[int]
    containment: str
    pids_seen: int = 0
    """The number of distinct processes seen in the job: the main one, and all that had to be
    killed."""
    usage: Usage = Usage()
    survivors: tuple[ProcessName, ...] = ()
    held_output: tuple[str, ...] = ()
    """Names of processes that held the output open after the main process had ended (E8)."""
    escaped: tuple[ProcessName, ...] = ()
    """Processes that had left the job's cgroup, and were killed with the rest (E21)."""
    missing: tuple[str, ...] = ()
    """What the machine could not give of the view that the plan asked for, each as "PART: why"."""
