"""Jobs in cgroups of their own: version 2 where it can be used, else version 1.

Version 2 kills a whole tree with one write (`cgroup.kill`) and reports when nothing is left
(`populated 0`). Before Linux 5.14, and in version 1, the tree is frozen, killed and thawed until
nothing is left, so that nothing forks faster than it is killed. On a machine that has both
(systemd's hybrid layout), version 2 keeps the processes together, and the pids controller of
version 1, which is mounted apart, bounds their number (E3). The other limits are in `limits`.

The tree is `<the agent's own cgroup>/hostler/<instance>/<command>`, in each hierarchy in use; or
`.../ready-<number>` for a job whose cgroups were made ahead (see `ready`).
Version 2 gives controllers only to the children of a cgroup that has no processes itself. An agent
that is alone in its own, as a service with Delegate=yes, therefore moves into a leaf, `agent`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.jobs.errors import ContainmentUnavailable
from hostler_agent.jobs.plan import JobPlan
from hostler_agent.jobs.posix import containment, limits, mounts
from hostler_agent.jobs.posix.cgroup_tree import CgroupTree
from hostler_agent.jobs.posix.descent import Descent, Lineage
from hostler_agent.jobs.posix.limits import Hierarchy, LimitCgroup, Limiter
from hostler_agent.jobs.posix.ready import Place, ReadyPlaces
from hostler_agent.jobs.posix.spawn import Placement, SpawnerClient
from hostler_agent.jobs.receipt import Leftovers, ProcessName, Usage

MAX_PIDS = 4096
CONTROLLERS = ("memory", "cpu", "pids")
"""The controllers of version 2 by which jobs are limited."""
_SWEEP_DEADLINE_S = 10.0
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def establish(preference: str, root_name: str) -> CgroupContainment:
    """Create the containment. `preference` is cgroup2, cgroup1 or auto (2 before 1). Raises
    ContainmentUnavailable.
    """
    hierarchies = mounts.own_cgroups()
    missing = []
    for name in ("cgroup2", "cgroup1") if preference == "auto" else (preference,):
        homes = _homes(name, hierarchies)
        if not homes:
            missing.append(f"{name} is not mounted")
            continue
        try:
            return CgroupContainment(name, root_name, homes, hierarchies)
        except OSError as error:
            missing.append(f"{name}: {error}")
    raise ContainmentUnavailable("no cgroup to keep jobs in: " + "; ".join(missing))


def _homes(name: str, hierarchies: dict[str, Path]) -> tuple[Path, ...]:
    """The agent's own cgroup in each hierarchy that holds processes together. The first one is used
    to kill.
    """
    version_2, pids = hierarchies.get("cgroup2"), hierarchies.get("pids")
    if name == "cgroup2":
        if version_2 is None:
            return ()
        return (version_2,) if pids is None else (version_2, pids)
    if name == "cgroup1":
        freezer = hierarchies.get("freezer")
        return tuple(dict.fromkeys(home for home in (freezer, pids) if home is not None))
    return ()


class CgroupContainment:
    """The containment by cgroups; see containment.Containment."""

    def __init__(
        self, name: str, root_name: str, homes: tuple[Path, ...], hierarchies: dict[str, Path]
    ) -> None:
        """Raises OSError if one of `homes` cannot be written. The rest of `hierarchies` is used for
        limits.
        """
        self.name = name
        self.root_name = root_name
        for home in homes:
            if not _is_ours(home):
                raise PermissionError(errno.EACCES, "no permission to write", str(home))
        self.roots = tuple(self._root(home) for home in homes)
        self.homes = [str(home) for home in homes]
        version_1 = {
            controller: Hierarchy(home, self._root(home))
            for controller, home in hierarchies.items()
            if controller != "cgroup2" and _is_ours(home)
        }
        self.limiter = Limiter(homes[0] if name == "cgroup2" else None, version_1)
        self._all_roots = tuple(dict.fromkeys((*self.roots, *self.limiter.roots)))
        self.spawner = SpawnerClient(root_name, [str(root) for root in self._all_roots])
        self._descent = Descent(self.spawner, root_name, beside_cgroups=True)
        self._make_roots()
        self.ready = ReadyPlaces(
            self.spawner, self._descent.spare_mark, self._make_cgroups, self.entries
        )
        self._open: list[CgroupEnclosure] = []
        self._bounded: Optional[list[bool]] = None
        self._accounts_memory: Optional[bool] = None
        """Whether each job's first cgroup reports memory usage; None before the first job."""

    def _root(self, home: Path) -> Path:
        return home / "hostler" / _directory_name(self.root_name)

    def open(self, command_id: str) -> CgroupEnclosure:
        place = self.ready.take()
        if place is None:
            place = Place(0, self._make_cgroups(_directory_name(command_id)))
        enclosure = CgroupEnclosure(self, place, self._descent.begin(command_id))
        self._open.append(enclosure)
        return enclosure

    async def replenish(self, plan: JobPlan) -> None:
        """Have places made ahead for the next jobs, of which one has just begun."""
        await self.ready.replenish(len(self._open), plan)

    def entries(self, paths: tuple[str, ...]) -> list[tuple[str, str]]:
        """How the cgroups of a job are entered, and left again; see Placement."""
        return [
            (f"{path}/cgroup.procs", f"{home}/cgroup.procs")
            for path, home in zip(paths, self.homes)
        ]

    def _make_cgroups(self, name: str) -> tuple[str, ...]:
        """Make the cgroups of a job, with a limit of its processes. Returns their paths."""
        try:
            paths = self._make_directories(name)
        except FileNotFoundError:
            # The spawner of an agent of our name that was killed has cleared up after it.
            self._make_roots()
            paths = self._make_directories(name)
        for path in self._bounded_ones(paths):
            limits.write(f"{path}/pids.max", str(MAX_PIDS))
        return paths

    def _make_roots(self) -> None:
        for root in self.roots:
            root.mkdir(parents=True, exist_ok=True)
        if self.name == "cgroup2":
            self.homes[0] = _delegate(self.roots[0])

    def _make_directories(self, name: str) -> tuple[str, ...]:
        # A name is taken when a job of that id could not be killed, or peers number theirs anew.
        for number in range(1, 100):
            candidate = name if number == 1 else f"{name}-{number}"
            made: list[str] = []
            try:
                for root in self.roots:
                    path = f"{root}/{candidate}"
                    os.mkdir(path)  # noqa: PTH102 - once per command, and plain strings are faster
                    made.append(path)
            except FileExistsError:
                for path in made:
                    os.rmdir(path)  # noqa: PTH106 - see above
                continue
            return tuple(made)
        raise FileExistsError(errno.EEXIST, "too many jobs of one name are left", name)

    def _bounded_ones(self, paths: tuple[str, ...]) -> list[str]:
        """Those of a job's cgroups that can limit the number of its processes."""
        if self._bounded is None:
            self._bounded = [os.path.exists(f"{path}/pids.max") for path in paths]  # noqa: PTH110
        return [path for path, bounded in zip(paths, self._bounded) if bounded]

    def memory_usage(self, path: str) -> Usage:
        """The usage of a job's first cgroup, if version 2 accounts for its memory."""
        if self._accounts_memory is None:
            self._accounts_memory = os.path.exists(f"{path}/memory.events")  # noqa: PTH110
        return limits.memory_usage(path, 2) if self._accounts_memory else Usage()

    def forget(self, enclosure: CgroupEnclosure) -> None:
        if enclosure in self._open:
            self._open.remove(enclosure)

    async def sweep(self) -> tuple[ProcessName, ...]:
        ours = {path for enclosure in self._open for path in enclosure.paths}
        ours.update(self.ready.paths)
        found: list[ProcessName] = []
        self._make_roots()
        for root in self._all_roots:
            for path in sorted(root.iterdir()) if root.exists() else ():
                if path.is_dir() and str(path) not in ours:
                    left = await CgroupTree(str(path)).empty(_SWEEP_DEADLINE_S)
                    found += left.found
        found += await containment.sweep_marked(self.root_name, self._descent.is_spare)
        return tuple({one.pid: one for one in found}.values())

    def warm_up(self) -> None:
        self.spawner.warm_up()

    async def aclose(self) -> None:
        for ready in self.ready.close():
            await CgroupTree(ready).empty(_SWEEP_DEADLINE_S)
        for enclosure in list(self._open):
            await enclosure.empty(_SWEEP_DEADLINE_S)
        await self.spawner.aclose()
        for root in self._all_roots:
            # The second is kept while other agents have theirs in it.
            for path in (root, root.parent):
                with contextlib.suppress(OSError):
                    path.rmdir()


class CgroupEnclosure:
    """The cgroups of one job, in each hierarchy in use; see containment.Enclosure.

    A job that may write to cgroups, as one that runs as the agent's own user, can leave its own:
    its processes are then found by their descent, and named in the receipt.
    """

    def __init__(self, containment: CgroupContainment, place: Place, lineage: Lineage) -> None:
        self._containment = containment
        self._lineage = lineage
        self._ready = place.number
        self._trees = [CgroupTree(path) for path in place.paths]
        self._memory: Optional[LimitCgroup] = None

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(tree.path for tree in self._trees)

    async def start(self, plan: JobPlan) -> containment.SpawnedProcess:
        """Start the main process. Also raises LimitUnavailable."""
        placement = self._place(plan)
        process = await containment.spawn(self._containment.spawner, plan, placement)
        self._lineage.main = process
        await self._containment.replenish(plan)
        return process

    def _place(self, plan: JobPlan) -> Placement:
        """Impose the limits, and say where the job is to be started."""
        own = self.paths
        entries = self._containment.entries(own)
        if not plan.resources.are_limited:
            return Placement(entries, self._lineage.mark, self._ready)
        cgroups = self._containment.limiter.cgroups(plan.resources, own[0])
        for cgroup in cgroups:
            if cgroup.path not in own:
                # Known before it is made, so that whatever goes wrong it is removed.
                self._trees.append(CgroupTree(cgroup.path))
                entries.append((f"{cgroup.path}/cgroup.procs", f"{cgroup.home}/cgroup.procs"))
            if cgroup.controller == "memory":
                self._memory = cgroup
        limits.impose(cgroups, plan.resources)
        return Placement(entries, self._lineage.mark, self._ready)

    def holders(self, readers: Collection[object]) -> tuple[ProcessName, ...]:
        members = self._trees[0].members() | self._lineage.members()
        return containment.holders(members, readers)

    def usage(self) -> Usage:
        path = self._trees[0].path
        if self._memory is None:
            usage = self._containment.memory_usage(path)
        else:
            usage = limits.memory_usage(self._memory.path, self._memory.version)
        cpu_us = _cpu_us(path)
        if cpu_us is None:
            return usage
        return Usage(usage.peak_memory_bytes, cpu_us / 1e6, usage.oom_kills)

    async def empty(self, deadline_s: float) -> Leftovers:
        first, *others = self._trees
        left = await first.empty(deadline_s)
        escaped = await self._lineage.empty(deadline_s, {one.pid for one in left.survivors})
        found, survivors = (*left.found, *escaped.found), (*left.survivors, *escaped.survivors)
        if not survivors:
            # Nothing is in these that was not in the first, or has left it.
            for tree in others:
                survivors += (await tree.empty(deadline_s)).survivors
        if not survivors:
            self._containment.forget(self)
        return Leftovers(found, survivors, escaped.found)


def _directory_name(text: str) -> str:
    """The text itself if it can be a directory's name, else a digest of it: peers choose
    the ids.
    """
    if _PLAIN_NAME.fullmatch(text):
        return text
    return "id-" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _is_ours(home: Path) -> bool:
    return os.access(home / "cgroup.procs", os.W_OK)


def _delegate(root: Path) -> str:
    """Enable version 2's controllers for the jobs below `root`, as far as the agent has them.
    Returns the cgroup in which the agent then is. Without permission there are no limits, but jobs
    can be killed.
    """
    home = root.parent.parent
    leaf = home / "agent"
    words = _text(home / "cgroup.controllers").split()
    wanted = [name for name in CONTROLLERS if name in words]
    if any(_enable(home, name) == errno.EBUSY for name in wanted) and _is_alone(home):
        with contextlib.suppress(OSError):
            leaf.mkdir(exist_ok=True)
            limits.write(str(leaf / "cgroup.procs"), "0")
    for path in (home, root.parent, root):
        for name in wanted:
            _enable(path, name)
    # Twice: an agent finds its roots gone when another of its name has ended.
    return str(leaf if str(os.getpid()) in _text(leaf / "cgroup.procs").split() else home)


def _enable(path: Path, controller: str) -> Optional[int]:
    """Enable a controller. Returns the error's number, or None."""
    try:
        limits.write(str(path / "cgroup.subtree_control"), f"+{controller}")
    except OSError as error:
        return error.errno
    return None


def _is_alone(home: Path) -> bool:
    return _text(home / "cgroup.procs").split() == [str(os.getpid())]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _cpu_us(path: str) -> Optional[int]:
    """The CPU time in µs, from the first line of cpu.stat, `usage_usec N`; version 1's file
    differs.
    """
    try:
        descriptor = os.open(f"{path}/cpu.stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        word, _, rest = os.read(descriptor, 200).partition(b" ")
    finally:
        os.close(descriptor)
    return int(rest.split()[0]) if word == b"usage_usec" else None
