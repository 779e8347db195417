"""Containments: how a job's processes are kept together, so that all of them can be ended.

The platform's modules (`cgroup`, `posix`, `windows`) have the same function `establish`; this is
the one place that chooses among them.
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
        """Up to 128 KiB; empty at the end."""

    def read_now(self) -> Optional[bytes]:
        """The same without waiting: None when there is nothing yet, or when it cannot be told."""

    def close(self) -> None: ...


class Writer(Protocol):
    async def write_all(self, data: bytes) -> None:
        """Writes and closes; a reader that is gone is no error."""

    def close(self) -> None: ...


class Process(Protocol):
    """The main process of a job."""

    @property
    def pid(self) -> int: ...
    @property
    def readers(self) -> Mapping[str, Reader]: ...
    @property
    def writer(self) -> Optional[Writer]: ...
    @property
    def exited(self) -> asyncio.Future[Exit]:
        """Ends with SpawnerLost when nobody can tell. Not to be cancelled."""

    async def terminate(self) -> None:
        """Asks it and its group to end (SIGTERM, CTRL_BREAK); nothing when it has ended."""


class Enclosure(Protocol):
    """One job's own; made before its first process, gone only when proven empty."""

    async def start(self, plan: JobPlan) -> Process:
        """Raises StartFailed, SpawnerLost or OSError; the enclosure is then still to be emptied."""

    def holders(self, readers: Collection[Reader]) -> tuple[ProcessName, ...]:
        """Processes of the job that hold the other end of one of `readers`."""

    def usage(self) -> Usage:
        """As far as the enclosure itself knows; to be asked before it is emptied."""

    async def empty(self, deadline_s: float) -> Leftovers:
        """Kills whatever is in it, waits until nothing is, and removes it. Twice does no harm."""


class Containment(Protocol):
    """What the daemon has one of."""

    @property
    def name(self) -> str:
        """The receipt's word: cgroup2, cgroup1, subreaper or job_object."""

    @property
    def root_name(self) -> str:
        """The instance's, or else the worker's name."""

    def open(self, command_id: str) -> Enclosure:
        """Raises OSError."""

    async def sweep(self) -> tuple[ProcessName, ...]:
        """Kills what an earlier agent of the same name left. To be called before the first job."""

    def warm_up(self) -> None:
        """Takes at once what the first job would wait for. May be left out, or be repeated."""

    async def aclose(self) -> None:
        """Kills what is left of all jobs. The end of the agent, by whatever cause, does as well."""


def choose_containment(preference: str, root_name: str) -> Containment:
    """The best that this machine has (`auto`), or the one that is named.

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
