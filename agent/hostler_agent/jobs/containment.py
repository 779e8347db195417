"""Containments: they hold a job's processes together, so that all of them can be ended.

The platform's modules (`posix.cgroup`, `posix.containment`, `windows.containment`) have the same
function `establish`; this module chooses among them.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Optional, Protocol

from hostler_agent.jobs.errors import ContainmentUnavailable
from hostler_agent.jobs.plan import JobPlan
from hostler_agent.jobs.receipt import Exit, Leftovers, ProcessName, Usage

if TYPE_CHECKING:
    import asyncio

PREFERENCES = ("auto", "cgroup2", "cgroup1", "subreaper", "job_object")


class Reader(Protocol):
    @property
    def identity(self) -> int: ...
    async def read(self) -> bytes:
        """Wait for output and return up to 128 KiB of it; empty at the end."""

    def read_now(self) -> Optional[bytes]:
        """Return output without waiting; None if there is none yet, or if the platform
        cannot tell.
        """

    def close(self) -> None: ...


class Writer(Protocol):
    async def write_all(self, data: bytes) -> None:
        """Write the data and close the pipe. A job that no longer reads is not an error."""

    def close(self) -> None: ...


class Process(Protocol):
    """The main process of a job."""

    @property
    def pid(self) -> int: ...
    @property
    def missing(self) -> tuple[str, ...]:
        """What the machine could not give of the plan's view, each as "PART: why"."""

    @property
    def readers(self) -> Mapping[str, Reader]: ...
    @property
    def writer(self) -> Optional[Writer]: ...
    @property
    def exited(self) -> asyncio.Future[Exit]:
        """How the process ended. Fails with SpawnerLost if that cannot be known. Must not be
        cancelled.
        """

    async def terminate(self) -> None:
        """Ask the process and its group to end (SIGTERM, CTRL_BREAK). Does nothing if it
        has ended.
        """


class Enclosure(Protocol):
    """Holds the processes of one job. Created before the first process; removed only when proven
    empty.
    """

    async def start(self, plan: JobPlan) -> Process:
        """Start the main process. Raises StartFailed, SpawnerLost or OSError; empty() must be
        called even then.
        """

    def holders(self, readers: Collection[Reader]) -> tuple[ProcessName, ...]:
        """Names of the job's processes that hold the other end of one of `readers`."""

    def usage(self) -> Usage:
        """The job's resource usage, as far as the enclosure measures it. Must be called before
        empty().
        """

    async def empty(self, deadline_s: float) -> Leftovers:
        """Kill every process in the enclosure, wait until none is left, and remove it. May be
        called twice.
        """


class Containment(Protocol):
    """The method by which an agent contains its jobs; one object per agent."""

    @property
    def name(self) -> str:
        """The name in receipts: cgroup2, cgroup1, subreaper or job_object."""

    @property
    def root_name(self) -> str:
        """The name that marks the agent's jobs: the instance's id, or else the worker's name."""

    def open(self, command_id: str) -> Enclosure:
        """Make the enclosure of a job. Raises OSError."""

    async def sweep(self) -> tuple[ProcessName, ...]:
        """Kill what an earlier agent of the same name left behind. Must be called before the first
        job.
        """

    def warm_up(self) -> None:
        """Make preparations that the first job would otherwise wait for. Optional; may be called
        again.
        """

    async def aclose(self) -> None:
        """Kill the remaining processes of all jobs. The agent's death, from any cause, has the same
        effect.
        """


def choose_containment(preference: str, root_name: str) -> Containment:
    """Choose the containment `preference`, or for `auto` the best one of this machine.

    Raises ContainmentUnavailable.
    """
    if preference not in PREFERENCES:
        raise ContainmentUnavailable(
            f"containment is one of {', '.join(PREFERENCES)}, not {preference!r}"
        )
    # Imported here because each of them loads only on its own platform.
    if sys.platform == "win32":
        from hostler_agent.jobs.windows import containment  # noqa: PLC0415

        return containment.establish(preference, root_name)
    else:  # noqa: RET505 - type checkers know platforms by branches
        from hostler_agent.jobs.posix import cgroup, containment  # noqa: PLC0415

        if preference == "subreaper":
            return containment.establish(preference, root_name)
        if preference != "auto":
            return cgroup.establish(preference, root_name)
        try:
            return cgroup.establish(preference, root_name)
        except ContainmentUnavailable:
            return containment.establish(preference, root_name)
