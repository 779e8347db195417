"""A Job Object: holds a tree of processes on Windows, and ends it as a whole.

No process leaves it: the agent's jobs allow no breakaway, and whatever a member starts is a member.
When the last handle is closed, also by the agent's death, the kernel kills all members
(KILL_ON_JOB_CLOSE); so the handle is never inherited and never duplicated.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from ctypes import wintypes
from dataclasses import dataclass
from typing import Optional

assert sys.platform == "win32"

from hostler_agent.jobs.plan import Resources
from hostler_agent.jobs.receipt import ProcessName, Usage
from hostler_agent.win32 import api, security
from hostler_agent.win32.api import KERNEL32, Handle, function

KILL_CODE = 0x40010004
"""The exit code of processes that we kill (DBG_TERMINATE_PROCESS), which no program uses itself."""

_EXITING_MS = 1000
_TICKS_PER_S = 10_000_000

_BASIC_ACCOUNTING = 1
_PROCESS_LIST = 3
_COMPLETION_PORT = 7
_EXTENDED_LIMITS = 9
_CPU_RATE = 15

_LIMIT_ACTIVE_PROCESS = 0x0008
_LIMIT_JOB_MEMORY = 0x0200
_LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x0400
_LIMIT_KILL_ON_JOB_CLOSE = 0x2000
_CPU_RATE_ENABLE, _CPU_RATE_HARD_CAP = 1, 4

_QUERY_LIMITED_INFORMATION = 0x1000
_JOB_ALL_ACCESS = 0x1F003F
_THIS_PROCESS = -1


class _Accounting(ctypes.Structure):
    _fields_ = (
        ("TotalUserTime", ctypes.c_int64),
        ("TotalKernelTime", ctypes.c_int64),
        ("ThisPeriodTotalUserTime", ctypes.c_int64),
        ("ThisPeriodTotalKernelTime", ctypes.c_int64),
        ("TotalPageFaultCount", wintypes.DWORD),
        ("TotalProcesses", wintypes.DWORD),
        ("ActiveProcesses", wintypes.DWORD),
        ("TotalTerminatedProcesses", wintypes.DWORD),
    )


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", wintypes.DWORD),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", wintypes.DWORD),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", wintypes.DWORD),
        ("SchedulingClass", wintypes.DWORD),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class _CpuRate(ctypes.Structure):
    _fields_ = (("ControlFlags", wintypes.DWORD), ("CpuRate", wintypes.DWORD))


class _CompletionPort(ctypes.Structure):
    _fields_ = (("CompletionKey", ctypes.c_void_p), ("CompletionPort", wintypes.HANDLE))


_create = function(KERNEL32, "CreateJobObjectW", ctypes.c_void_p, ctypes.c_void_p, wintypes.LPCWSTR)
_open = function(
    KERNEL32, "OpenJobObjectW", ctypes.c_void_p, wintypes.DWORD, wintypes.BOOL, wintypes.LPCWSTR
)
_set = function(
    KERNEL32,
    "SetInformationJobObject",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
)
_query = function(
    KERNEL32,
    "QueryInformationJobObject",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.c_int,
    ctypes.c_void_p,
    wintypes.DWORD,
    ctypes.POINTER(wintypes.DWORD),
)
_assign = function(
    KERNEL32, "AssignProcessToJobObject", wintypes.BOOL, wintypes.HANDLE, wintypes.HANDLE
)
_terminate = function(KERNEL32, "TerminateJobObject", wintypes.BOOL, wintypes.HANDLE, wintypes.UINT)
_exit_code = function(
    KERNEL32,
    "GetExitCodeProcess",
    wintypes.BOOL,
    wintypes.HANDLE,
    ctypes.POINTER(wintypes.DWORD),
)
_open_process = function(
    KERNEL32, "OpenProcess", ctypes.c_void_p, wintypes.DWORD, wintypes.BOOL, wintypes.DWORD
)
_image_name = function(
    KERNEL32,
    "QueryFullProcessImageNameW",
    wintypes.BOOL,
    wintypes.HANDLE,
    wintypes.DWORD,
    wintypes.LPWSTR,
    ctypes.POINTER(wintypes.DWORD),
)


@dataclass(frozen=True)
class Account:
    """How many processes have been in a job in total, and how many are alive."""

    total: int
    active: int


class JobObject:
    """A Job Object. Every method raises OSError, and all but close() need it open."""

    def __init__(self, resources: Resources) -> None:
        self.handle = api.made(_create(None, None))
        self.limit(resources)

    @classmethod
    def named(cls, name: str) -> Optional[JobObject]:
        """Create a Job Object that can be found by its name. Returns None if one of that name
        exists.
        """
        owner_only = security.attributes(security.OBJECT_OWNER_ONLY)
        ctypes.set_last_error(0)
        handle = api.made(_create(ctypes.byref(owner_only), name))
        if ctypes.get_last_error() == api.ERROR_ALREADY_EXISTS:
            handle.close()
            return None
        found = cls._of(handle)
        found.limit(Resources())
        return found

    @classmethod
    def find(cls, name: str) -> Optional[JobObject]:
        """Open the Job Object of that name; None if there is none. It exists as long as a handle to
        it is open.
        """
        try:
            return cls._of(api.made(_open(_JOB_ALL_ACCESS, False, name)))
        except OSError as error:
            if error.winerror == api.ERROR_FILE_NOT_FOUND:
                return None
            raise

    @classmethod
    def _of(cls, handle: Handle) -> JobObject:
        made = cls.__new__(cls)
        made.handle = handle
        return made

    def limit(self, resources: Resources) -> None:
        """Set the limits of all members together, and that members are killed when the last handle
        closes.
        """
        try:
            self._set(_EXTENDED_LIMITS, _limits(resources))
            if resources.cpu_percent is not None:
                rate = _CpuRate(_CPU_RATE_ENABLE | _CPU_RATE_HARD_CAP, resources.cpu_percent * 100)
                self._set(_CPU_RATE, rate)
        except BaseException:
            self.close()
            raise

    def enter(self) -> None:
        """Make this process, and whatever it starts from now on, a member."""
        _assign(self.handle.value, _THIS_PROCESS)

    def report_to(self, port: Handle, key: int) -> None:
        """Send the job's messages (JOB_OBJECT_MSG_*) to a completion port from now on."""
        self._set(_COMPLETION_PORT, _CompletionPort(key, port.value))

    def attach(self, process: Handle) -> bool:
        """Add a process that exists already. Returns False if it has ended, which is no failure.

        Buildbot's worker fails the step if the process ends before it is assigned: Windows then
        reports "access denied" (5). It reports the same for a process that may not be assigned, so
        this checks that the process really is ending. Raises OSError for one that lives on.
        """
        if exit_code(process) != api.STILL_ACTIVE:
            return False
        try:
            _assign(self.handle.value, process.value)
        except OSError as error:
            if error.winerror == api.ERROR_ACCESS_DENIED and api.is_signaled(process, _EXITING_MS):
                return False
            raise
        return True

    def pids(self) -> list[int]:
        """The pids of the members that are alive."""
        room = 64
        while True:

            class List(ctypes.Structure):
                _fields_ = (
                    ("assigned", wintypes.DWORD),
                    ("listed", wintypes.DWORD),
                    ("pids", ctypes.c_size_t * room),
                )

            found = List()
            try:
                self._query(_PROCESS_LIST, found)
            except OSError as error:
                if error.winerror != api.ERROR_MORE_DATA:
                    raise
            if found.assigned <= found.listed:
                return [int(pid) for pid in found.pids[: found.listed]]
            room = found.assigned + 64

    def members(self) -> tuple[ProcessName, ...]:
        """The members that are alive, with their programs' names."""
        return tuple(ProcessName(pid, image_name(pid)) for pid in sorted(self.pids()))

    def account(self) -> Account:
        found = self._accounting()
        return Account(found.TotalProcesses, found.ActiveProcesses)

    def usage(self) -> Usage:
        """The usage of all its processes together, including those that have ended; None for what
        Windows (or Wine) does not count.
        """
        times, limits = self._accounting(), _ExtendedLimits()
        self._query(_EXTENDED_LIMITS, limits)
        ticks = times.TotalUserTime + times.TotalKernelTime
        return Usage(limits.PeakJobMemoryUsed or None, ticks / _TICKS_PER_S if ticks else None)

    def terminate(self) -> None:
        """Kill all members at once. Does nothing if there are none."""
        _terminate(self.handle.value, KILL_CODE)

    def close(self) -> None:
        """Kill the members that are left, and close the handle. A second call does nothing."""
        self.handle.close()

    def _accounting(self) -> _Accounting:
        found = _Accounting()
        self._query(_BASIC_ACCOUNTING, found)
        return found

    def _set(self, kind: int, information: ctypes.Structure) -> None:
        size_bytes = ctypes.sizeof(information)
        _set(self.handle.value, kind, ctypes.byref(information), size_bytes)

    def _query(self, kind: int, information: ctypes.Structure) -> None:
        size_bytes = ctypes.sizeof(information)
        _query(self.handle.value, kind, ctypes.byref(information), size_bytes, None)


def _limits(resources: Resources) -> _ExtendedLimits:
    limits = _ExtendedLimits()
    # Without the second a crash would wait for somebody to close its dialogue.
    flags = _LIMIT_KILL_ON_JOB_CLOSE | _LIMIT_DIE_ON_UNHANDLED_EXCEPTION
    if resources.processes is not None:
        flags |= _LIMIT_ACTIVE_PROCESS
        limits.BasicLimitInformation.ActiveProcessLimit = resources.processes
    if resources.memory_bytes is not None:
        flags |= _LIMIT_JOB_MEMORY
        limits.JobMemoryLimit = resources.memory_bytes
    limits.BasicLimitInformation.LimitFlags = flags
    return limits


def exit_code(process: Handle) -> int:
    """The exit code of a process; STILL_ACTIVE while it runs."""
    code = wintypes.DWORD()
    _exit_code(process.value, ctypes.byref(code))
    return code.value


def open_process(pid: int, access: int = _QUERY_LIMITED_INFORMATION) -> Handle:
    """Open a process. Raises OSError if it does not exist or may not be opened."""
    return api.made(_open_process(access, False, pid))


def image_name(pid: int) -> str:
    """The file name of the process's program; `?` if it has ended or hides it."""
    buffer = ctypes.create_unicode_buffer(1024)
    size = wintypes.DWORD(len(buffer))
    try:
        with contextlib.closing(open_process(pid)) as process:
            _image_name(process.value, 0, buffer, ctypes.byref(size))
    except OSError:
        return "?"
    return buffer.value.rpartition("\\")[2]
