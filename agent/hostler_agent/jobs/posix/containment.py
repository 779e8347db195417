"""Jobs on any Linux: processes started by the spawner, contained by being its descendants.

This containment is for machines on which the agent may not write to cgroups; see `descent`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Collection, Mapping
from typing import Callable, Optional

assert sys.platform != "win32"

from hostler_agent.jobs.errors import ContainmentUnavailable
from hostler_agent.jobs.plan import INSTANCE_VARIABLE, JobPlan
from hostler_agent.jobs.posix import limits, procfs
from hostler_agent.jobs.posix.descent import Descent, Lineage, dying
from hostler_agent.jobs.posix.pipes import PipeReader, PipeWriter, Stdio, open_stdio
from hostler_agent.jobs.posix.ready import ReadyPlaces
from hostler_agent.jobs.posix.spawn import Child, Placement, SpawnerClient, needs_fork
from hostler_agent.jobs.receipt import Exit, Leftovers, ProcessName, Usage

_SWEEP_DEADLINE_S = 10.0


def establish(preference: str, root_name: str) -> SubreaperContainment:
    """Create the containment. Raises ContainmentUnavailable."""
    if preference not in ("auto", "subreaper"):
        raise ContainmentUnavailable(f"this platform has no containment {preference!r}")
    if procfs.stat(os.getpid()) is None:
        raise ContainmentUnavailable("jobs need /proc, which is not mounted here")
    return SubreaperContainment(root_name)


class SubreaperContainment:
    name = "subreaper"

    def __init__(self, root_name: str) -> None:
        self.root_name = root_name
        self.spawner = SpawnerClient(root_name)
        self._descent = Descent(self.spawner, root_name, beside_cgroups=False)
        self._ready = ReadyPlaces(
            self.spawner, self._descent.spare_mark, lambda _name: (), lambda _paths: ()
        )

    def open(self, command_id: str) -> SubreaperEnclosure:
        return SubreaperEnclosure(self, self._descent.begin(command_id))

    async def start(self, plan: JobPlan, mark: int) -> SpawnedProcess:
        forked = needs_fork(plan)
        place = self._ready.take() if forked else None
        number = 0 if place is None else place.number
        process = await spawn(self.spawner, plan, Placement(mark=mark, place=number))
        if forked:
            await self._ready.replenish(len(self._descent.open), plan)
        return process

    async def sweep(self) -> tuple[ProcessName, ...]:
        return await sweep_marked(self.root_name, self._descent.is_spare)

    def warm_up(self) -> None:
        self.spawner.warm_up()

    async def aclose(self) -> None:
        self._ready.close()
        await self.spawner.aclose()


class SubreaperEnclosure:
    """The processes of one job among the spawner's descendants; see containment.Enclosure."""

    def __init__(self, containment: SubreaperContainment, lineage: Lineage) -> None:
        self._containment = containment
        self._lineage = lineage

    async def start(self, plan: JobPlan) -> SpawnedProcess:
        if plan.resources.are_limited:
            limits.refuse(plan.resources, "needs cgroups, and a subreaper keeps the jobs here")
        process = await self._containment.start(plan, self._lineage.mark)
        self._lineage.main = process
        return process

    def holders(self, readers: Collection[object]) -> tuple[ProcessName, ...]:
        return holders(self._lineage.members(), readers)

    def usage(self) -> Usage:
        return Usage()

    async def empty(self, deadline_s: float) -> Leftovers:
        return await self._lineage.empty(deadline_s)


class SpawnedProcess:
    """A main process that the spawner started; see containment.Process."""

    def __init__(self, spawner: SpawnerClient, child: Child, stdio: Stdio) -> None:
        self._spawner = spawner
        self._child = child
        self.pid = child.pid
        self.missing = child.missing
        self.readers: Mapping[str, PipeReader] = stdio.readers
        self.writer: Optional[PipeWriter] = stdio.writer

    @property
    def exited(self) -> asyncio.Future[Exit]:
        return self._child.exited

    @property
    def has_ended(self) -> bool:
        return self._child.exited.done()

    async def terminate(self) -> None:
        await self._spawner.signal(self._child, signal.SIGTERM)
        # A stopped process sees the SIGTERM only when it goes on.
        await self._spawner.signal(self._child, signal.SIGCONT)


async def spawn(spawner: SpawnerClient, plan: JobPlan, placement: Placement) -> SpawnedProcess:
    """Start the main process. Raises StartFailed, SpawnerLost or OSError."""
    stdio = open_stdio(plan.use_pty, plan.stdin is not None, plan.view.namespaces)
    try:
        child = await spawner.start(plan, stdio, placement)
    except BaseException:
        stdio.close_ours()
        raise
    return SpawnedProcess(spawner, child, stdio)


def holders(members: Collection[int], readers: Collection[object]) -> tuple[ProcessName, ...]:
    """Names of those of `members` that have one of the pipes open."""
    inodes = {reader.identity for reader in readers if isinstance(reader, PipeReader)}
    return procfs.names(pid for pid in members if procfs.holds_any(pid, inodes))


async def sweep_marked(root_name: str, is_spare: Callable[[int], bool]) -> tuple[ProcessName, ...]:
    """Kill the processes that were started for `root_name`, but for the agent's own and this
    process's ancestors. Returns what was found.
    """
    spared = _ancestry()
    if any(procfs.environment_has(pid, INSTANCE_VARIABLE, root_name) for pid in spared):
        # We run inside a job of an agent of that name: its processes are our own surroundings.
        return ()

    def marked() -> set[int]:
        return {
            pid
            for pid in procfs.all_pids()
            if pid not in spared
            # This first, since it leaves next to none; a zombie has no environment any more.
            and procfs.environment_has(pid, INSTANCE_VARIABLE, root_name)
            and not is_spare(pid)
        }

    found: dict[int, ProcessName] = {}
    deadline = procfs.PollDeadline(_SWEEP_DEADLINE_S)
    while not deadline.passed:
        pids = marked()
        if not pids and not dying(found):
            break
        found.update((one.pid, one) for one in procfs.names(pids))
        procfs.signal_members(marked, signal.SIGKILL)
        await asyncio.sleep(deadline.next_pause_s())
    return tuple(found.values())


def _ancestry() -> set[int]:
    """The pids of this process and of its ancestors."""
    ancestry: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        ancestry.add(pid)
        found = procfs.stat(pid)
        pid = 0 if found is None else found.parent
    return ancestry
