"""One cgroup and all below it, emptied and removed.

Version 2 kills a whole tree with one write (`cgroup.kill`). Before Linux 5.14, and in version 1,
the tree is frozen, killed and thawed until nothing is left, so that nothing forks faster than it is
killed. The kernel removes a cgroup only if no process in it is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

assert sys.platform != "win32"

from hostler_agent.jobs.posix import limits, procfs
from hostler_agent.jobs.receipt import Leftovers, ProcessName


class CgroupTree:
    def __init__(self, path: str) -> None:
        self.path = path

    async def empty(self, deadline_s: float) -> Leftovers:
        """Kill every process in it, wait until none is left, and remove it. May be called twice."""
        if self._removed():
            return Leftovers()
        found: dict[int, ProcessName] = {}
        deadline = procfs.PollDeadline(deadline_s)
        while not self._removed() and not deadline.passed:
            found.update((one.pid, one) for one in procfs.names(self.members()))
            self._kill()
            if self._removed():
                break
            await asyncio.sleep(deadline.next_pause_s())
        return Leftovers(tuple(found.values()), procfs.names(self.members()))

    def members(self) -> set[int]:
        """The pids in this cgroup and all below it (a job may create some of its own)."""
        members: set[int] = set()
        for path, _directories, _files in os.walk(self.path):
            with contextlib.suppress(OSError):
                members.update(map(int, Path(path, "cgroup.procs").read_text().split()))
        return members

    def _kill(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                limits.write(f"{self.path}/cgroup.kill", "1")
            except (FileNotFoundError, PermissionError):
                # Version 1, or Linux before 5.14: there is no such file, and none can be made.
                self._freeze(True)
                procfs.signal_members(self.members, signal.SIGKILL)
                # Version 1 lets a frozen process die only when it is thawed.
                self._freeze(False)

    def _freeze(self, frozen: bool) -> None:
        version_1 = "FROZEN" if frozen else "THAWED"
        for name, word in (("freezer.state", version_1), ("cgroup.freeze", str(int(frozen)))):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                limits.write(f"{self.path}/{name}", word)

    def _removed(self) -> bool:
        """Remove the cgroup. The kernel permits that only if no process in it is alive, which is
        the proof (V3).
        """
        try:
            os.rmdir(self.path)  # noqa: PTH106 - once per command, and plain strings are faster
        except FileNotFoundError:
            return True
        except OSError:
            for below, _directories, _files in os.walk(self.path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(below)  # noqa: PTH106 - see above
            return not Path(self.path).exists()
        return True
