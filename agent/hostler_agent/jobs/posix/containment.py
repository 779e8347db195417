"""Jobs on any Linux: processes started by the spawner, contained by being its descendants.

This containment is for machines on which the agent may not write to cgroups. The spawner is a
subreaper, so a process that a job leaves behind when its main process has ended is a child of the
spawner or below one. Double forks and setsid change nothing about that, so no process escapes.

The job of such an orphan is determined by, in this order: an ancestor that is a job's main process;
the mark; the HOSTLER_COMMAND in its initial environment; the session; and for a process that hides
all of these, by age: its job must have started before it, and if no running job did, it belongs to
none and is killed.

The mark is the soft limit of file locks, another number for each job. Processes inherit it whatever
they do to their environment, session and user; every user may read it; and since Linux 2.4 it
limits nothing. Only a process that sets the limit anew (`ulimit -x`) loses the mark.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.jobs.errors import ContainmentUnavailable
from hostler_agent.jobs.plan import COMMAND_VARIABLE, INSTANCE_VARIABLE, JobPlan
from hostler_agent.jobs.posix import limits, procfs
from hostler_agent.jobs.posix.pipes import PipeReader, PipeWriter, Stdio, open_stdio
from hostler_agent.jobs.posix.spawn import Child, Placement, SpawnerClient
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
        self.open_enclosures: list[SubreaperEnclosure] = []
        # Not those of an agent that runs in one of our jobs, or we in one of its.
        self._marks = range(first := secrets.randbits(30) << 32, first + 2**32)
        self._opened = 0

    def open(self, command_id: str) -> SubreaperEnclosure:
        self._opened += 1
        enclosure = SubreaperEnclosure(self, command_id, self._marks[self._opened])
        self.open_enclosures.append(enclosure)
        return enclosure

    def mark_of(self, pid: int) -> Optional[int]:
        """The mark of a process; None if it has none of this agent."""
        mark = procfs.lock_limit(pid)
        return mark if mark is not None and mark in self._marks else None

    async def sweep(self) -> tuple[ProcessName, ...]:
        spare = () if self.spawner.pid is None else (self.spawner.pid,)
        return await sweep_marked(self.root_name, spare)

    def warm_up(self) -> None:
        self.spawner.warm_up()

    async def aclose(self) -> None:
        await self.spawner.aclose()


class SubreaperEnclosure:
    """The processes of one job among the spawner's descendants; see containment.Enclosure."""

    def __init__(self, containment: SubreaperContainment, command_id: str, mark: int) -> None:
        self._containment = containment
        self.command_id = command_id
        self.mark = mark
        self.main: Optional[SpawnedProcess] = None
        self._opened_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

    async def start(self, plan: JobPlan) -> SpawnedProcess:
        if plan.resources.are_limited:
            limits.refuse(plan.resources, "needs cgroups, and a subreaper keeps the jobs here")
        self.main = await spawn(self._containment.spawner, plan, Placement(mark=self.mark))
        return self.main

    def holders(self, readers: Collection[object]) -> tuple[ProcessName, ...]:
        return holders(self._members(), readers)

    def usage(self) -> Usage:
        return Usage()

    async def empty(self, deadline_s: float) -> Leftovers:
        found: dict[int, ProcessName] = {}
        deadline = procfs.PollDeadline(deadline_s)
        while True:
            members = self._members() | _dying(found)
            if not members or deadline.passed:
                break
            found.update((one.pid, one) for one in procfs.names(members))
            # Stopped first, so that none forks ahead of the kill.
            procfs.signal_members(self._members, signal.SIGSTOP)
            procfs.signal_members(self._members, signal.SIGKILL)
            await asyncio.sleep(deadline.next_pause_s())
        survivors = procfs.names(members)
        if not survivors and self in self._containment.open_enclosures:
            self._containment.open_enclosures.remove(self)
        return Leftovers(tuple(found.values()), survivors)

    def _members(self) -> set[int]:
        """The pids of this job's processes that are alive now."""
        while True:
            roots = self._roots()
            if not roots:
                # Nearly always, at the end of a command: only few processes had to be looked at.
                return set()
            members = self._below(roots)
            if members:
                return members
            # They have ended during the look, and what they had started is the spawner's now.

    def _below(self, roots: Iterable[int]) -> set[int]:
        waiting = list(roots)
        alive: set[int] = set()
        below: dict[int, list[int]] = {}
        for one in procfs.all_processes():
            below.setdefault(one.parent, []).append(one.pid)
            if one.state not in "ZX":
                alive.add(one.pid)
        members: set[int] = set()
        while waiting:
            pid = waiting.pop()
            if pid not in members:
                members.add(pid)
                waiting += below.get(pid, ())
        return members & alive

    def _roots(self) -> list[int]:
        """The topmost processes of this job: each process of the job is one of them or
        below one.
        """
        spawner = self._containment.spawner.pid
        if spawner is None:
            # It was killed and its children are init's: only their marks tell.
            return [one.pid for one in procfs.all_processes() if self._is_marked(one.pid)]
        others = {
            one.main.pid
            for one in self._containment.open_enclosures
            if one is not self and one.main is not None and not one.main.has_ended
        }
        ended: set[int] = set()
        while True:
            seen = {pid: procfs.stat(pid) for pid in procfs.children(spawner) if pid not in others}
            alive = [one for one in seen.values() if one is not None and one.state not in "ZX"]
            before, ended = ended, seen.keys() - {one.pid for one in alive}
            if ended <= before:
                return [one.pid for one in alive if self._owns(one)]
            # A process that ended since it was listed left its children to the spawner: list again.

    def _is_marked(self, pid: int) -> bool:
        return procfs.environment_has(
            pid, COMMAND_VARIABLE, self.command_id
        ) and procfs.environment_has(pid, INSTANCE_VARIABLE, self._containment.root_name)

    def _owns(self, orphan: procfs.ProcessStat) -> bool:
        """Whether a child of the spawner that is not another job's main process belongs to this
        job.
        """
        main = self.main
        if main is not None and orphan.pid == main.pid and not main.has_ended:
            return True
        mark = self._containment.mark_of(orphan.pid)
        if mark is not None:
            # The mark is this job's, or that of a job that has ended.
            others = (one.mark for one in self._containment.open_enclosures if one is not self)
            return mark not in others
        if procfs.environment_has(orphan.pid, COMMAND_VARIABLE, self.command_id):
            return True
        if main is not None and orphan.session == main.pid:
            return True
        # It belongs to this job unless another running job may have started it.
        return not any(
            one.may_own(orphan) for one in self._containment.open_enclosures if one is not self
        )

    def may_own(self, orphan: procfs.ProcessStat) -> bool:
        return self._opened_ticks <= orphan.started


class SpawnedProcess:
    """A main process that the spawner started; see containment.Process."""

    def __init__(self, spawner: SpawnerClient, child: Child, stdio: Stdio) -> None:
        self._spawner = spawner
        self._child = child
        self.pid = child.pid
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
    stdio = open_stdio(plan.use_pty, plan.stdin is not None)
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


async def sweep_marked(root_name: str, spare: Collection[int]) -> tuple[ProcessName, ...]:
    """Kill the processes that were started for `root_name`, but for `spare` and this process's
    ancestors. Returns what was found.
    """
    spared = {*spare, *_lineage()}
    if any(procfs.environment_has(pid, INSTANCE_VARIABLE, root_name) for pid in _lineage()):
        # We run inside a job of an agent of that name: its processes are our own surroundings.
        return ()

    def marked() -> set[int]:
        return {
            pid
            for pid in procfs.all_pids()
            if pid not in spared
            # This first, since it leaves next to none; a zombie has no environment any more.
            and procfs.environment_has(pid, INSTANCE_VARIABLE, root_name)
        }

    found: dict[int, ProcessName] = {}
    deadline = procfs.PollDeadline(_SWEEP_DEADLINE_S)
    while not deadline.passed:
        pids = marked()
        if not pids and not _dying(found):
            break
        found.update((one.pid, one) for one in procfs.names(pids))
        procfs.signal_members(marked, signal.SIGKILL)
        await asyncio.sleep(deadline.next_pause_s())
    return tuple(found.values())


def _dying(found: Mapping[int, ProcessName]) -> set[int]:
    """Those of `found` that are not yet zombies. A process that is being killed loses its
    environment first, by which it was found, and a moment later its files and locks.
    """
    return {one.pid for one in procfs.names(found) if one == found[one.pid]}


def _lineage() -> set[int]:
    """The pids of this process and of its ancestors."""
    lineage: set[int] = set()
    pid = os.getpid()
    while pid > 0:
        lineage.add(pid)
        found = procfs.stat(pid)
        pid = 0 if found is None else found.parent
    return lineage
