"""Limits of what a job may use, enforced by the kernel's controllers: memory, CPU time, number of
processes.

A controller is looked for in the job's own cgroup of version 2, if it is delegated to the agent,
and else in a hierarchy of version 1. There the job gets a second cgroup, made only for jobs with a
limit: a memory cgroup costs the kernel more than the start of a small program.

A limit that cannot be enforced is an error, and never ignored.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

assert sys.platform != "win32"

from hostler_agent.jobs.errors import LimitUnavailable
from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.receipt import Usage

CPU_PERIOD_US = 100_000
LAZY = ("memory", "cpu")
"""The controllers whose cgroups of version 1 are made only for jobs that have a limit of theirs."""

_WORDS = {"memory": "memory", "cpu": "CPU time", "pids": "the number of processes"}


@dataclass(frozen=True)
class Setting:
    """A file of a cgroup and the value to write to it. An `optional` one may be missing."""

    file: str
    value: str
    optional: bool = False


@dataclass(frozen=True)
class Hierarchy:
    """One controller of version 1: the agent's own cgroup, and the parent of all cgroups of its
    jobs.
    """

    home: Path
    root: Path


@dataclass(frozen=True)
class LimitCgroup:
    """The cgroup that holds one controller's limit of one job.

    `home` is the agent's own cgroup in that hierarchy, if the cgroup was made for the limit.
    """

    controller: str
    version: int
    path: str
    home: Optional[str] = None


class Limiter:
    """Finds the cgroups for a job's limits; one per containment."""

    def __init__(self, version_2: Optional[Path], version_1: Mapping[str, Hierarchy]) -> None:
        """`version_2`: the agent's own cgroup of version 2. `version_1`: hierarchies by
        controller.
        """
        self._version_2 = version_2
        self._version_1 = version_1

    @property
    def roots(self) -> tuple[Path, ...]:
        """The parents of the cgroups that are made for limits."""
        found = (self._version_1.get(name) for name in LAZY)
        return tuple(dict.fromkeys(one.root for one in found if one is not None))

    def cgroups(self, resources: Resources, own: str) -> list[LimitCgroup]:
        """The cgroups for the limits of a job whose first cgroup is `own`. Raises
        LimitUnavailable.
        """
        return [self._cgroup(name, own) for name in sorted(settings(resources, 2))]

    def _cgroup(self, controller: str, own: str) -> LimitCgroup:
        if self._version_2 is not None and Path(own, _PROOF[controller]).exists():
            return LimitCgroup(controller, 2, own)
        hierarchy = self._version_1.get(controller)
        if hierarchy is None:
            raise LimitUnavailable(_WORDS[controller], controller, self._why_not())
        path = hierarchy.root / Path(own).name
        return LimitCgroup(controller, 1, str(path), str(hierarchy.home))

    def _why_not(self) -> str:
        elsewhere = "in no hierarchy of version 1 that the agent may write to"
        if self._version_2 is None:
            return f"is {elsewhere}"
        return f"is not delegated to cgroup {self._version_2}, and {elsewhere}"


_PROOF = {"memory": "memory.max", "cpu": "cpu.max", "pids": "pids.max"}
"""Files of version 2 that exist if the controller is enabled."""


def settings(resources: Resources, version: int) -> dict[str, list[Setting]]:
    """The settings to write, by controller."""
    found: dict[str, list[Setting]] = {}
    if resources.memory_bytes is not None:
        size = str(resources.memory_bytes)
        # Without a limit of swap, the job would use the disk beyond its memory limit.
        found["memory"] = (
            [Setting("memory.max", size), Setting("memory.swap.max", "0", optional=True)]
            if version == 2
            else [
                Setting("memory.limit_in_bytes", size),
                Setting("memory.memsw.limit_in_bytes", size, optional=True),
            ]
        )
    if resources.cpu_percent is not None:
        quota_us = resources.cpu_percent * (os.cpu_count() or 1) * CPU_PERIOD_US // 100
        found["cpu"] = (
            [Setting("cpu.max", f"{quota_us} {CPU_PERIOD_US}")]
            if version == 2
            else [
                Setting("cpu.cfs_period_us", str(CPU_PERIOD_US)),
                Setting("cpu.cfs_quota_us", str(quota_us)),
            ]
        )
    if resources.processes is not None:
        found["pids"] = [Setting("pids.max", str(resources.processes))]
    return found


def refuse(resources: Resources, why: str) -> None:
    """Raise LimitUnavailable for the first limit that is set, if there is one."""
    for controller in sorted(settings(resources, 2)):
        raise LimitUnavailable(_WORDS[controller], controller, why)


def impose(cgroups: list[LimitCgroup], resources: Resources) -> None:
    """Write the limits, before the job starts. Raises LimitUnavailable."""
    for cgroup in cgroups:
        try:
            _impose(cgroup, settings(resources, cgroup.version)[cgroup.controller])
        except OSError as error:  # noqa: PERF203 - each is named
            why = f"is refused by the kernel: {error.filename}: {error.strerror}"
            raise LimitUnavailable(_WORDS[cgroup.controller], cgroup.controller, why) from error


def _impose(cgroup: LimitCgroup, wanted: list[Setting]) -> None:
    if cgroup.home is not None:
        Path(cgroup.path).mkdir(parents=True, exist_ok=True)
    for setting in wanted:
        path = f"{cgroup.path}/{setting.file}"
        if not setting.optional or Path(path).exists():
            write(path, setting.value)


def memory_usage(path: str, version: int) -> Usage:
    """The usage of a cgroup of the memory controller; what the kernel does not report is None, or
    0.
    """
    peak, events = (
        ("memory.peak", "memory.events")
        if version == 2
        else ("memory.max_usage_in_bytes", "memory.oom_control")
    )
    text = _read(f"{path}/{peak}").strip()
    kills = dict(_counters(_read(f"{path}/{events}"))).get("oom_kill", 0)
    return Usage(peak_memory_bytes=int(text) if text.isdigit() else None, oom_kills=kills)


def _counters(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isdigit():
            yield name, int(number)


def write(path: str, text: str) -> None:
    """Write to a file of a cgroup in one call, as the kernel requires. Raises OSError with the
    file's name.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4096).decode()
        finally:
            os.close(descriptor)
    return ""
