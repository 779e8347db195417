"""The processes that the spawner has forked, each of which is to become one job; as the spawner
sees them.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from typing import Any, NamedTuple, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.posix import frames
from hostler_agent.jobs.posix.job_process import Order


class Start(NamedTuple):
    """A job that a forked process was told to start. The descriptors, its streams and
    namespaces, are kept until it is known to run.
    """

    token: int
    order: Order
    descriptors: list[int]
    is_first: bool
    """Whether there is another way, if the process dies before it runs anything."""

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)


class Forked:
    """A forked process that waits for a job, or starts it."""

    def __init__(self, pid: int, channel: socket.socket, gone: Gone) -> None:
        self.pid = pid
        self.channel = channel
        self._gone = gone
        self._told: dict[str, list[Any]] = {}

    def give(self, order: Order, descriptors: list[int]) -> bool:
        """Tell it what to start. Returns False if it is dead."""
        try:
            frames.send(self.channel, tuple(order), descriptors)
        except OSError:
            self.channel.close()
            return False
        return True

    def hear(self) -> bool:
        """Take what it has to say. Returns False at the end: it runs its program, or is dead."""
        try:
            received = frames.receive(self.channel)
        except OSError:
            received = None
        if received is None:
            self.channel.close()
            return False
        kind, *rest = received[0]
        self._told[kind] = rest
        return True

    @property
    def ran(self) -> bool:
        """Whether it has come so far as to run a program, at the end of what it says."""
        return self.failure is None and self._gone.is_set

    @property
    def failure(self) -> Optional[list[Any]]:
        return self._told.get("failed")

    @property
    def missing(self) -> list[str]:
        (names,) = self._told.get("missing", [[]])
        return list(names)


class Gone:
    """A byte that a process shares with the fork of it, who sets it last before it runs a program.
    The end of a channel alone does not tell that from a death.
    """

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    @property
    def is_set(self) -> bool:
        return self._shared[0] == 1
