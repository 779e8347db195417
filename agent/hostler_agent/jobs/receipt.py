"""The kill receipt: what is known of a job after its end."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Optional


class Ended(enum.Enum):
    """How a job ended; the value is the receipt's word for it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    """by a signal that was not ours"""
    KILLED = "killed"
    """interrupted by whoever ordered it"""
    TIMEOUT = "timeout"
    SILENT = "timeout_without_output"
    TALKATIVE = "max_lines"
    NOT_STARTED = "not_started"
    OOM_KILLED = "oom_killed"
    """its main process, by the kernel for want of memory"""
    LOST = "lost"
    """the spawner was killed, so nobody knows"""


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
    """of the largest process of those it waited for (at least what the spawner itself has); on
    Windows its own, and None where it cannot be told"""


@dataclass(frozen=True)
class Usage:
    """What a job used; None for what this machine does not account for."""

    peak_memory_bytes: Optional[int] = None
    cpu_s: Optional[float] = None
    oom_kills: int = 0
    """how many of its processes the kernel killed for want of memory, as far as it can be told"""


@dataclass(frozen=True)
class Leftovers:
    """The processes that the end of a job met: `found` were alive, `survivors` could not be
    killed.
    """

    found: tuple[ProcessName, ...] = ()
    survivors: tuple[ProcessName, ...] = ()


@dataclass(frozen=True)
class KillReceipt:
    """The last record of a job. A slot may be used again only if `survivors` is empty (V10)."""

    ended: Ended
    exit_code: Optional[int]
    containment: str
    pids_seen: int = 0
    """different processes that were met in the job: its main one, and all that had to be killed"""
    usage: Usage = Usage()
    survivors: tuple[ProcessName, ...] = ()
    held_output: tuple[str, ...] = ()
    """names of processes that held the output open after the main process had ended (E8)"""
