"""Which processes belong to a job, by descent and by what they have inherited.

The spawner is a subreaper, so a process that a job leaves behind when its main process has ended is
a child of the spawner or below one. Double forks and setsid change nothing about that, nor does a
move into another cgroup, so no process escapes.

The job of such an orphan is determined by, in this order: an ancestor that is a job's main process;
the mark; the HOSTLER_COMMAND in its initial environment; the session; and for a process that hides
all of these, by age: its job must have started before it, and if no running job did, it belongs to
none and is killed.

The mark is the soft limit of file locks, another number for each job. Processes inherit it whatever
they do to their environment, session and user; every user may read it; and since Linux 2.4 it
limits nothing. Only a process that sets the limit anew (`ulimit -x`) loses the mark.

When the spawner has been killed its orphans are init's, and marks and environments are looked for
among all processes.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Optional, Protocol

assert sys.platform != "win32"

from hostler_agent.jobs.plan import COMMAND_VARIABLE, INSTANCE_VARIABLE
from hostler_agent.jobs.posix import procfs
from hostler_agent.jobs.receipt import Leftovers, ProcessName


class Spawner(Protocol):
    @property
    def pid(self) -> Optional[int]:
        """The spawner's pid; None if it does not run."""

    @property
    def losses(self) -> int:
        """The number of spawners that have ended so far."""


class Main(Protocol):
    """The main process of a job."""

    @property
    def pid(self) -> int: ...
    @property
    def has_ended(self) -> bool: ...


class Descent:
    """The jobs of one agent, as far as processes are told apart by their descent."""

    def __init__(self, spawner: Spawner, root_name: str, *, beside_cgroups: bool) -> None:
        """`beside_cgroups`: cgroups contain the jobs, so this is about processes that have left
        them. Then one that is on its way out does not count: those leave their cgroups, too.
        """
        self.spawner = spawner
        self.root_name = root_name
        self.counts_exiting = not beside_cgroups
        self.open: list[Lineage] = []
        # Not those of an agent that runs in one of our jobs, or we in one of its.
        self._marks = range(first := secrets.randbits(30) << 32, first + 2**32)
        self.spare_mark = first
        """The mark of the processes that the spawner has forked ahead: they are no job's yet."""
        self._opened = 0

    def begin(self, command_id: str) -> Lineage:
        """Begin a job, before its first process exists."""
        self._opened += 1
        lineage = Lineage(self, command_id, self._marks[self._opened])
        self.open.append(lineage)
        return lineage

    def is_spare(self, pid: int) -> bool:
        """Whether it is the spawner, or one that the spawner has forked ahead."""
        return pid == self.spawner.pid or procfs.lock_limit(pid) == self.spare_mark

    def mark_of(self, pid: int) -> Optional[int]:
        """The mark of a process; None if it has none of this agent."""
        mark = procfs.lock_limit(pid)
        return mark if mark is not None and mark in self._marks else None


class Lineage:
    """The processes of one job. `main` is set by whoever starts it."""

    def __init__(self, descent: Descent, command_id: str, mark: int) -> None:
        self._descent = descent
        self._losses = descent.spawner.losses
        self.command_id = command_id
        self.mark = mark
        self.main: Optional[Main] = None
        self._opened_ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

    async def empty(self, deadline_s: float, but: Collection[int] = ()) -> Leftovers:
        """Kill every process of the job, but for `but`, which are known to be unkillable, and wait
        until none is left. May be called twice.
        """

        def members() -> set[int]:
            return self.members().difference(but)

        found: dict[int, ProcessName] = {}
        deadline = procfs.PollDeadline(deadline_s)
        while True:
            alive = members() | dying(found)
            if not alive or deadline.passed:
                break
            found.update((one.pid, one) for one in procfs.names(alive))
            # Stopped first, so that none forks ahead of the kill.
            procfs.signal_members(members, signal.SIGSTOP)
            procfs.signal_members(members, signal.SIGKILL)
            await asyncio.sleep(deadline.next_pause_s())
        survivors = procfs.names(alive)
        if not survivors and not but:
            self.end()
        return Leftovers(tuple(found.values()), survivors)

    def end(self) -> None:
        """End the job: nothing of it is alive. May be called twice."""
        if self in self._descent.open:
            self._descent.open.remove(self)

    def members(self) -> set[int]:
        """The pids of this job's processes that are alive now."""
        before: list[int] = []
        while True:
            roots = self._roots()
            if roots == before:
                # Nearly always, at the end of a command: only few processes had to be looked at.
                return set()
            members = self._below(roots)
            if members:
                return members
            # They have ended during the look, and what they had started is the spawner's now.
            before = roots

    def _below(self, roots: Iterable[int]) -> set[int]:
        """The living processes among `roots` and below them, from one look at all processes."""
        waiting = list(roots)
        alive: set[int] = set()
        below: dict[int, list[int]] = {}
        for one in procfs.all_processes():
            below.setdefault(one.parent, []).append(one.pid)
            if one.is_alive and (self._descent.counts_exiting or not one.is_exiting):
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
        spawner = self._descent.spawner
        if spawner.pid is None or spawner.losses != self._losses:
            return [
                one.pid
                for one in procfs.all_processes()
                if one.is_alive and self._is_marked(one.pid)
            ]
        others = {
            one.main.pid
            for one in self._descent.open
            if one is not self and one.main is not None and not one.main.has_ended
        }
        ended: set[int] = set()
        while True:
            pids = procfs.children(spawner.pid)
            seen = {pid: procfs.stat(pid) for pid in pids if pid not in others}
            alive = [one for one in seen.values() if one is not None and one.is_alive]
            before, ended = ended, seen.keys() - {one.pid for one in alive}
            if ended <= before:
                return [one.pid for one in alive if self._owns(one)]
            # A process that ended since it was listed left its children to the spawner: list again.

    def _is_marked(self, pid: int) -> bool:
        return procfs.lock_limit(pid) == self.mark or (
            procfs.environment_has(pid, COMMAND_VARIABLE, self.command_id)
            and procfs.environment_has(pid, INSTANCE_VARIABLE, self._descent.root_name)
        )

    def _owns(self, orphan: procfs.ProcessStat) -> bool:
        """Whether a child of the spawner that is not another job's main process belongs to this
        job.
        """
        main = self.main
        if main is not None and orphan.pid == main.pid and not main.has_ended:
            return True
        others = [one for one in self._descent.open if one is not self]
        mark = self._descent.mark_of(orphan.pid)
        if mark is not None:
            # The mark is this job's, or that of a job that has ended.
            return mark != self._descent.spare_mark and all(mark != one.mark for one in others)
        if procfs.environment_has(orphan.pid, COMMAND_VARIABLE, self.command_id):
            return True
        if main is not None and orphan.session == main.pid:
            return True
        # It belongs to this job unless another running job may have started it.
        return not any(one.may_own(orphan) for one in others)

    def may_own(self, orphan: procfs.ProcessStat) -> bool:
        return self._opened_ticks <= orphan.started


def dying(found: Mapping[int, ProcessName]) -> set[int]:
    """Those of `found` that are not yet zombies. A process that is being killed loses its
    environment first, by which it was found, and a moment later its files and locks.
    """
    return {one.pid for one in procfs.names(found) if one == found[one.pid]}
