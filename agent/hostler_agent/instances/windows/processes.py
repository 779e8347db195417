"""Agents on Windows, each in a Job Object that is named after its instance; the same functions as
`posix.processes`.

The Job Object exists as long as a process of the instance does, and when the agent dies the kernel
kills the others. So no action relies on a stored pid, and an end is one call. Instances are listed
by their directories, which exist before the first process and are removed after the last.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from ctypes import wintypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

assert sys.platform == "win32"

from hostler_agent.instances.directories import Directories, read_json
from hostler_agent.instances.errors import (
    NOT_PERMITTED,
    REQUEST,
    SURVIVES,
    SYSTEM,
    HostError,
    of_system,
)
from hostler_agent.instances.launch import DETACHED, LOG, RECORD, Ending, Start
from hostler_agent.instances.mark import Mark
from hostler_agent.instances.windows import programs, services, tasks
from hostler_agent.jobs.windows.job_object import JobObject
from hostler_agent.private_files import write_private
from hostler_agent.win32 import api

ENVIRONMENT = "environment.json"
WAYS = ("task", "service", DETACHED)
BEGIN_DEADLINE_S = 20.0
EVENTS_DEADLINE_S = 5.0
_PAUSE_S = 0.05
_SAID = 600
_DETACHED = (
    subprocess.DETACHED_PROCESS
    | subprocess.CREATE_NEW_PROCESS_GROUP
    | subprocess.CREATE_BREAKAWAY_FROM_JOB
)
_NAME_SAM_COMPATIBLE = 2
_SNAPSHOT_PROCESSES = 2


@dataclass(frozen=True)
class Identity:
    """A process, for people to read: an instance is identified by its Job Object."""

    pid: int
    started: int

    def record(self) -> dict[str, Any]:
        """The process as a JSON object: pid, start time in milliseconds, no boot id."""
        return {"pid": self.pid, "started": self.started, "boot": ""}


def job_name(hub: str, instance: str) -> str:
    """The name of an instance's Job Object, which is the same in every session."""
    return f"Global\\hostler-{hub}-{instance}"


def find(directories: Directories, hub: str, instance: str) -> Optional[Identity]:
    """The instance's running agent; None if no process of the instance runs. Raises HostError."""
    job = _job(hub, instance)
    if job is None:
        return None
    with contextlib.closing(job):
        if not job.account().active:
            return None
    record = read_json(directories.instance(instance) / RECORD)
    return Identity(int(record.get("pid", 0)), int(record.get("started", 0)))


def marked(directories: Directories, hub: str) -> Iterator[tuple[Mark, Identity, str]]:
    """The mark and process of every running agent of the hub that has a directory here, and why it
    is a copy: always empty, because the name of its Job Object was given to it by the hub's start.
    """
    for instance in directories.known():
        about = read_json(directories.instance(instance) / "mark.json")
        if about.get("hub") == hub:
            found = find(directories, hub, instance)
            if found is not None:
                driver = str(about.get("driver", ""))
                yield Mark(hub, instance, int(about.get("epoch", 0)), driver=driver), found, ""


def start(wanted: Start) -> Identity:
    """Start an agent that outlives the login. Raises OSError or HostError."""
    write_private(wanted.directory / ENVIRONMENT, json.dumps(dict(wanted.environment)), sync=False)
    way = wanted.way or WAYS[0]
    if way not in WAYS:
        raise HostError(REQUEST, f"option 'start' must be one of {', '.join(WAYS)}")
    if way == "task":
        tasks.start(wanted, _user())
        return _await(wanted, way, lambda: None)
    if way == "service":
        services.start(wanted, tasks.arguments(wanted))
        return _await(wanted, way, lambda: services.ended(wanted.mark.instance))
    started = _detach(wanted)
    found = _await(wanted, way, lambda: _why_ended(started))
    started.returncode = 0  # ours to wait for no more
    return found


def end_instance(directories: Directories, mark: Mark, ending: Ending) -> None:
    """End an instance's agent and everything that it has started. Raises HostError."""
    deadline = time.monotonic() + ending.grace_s
    if (directories.instance(mark.instance) / tasks.DEFINITION).exists():
        tasks.remove(mark.instance)
    has_service = services.is_there(mark.instance)
    try:
        if has_service:
            services.forbid(mark.instance)
        _end_job(mark, deadline)
        if has_service:
            services.await_gone(mark.instance, deadline)
    except OSError as error:
        raise of_system(error, "end the instance") from error


def registered(directories: Directories, hub: str) -> Iterator[Mark]:
    """The marks of services that are set up to start agents of the hub, running or not."""
    yield from services.marked(directories, hub)


def evidence() -> dict[str, str]:
    """The machine's processes and the newest entries of its event log, as texts by name."""
    lines = (f"{pid} {parent} {name}" for pid, parent, name in _all_processes())
    return {"processes": "\n".join(("pid parent name", *lines)), "event log": _events()}


def uses(directories: Directories, program: Path) -> bool:
    """Whether an instance that has a directory here was started with `program`."""
    abouts = (read_json(directories.instance(each) / "mark.json") for each in directories.known())
    return any(about.get("program") == str(program) for about in abouts)


def _end_job(mark: Mark, deadline: float) -> None:
    job = _job(mark.hub, mark.instance)
    if job is None:
        return
    with contextlib.closing(job):
        while True:
            job.terminate()
            if not job.account().active:
                return
            if time.monotonic() >= deadline:
                left = ", ".join(f"{each.pid} ({each.name})" for each in job.members())
                raise HostError(SURVIVES, f"{left} survive TerminateJobObject")
            time.sleep(_PAUSE_S)


def _job(hub: str, instance: str) -> Optional[JobObject]:
    try:
        return JobObject.find(job_name(hub, instance))
    except OSError as error:
        if error.winerror == api.ERROR_ACCESS_DENIED:
            text = f"instance {instance} runs as another user"
            raise HostError(NOT_PERMITTED, text) from error
        raise


def _detach(wanted: Start) -> subprocess.Popen[bytes]:
    """Start the agent outside the login's job. Raises HostError if that job permits no
    breakaway.
    """
    with open(wanted.directory / LOG, "ab") as log:
        try:
            return subprocess.Popen(
                [sys.executable, *tasks.arguments(wanted)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=wanted.directory,
                creationflags=_DETACHED,
            )
        except PermissionError as error:
            raise HostError(
                NOT_PERMITTED,
                "option 'start': the job of this login lets nothing out, so nothing detached would "
                "outlive it; use 'task' or 'service'",
            ) from error


def _await(wanted: Start, way: str, why_ended: Callable[[], object]) -> Identity:
    """Wait until the agent's process runs, and return it. `why_ended` returns a reason once it
    cannot start any more. Raises HostError.
    """
    directories = Directories(str(wanted.directory.parents[1]))
    deadline = time.monotonic() + BEGIN_DEADLINE_S
    while True:
        why = why_ended()
        found = find(directories, wanted.mark.hub, wanted.mark.instance)
        if found is not None:
            return found
        if why:
            raise HostError(SYSTEM, f"{why}: {_said(wanted)}")
        if time.monotonic() >= deadline:
            raise HostError(
                SYSTEM,
                f"option 'start': the {way} was taken, but did not begin within "
                f"{BEGIN_DEADLINE_S:g} s {_said(wanted)}",
            )
        time.sleep(_PAUSE_S)


def _why_ended(started: subprocess.Popen[bytes]) -> Optional[str]:
    return None if started.poll() is None else "the agent ended at once"


def _said(wanted: Start) -> str:
    with contextlib.suppress(OSError):
        return (wanted.directory / LOG).read_text("utf-8", "replace").strip()[-_SAID:]
    return ""


def _user() -> str:
    """DOMAIN\\NAME of who runs this."""
    library = ctypes.WinDLL("secur32", use_last_error=True)
    buffer, size = ctypes.create_unicode_buffer(512), wintypes.ULONG(512)
    if library.GetUserNameExW(_NAME_SAM_COMPATIBLE, buffer, ctypes.byref(size)):
        return buffer.value
    return os.environ.get("USERNAME", "")


class _ProcessEntry(ctypes.Structure):
    """PROCESSENTRY32W"""

    _fields_ = (
        ("dwSize", wintypes.DWORD),
        ("cntUsage", wintypes.DWORD),
        ("th32ProcessID", wintypes.DWORD),
        ("th32DefaultHeapID", ctypes.c_size_t),
        ("th32ModuleID", wintypes.DWORD),
        ("cntThreads", wintypes.DWORD),
        ("th32ParentProcessID", wintypes.DWORD),
        ("pcPriClassBase", wintypes.LONG),
        ("dwFlags", wintypes.DWORD),
        ("szExeFile", wintypes.WCHAR * 260),
    )


def _all_processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, parent, name) of each process; nothing if Windows refuses the list."""
    kernel, entry = api.KERNEL32, _ProcessEntry()
    entry.dwSize = ctypes.sizeof(entry)
    take = api.function(
        kernel, "CreateToolhelp32Snapshot", ctypes.c_void_p, wintypes.DWORD, wintypes.DWORD
    )
    try:
        snapshot = api.made(take(_SNAPSHOT_PROCESSES, 0))
    except OSError:
        return
    with contextlib.closing(snapshot):
        handle = wintypes.HANDLE(snapshot.value)
        more = kernel.Process32FirstW(handle, ctypes.byref(entry))
        while more:
            yield entry.th32ProcessID, entry.th32ParentProcessID, entry.szExeFile
            more = kernel.Process32NextW(handle, ctypes.byref(entry))


def _events() -> str:
    """The newest entries of the system's event log (crashes, full disks, restarts); empty on
    failure.
    """
    asked = ["wevtutil.exe", "qe", "System", "/c:20", "/rd:true", "/f:text"]
    try:
        status, said = programs.ask(asked, EVENTS_DEADLINE_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said if status == 0 else ""
